//! What metrics and health say while the database, or a session with it, is away: what is known now, and nothing else.

use crate::crash::feedline::Feedline;
use crate::servers::forwarder::Forwarder;
use crate::servers::port::wait_for;
use crate::servers::postgres::{Options, Postgres};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

struct Pipeline {
    server: Postgres,
    database: String,
    forwarder: Forwarder,
    directory: PathBuf,
    feedline: Feedline,
}

impl Pipeline {
    /// One that is caught up.
    fn new(name: &str) -> Self {
        let server = Postgres::start(&Options { settings: vec![("max_slot_wal_keep_size", "1GB")], ..Options::default() });
        let database = server.create_database("truth");
        server.psql(&database, "CREATE TABLE orders (id int PRIMARY KEY)");
        let forwarder = Forwarder::start();
        forwarder.lead_to(server.port());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("truth-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let feedline = Feedline::new(
            &directory,
            &format!(
                "name = \"truth\"\n[source]\nkind = \"postgres\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\ntls = \"disable\"\n\
                 [[feeds]]\ntables = [\"public.orders\"]\n[sink]\nkind = \"file\"\npath = \"{1}/out.jsonl\"\n[checkpoint]\npath = \"{1}/checkpoint\"\n",
                forwarder.port(),
                directory.display(),
            ),
        );
        let mut pipeline = Self { server, database, forwarder, directory, feedline };
        pipeline.feedline.start();
        pipeline.feedline.wait_until_live();
        pipeline.insert(1, 1);
        pipeline.wait_until("the row is confirmed", |feedline| feedline.confirmed() == 1);
        pipeline.wait_until_caught_up();
        pipeline
    }

    fn insert(&self, from: u32, to: u32) {
        self.server.psql(&self.database, &format!("INSERT INTO orders SELECT generate_series({from}, {to})"));
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Feedline) -> bool) {
        wait_for(what, LIMIT, || {
            self.feedline.assert_runs();
            is_so(&self.feedline).then_some(())
        });
    }

    /// By a look: what it shows is there too.
    fn wait_until_caught_up(&mut self) {
        self.wait_until("a look proves that nothing is missing", |feedline| {
            HEAD.iter().all(|series| feedline.value(series).is_some()) && feedline.lag_seconds() == Some(0.0)
        });
    }

    /// While the database is away the lag rises, and nothing is shown that a look would show.
    fn wait_until_seen_to_be_away(&mut self) {
        self.wait_until("the lag counts", |feedline| feedline.lag_seconds().is_some_and(|lag| 10.0 < lag));
        self.wait_until("its end is told", |feedline| feedline.value("feedline_source_connected{") == Some(0.0));
        self.wait_until("what nobody sees is not shown", |feedline| HEAD.iter().all(|series| feedline.value(series).is_none()));
        // An outage is one restart, however many attempts it takes.
        let attempts = "feedline_pipeline_attempts_total{reason=\"source_error\"";
        self.wait_until("it is tried again and again", |feedline| feedline.value(attempts).is_some_and(|attempts| 3.0 <= attempts));
        assert_eq!(self.feedline.restarts("source_error"), 1);
        assert_eq!(self.feedline.value("feedline_sink_connected{"), Some(1.0), "the sink has no part in it");
    }

    fn end(mut self) {
        self.feedline.stop();
        std::fs::remove_dir_all(self.directory).unwrap();
    }
}

/// What a look at the head shows beside the lag.
const HEAD: [&str; 5] = [
    "feedline_source_lag_bytes{",
    "feedline_source_retained_bytes{",
    "feedline_source_xmin_age_transactions{",
    "feedline_source_retention_headroom_ratio{",
    "feedline_source_clock_offset_seconds{",
];

#[test]
fn the_head_is_seen_again_after_its_session_and_after_the_server_ended() {
    let mut pipeline = Pipeline::new("head");
    let looks = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%safe_wal_size%' AND pid <> pg_backend_pid()";
    let before = pipeline.server.psql("postgres", looks);
    pipeline.server.psql("postgres", &format!("SELECT pg_terminate_backend({before})"));
    wait_for("the head is looked at by another session", LIMIT, || {
        let now = pipeline.server.psql("postgres", looks);
        (!now.is_empty() && now != before).then_some(())
    });
    pipeline.wait_until_caught_up();
    assert_eq!(pipeline.feedline.count("feedline_source_probe_errors_total", ""), 0, "it was seen at once");
    assert_eq!(pipeline.feedline.restarts("source_error"), 0);

    pipeline.server.kill();
    pipeline.wait_until_seen_to_be_away();
    pipeline.server.restart();
    pipeline.wait_until_caught_up();
    // It moves again: with a row, and with what is none of ours.
    pipeline.insert(2, 2);
    pipeline.wait_until("the row is confirmed", |feedline| feedline.confirmed() == 2);
    let age = pipeline.feedline.value(HEAD[2]).unwrap();
    for _ in 0..10 {
        pipeline.server.psql(&pipeline.database, "SELECT pg_catalog.txid_current()");
    }
    pipeline.wait_until("the age of the oldest transaction moves", |feedline| {
        feedline.value(HEAD[2]).is_some_and(|now| 1.0 <= (now - age).abs())
    });
    pipeline.wait_until_caught_up();
    assert_eq!(pipeline.feedline.restarts("source_error"), 1);
    pipeline.end();
}

#[test]
fn a_database_that_is_cut_off_is_not_caught_up() {
    let mut pipeline = Pipeline::new("cut");
    // Nobody listens there.
    pipeline.forwarder.lead_to(0);
    pipeline.insert(2, 54);
    pipeline.wait_until_seen_to_be_away();
    pipeline.forwarder.lead_to(pipeline.server.port());
    pipeline.wait_until("the rows are confirmed", |feedline| feedline.confirmed() == 54);
    pipeline.wait_until_caught_up();
    // Another time is another outage.
    pipeline.forwarder.lead_to(0);
    pipeline.wait_until("it is told", |feedline| feedline.restarts("source_error") == 2);
    pipeline.forwarder.lead_to(pipeline.server.port());
    pipeline.wait_until_caught_up();
    pipeline.end();
}

/// The server stands still as a whole: its connections are open, and nothing says that they lead nowhere.
#[test]
fn a_database_that_answers_nothing_is_not_ready() {
    let mut pipeline = Pipeline::new("silent");
    let ready = |pipeline: &Pipeline| pipeline.feedline.probe().get("/readyz").unwrap();
    assert!(ready(&pipeline).contains("200 OK"), "{}", ready(&pipeline));
    let server = pipeline.server.processes();
    // One that has ended by itself meanwhile answers nothing either.
    let signal_all =
        |signal| server.iter().for_each(|process| assert!(matches!(kill_process(*process, signal), Ok(()) | Err(Errno::SRCH))));
    signal_all(Signal::STOP);
    wait_for("it is told", LIMIT, || ready(&pipeline).contains("the source has answered nothing for 1").then_some(()));
    pipeline.wait_until("the lag counts", |feedline| feedline.lag_seconds().is_some_and(|lag| 10.0 < lag));
    signal_all(Signal::CONT);
    wait_for("it is ready again", LIMIT, || ready(&pipeline).contains("200 OK").then_some(()));
    pipeline.insert(2, 2);
    pipeline.wait_until("the row is confirmed", |feedline| feedline.confirmed() == 2);
    pipeline.wait_until_caught_up();
    pipeline.end();
}

/// A run that begins again, its last event being long past, says nothing of the lag that it has not seen.
#[test]
fn a_start_shows_only_what_it_has_seen() {
    let mut pipeline = Pipeline::new("start");
    pipeline.feedline.stop();
    pipeline.forwarder.lead_to(0);
    pipeline.feedline.start();
    pipeline.wait_until("it tries", |feedline| feedline.restarts("source_error") == 1);
    assert_eq!(pipeline.feedline.value("feedline_source_connected{"), Some(0.0));
    for unknown in ["feedline_sink_connected{", "feedline_prefeed_tables_pending{", "feedline_prefeed_remaining_seconds{", HEAD[0]] {
        assert_eq!(pipeline.feedline.value(unknown), None, "{unknown}");
    }
    pipeline.forwarder.lead_to(pipeline.server.port());
    pipeline.wait_until_caught_up();
    assert_eq!(pipeline.feedline.value("feedline_prefeed_tables_pending{"), Some(0.0));
    pipeline.end();
}
