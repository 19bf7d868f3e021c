//! Live events: transactions, keys, definitions, and everything else that the log shows.

use super::reader::{Reading, short};
use super::world::World;
use feedline::fault::{Classify as _, Code, Fault};
use feedline::source::{SourceConnector as _, TableChange};
use serde_json::{Value, json};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, note varchar(40))";

/// Feed and reason of each change, and whether a reset comes first.
fn rereads(changes: &[TableChange]) -> Vec<(u32, bool, &str)> {
    changes.iter().filter_map(|change| change.reread.as_ref().map(|reread| (change.feed.0, reread.reset, &*reread.reason))).collect()
}

#[tokio::test]
async fn a_transaction_has_a_name_indexes_and_an_end() {
    let world =
        World::new(&format!("{T}; CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE other (id int)"), &[("t", &["id"]), ("u", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, 'a')");
    world.sql("BEGIN; INSERT INTO other VALUES (1); INSERT INTO t VALUES (2, 'b'), (3, NULL); INSERT INTO u VALUES (1); UPDATE t SET note = 'c' WHERE id = 2; DELETE FROM t WHERE id = 3; COMMIT");
    let events = reading.events().await;
    assert_eq!(
        events.iter().map(short).collect::<Vec<_>>(),
        [
            r#"insert t {"id":1} 0!"#,
            r#"insert t {"id":2} 0"#,
            r#"insert t {"id":3} 1"#,
            r#"insert u {"id":1} 2"#,
            r#"update t {"id":2} 3"#,
            r#"delete t {"id":3} 4!"#
        ]
    );
    assert_eq!((&events[4]["before"], &events[4]["after"]), (&json!({"id":2,"note":"b"}), &json!({"id":2,"note":"c"})));
    assert_eq!((&events[5]["before"], &events[5]["after"]), (&json!({"id":3,"note":null}), &Value::Null));
    let names: Vec<_> = events.iter().map(|event| event["source"]["transaction"].as_str().unwrap()).collect();
    assert!(names[0] != names[1] && names[1..].iter().all(|name| *name == names[1]), "{names:?}");
    let server = if world.server.is_mariadb() { "0-1-".to_owned() } else { format!("{}:", world.sql("SELECT @@server_uuid")) };
    let number = |name: &str| name.strip_prefix(&server).unwrap_or_else(|| panic!("{name}")).parse::<u64>().unwrap();
    assert!(number(names[0]) < number(names[1]), "{names:?}");
    let ordinals: Vec<_> =
        events.iter().map(|event| event["source"]["position"].as_str().unwrap().rsplit('-').next().unwrap().to_owned()).collect();
    assert_eq!(ordinals[1..].iter().map(|ordinal| ordinal.parse::<u64>().unwrap()).collect::<Vec<_>>(), [10, 20, 30, 40, 50]);
    assert!(events[0]["source"]["committed_at"].as_str().unwrap().starts_with("20"));
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    let world = World::new("CREATE TABLE t (a int, b varchar(9), n int, PRIMARY KEY (b, a))", &[("t", &["a", "b"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, 'x', 5); UPDATE t SET b = 'X'; UPDATE t SET n = 6");
    let taken = reading.taken().await;
    let shown: Vec<_> = taken.iter().map(|taken| (taken.brief(), taken.related.clone())).collect();
    let (old, new) = (r#"{"a":1,"b":"x"}"#, r#"{"a":1,"b":"X"}"#);
    assert_eq!(
        shown,
        [
            (format!("insert {old}"), None),
            (format!("delete {old}"), Some(new.to_owned())),
            (format!("insert {new}"), Some(old.to_owned())),
            (format!("update {new}"), None)
        ]
    );
}

#[tokio::test]
async fn rows_that_are_removed_without_events_are_told() {
    let tables = format!("{T}; CREATE TABLE u LIKE t; CREATE TABLE v LIKE t; INSERT INTO t VALUES (1, ''); INSERT INTO v VALUES (1, '')");
    let world = World::new(&tables, &[("t", &["id"]), ("u", &["id"]), ("v", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    // Before the log has described the table, and afterwards.
    world.sql("TRUNCATE TABLE t; INSERT INTO t VALUES (2, 'b'); TRUNCATE t; DROP TABLE u, v");
    assert_eq!(
        reading.shorts().await,
        ["truncate t null 0!", r#"insert t {"id":2} 0!"#, "truncate t null 0!", "truncate u null 0", "truncate v null 1!"]
    );
    world.sql(&format!("DROP DATABASE {}", world.database));
    assert_eq!(reading.shorts().await, ["truncate t null 0", "truncate u null 1", "truncate v null 2!"]);
}

#[tokio::test]
async fn another_table_with_the_name_is_read_again() {
    let world = World::new(&format!("{T}; CREATE TABLE t_new LIKE t"), &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    reading.events().await;
    reading.stream().await.source.table_changes();
    world.sql("INSERT INTO t VALUES (1, 'a'); RENAME TABLE t TO t_old, t_new TO t; INSERT INTO t VALUES (2, 'b')");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":1} 0!"#, r#"insert t {"id":2} 0!"#]);
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), [(0, true, "another table got its name")]);
    world.sql("ALTER TABLE t RENAME TO t_old_2");
    assert_eq!(reading.shorts().await, ["truncate t null 0!"]);
    world.sql("ALTER TABLE t_old_2 RENAME TO t");
    assert_eq!(reading.shorts().await, [""; 0]);
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), [(0, true, "another table got its name")]);
}

#[tokio::test]
async fn a_new_definition_is_followed_and_changed_rows_are_read_again() {
    let world = World::new(&format!("{T}; INSERT INTO t VALUES (1, 'a')"), &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    reading.events().await;
    reading.stream().await.source.table_changes();
    world.sql("UPDATE t SET note = 'b'; ALTER TABLE t ADD COLUMN more int; UPDATE t SET more = 5; ALTER TABLE t DROP COLUMN note; UPDATE t SET more = 6");
    let events = reading.events().await;
    let after: Vec<_> = events.iter().map(|event| event["after"].to_string()).collect();
    assert_eq!(after, [r#"{"id":1,"note":"b"}"#, r#"{"id":1,"more":5,"note":"b"}"#, r#"{"id":1,"more":6}"#]);
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), []);
    world.sql("ALTER TABLE t ADD COLUMN full int NOT NULL DEFAULT 7, ADD INDEX (more)");
    assert_eq!(reading.shorts().await, [""; 0]);
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), [(0, false, "ALTER TABLE may have changed values of its rows")]);
    world.sql("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (5), PARTITION p1 VALUES LESS THAN (10))");
    let world = World::on(
        world.server,
        "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES LESS THAN (9))",
        &[("t", &["id"])],
    );
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1), (6); ALTER TABLE t DROP PARTITION a");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":1} 0"#, r#"insert t {"id":6} 1!"#]);
    let changes = reading.stream().await.source.table_changes();
    assert_eq!(rereads(&changes), [(0, true, "ALTER TABLE may have removed or added rows")]);
}

#[tokio::test]
async fn what_was_rolled_back_is_not_published() {
    let world = World::new(T, &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("BEGIN; INSERT INTO t VALUES (1, ''); ROLLBACK; BEGIN; INSERT INTO t VALUES (2, ''); SAVEPOINT a; INSERT INTO t VALUES (3, ''); ROLLBACK TO a; INSERT INTO t VALUES (4, ''); COMMIT");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":2} 0"#, r#"insert t {"id":4} 1!"#]);
}

#[tokio::test]
async fn engines_without_transactions_and_tables_from_a_query_are_followed() {
    let world =
        World::new("CREATE TABLE m (id int PRIMARY KEY) ENGINE = MyISAM; CREATE TABLE s (id int)", &[("m", &["id"]), ("c", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO m VALUES (1), (2); INSERT INTO s VALUES (5); CREATE TABLE c (PRIMARY KEY (id)) AS SELECT id FROM s; DELETE FROM m WHERE id = 1");
    let expected = [r#"insert m {"id":1} 0"#, r#"insert m {"id":2} 1!"#, r#"insert c {"id":5} 0!"#, r#"delete m {"id":1} 0!"#];
    assert_eq!(reading.shorts().await, expected);
}

/// On a server of its own, as all that stops a log: others read the log of the shared one.
#[tokio::test]
async fn a_change_that_is_logged_as_a_statement_stops_the_log() {
    let world = World::alone(&[], T, &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, 'a'); SET binlog_format = 'STATEMENT'; INSERT INTO t VALUES (2, 'b')");
    let (taken, failure) = reading.stream().await.failure().await;
    assert_eq!(taken.iter().map(crate::contract_source::Taken::brief).collect::<Vec<_>>(), [r#"insert {"id":1}"#]);
    assert_eq!((failure.code(), failure.fault()), (Code::SourceLogLost, Fault::Gap), "{failure}");
    assert!(failure.to_string().contains("binlog_format"), "{failure}");
    // The log goes on behind it.
    let renewed = {
        let (known, resume) = (reading.known.clone(), reading.resume());
        reading.connector.renew(&known, &resume).await.unwrap()
    };
    assert_eq!(renewed.feeds.len(), 1);
    reading.token = renewed.token;
    reading.disconnect();
    world.sql("INSERT INTO t VALUES (3, 'c')");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":3} 0!"#]);
}

#[tokio::test]
async fn a_statement_about_another_table_passes() {
    let tables = format!(
        "{T}; CREATE TABLE checksums (db varchar(9), tbl varchar(9), crc varchar(40), PRIMARY KEY (db, tbl)); CREATE TABLE triggered (id int)"
    );
    let world = World::alone(&[], &tables, &[("t", &["id"])]);
    world.sql("CREATE TRIGGER writes AFTER INSERT ON triggered FOR EACH ROW INSERT INTO t VALUES (NEW.id, 'by a trigger')");
    let mut reading = Reading::begin(&world).await;
    world.sql("SET binlog_format = 'STATEMENT'; REPLACE INTO checksums (db, tbl, crc) SELECT 'd', 't', COALESCE(LOWER(CONV(BIT_XOR(CAST(CRC32(CONCAT_WS('#', id, note)) AS UNSIGNED)), 10, 16)), 0) FROM t /*checksum chunk*/");
    world.sql("INSERT INTO t VALUES (1, 'a')");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":1} 0!"#]);
    world.sql("SET binlog_format = 'STATEMENT'; INSERT INTO triggered VALUES (2)");
    assert_eq!(reading.failure().await.code(), Code::SourceLogLost);
}

#[tokio::test]
async fn an_xa_transaction_counts_once_it_is_committed() {
    let world = World::alone(&[], T, &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    let xa =
        |name: &str, rows: &str, end: &str| format!("XA START '{name}', 'b'; INSERT INTO t VALUES {rows}; XA END '{name}', 'b'; {end}");
    world.sql(&xa("one", "(1, ''), (2, '')", "XA PREPARE 'one', 'b'"));
    world.sql(&xa("two", "(3, '')", "XA PREPARE 'two', 'b'"));
    world.sql("INSERT INTO t VALUES (4, '')");
    assert_eq!(reading.shorts().await, [r#"insert t {"id":4} 0!"#]);
    // The checkpoint remembers where their rows are.
    reading.disconnect();
    world.sql("XA COMMIT 'one', 'b'; XA ROLLBACK 'two', 'b'");
    world.sql(&xa("three", "(5, '')", "XA COMMIT 'three', 'b' ONE PHASE"));
    world.sql("UPDATE t SET note = 'x' WHERE id = 1");
    let expected = [r#"insert t {"id":1} 0"#, r#"insert t {"id":2} 1!"#, r#"insert t {"id":5} 0!"#, r#"update t {"id":1} 0!"#];
    assert_eq!(reading.shorts().await, expected);
    assert!(!reading.token.0.contains("xa="), "{}", reading.token.0);

    world.sql(&xa("four", "(6, '')", "XA PREPARE 'four', 'b'"));
    let mut late = Reading::begin(&world).await;
    world.sql("XA COMMIT 'four', 'b'");
    let failure = late.failure().await;
    assert_eq!(failure.code(), Code::SourceLogLost, "{failure}");
}

#[tokio::test]
async fn rows_that_lack_columns_are_refused_or_say_so() {
    let world = World::new("CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 7, b text)", &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, 2, 'x'); SET binlog_row_image = 'MINIMAL'; UPDATE t SET a = 3; DELETE FROM t");
    let events = reading.events().await;
    assert_eq!(
        events.iter().map(short).collect::<Vec<_>>(),
        [r#"insert t {"id":1} 0!"#, r#"update t {"id":1} 0!"#, r#"delete t {"id":1} 0!"#]
    );
    assert_eq!((&events[1]["after"], &events[1]["unchanged"]), (&json!({"id":1,"a":3}), &json!(["b"])));
    world.sql("SET binlog_row_image = 'MINIMAL'; INSERT INTO t (id) VALUES (2)");
    let failure = reading.failure().await;
    assert_eq!(failure.code(), Code::SourceLogLost, "{failure}");
    assert!(failure.to_string().contains("binlog_row_image"), "{failure}");
}

/// A transaction of this many rows is read in small batches; it goes on at each place between two of them as if nothing had happened.
async fn large_transactions_are_resumed(settings: &[(&'static str, &'static str)]) {
    let world = World::alone(
        settings,
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE other (id int PRIMARY KEY)",
        &[("t", &["id"])],
    );
    let mut reading = Reading::begin(&world).await;
    let rows: Vec<_> = (0..300).map(|id| format!("({id}, REPEAT('x', 100))")).collect();
    let others: Vec<_> = (0..50).map(|id| format!("({id})")).collect();
    let (rows, others) = (rows.join(", "), others.join(", "));
    world.sql(&format!("BEGIN; INSERT INTO t VALUES {rows}; INSERT INTO other VALUES {others}; UPDATE t SET note = '' WHERE id < 90; COMMIT; DELETE FROM t WHERE id = 5"));
    let end = crate::contract_source::head(&mut reading.connector).await;
    reading.connect(4096).await.unwrap();
    let batches = reading.stream().await.batches(&end).await;
    assert!(20 < batches.len(), "{}", batches.len());
    let all: Vec<_> = batches.iter().flat_map(|batch| batch.records.clone()).collect();
    assert_eq!(all.len(), 391);
    let mut sent = 0;
    for batch in &batches {
        sent += batch.records.len();
        reading.token = batch.token.clone();
        reading.connect(16 * 1024).await.unwrap();
        let rest: Vec<_> = reading.stream().await.batches(&end).await.into_iter().flat_map(|batch| batch.records).collect();
        assert_eq!(rest, all[sent..], "from {}", batch.token.0);
    }
}

#[tokio::test]
async fn a_large_transaction_is_resumed_at_any_place() {
    large_transactions_are_resumed(&[]).await;
}

#[tokio::test]
async fn a_compressed_transaction_is_resumed_at_any_place() {
    let settings = if crate::servers::mysql::MySql::shared().is_mariadb() {
        [("log_bin_compress", "ON"), ("log_bin_compress_min_len", "10")]
    } else {
        [("binlog_transaction_compression", "ON"), ("binlog_transaction_compression_level_zstd", "3")]
    };
    large_transactions_are_resumed(&settings).await;
}

#[tokio::test]
async fn a_row_larger_than_a_packet_comes_whole() {
    let world = World::new("CREATE TABLE t (id int PRIMARY KEY, a longtext)", &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, REPEAT('x', 40000000)); INSERT INTO t VALUES (2, '')");
    let taken = reading.taken().await;
    assert_eq!(taken[0].field("after")["a"].as_str().unwrap().len(), 40_000_000);
    assert_eq!(taken[1].brief(), r#"insert {"id":2}"#);
}

#[tokio::test]
async fn the_log_goes_on_in_the_next_file() {
    let world = World::alone(&[], T, &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO t VALUES (1, ''); FLUSH BINARY LOGS; INSERT INTO t VALUES (2, ''); FLUSH BINARY LOGS");
    let first = reading.taken().await;
    // The limit lies in an empty file, and stays reached after a restart.
    reading.disconnect();
    assert_eq!(reading.taken().await, []);
    world.sql("INSERT INTO t VALUES (3, '')");
    let second = reading.taken().await;
    let ids: Vec<_> = first.iter().chain(&second).map(|taken| taken.id.clone()).collect();
    assert!(ids.len() == 3 && ids.is_sorted(), "{ids:?}");
}

#[tokio::test]
async fn tables_that_are_made_anew_or_share_a_name_are_told_apart() {
    let world = World::new(&format!("{T}; INSERT INTO t VALUES (1, 'a')"), &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    reading.events().await;
    reading.stream().await.source.table_changes();
    // A table of the session that hides the other one.
    let format = if world.server.is_mariadb() { "SET binlog_format = 'MIXED'; " } else { "" };
    world.sql(&format!("{format}CREATE TEMPORARY TABLE t (a int); DROP TEMPORARY TABLE t"));
    assert_eq!(reading.shorts().await, [""; 0]);
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), []);
    if world.server.is_mariadb() {
        world.sql(&format!("{}; INSERT INTO t VALUES (2, 'b')", T.replace("CREATE", "CREATE OR REPLACE")));
        assert_eq!(reading.shorts().await, [r#"insert t {"id":2} 0!"#]);
        let changes = reading.stream().await.source.table_changes();
        assert_eq!(rereads(&changes), [(0, true, "it was made anew, with rows that the log does not show")]);
    }
}

#[tokio::test]
async fn rows_that_a_partition_takes_from_another_table_are_read_again() {
    let tables = "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES LESS THAN (9)); \
                  CREATE TABLE u (id int PRIMARY KEY)";
    let world = World::new(tables, &[("p", &["id"]), ("u", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    reading.events().await;
    reading.stream().await.source.table_changes();
    world.sql("ALTER TABLE p EXCHANGE PARTITION a WITH TABLE u");
    assert_eq!(reading.shorts().await, [""; 0]);
    let reason = "ALTER TABLE may have removed or added rows";
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), [(0, true, reason), (1, true, reason)]);
}

/// It is in the log twice then: where it begins, and where the table has the new definition.
#[tokio::test]
async fn an_alter_table_in_two_phases_has_its_effect_once() {
    let world = World::new(T, &[("t", &["id"])]);
    let phases = "SET SESSION binlog_alter_two_phase = 1; ";
    if world.server.try_sql(&world.database, phases).is_err() {
        return;
    }
    let mut reading = Reading::begin(&world).await;
    reading.events().await;
    reading.stream().await.source.table_changes();
    world.sql("INSERT INTO t VALUES (1, 'a')");
    // It fails after it began.
    world.server.try_sql(&world.database, &format!("{phases}ALTER TABLE t MODIFY note int NOT NULL, ALGORITHM = COPY")).unwrap_err();
    world.sql(&format!("{phases}ALTER TABLE t ADD n int DEFAULT 5; ALTER TABLE t RENAME TO u"));
    assert_eq!(reading.shorts().await, [r#"insert t {"id":1} 0!"#, "truncate t null 0!"]);
    assert_eq!(rereads(&reading.stream().await.source.table_changes()), [(0, false, "ALTER TABLE may have changed values of its rows")]);
}

#[tokio::test]
async fn a_table_from_a_query_that_is_logged_as_a_statement_is_read_again() {
    let world = World::new("CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (1)", &[("c", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    reading.events().await;
    reading.stream().await.source.table_changes();
    let made =
        world.server.try_sql(&world.database, "SET binlog_format = 'STATEMENT'; CREATE TABLE c (PRIMARY KEY (id)) AS SELECT id FROM s");
    if made.is_err() {
        return;
    }
    assert_eq!(reading.shorts().await, [""; 0]);
    let changes = reading.stream().await.source.table_changes();
    assert_eq!(rereads(&changes), [(0, true, "it was made anew, with rows that the log does not show")]);
}
