//! A failover: a replica becomes the primary, and the log goes on there. MariaDB names transactions by domain, MySQL by set.

use super::reader::{Reading, moved_to, short};
use super::world::World;
use crate::contract_source::TIMEOUT;
use crate::servers::mysql::{MySql, Options};
use feedline::fault::{Classify as _, Code, Fault};
use feedline::source::LogToken as _;
use feedline::source::mysql::Token;
use std::time::Instant;

/// A replica of this server.
fn replica(primary: &MySql) -> &'static MySql {
    let mut settings = vec![("server-id", "2")];
    if primary.is_mariadb() {
        settings.push(("log_slave_updates", "ON"));
    }
    let replica: &'static MySql = Box::leak(Box::new(MySql::start(&Options { settings, ..Default::default() })));
    let port = primary.port();
    if primary.is_mariadb() {
        primary.sql("", "CREATE USER copier@'127.0.0.1' IDENTIFIED BY 'copy'; GRANT REPLICATION SLAVE ON *.* TO copier@'127.0.0.1'");
        replica.sql(
            "",
            &format!(
                "RESET MASTER; SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
             MASTER_USER = 'copier', MASTER_PASSWORD = 'copy', MASTER_USE_GTID = slave_pos; START SLAVE"
            ),
        );
    } else {
        primary.sql("", "CREATE USER copier@'127.0.0.1' IDENTIFIED BY 'copy'; GRANT REPLICATION SLAVE ON *.* TO copier@'127.0.0.1'");
        replica.sql("", &format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'copier', SOURCE_PASSWORD = 'copy', \
             SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA"
        ));
    }
    replica
}

/// Waits until the replica has all that the primary has.
fn wait_for_copy(primary: &MySql, replica: &MySql) {
    let gtids = if primary.is_mariadb() { "SELECT @@GLOBAL.gtid_binlog_pos" } else { "SELECT @@GLOBAL.gtid_executed" };
    let wanted = primary.sql("", gtids);
    let begun = Instant::now();
    while replica.sql("", gtids) != wanted {
        assert!(begun.elapsed() < TIMEOUT, "the replica has {} of {wanted}", replica.sql("", gtids));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn promote(replica: &MySql) {
    replica.sql("", if replica.is_mariadb() { "STOP SLAVE; RESET SLAVE ALL" } else { "STOP REPLICA; RESET REPLICA ALL" });
}

#[tokio::test]
async fn the_log_goes_on_on_a_replica_that_was_promoted() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, note text)";
    let world = World::alone(&[], tables, &[("t", &["id"])]);
    let replica = replica(world.server);
    // Its own log is elsewhere in its files.
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b')");
    let mut events = reading.events().await;
    let rows: Vec<_> = (10..200).map(|id| format!("({id}, REPEAT('x', 100))")).collect();
    world.sql(&format!("INSERT INTO t VALUES {}; INSERT INTO t VALUES (3, 'c')", rows.join(", ")));
    // Reads into the middle of the large transaction.
    reading.connect(2048).await.unwrap();
    let batch = reading.stream().await.batch(None).await.unwrap();
    assert!(batch.token.0.contains("inside="), "{}", batch.token.0);
    events.extend(batch.records.iter().map(|taken| serde_json::from_str(taken.body.as_deref().unwrap()).unwrap()));
    reading.token = batch.token;
    wait_for_copy(world.server, replica);
    promote(replica);

    let world = moved_to(&world, replica);
    reading.connector = world.connector();
    reading.disconnect();
    replica.sql("", "FLUSH BINARY LOGS");
    world.sql("INSERT INTO t VALUES (4, 'd')");
    let before = Token::parse(&reading.token).unwrap();
    events.extend({
        reading.connect(64 * 1024).await.unwrap();
        reading.events().await
    });
    let after = Token::parse(&reading.token).unwrap();
    assert!(before.is_before(&after) && before.position_prefix() < after.position_prefix(), "{before} {after}");
    let keys: Vec<i64> = events.iter().map(|event| event["key"]["id"].as_i64().unwrap()).collect();
    let expected: Vec<i64> = [1, 2].into_iter().chain(10..200).chain([3, 4]).collect();
    assert_eq!(keys, expected, "nothing is lost, nothing comes twice");
    let positions: Vec<_> = events.iter().map(|event| event["source"]["position"].as_str().unwrap().to_owned()).collect();
    assert!(positions.is_sorted(), "{:#?}", events.iter().map(short).zip(positions).collect::<Vec<_>>());
    let indexes: Vec<_> = events[2..192].iter().map(|event| event["source"]["index"].as_i64().unwrap()).collect();
    assert_eq!(indexes, (0..190).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_replica_that_lags_behind_what_was_read_is_refused() {
    let world = World::alone(&[], "CREATE TABLE t (id int PRIMARY KEY)", &[("t", &["id"])]);
    let replica = replica(world.server);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1)");
    wait_for_copy(world.server, replica);
    promote(replica);
    world.sql("INSERT INTO t VALUES (2)");
    assert_eq!(reading.taken().await.len(), 2);
    reading.disconnect();
    let world = moved_to(&world, replica);
    reading.connector = world.connector();
    let error = reading.connect(4096).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceForeign, Fault::Gap), "{error}");
}
