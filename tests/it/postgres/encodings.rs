//! Databases with other encodings than UTF-8, and bytes that their encodings do not define.

use super::growing::Pipeline;
use super::world::{TIMEOUT, World, feed};
use crate::servers::port::wait_for;
use crate::servers::postgres::Postgres;
use feedline::fault::{Classify as _, Fault};
use feedline::feed::{Feed, PrefeedKind};
use feedline::source::SourceConnector as _;
use serde_json::{Value, json};

/// Creates a database with this encoding.
fn database(encoding: &str) -> String {
    let server = Postgres::shared();
    let name = server.create_database(&encoding.to_lowercase());
    server.psql("postgres", &format!("DROP DATABASE {name}"));
    let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    server.psql("postgres", &create);
    name
}

fn world(encoding: &str, tables: &str, feeds: Vec<Feed>) -> World {
    let world = World::within(Postgres::shared(), database(encoding), feeds);
    world.sql(tables);
    world
}

/// The text for a `U&` literal, which does not depend on the encoding of a session.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |text, character| text + &format!("\\{:04x}", u32::from(character)))
}

async fn after(world: &World, statements: &[&str]) -> Vec<Value> {
    let mut reader = world.begin().await;
    for statement in statements {
        world.sql(statement);
    }
    reader.take(statements.len()).await.iter().map(|sent| sent.event()["after"].clone()).collect()
}

#[tokio::test]
async fn characters_that_an_encoding_does_not_define_do_not_stop_the_log() {
    for (encoding, known, bytes, base64) in [
        ("WIN1252", "é€“", "81", "gQ=="),
        ("EUC_JP", "あ丂｡", "fcfc", "/Pw="),
        ("EUC_KR", "가", "c9a1", "yaE="),
        ("EUC_TW", "中乂", "8ea3a1a1", "jqOhoQ=="),
    ] {
        let column: String = known.chars().take(1).collect();
        let tables =
            format!("CREATE TABLE t (id int PRIMARY KEY, note text, U&\"{}\" text[]); CREATE TABLE other (note text)", escaped(&column));
        let world = world(encoding, &tables, vec![feed("t", &["id"])]);
        let text = format!("U&'{}'", escaped(known));
        let raw = format!("convert_from('\\x{bytes}', 'SQL_ASCII')");
        let rows = after(
            &world,
            &[
                &format!("INSERT INTO t VALUES (1, {text}, ARRAY[{text}])"),
                &format!("INSERT INTO other VALUES ({raw}); INSERT INTO t VALUES (2, {raw})"),
                "INSERT INTO t VALUES (3, 'after it')",
            ],
        )
        .await;
        let expected = [
            json!({"id": 1, "note": known, &column: [known]}),
            json!({"id": 2, "note": {"base64": base64}, &column: null}),
            json!({"id": 3, "note": "after it", &column: null}),
        ];
        assert_eq!(rows, expected, "{encoding}");
    }
}

#[tokio::test]
async fn an_encoding_that_the_server_cannot_convert_is_refused_by_name() {
    let world = World::within(Postgres::shared(), database("MULE_INTERNAL"), vec![feed("t", &["id"])]);
    let error = world.connector().catalogue().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Fatal, "{error}");
    assert!(error.to_string().contains("conversion between UTF8 and MULE_INTERNAL is not supported"), "{error}");
}

#[tokio::test]
async fn a_scan_continues_after_keys_that_are_not_utf_8() {
    use feedline::batch::Budget;
    use feedline::event::FeedId;
    use feedline::source::{Opened, Prefeed, Slice, SourceConnector, ToRead};
    let table = "CREATE TABLE t (id text PRIMARY KEY, note text); \
                 INSERT INTO t SELECT id, repeat('x', 40000) FROM (VALUES ('a'), (E'\\xE9'), (E'\\xE9b'), (E'\\xFF''\\\\')) v (id)";
    let world = world("SQL_ASCII", table, vec![Feed { prefeed: PrefeedKind::Snapshot, ..feed("t", &["id"]) }]);
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    // A batch holds one row: each call continues after the row before.
    let budget = Budget::new(1 << 20, 16 << 10);
    let (mut after, mut seen, mut number) = (None, 0, 0);
    loop {
        let to_read = [ToRead { feed: FeedId(0), after: after.clone() }];
        assert!(matches!(rows.open(&to_read, TIMEOUT).await.unwrap(), Opened::Cut(_)));
        number += 1;
        let mut out = budget.writer().await;
        let scanned =
            crate::session::scan(&mut rows, "0", FeedId(0), after.as_ref(), &mut Slice { number, next_row: 0 }, &mut out).await.unwrap();
        rows.close().await.unwrap();
        seen += scanned.rows;
        after = scanned.after;
        if scanned.done {
            break;
        }
    }
    assert_eq!(seen, 4);
    assert!(4 <= number, "each call reads one row: {number}");
}

#[test]
fn an_existing_row_that_cannot_be_converted_names_its_table() {
    let pipeline = Pipeline::within("unconvertible", database("WIN1252"));
    let sql = |statements: &str| pipeline.postgres.psql(&pipeline.database, statements);
    sql("CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE bad (id int PRIMARY KEY, note text); \
         INSERT INTO good VALUES (1); INSERT INTO bad VALUES (1, 'x'), (2, convert_from('\\x81', 'SQL_ASCII'))");
    let mut feedline = pipeline.configured("[[feeds]]\ntables = [\"good\", \"bad\"]");
    feedline.start();
    let (status, text) = feedline.wait_for_end();
    assert_eq!(status, Some(71), "{text}");
    assert!(
        text.contains("FL2011") && text.contains("public.bad") && text.contains("0x81") && text.contains("leave the table out"),
        "{text}"
    );
    sql("INSERT INTO bad VALUES (3, convert_from('\\x81', 'SQL_ASCII')); INSERT INTO good VALUES (2)");
    let mut feedline = pipeline.feedline_with("", "[[feeds]]\ntables = [\"good\"]");
    sql("INSERT INTO good VALUES (3)");
    wait_for("the other table continues", TIMEOUT * 2, || pipeline.briefly().contains(&"insert good 3".to_owned()).then_some(()));
    feedline.stop();
}
