//! Publications that others created or changed. feedline never changes them; what they leave out is refused, reported or followed.

use super::world::{Reader, TIMEOUT, World, feed};
use crate::children::ended;
use crate::servers::port::wait_for;
use feedline::event::Operations;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, PrefeedKind};
use feedline::source::SourceConnector;
use std::io::Write as _;
use std::process::Stdio;

mod lists;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text, secret text)";
const PARTITIONED: &str =
    "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10)";

/// A world whose publication is created by this statement; `{}` stands for its name.
fn published(tables: &str, feeds: Vec<Feed>, statement: &str) -> World {
    let world = World::new(tables, feeds);
    world.sql(&statement.replace("{}", &world.options.publication));
    world
}

/// Asserts that there is exactly one refusal with these words; returns the statement that it prints.
#[track_caller]
fn remedy<E: Classify>(found: Result<(), Vec<E>>, words: &[&str]) -> String {
    let errors = found.unwrap_err();
    let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!((errors.len(), errors[0].code(), errors[0].fault()), (1, Code::PostgresPublication, Fault::Fatal), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} is not in {text}");
    text.split_once("; run: ").map(|(_, sql)| sql.to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn operations_that_are_left_out_are_refused_with_a_statement_that_works() {
    let mut world = published(TABLE, vec![feed("t", &["id"])], "CREATE PUBLICATION {} FOR TABLE t WITH (publish = 'insert')");
    let sql = remedy(world.verify().await, &["leaves out update, delete, truncate"]);
    world.feeds[0].operations = Operations::from_bits(1).unwrap();
    world.verify().await.unwrap();
    world.feeds[0].operations = Operations::ALL;
    world.sql(&sql);
    world.verify().await.unwrap();
    world.sql(&format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete')", world.options.publication));
    remedy(world.verify().await, &["leaves out truncate"]);
}

#[tokio::test]
async fn partitions_whose_rows_are_never_in_the_log_are_refused() {
    let foreign = "CREATE FOREIGN DATA WRAPPER f; CREATE SERVER s FOREIGN DATA WRAPPER f; CREATE TABLE q (id int NOT NULL) PARTITION BY RANGE (id); \
                   CREATE FOREIGN TABLE q_far PARTITION OF q FOR VALUES FROM (0) TO (10) SERVER s; ALTER TABLE q ADD COLUMN n int";
    let world = World::new(&format!("{PARTITIONED}; ALTER TABLE p_low SET UNLOGGED; {foreign}"), vec![feed("p", &["id"])]);
    world.sql(&remedy(world.verify().await, &["partition public.p_low of table public.p is unlogged"]));
    let mut reader = world.begin().await;
    world.sql("INSERT INTO p VALUES (1)");
    reader.take(1).await;
    // While the log is read.
    world.sql("ALTER TABLE p_low SET UNLOGGED");
    let token = reader.log.token();
    let error = reader.log.acknowledge(Some(&token)).await.err().unwrap();
    drop(reader);
    world.sql(&remedy(Err(vec![error]), &["partition public.p_low of table public.p is unlogged"]));
    world.verify().await.unwrap();
    let identity = world.connector().identity().await.unwrap();
    let log = world.connect(&identity, &world.resume(&token, &token)).await.unwrap();
    world.sql("INSERT INTO p VALUES (2)");
    assert_eq!(Reader::of(log, &token, 1 << 20).take(1).await[0].key, r#"{"id":2}"#);

    let mut world = World::new(foreign, vec![feed("q", &["id"])]);
    world.feeds[0].operations = Operations::from_bits(1).unwrap();
    world.sql("ALTER TABLE q REPLICA IDENTITY FULL");
    // A table with such a partition cannot have a unique index either, which is another error.
    let mut errors = world.verify().await.unwrap_err();
    errors.retain(|error| error.code() == Code::PostgresPublication);
    world.sql(&remedy(Err(errors), &["partition public.q_far of table public.q is a foreign table"]));
    world.sql("ALTER TABLE q ADD PRIMARY KEY (id)");
    world.verify().await.unwrap();
}

#[tokio::test]
async fn checks_of_partitions_do_not_wait_for_a_session_that_alters_one() {
    let world = World::new(PARTITIONED, vec![Feed { prefeed: PrefeedKind::Snapshot, ..feed("p", &["id"]) }]);
    world.sql(&format!(
        "CREATE PUBLICATION {} FOR TABLE p WITH (publish = 'insert', publish_via_partition_root = true)",
        world.options.publication
    ));
    let mut altering = world.server.psql_command(&world.database).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(altering.stdin.as_ref().unwrap(), "BEGIN; ALTER TABLE p_low RENAME TO p_lower;").unwrap();
    let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'p_low'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    wait_for("the partition is locked", TIMEOUT, || (world.sql(locked) == "1").then_some(()));
    let errors = world.verify().await.unwrap_err();
    assert!(errors[0].to_string().contains("leaves out update"), "{errors:?}");
    world.connector().preflight().await.unwrap();
    drop(altering.stdin.take());
    ended(&mut altering);
}
