//! Metrics and health while the database, or a session with it, is unreachable: they show only what is known now.

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
    /// A pipeline that is caught up.
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

    fn wait_until(&mut self, condition: &str, holds: impl Fn(&Feedline) -> bool) {
        wait_for(condition, LIMIT, || {
            self.feedline.assert_runs();
            holds(&self.feedline).then_some(())
        });
    }

    /// Waits until the lag is 0, and all metrics of the head are shown.
    fn wait_until_caught_up(&mut self) {
        self.wait_until("the probe shows that nothing is missing", |feedline| {
            HEAD.iter().all(|series| feedline.value(series).is_some()) && feedline.lag_seconds() == Some(0.0)
        });
    }

    /// Waits until the metrics show an unreachable database: the lag rises, and the metrics of the head are absent.
    fn wait_until_shown_as_unreachable(&mut self) {
        self.wait_until("the lag counts", |feedline| feedline.lag_seconds().is_some_and(|lag| 10.0 < lag));
        self.wait_until("the source is shown as disconnected", |feedline| feedline.value("feedline_source_connected{") == Some(0.0));
        self.wait_until("the metrics of the head are absent", |feedline| HEAD.iter().all(|series| feedline.value(series).is_none()));
        // One outage is one restart, however many attempts it takes.
        let attempts = "feedline_pipeline_attempts_total{reason=\"source_error\"";
        self.wait_until("it is tried again and again", |feedline| feedline.value(attempts).is_some_and(|attempts| 3.0 <= attempts));
        assert_eq!(self.feedline.restarts("source_error"), 1);
        assert_eq!(self.feedline.value("feedline_sink_connected{"), Some(1.0), "the sink is not affected");
    }

    fn end(mut self) {
        self.feedline.stop();
        std::fs::remove_dir_all(self.directory).unwrap();
    }
}

/// The metrics of the head, besides the lag.
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
    let probes = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%safe_wal_size%' AND pid <> pg_backend_pid()";
    let before = pipeline.server.psql("postgres", probes);
    pipeline.server.psql("postgres", &format!("SELECT pg_terminate_backend({before})"));
    wait_for("another session probes the head", LIMIT, || {
        let now = pipeline.server.psql("postgres", probes);
        (!now.is_empty() && now != before).then_some(())
    });
    pipeline.wait_until_caught_up();
    assert_eq!(pipeline.feedline.count("feedline_source_probe_errors_total", ""), 0, "the probe succeeded at once");
    assert_eq!(pipeline.feedline.restarts("source_error"), 0);

    pipeline.server.kill();
    pipeline.wait_until_shown_as_unreachable();
    pipeline.server.restart();
    pipeline.wait_until_caught_up();
    // The metrics move again: after a row, and after transactions without published rows.
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
    // No server listens on port 0.
    pipeline.forwarder.lead_to(0);
    pipeline.insert(2, 54);
    pipeline.wait_until_shown_as_unreachable();
    pipeline.forwarder.lead_to(pipeline.server.port());
    pipeline.wait_until("the rows are confirmed", |feedline| feedline.confirmed() == 54);
    pipeline.wait_until_caught_up();
    // A second outage is a second restart.
    pipeline.forwarder.lead_to(0);
    pipeline.wait_until("the restart is counted", |feedline| feedline.restarts("source_error") == 2);
    pipeline.forwarder.lead_to(pipeline.server.port());
    pipeline.wait_until_caught_up();
    pipeline.end();
}

/// All processes of the server are stopped: its connections stay open, and no error shows that they are dead.
#[test]
fn a_database_that_answers_nothing_is_not_ready() {
    let mut pipeline = Pipeline::new("silent");
    let ready = |pipeline: &Pipeline| pipeline.feedline.probe().get("/readyz").unwrap();
    assert!(ready(&pipeline).contains("200 OK"), "{}", ready(&pipeline));
    let server = pipeline.server.processes();
    // A process may have ended by itself meanwhile.
    let signal_all =
        |signal| server.iter().for_each(|process| assert!(matches!(kill_process(*process, signal), Ok(()) | Err(Errno::SRCH))));
    signal_all(Signal::STOP);
    wait_for("/readyz names the silent source", LIMIT, || ready(&pipeline).contains("the source has answered nothing for 1").then_some(()));
    pipeline.wait_until("the lag counts", |feedline| feedline.lag_seconds().is_some_and(|lag| 10.0 < lag));
    signal_all(Signal::CONT);
    wait_for("it is ready again", LIMIT, || ready(&pipeline).contains("200 OK").then_some(()));
    pipeline.insert(2, 2);
    pipeline.wait_until("the row is confirmed", |feedline| feedline.confirmed() == 2);
    pipeline.wait_until_caught_up();
    pipeline.end();
}

/// After a restart, metrics that the process does not know yet are absent.
#[test]
fn a_start_shows_only_what_it_has_seen() {
    let mut pipeline = Pipeline::new("start");
    pipeline.feedline.stop();
    pipeline.forwarder.lead_to(0);
    pipeline.feedline.start();
    pipeline.wait_until("the first attempt failed", |feedline| feedline.restarts("source_error") == 1);
    assert_eq!(pipeline.feedline.value("feedline_source_connected{"), Some(0.0));
    for unknown in ["feedline_sink_connected{", "feedline_prefeed_tables_pending{", "feedline_prefeed_remaining_seconds{", HEAD[0]] {
        assert_eq!(pipeline.feedline.value(unknown), None, "{unknown}");
    }
    pipeline.forwarder.lead_to(pipeline.server.port());
    pipeline.wait_until_caught_up();
    assert_eq!(pipeline.feedline.value("feedline_prefeed_tables_pending{"), Some(0.0));
    pipeline.end();
}
