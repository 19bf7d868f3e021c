//! How far the confirmed log is behind, how much longer the server keeps it, and servers whose log is not their own.

use super::world::World;
use crate::contract_source::{TIMEOUT, verify};
use crate::servers::mysql::{MySql, Options as ServerOptions};
use feedline::fault::{Classify as _, Code};
use feedline::source::{Probe as _, SourceConnector as _};
use feedline::status::LogHead;
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY)";

fn headroom(head: &LogHead) -> f64 {
    head.headroom_ratio.expect("the server shows it")
}

#[tokio::test]
async fn the_probe_counts_all_files_of_the_log_and_how_much_longer_they_are_kept() {
    let world = World::alone(&[("binlog_expire_logs_seconds", "20")], TABLE, &[("t", &["id"])]);
    let token = world.connector().establish().await.unwrap();
    let mut probe = world.connector().probe().await.unwrap();
    let head = probe.head(&token).await.unwrap();
    assert_eq!((head.caught_up, head.lag_bytes, head.headroom_ratio), (true, Some(0), Some(1.0)), "{head:?}");

    world.sql("INSERT INTO t VALUES (1); FLUSH BINARY LOGS; INSERT INTO t VALUES (2); FLUSH BINARY LOGS; INSERT INTO t VALUES (3)");
    let head = probe.head(&token).await.unwrap();
    // Each transaction, each file's beginning.
    assert!(!head.caught_up && head.lag_bytes.is_some_and(|bytes| 700 < bytes), "{head:?}");
    assert!((0.5..=1.0).contains(&headroom(&head)), "{head:?}");

    let deadline = Instant::now() + TIMEOUT;
    loop {
        let head = probe.head(&token).await.unwrap();
        if headroom(&head) < 0.85 {
            break;
        }
        assert!(Instant::now() < deadline, "the time that is left does not pass: {head:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let files = world.sql("SHOW BINARY LOGS");
    let last = files.lines().last().unwrap().split_whitespace().next().unwrap();
    world.sql(&format!("PURGE BINARY LOGS TO '{last}'"));
    let head = probe.head(&token).await.unwrap();
    assert_eq!((head.caught_up, head.lag_bytes, head.headroom_ratio), (false, None, Some(0.0)), "{head:?}");
}

#[tokio::test]
async fn a_log_that_is_kept_without_a_limit_has_all_its_headroom() {
    let world = World::alone(&[("binlog_expire_logs_seconds", "0")], TABLE, &[("t", &["id"])]);
    let token = world.connector().establish().await.unwrap();
    world.sql("FLUSH BINARY LOGS; INSERT INTO t VALUES (1)");
    let head = world.connector().probe().await.unwrap().head(&token).await.unwrap();
    assert_eq!((head.caught_up, head.headroom_ratio), (false, Some(1.0)), "{head:?}");
}

/// Others write all the time: the head has moved on whenever it is asked for.
#[tokio::test]
async fn a_log_that_never_stands_still_is_read_up_to_a_moment_ago() {
    let world = World::new(&format!("{TABLE}; CREATE TABLE other (id int)"), &[("t", &["id"])]);
    let (mut log, mut token) = world.begin().await;
    let mut probe = world.connector().probe().await.unwrap();
    let (begun, deadline) = (tokio::time::Instant::now(), Instant::now() + TIMEOUT);
    loop {
        world.sql("INSERT INTO other VALUES (1)");
        let head = probe.head(&token).await.unwrap();
        assert!(!head.caught_up && Instant::now() < deadline, "{head:?}");
        if head.reached_at.is_some_and(|reached_at| begun < reached_at) {
            break;
        }
        token = log.batch(None).await.unwrap().token;
    }
}

/// Settings of a server, by name.
type Settings = &'static [(&'static str, &'static str)];

/// A replica of this server, with these settings.
fn replica(of: &MySql, settings: Settings) -> MySql {
    let replica = MySql::start(&ServerOptions { settings: [&[("server-id", "2")][..], settings].concat(), ..ServerOptions::default() });
    let port = of.port();
    let start = if of.is_mariadb() {
        format!("CHANGE MASTER TO master_host = '127.0.0.1', master_port = {port}, master_user = 'root', master_ssl = 0; START SLAVE")
    } else {
        format!(
            "CHANGE REPLICATION SOURCE TO source_host = '127.0.0.1', source_port = {port}, source_user = 'root', source_auto_position = 1, \
             get_source_public_key = 1; START REPLICA"
        )
    };
    replica.sql("", &start);
    replica
}

#[tokio::test]
async fn a_replica_must_log_what_it_replicates_in_the_order_of_its_source() {
    let source = MySql::start(&ServerOptions::default());
    let (with, without): (Settings, Settings) = if source.is_mariadb() {
        (&[("log_slave_updates", "ON")], &[("log_slave_updates", "OFF")])
    } else {
        (&[], &[("log_replica_updates", "OFF"), ("replica_preserve_commit_order", "OFF"), ("replica_parallel_workers", "4")])
    };
    let mut refused = Vec::new();
    for settings in [with, without] {
        let world = World::on(Box::leak(Box::new(replica(&source, settings))), TABLE, &[("t", &["id"])]);
        let mut connector = world.connector();
        connector.catalogue().await.unwrap();
        refused.push(verify(&mut connector).await.err().unwrap_or_default());
    }
    assert!(refused[0].is_empty(), "{refused:#?}");
    let says = |word: &str| refused[1].iter().any(|error| error.code() == Code::MySqlUnsuitable && error.to_string().contains(word));
    assert!(says("does not log what it replicates"), "{refused:#?}");
    assert_eq!(says("in another order"), !source.is_mariadb(), "{refused:#?}");
}
