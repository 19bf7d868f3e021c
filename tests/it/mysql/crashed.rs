//! A server that was killed, and what it leaves in its log.

use super::reader::Reading;
use super::world::World;
use crate::contract_source::Taken;
use feedline::fault::{Classify as _, Fault};
use std::fs;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, note longtext)";

/// The file that is written, with its path, and where its last event begins.
fn last_event(world: &World) -> (std::path::PathBuf, u64) {
    let files = world.sql("SHOW BINARY LOGS");
    let name = files.lines().last().unwrap().split('\t').next().unwrap().to_owned();
    let events = world.sql(&format!("SHOW BINLOG EVENTS IN '{name}'"));
    let place = events.lines().last().unwrap().split('\t').nth(1).unwrap().parse().unwrap();
    (world.server.data_directory().join(name), place)
}

/// What a crash in the middle of a write leaves. MySQL cuts its file where a transaction ends, and then lacks one that its tables have.
#[tokio::test]
async fn a_transaction_that_a_crash_cut_off_is_passed_over() {
    let world = World::alone(&[], T, &[("t", &["id"])]);
    if !world.server.is_mariadb() {
        return;
    }
    for (round, cut) in [0, 3].into_iter().enumerate() {
        let mut reading = Reading::begin(&world).await;
        let id = 10 * round;
        world.sql(&format!("INSERT INTO t VALUES ({}, 'a'); INSERT INTO t VALUES ({}, REPEAT('b', 200000))", id + 1, id + 2));
        let (file, end) = last_event(&world);
        world.server.kill();
        // Its end is missing, or even a part of its rows.
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(end - cut).unwrap();
        world.server.restart();
        world.sql(&format!("INSERT INTO t VALUES ({}, 'c')", id + 3));
        // The server is another run of itself.
        reading.connect(64 * 1024).await.unwrap();
        let insert = |id: usize| format!(r#"insert t {{"id":{id}}} 0!"#);
        if cut == 0 {
            assert_eq!(reading.shorts().await, [insert(id + 1), insert(id + 3)]);
        } else {
            // The server does not pass over a part of an event. The next session begins behind it.
            let (taken, failure) = reading.stream().await.failure().await;
            assert_eq!(failure.fault(), Fault::Transient, "{failure}");
            assert_eq!(taken.iter().map(Taken::brief).collect::<Vec<_>>(), [format!(r#"insert {{"id":{}}}"#, id + 1)]);
            reading.token = reading.stream().await.source.token();
            reading.disconnect();
            assert_eq!(reading.shorts().await, [insert(id + 3)]);
        }
        // The place behind it is one to resume at.
        reading.disconnect();
        world.sql(&format!("INSERT INTO t VALUES ({}, 'd')", id + 4));
        assert_eq!(reading.shorts().await, [insert(id + 4)]);
    }
}

/// The server's limit for a reader that takes nothing is one second here. It must not end the log while a broker is away.
#[tokio::test]
async fn a_log_that_is_not_read_for_long_goes_on() {
    let world = World::alone(&[("net_write_timeout", "1"), ("slave_net_timeout", "1")], T, &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    let stream = reading.stream().await;
    let rows: Vec<_> = (0..8).map(|id| format!("INSERT INTO t VALUES ({id}, REPEAT('x', 8000000))")).collect();
    world.sql(&rows.join("; "));
    // Many times that limit. Nothing else tells that time has passed.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(stream.take(8).await.len(), 8);
    if !world.server.is_mariadb() {
        let limit = "SELECT DISTINCT VARIABLE_VALUE FROM performance_schema.variables_by_thread JOIN performance_schema.threads USING (THREAD_ID) \
                     WHERE VARIABLE_NAME = 'net_write_timeout' AND PROCESSLIST_COMMAND LIKE 'Binlog Dump%'";
        assert_eq!(world.sql(limit), "31536000");
    }
}
