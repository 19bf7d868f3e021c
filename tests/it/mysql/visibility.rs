//! A transaction is in the log before readers see it: for as long as the server waits for a replica (`AFTER_SYNC`). Here it has none.

use super::snapshots::{Statement, both, read};
use super::world::World;
use crate::contract_source::TIMEOUT;
use crate::session::prefix;
use feedline::event::FeedId;
use feedline::source::mysql::Log;
use feedline::source::{Opened, Prefeed as _, SourceConnector as _};
use std::time::Duration;

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int)";

/// From here on each commit waits for a replica, and gives up after some seconds.
fn wait_for_replicas(world: &World) {
    let (install, role) = if world.server.is_mariadb() {
        ("", "master")
    } else {
        ("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; ", "source")
    };
    world.sql(&format!(
        "{install}SET GLOBAL rpl_semi_sync_{role}_wait_point = 'AFTER_SYNC', rpl_semi_sync_{role}_timeout = 4000, \
         rpl_semi_sync_{role}_enabled = 1"
    ));
}

#[tokio::test]
async fn a_snapshot_is_never_older_than_what_was_read_from_the_log() {
    let world = World::alone(&[], TABLES, &[("a", &["id"]), ("b", &["id"])]);
    let (mut log, _, mut connector) = world.follow().await;
    let mut prefeed = connector.prefeed().await.unwrap();
    wait_for_replicas(&world);
    let mut application = Statement::run(&world, "INSERT INTO a VALUES (1, 1)");
    assert_eq!(log.take(1).await[0].key, r#"{"id":1}"#);
    assert_eq!(world.sql("SELECT count(*) FROM a"), "0", "readers do not see it");
    let opened = prefeed.open(&both(), Duration::from_secs(2)).await.unwrap();
    let Opened::Blocked { by } = opened else { panic!("the snapshot lacks what was read: {opened:?}") };
    assert!(!by.is_empty());
    assert!(application.is_running(), "it still waits");
    // As soon as readers see it there is a snapshot.
    let deadline = std::time::Instant::now() + TIMEOUT;
    let cut = loop {
        assert!(std::time::Instant::now() < deadline);
        if let Opened::Cut(cut) = prefeed.open(&both(), Duration::from_secs(2)).await.unwrap() {
            break cut;
        }
    };
    let rows = read(&mut prefeed, &prefix::<Log>(&cut.token), FeedId(0)).await;
    assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), [r#"{"id":1}"#]);
    prefeed.close().await.unwrap();
    let after: Vec<_> = log.batches(&cut.token).await.into_iter().flat_map(|batch| batch.records).collect();
    assert!(after.is_empty(), "{after:?}");
}
