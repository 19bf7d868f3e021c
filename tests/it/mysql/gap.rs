//! Logs that are not the one that was read, or no longer have what comes next.

use super::reader::Reading;
use super::world::World;
use crate::contract_source::TIMEOUT;
use feedline::fault::{Classify as _, Code, Fault};
use feedline::source::SourceConnector as _;
use feedline::source::mysql::Connector;
use std::time::{Duration, Instant};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY)";

/// A server of its own, whose log was read to its end after these rows.
async fn read_to_end(rows: u32) -> (World, Reading) {
    let world = World::alone(&[], T, &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    for id in 0..rows {
        world.sql(&format!("INSERT INTO t VALUES ({id})"));
    }
    assert_eq!(reading.taken().await.len(), rows as usize);
    reading.disconnect();
    (world, reading)
}

/// Deletes all files of the log but the one that is written. A reader that is gone keeps its file for a moment.
fn purge(world: &World) {
    let begun = Instant::now();
    world.sql("FLUSH BINARY LOGS");
    loop {
        let status = world.sql(if world.server.is_mariadb() { "SHOW MASTER STATUS" } else { "SHOW BINARY LOG STATUS" });
        let file = status.split('\t').next().unwrap();
        world.sql(&format!("PURGE BINARY LOGS TO '{file}'"));
        if world.sql("SHOW BINARY LOGS").lines().count() == 1 {
            return;
        }
        assert!(begun.elapsed() < TIMEOUT, "the files stay: {}", world.sql("SHOW BINARY LOGS; SHOW PROCESSLIST"));
        std::thread::sleep(Duration::from_millis(50));
        world.sql("FLUSH BINARY LOGS");
    }
}

fn reset(world: &World) {
    world.sql(if world.server.is_mariadb() { "RESET MASTER" } else { "RESET BINARY LOGS AND GTIDS" });
}

async fn refused(reading: &mut Reading) -> Code {
    let error = reading.connect(4096).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Gap, "{error}");
    error.code()
}

#[tokio::test]
async fn a_deleted_log_is_a_gap_only_if_something_is_missing() {
    let (world, mut reading) = read_to_end(2).await;
    purge(&world);
    // Nothing was written since.
    world.sql("INSERT INTO t VALUES (10)");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":10} 0!"#]);
    reading.disconnect();

    world.sql("INSERT INTO t VALUES (11)");
    purge(&world);
    assert_eq!(refused(&mut reading).await, Code::SourceLogLost);
    let (known, resume) = (reading.known.clone(), reading.resume());
    let renewed = reading.connector.renew(&known, &resume).await.unwrap();
    assert_eq!(renewed.feeds.len(), 1);
    let before = reading.token.clone();
    reading.token = renewed.token;
    world.sql("INSERT INTO t VALUES (12)");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":12} 0!"#]);
    assert!(reading.connector.skips(&before, &reading.token).unwrap());
}

#[tokio::test]
async fn a_log_that_begins_anew_is_rewound() {
    let (world, mut reading) = read_to_end(3).await;
    reset(&world);
    assert_eq!(refused(&mut reading).await, Code::SourceRewound);
    // The same names for other transactions.
    for id in 20..60 {
        world.sql(&format!("INSERT INTO t VALUES ({id})"));
    }
    let error = reading.connect(4096).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceRewound, Fault::Gap), "{error}");
    assert!(reading.connector.resumable(&reading.known.clone(), &reading.resume()).await.is_err());
}

#[tokio::test]
async fn another_server_is_foreign() {
    let (world, mut reading) = read_to_end(2).await;
    let other = World::alone(&[], "", &[]);
    for id in 0..60 {
        other.sql(&format!("CREATE DATABASE other_{id}"));
    }
    reading.connector = other.connector();
    let error = reading.connect(4096).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceForeign, Fault::Gap), "{error}");
    let (known, resume) = (reading.known.clone(), reading.resume());
    assert_eq!(reading.connector.renew(&known, &resume).await.unwrap_err().code(), Code::SourceForeign);
    reading.connector = world.connector();
    reading.connect(4096).await.unwrap();
}

#[tokio::test]
async fn a_second_reader_with_the_number_is_named() {
    let world = World::new(T, &[("t", &["id"])]);
    let connector = || {
        let mut connector = Connector::new(world.options.clone(), world.metrics.source.clone());
        connector.select(world.feeds());
        connector
    };
    let mut first = Reading::with(connector(), &world).await;
    world.sql("INSERT INTO t VALUES (1)");
    assert_eq!(first.taken().await.len(), 1);
    let mut second = Reading::with(connector(), &world).await;
    second.connect(4096).await.unwrap();
    let failure = first.failure().await;
    assert_eq!(failure.fault(), Fault::Transient, "{failure}");
    assert!(matches!(failure.code(), Code::SourceBusy | Code::SourceUnreachable), "{failure}");
}
