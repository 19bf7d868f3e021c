//! A server whose data directory is replaced by an older copy has the same identifier and the same timeline. Only its history shows it.

use super::world::{Reader, TIMEOUT, World, feed, shorts};
use crate::crash::feedline::Feedline;
use crate::servers::port::wait_for;
use crate::servers::postgres::{Options, Postgres};
use feedline::checkpoint::{Identity, ResumeToken};
use feedline::fault::{Classify, Code, Fault};
use feedline::net::secret::Secret;
use feedline::source::SourceConnector;
use feedline::source::postgres::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

/// A server that can be set back to a copy, and the world of a pipeline on it.
struct Past {
    server: Postgres,
    world: World,
    identity: Identity,
    start: ResumeToken,
}

/// The position of a token, and the last commit before it.
fn parts(token: &ResumeToken) -> (&str, &str) {
    let (position, last) = token.0.split_once('@').unwrap();
    (position.split(':').nth(1).unwrap(), last)
}

/// The same statement, committed at a position further on than a server reaches by itself.
fn far(statement: &str) -> String {
    format!("BEGIN; SELECT pg_logical_emit_message(true, '', repeat('x', 1000000)); {statement}; COMMIT")
}

impl Past {
    async fn new(settings: &[(&'static str, &'static str)]) -> Self {
        let server = Postgres::start(&Options { settings: settings.to_vec(), ..Options::default() });
        let database = server.create_database("source");
        server.psql(&database, TABLE);
        // The world's own queries go to the shared server.
        let mut world = World::within(Postgres::shared(), database, vec![feed("t", &["id"])]);
        world.options.port = server.port();
        let (identity, start) = world.establish().await;
        Self { server, world, identity, start }
    }

    fn sql(&self, statements: &str) -> String {
        self.server.psql(&self.world.database, statements)
    }

    async fn log(&self, from: &ResumeToken) -> Reader {
        let log = self.world.connect(&self.identity, &self.world.resume(from, &self.start)).await.unwrap();
        Reader::of(log, from, 1 << 20)
    }

    /// Reads, from this token on, the rows that these statements write and nothing else; returns the token after them.
    async fn read(&self, from: &ResumeToken, statements: &str, written: &[&str]) -> ResumeToken {
        let mut reader = self.log(from).await;
        self.sql(statements);
        assert_eq!(shorts(&reader.take(written.len()).await), written);
        let token = reader.log.token();
        reader.log.acknowledge(Some(&token)).await.unwrap();
        token
    }

    /// Writes log without published rows, and reads until the token has moved past it.
    async fn pass_over(&self, reader: &mut Reader) -> ResumeToken {
        let written = self.write_unpublished();
        let deadline = tokio::time::Instant::now() + 4 * TIMEOUT;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "the token does not move past {written}");
            assert!(reader.batch(None).await.unwrap().is_empty());
            let token = reader.log.token();
            reader.log.acknowledge(Some(&token)).await.unwrap();
            if self.sql(&format!("SELECT '{}' >= '{written}'::pg_lsn", parts(&token).0)) == "t" {
                return token;
            }
        }
    }

    /// Fills the log without a row of this database; returns where the log ends then.
    fn write_unpublished(&self) -> String {
        self.server.psql("postgres", "CREATE TABLE IF NOT EXISTS busy (id int); INSERT INTO busy SELECT generate_series(1, 20000)");
        self.sql("SELECT pg_current_wal_lsn()")
    }

    /// Fills the log until it is longer than this token's position.
    fn write_beyond(&self, token: &ResumeToken) {
        let deadline = tokio::time::Instant::now() + 4 * TIMEOUT;
        while self.sql(&format!("SELECT '{}' < pg_current_wal_lsn()", parts(token).0)) == "f" {
            assert!(tokio::time::Instant::now() < deadline, "the log does not grow beyond {}", token.0);
            self.write_unpublished();
        }
    }

    async fn resumable(&self, token: &ResumeToken) -> Result<(), Error> {
        self.world.connector().resumable(&self.identity, &self.world.resume(token, &self.start)).await
    }

    /// Ends the server like a power cut, runs this command on its data directory, and starts the server again.
    fn meanwhile(&mut self, command: &str) {
        self.server.kill();
        let data = self.server.data_directory();
        let path = |name: &str| data.with_file_name(name).display().to_string();
        let command = command.replace("DATA", &path("data")).replace("COPY", &path("copy")).replace("OLD", &path("old"));
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
        self.server.restart();
    }

    fn copy(&mut self) {
        self.meanwhile("cp -a DATA COPY");
    }

    fn set_back(&mut self) {
        self.meanwhile("rm -rf OLD && mv DATA OLD && cp -a COPY DATA");
    }
}

fn rewound<T>(result: Result<T, Error>, words: &str) {
    let error = result.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceRewound, Fault::Gap), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn a_server_that_was_set_back_and_written_to_is_refused() {
    let mut past = Past::new(&[]).await;
    let common = past.read(&past.start.clone(), "INSERT INTO t VALUES (1, 'on both')", &[r#"insert {"id":1} 0!"#]).await;
    past.copy();
    // After a crash without a set-back the server is accepted, and nothing is repeated.
    past.resumable(&common).await.unwrap();
    let mut reader = past.log(&common).await;
    past.sql(&far("INSERT INTO t VALUES (2, 'published, and then forgotten')"));
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":2} 0!"#]);
    let lost = reader.log.token();
    past.resumable(&lost).await.unwrap();
    past.set_back();
    assert_eq!(reader.batch(None).await.unwrap_err().fault(), Fault::Transient);
    // The log is shorter than what was read.
    rewound(past.resumable(&lost).await, "the server's log ends at");
    rewound(past.world.connector().renew(&past.identity, &past.world.resume(&lost, &past.start)).await, "the server's log ends at");
    past.sql("DO $$ BEGIN FOR i IN 10..400 LOOP INSERT INTO t VALUES (i, 'another history'); COMMIT; END LOOP; END $$");
    past.write_beyond(&lost);
    rewound(past.resumable(&lost).await, "restored to an earlier state");
    rewound(past.world.connect(&past.identity, &past.world.resume(&lost, &past.start)).await, "restored to an earlier state");
    past.resumable(&common).await.unwrap();
    // A role that may only replicate gets the same results.
    let user = past.server.create_user("plain", "secret", "REPLICATION");
    (past.world.options.user, past.world.options.password) = (user, Some(Secret::new("secret".to_owned())));
    rewound(past.resumable(&lost).await, "restored to an earlier state");
    past.resumable(&common).await.unwrap();
    (past.world.options.user, past.world.options.password) = ("postgres".to_owned(), None);
    // With `renew`, its tables are read again, at positions that sort after everything that was published.
    let renewed = past.world.connector().renew(&past.identity, &past.world.resume(&lost, &past.start)).await.unwrap();
    assert_eq!(renewed.feeds.len(), 1);
    past.read(&renewed.token, "INSERT INTO t VALUES (3, 'goes on')", &[r#"insert {"id":3} 0!"#]).await;
}

#[tokio::test]
async fn log_after_the_last_commit_is_read_again() {
    let mut past = Past::new(&[]).await;
    let common = past.read(&past.start.clone(), "INSERT INTO t VALUES (1, 'on both')", &[r#"insert {"id":1} 0!"#]).await;
    past.copy();
    let mut reader = past.log(&common).await;
    // Only the server's keep-alives move the token.
    let beyond = past.pass_over(&mut reader).await;
    assert_eq!(parts(&beyond).1, parts(&common).1);
    drop(reader);
    past.set_back();
    past.sql("INSERT INTO t VALUES (10, 'at a position that was passed')");
    past.write_beyond(&beyond);
    past.resumable(&beyond).await.unwrap();
    past.read(&beyond, "INSERT INTO t VALUES (11, 'a')", &[r#"insert {"id":10} 0!"#, r#"insert {"id":11} 0!"#]).await;
}

#[tokio::test]
async fn before_a_first_commit_the_whole_log_of_the_slot_is_read_again() {
    let mut past = Past::new(&[]).await;
    past.copy();
    let mut reader = past.log(&past.start.clone()).await;
    let beyond = past.pass_over(&mut reader).await;
    drop(reader);
    past.set_back();
    past.sql("INSERT INTO t VALUES (10, 'at a position that was passed')");
    past.write_beyond(&beyond);
    past.read(&beyond, "INSERT INTO t VALUES (11, 'a')", &[r#"insert {"id":10} 0!"#, r#"insert {"id":11} 0!"#]).await;
}

#[tokio::test]
async fn commits_of_every_kind_and_at_every_position_are_found_again() {
    let past = Past::new(&[("max_prepared_transactions", "2")]).await;
    let mut token = past.start.clone();
    for short_of in (0..144).step_by(8) {
        // The commit's record lies about there before the end of a page.
        let statement = format!(
            "DO $$ DECLARE left_of_page int; BEGIN INSERT INTO t VALUES (100 + {short_of}, 'a'); \
             left_of_page := 8192 - mod(pg_current_wal_insert_lsn() - '0/0', 8192); \
             PERFORM pg_logical_emit_message(true, '', repeat('x', greatest(0, left_of_page - 64 - {short_of}))); END $$"
        );
        token = past.read(&token, &statement, &[&format!(r#"insert {{"id":{}}} 0!"#, 100 + short_of)]).await;
        past.resumable(&token).await.unwrap();
    }
    let kinds = [
        "BEGIN; INSERT INTO t VALUES (1, 'a'); SAVEPOINT s; DELETE FROM t WHERE id < 0; RELEASE s; COMMIT",
        "BEGIN; CREATE TABLE u (id int); DROP TABLE u; INSERT INTO t VALUES (1, 'a'); COMMIT",
        // As if another server had committed it first.
        "SELECT pg_replication_origin_create('elsewhere'); SELECT pg_replication_origin_session_setup('elsewhere'); \
         BEGIN; SELECT pg_replication_origin_xact_setup('0/1', '2001-02-03'); INSERT INTO t VALUES (1, 'a'); COMMIT",
        // Longer than is looked at.
        "DO $$ BEGIN INSERT INTO t VALUES (1, 'a'); FOR i IN 1..20000 LOOP BEGIN \
         PERFORM pg_logical_emit_message(true, '', 'x'); EXCEPTION WHEN division_by_zero THEN END; END LOOP; END $$",
    ];
    for statements in kinds {
        token = past.read(&token, statements, &[r#"insert {"id":1} 0!"#]).await;
        past.resumable(&token).await.unwrap();
        token = past.read(&token, "DELETE FROM t WHERE id = 1", &[r#"delete {"id":1} 0!"#]).await;
    }
    past.sql("BEGIN; INSERT INTO t VALUES (1, 'a'); PREPARE TRANSACTION 'p'");
    token = past.read(&token, "COMMIT PREPARED 'p'", &[r#"insert {"id":1} 0!"#]).await;
    past.resumable(&token).await.unwrap();
    token = past.read(&token, "DELETE FROM t WHERE id = 1", &[r#"delete {"id":1} 0!"#]).await;
    // Another transaction, or another time, at that position means another history.
    let (position, commit) = token.0.split_once('@').unwrap();
    let [at, end, xid, time] = commit.split('.').collect::<Vec<_>>()[..] else { panic!("{commit}") };
    for other in
        [format!("{at}.{end}.{}.{time}", xid.parse::<u32>().unwrap() - 1), format!("{at}.{end}.{xid}.{}", time.parse::<i64>().unwrap() + 1)]
    {
        rewound(past.resumable(&ResumeToken(format!("{position}@{other}").into())).await, "restored");
    }
    // A token without a commit, as a person may write it, is not checked against the history.
    past.resumable(&ResumeToken(position.into())).await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_log_file_is_removed_is_accepted_because_of_the_slot() {
    let mut past = Past::new(&[("min_wal_size", "32MB"), ("max_wal_size", "32MB")]).await;
    let mut token = past.read(&past.start.clone(), "INSERT INTO t VALUES (1, 'a')", &[r#"insert {"id":1} 0!"#]).await;
    let last = parts(&token).1.to_owned();
    let at = last.split('.').next().unwrap();
    let file = past.sql(&format!("SELECT pg_walfile_name('{at}')"));
    let mut reader = past.log(&token).await;
    let deadline = tokio::time::Instant::now() + 4 * TIMEOUT;
    while past.sql(&format!("SELECT count(*) FROM pg_ls_waldir() WHERE name = '{file}'")) != "0" {
        token = past.pass_over(&mut reader).await;
        past.sql("SELECT pg_switch_wal(); CHECKPOINT");
        assert!(tokio::time::Instant::now() < deadline, "the server keeps {file}");
    }
    assert_eq!(parts(&token).1, last);
    drop(reader);
    past.meanwhile("true");
    past.resumable(&token).await.unwrap();
    past.read(&token, "INSERT INTO t VALUES (2, 'a')", &[r#"insert {"id":2} 0!"#]).await;
}

#[tokio::test]
async fn without_the_bytes_of_the_log_the_status_of_the_transaction_is_checked() {
    let mut past = Past::new(&[]).await;
    let mut reader = past.log(&past.start.clone()).await;
    past.sql("INSERT INTO t VALUES (1, 'a')");
    reader.take(1).await;
    let token = reader.log.token();
    drop(reader);
    // The only walsender reads the log.
    past.meanwhile("echo max_wal_senders = 1 >> DATA/postgresql.conf");
    past.resumable(&token).await.unwrap();
    let (position, commit) = token.0.split_once('@').unwrap();
    let [at, end, xid, time] = commit.split('.').collect::<Vec<_>>()[..] else { panic!("{commit}") };
    let aborted = past.sql("BEGIN; SELECT pg_current_xact_id(); ROLLBACK");
    let later = (xid.parse::<u32>().unwrap() + 100_000).to_string();
    for other in [later, aborted] {
        wait_for("the walsender is gone", TIMEOUT, || (past.sql("SELECT count(*) FROM pg_stat_replication") == "0").then_some(()));
        rewound(past.resumable(&ResumeToken(format!("{position}@{at}.{end}.{other}.{time}").into())).await, "restored");
    }
}

#[tokio::test]
async fn a_promoted_standby_with_the_complete_log_continues() {
    let mut past = Past::new(&[]).await;
    let mut standby = past.server.standby_with_slots();
    let mut reader = past.log(&past.start.clone()).await;
    past.sql("INSERT INTO t VALUES (1, 'on both')");
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":1} 0!"#]);
    let token = reader.log.token();
    drop(reader);
    wait_for("the standby has it", TIMEOUT, || {
        (standby.psql("postgres", &format!("SELECT '{}' <= pg_last_wal_replay_lsn()", parts(&token).0)) == "t").then_some(())
    });
    standby.kill();
    standby.promote();
    std::mem::swap(&mut past.server, &mut standby);
    past.world.options.port = past.server.port();
    wait_for("it is promoted", TIMEOUT, || (past.sql("SELECT pg_is_in_recovery()") == "f").then_some(()));
    past.resumable(&token).await.unwrap();
    past.read(&token, "INSERT INTO t VALUES (2, 'a')", &[r#"insert {"id":2} 0!"#]).await;
}

/// The pipeline run by the real program, with a server that can be set back.
struct Program {
    directory: PathBuf,
    feedline: Feedline,
}

impl Program {
    fn new(past: &Past) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("set-back-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let program = Self { feedline: Feedline::new(&directory, ""), directory };
        program.configure(past, "stop");
        program
    }

    fn configure(&self, past: &Past, on_gap: &str) {
        let (port, database, directory) = (past.server.port(), &past.world.database, self.directory.display());
        self.feedline.configure(&format!(
            "name = \"past\"\n[source]\nkind = \"postgres\"\nport = {port}\nuser = \"postgres\"\ndatabase = \"{database}\"\ntls = \"disable\"\n\
             on_gap = \"{on_gap}\"\n[[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"file\"\npath = \"{directory}/out\"\n\
             [checkpoint]\npath = \"{directory}/checkpoint\"\n"
        ));
    }

    /// The events after the first `since`: operation and id of each.
    fn written(&self, since: usize) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("out")).unwrap_or_default();
        let events = text.lines().skip(since).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.map(|event| format!("{} {}", event["op"].as_str().unwrap(), event["key"]["id"])).collect()
    }

    fn waits_for(&self, since: usize, written: &[&str]) {
        wait_for("its events", 2 * TIMEOUT, || (self.written(since) == written).then_some(()));
    }

    /// Runs until all is read and these events are there.
    fn runs(&mut self, since: usize, written: &[&str]) {
        self.feedline.start();
        self.feedline.wait_until_live();
        self.waits_for(since, written);
    }

    /// Both `check` and a start refuse.
    fn is_refused(&mut self, words: &str) {
        let (status, output) = self.command(&["check"]);
        assert!(status == Some(70) && output.contains("FL2007") && output.contains(words), "{status:?} {output}");
        self.feedline.start();
        let (status, output) = self.feedline.wait_for_end();
        assert!(status == Some(70) && output.contains("FL2007") && output.contains(words), "{status:?} {output}");
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let command =
            Command::new(env!("CARGO_BIN_EXE_feedline")).args(arguments).arg("-c").arg(self.directory.join("feedline.toml")).output();
        let output = command.unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

#[tokio::test]
async fn the_program_stops_and_its_printed_remedies_let_it_continue() {
    let mut past = Past::new(&[]).await;
    past.sql("INSERT INTO t VALUES (1, 'on both')");
    let mut program = Program::new(&past);
    program.runs(0, &["read 1"]);
    past.sql("INSERT INTO t VALUES (2, 'on both')");
    program.waits_for(0, &["read 1", "insert 2"]);
    program.feedline.stop();
    past.copy();
    program.runs(0, &["read 1", "insert 2"]);
    past.sql(&far("INSERT INTO t VALUES (3, 'lost')"));
    program.waits_for(0, &["read 1", "insert 2", "insert 3"]);
    program.feedline.stop();
    past.set_back();
    program.is_refused("the server's log ends at");
    past.sql("INSERT INTO t VALUES (4, 'another history')");
    (0..3).for_each(|_| drop(past.write_unpublished()));
    program.is_refused("it was restored");
    program.configure(&past, "prefeed");
    program.runs(3, &["reset null", "read 1", "read 2", "read 4"]);
    past.sql(&far("DELETE FROM t WHERE id = 1"));
    program.waits_for(7, &["delete 1"]);
    program.feedline.stop();
    // If the log is shorter than what was read, only a reset and a detach help.
    past.set_back();
    program.is_refused("the server's log ends at");
    for command in [&["checkpoint", "reset", "--yes"][..], &["detach", "--yes"]] {
        let (status, output) = program.command(command);
        assert_eq!(status, Some(0), "{output}");
    }
    program.runs(8, &["read 1", "read 2"]);
    program.feedline.stop();
    fs::remove_dir_all(&program.directory).unwrap();
}
