//! Every type that a column can have, with 100,000 random rows: live events and existing rows have the same bytes, and both contain what the
//! server prints.

use super::options;
use super::reading::after;
use super::world::World;
use crate::contract_source::scan_all;
use base64::Engine as _;
use feedline::event::FeedId;
use feedline::net::TlsMode;
use feedline::source::mysql::Session;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Rows of each table; ten tables.
const ROWS: usize = 10_000;

/// How an event shows a value.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// As the server prints it.
    Number,
    /// A number of four bytes, of which the server prints six digits.
    Float,
    Double,
    /// The server's text.
    Text,
    /// Base64 of its bytes.
    Bytes,
    /// With `T` and `Z`.
    Timestamp,
    DateTime,
    /// JSON without white space.
    Json,
    /// Numbers of four bytes.
    Vector,
}
use Shown::{Bytes, DateTime, Double, Float, Json, Number, Text, Timestamp, Vector};

/// A type, a random value of it, and how an event shows it; `g` is the row's number.
type Type = (&'static str, &'static str, Shown);

const TABLES: [&[Type]; 7] = [
    &[
        ("tinyint", "g % 256 - 128", Number),
        ("tinyint unsigned", "g % 256", Number),
        ("smallint", "RAND() * 65535 - 32768", Number),
        ("smallint unsigned", "RAND() * 65535", Number),
        ("mediumint", "RAND() * 16777215 - 8388608", Number),
        ("mediumint unsigned", "RAND() * 16777215", Number),
        ("int", "RAND() * 4294967295 - 2147483648", Number),
        ("int(9) unsigned zerofill", "RAND() * 4294967295", Number),
        ("bigint", "(RAND() - 0.5) * 1.8e19", Number),
        ("bigint unsigned", "CASE g % 9 WHEN 0 THEN 18446744073709551615 ELSE RAND() * 1.8e19 END", Number),
        ("bool", "g % 2", Number),
        ("year", "CASE g % 9 WHEN 0 THEN 0 ELSE 1901 + g % 255 END", Number),
        ("bit(1)", "g % 2", Number),
        ("bit(33)", "RAND() * 8589934591", Number),
        ("bit(64)", "RAND() * 1.8e19", Number),
    ],
    &[
        ("float", "(RAND() - 0.5) * POW(10, g % 60 - 30)", Float),
        ("float unsigned", "RAND() * 1000", Float),
        ("double", "(RAND() - 0.5) * POW(10, g % 600 - 300)", Double),
        ("double(12,3)", "(RAND() - 0.5) * 1e9", Double),
        ("decimal(65,30)", "(RAND() - 0.5) * 1e34", Text),
        ("decimal(20,5)", "(RAND() - 0.5) * 1e14", Text),
        ("decimal(9,0)", "(RAND() - 0.5) * 1e9", Text),
        ("decimal(3,3)", "(RAND() - 0.5)", Text),
    ],
    &[
        ("char(40)", "LEFT(s(g), 40)", Text),
        ("varchar(200)", "s(g)", Text),
        ("varchar(40) COLLATE utf8mb4_bin", "LEFT(s(g), 40)", Text),
        ("tinytext", "LEFT(s(g), 50)", Text),
        ("text", "REPEAT(s(g), 1 + g % 9)", Text),
        ("mediumtext", "s(g)", Text),
        ("longtext", "s(g)", Text),
        ("enum('so \"so\"','bad, or not','it''s','','back\\\\slash')", "1 + g % 5", Text),
        ("set('a','b c','d''e','\"f\"')", "g % 16", Text),
        ("enum('ä','ß') CHARACTER SET latin1", "g % 3", Text),
    ],
    &[
        ("binary(8)", "LEFT(UNHEX(LEFT(SHA2(g, 256), 32)), g % 9)", Bytes),
        ("varbinary(40)", "UNHEX(SHA2(g, 224))", Bytes),
        ("tinyblob", "UNHEX(LEFT(SHA2(g, 256), 32))", Bytes),
        ("blob", "REPEAT(UNHEX(LEFT(SHA2(g, 256), 32)), g % 30)", Bytes),
        ("mediumblob", "UNHEX(LEFT(SHA2(g, 256), 32))", Bytes),
        ("longblob", "UNHEX(LEFT(SHA2(g, 256), 32))", Bytes),
        ("point", "ST_GeomFromText(CONCAT('POINT(', g, ' ', RAND(), ')'))", Bytes),
        ("geometry", "ST_GeomFromText('LINESTRING(0 0,1 1,2 3)')", Bytes),
        ("polygon", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')", Bytes),
    ],
    &[
        (
            "date",
            "CASE g % 40 WHEN 0 THEN '0000-00-00' WHEN 1 THEN '2024-00-10' WHEN 2 THEN '9999-12-31' ELSE '1900-01-01' + INTERVAL g * 3 DAY END",
            Text,
        ),
        ("time", "SEC_TO_TIME((RAND() - 0.5) * 6000000)", Text),
        ("time(3)", "CASE g % 40 WHEN 0 THEN '-838:59:58.999' ELSE SEC_TO_TIME((RAND() - 0.5) * 6000000) END", Text),
        ("time(6)", "CASE g % 40 WHEN 0 THEN '-00:00:00.000001' ELSE SEC_TO_TIME((RAND() - 0.5) * 60000) END", Text),
        (
            "datetime",
            "CASE g % 40 WHEN 0 THEN '0000-00-00 00:00:00' WHEN 1 THEN '9999-12-31 23:59:59' ELSE '1500-01-01' + INTERVAL g * 99991 SECOND END",
            DateTime,
        ),
        ("datetime(2)", "'2000-01-01' + INTERVAL RAND() * 1e9 SECOND", DateTime),
        ("datetime(6)", "'2000-01-01 00:00:00.000001' + INTERVAL g * 1234567 MICROSECOND", DateTime),
        (
            "timestamp NULL",
            "CASE g % 40 WHEN 0 THEN '0000-00-00 00:00:00' WHEN 1 THEN '2038-01-19 03:14:07' ELSE FROM_UNIXTIME(1 + RAND() * 2147483646) END",
            Timestamp,
        ),
        ("timestamp(1) NULL", "FROM_UNIXTIME(1 + RAND() * 2147483646)", Timestamp),
        ("timestamp(6) NULL", "FROM_UNIXTIME(1 + RAND() * 2147483646)", Timestamp),
    ],
    &[
        ("json", "JSON_OBJECT('n', RAND(), 's', s(g), 'l', JSON_ARRAY(g, NULL, JSON_OBJECT(), TRUE), 'long key', -g * 1e300)", Json),
        ("json", "JSON_ARRAY(RAND() * POW(10, g % 600 - 300), g * 1e0, CAST(g AS DECIMAL(12,4)), g, -g, 18446744073709551615)", Json),
        ("json", "CASE g % 4 WHEN 0 THEN CAST(g AS CHAR) WHEN 1 THEN 'null' WHEN 2 THEN '[]' ELSE JSON_QUOTE(s(g)) END", Json),
    ],
    &[
        ("int GENERATED ALWAYS AS (id + 1) VIRTUAL", "", Number),
        ("varchar(60) GENERATED ALWAYS AS (CONCAT('n', id)) STORED", "", Text),
        ("int INVISIBLE", "g", Number),
        ("varchar(5) CHARACTER SET ascii", "g % 100", Text),
    ],
];

/// Types that only MariaDB has, and only MySQL.
const OF_MARIADB: &[Type] = &[
    ("uuid", "LEFT(SHA2(g, 256), 32)", Text),
    ("inet6", "CASE g % 3 WHEN 0 THEN '::' WHEN 1 THEN CONCAT('::ffff:1.2.3.', g % 256) ELSE CONCAT('fe80::', HEX(g)) END", Text),
    ("inet4", "CONCAT('10.', g % 256, '.0.', g % 7)", Text),
    ("varchar(200) COMPRESSED", "REPEAT(LEFT(s(g), 15), 1 + g % 9)", Text),
    ("varchar(200) CHARACTER SET latin1 COMPRESSED", "REPEAT('ä', g % 150)", Text),
    ("varbinary(100) COMPRESSED", "REPEAT('x', g % 100)", Bytes),
    ("text COMPRESSED", "REPEAT(s(g), g % 20)", Text),
    ("blob COMPRESSED", "REPEAT(UNHEX('FF00'), g % 200)", Bytes),
];
const OF_MYSQL: &[Type] = &[
    ("vector(3)", "STRING_TO_VECTOR(CONCAT('[', RAND(), ',', g, ',-1e-30]'))", Vector),
    (
        "json",
        "JSON_OBJECT('d', CAST('2024-01-02 03:04:05.678' AS DATETIME(6)), 't', CAST('-01:02:03' AS TIME), 'b', CAST(UNHEX(LEFT(SHA2(g, 256), 32)) AS BINARY))",
        Json,
    ),
];

/// What inserts need. A function that returns one of many texts.
const PREPARE: &str = "\
    CREATE TABLE digits (d int); INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9); \
    CREATE VIEW numbers AS SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * d.d AS g FROM digits a, digits b, digits c, digits d; \
    CREATE FUNCTION s(g int) RETURNS text CHARACTER SET utf8mb4 DETERMINISTIC NO SQL RETURN CONCAT(ELT(1 + ABS(g) % 10, '', 'plain', 'tab\\t line\\n back\\\\slash', \
      '\"quoted\"', '{braces, and commas}', 'snow ☃ 😀 ä', 'it''s', CHAR(1, 8, 12, 13 USING utf8mb4), 'NULL', REPEAT('long ', 20)), IF(g % 3 = 0, SHA2(g, 224), ''))";

/// How the server is asked for a value that an event shows so.
fn asked(column: &str, shown: Shown) -> String {
    match shown {
        Bytes | Vector => format!("HEX({column})"),
        Float => format!("CAST({column} AS DOUBLE)"),
        Number => format!("{column} + 0"),
        _ => column.to_owned(),
    }
}

/// The value in the event for the server's text, by the contract; `None` if it is compared as a number. It shares no code with the program.
fn expected(shown: Shown, text: &str) -> Option<String> {
    let string = |text: &str| serde_json::to_string(text).unwrap();
    let bytes = || (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<u8>>();
    let is_zero = text.starts_with("0000") || text.get(5..7) == Some("00");
    Some(match shown {
        Number => text.to_owned(),
        Float | Double | Vector => return None,
        Text => string(text),
        Bytes => format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(bytes())),
        Timestamp if is_zero => string(text),
        DateTime => string(&text.replace(' ', "T")),
        Timestamp => string(&(text.replace(' ', "T") + "Z")),
        Json => {
            let (mut inside, mut escaped) = (false, false);
            let keep = |letter: &char| {
                let keep = inside || !letter.is_ascii_whitespace();
                inside ^= *letter == '"' && !escaped;
                escaped = *letter == '\\' && !escaped;
                keep
            };
            text.chars().filter(keep).collect()
        }
    })
}

/// Compares a number in an event with the server's.
#[expect(clippy::float_cmp, reason = "both print all digits that the number needs")]
fn assert_same_number(shown: Shown, value: &str, text: &str) {
    match shown {
        #[expect(clippy::cast_possible_truncation, reason = "the server's number has four bytes")]
        Float => assert_eq!(value.parse::<f32>().unwrap(), text.parse::<f64>().unwrap() as f32),
        Double => assert_eq!(value.parse::<f64>().unwrap(), text.parse::<f64>().unwrap()),
        Vector => {
            let numbers = value.trim_matches(['[', ']']).split(',').fold(String::new(), |mut hex, number| {
                let bytes = number.parse::<f32>().unwrap().to_le_bytes();
                for byte in bytes {
                    write!(hex, "{byte:02X}").unwrap();
                }
                hex
            });
            assert_eq!(numbers, text);
        }
        _ => panic!("it is compared as text"),
    }
}

/// Inserts random rows into a table of these types. Live, existing and printed rows must be the same.
async fn assert_agree(types: &[Type]) {
    let columns: Vec<_> = types.iter().enumerate().map(|(at, (kind, _, _))| format!("c{at} {kind}")).collect();
    let world = World::new(
        &format!("{PREPARE}; SET sql_mode = ''; CREATE TABLE t (id int PRIMARY KEY, {})", columns.join(", ")),
        &[("t", &["id"])],
    );
    let (mut log, _) = world.begin().await;
    let (names, values): (Vec<_>, Vec<_>) = types
        .iter()
        .enumerate()
        .filter(|(_, (_, value, _))| !value.is_empty())
        .map(|(at, (_, value, _))| (format!("c{at}"), format!("IF(RAND() < 0.03, NULL, {value})")))
        .unzip();
    let (names, values) = (names.join(", "), values.join(", "));
    world.sql(&format!("SET sql_mode = '', time_zone = '+00:00'; INSERT INTO t (id, {names}) SELECT g, {values} FROM numbers"));
    let live: BTreeMap<_, _> = log.take(ROWS).await.iter().map(|taken| (taken.key.clone(), after(taken).to_owned())).collect();
    drop(log);
    let read = scan_all(&mut world.established().await, FeedId(0), 1 << 20, false).await;
    let existing: BTreeMap<_, _> = read.iter().map(|taken| (taken.key.clone(), after(taken).to_owned())).collect();
    for (key, live) in &live {
        assert_eq!(existing.get(key), Some(live), "{key} of {columns:?}");
    }
    assert_eq!((existing.len(), read.len()), (ROWS, ROWS));

    let mut session = Session::open(&options(world.server, "root", None, TlsMode::Disable)).await.unwrap();
    let asked: Vec<_> = types.iter().enumerate().map(|(at, (_, _, shown))| asked(&format!("c{at}"), *shown)).collect();
    let printed = session.query(&format!("SELECT id, {} FROM {}.t ORDER BY id", asked.join(", "), world.database)).await.unwrap();
    assert_eq!(printed.len(), ROWS);
    for row in printed {
        let body = &live[&format!("{{\"id\":{}}}", row.text(0))];
        let parsed: BTreeMap<String, Box<RawValue>> = serde_json::from_str(body).unwrap();
        for (at, (kind, _, shown)) in types.iter().enumerate() {
            let name = format!("c{at}");
            let Some(text) = row.get(at + 1) else {
                assert_eq!(parsed[&name].get(), "null", "{kind}: {body}");
                continue;
            };
            match expected(*shown, text) {
                Some(value) => assert_eq!(parsed[&name].get(), value, "{kind}: {body}"),
                None => assert_same_number(*shown, parsed[&name].get(), text),
            }
        }
    }
}

#[tokio::test]
async fn live_and_existing_numbers_are_what_the_server_prints() {
    assert_agree(TABLES[0]).await;
    assert_agree(TABLES[1]).await;
}

#[tokio::test]
async fn live_and_existing_texts_and_bytes_are_what_the_server_prints() {
    assert_agree(TABLES[2]).await;
    assert_agree(TABLES[3]).await;
}

#[tokio::test]
async fn live_and_existing_dates_and_times_are_what_the_server_prints() {
    assert_agree(TABLES[4]).await;
}

#[tokio::test]
async fn live_and_existing_json_is_what_the_server_prints() {
    assert_agree(TABLES[5]).await;
}

#[tokio::test]
async fn live_and_existing_columns_of_special_kinds_are_what_the_server_prints() {
    assert_agree(TABLES[6]).await;
    let is_mariadb = crate::servers::mysql::MySql::shared().is_mariadb();
    assert_agree(if is_mariadb { OF_MARIADB } else { OF_MYSQL }).await;
}

/// Character sets that are refused by name.
const REFUSED: [&str; 6] = ["big5", "gb2312", "sjis", "ujis", "eucjpms", "binary"];

#[tokio::test]
async fn live_and_existing_texts_of_all_character_sets_are_what_the_server_prints() {
    const VALUE: &str =
        "CONCAT(ELT(1 + g % 8, 'a', 'äöÜß', '日本語', 'Ω≈ç', 'Жук', 'שלום', '한국', '€ ½'), g, ELT(1 + g % 3, '', ' ~', 'é'))";
    let server = crate::servers::mysql::MySql::shared();
    let names = server.sql("", "SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS ORDER BY 1");
    let names: Vec<_> = names.lines().filter(|name| !REFUSED.contains(name)).collect();
    assert!(25 < names.len(), "{names:?}");
    let kinds: Vec<String> = names.iter().map(|name| format!("varchar(60) CHARACTER SET {name}")).collect();
    for some in kinds.chunks(20) {
        let types: Vec<Type> = some.iter().map(|kind| (&*Box::leak(kind.clone().into_boxed_str()), VALUE, Text)).collect();
        assert_agree(&types).await;
    }
}
