//! Events of version 1, compared byte by byte.

use super::{Cells, POSITION, envelope, event, only, relation, text, writer};
use feedline::batch::{Budget, Record, Seq};
use feedline::checkpoint::{Progress, ResumeToken};
use feedline::event::{Bytes, Cell, Event, FeedId, Fields, Operation, RowError, Seen, Transaction};
use feedline::format::json::{Encoder, close};
use proptest::prelude::*;
use serde_json::Value;

fn encoder(columns: &[(&str, bool)], tombstones: bool) -> Encoder {
    Encoder::new(&envelope(tombstones), &relation(columns)).unwrap()
}

fn orders(tombstones: bool) -> Encoder {
    encoder(&[("id", true), ("status", false), ("total", false), ("note", false)], tombstones)
}

#[tokio::test]
async fn an_update_lists_the_values_that_the_log_left_out() {
    let row = [Cell::Integer("7"), Cell::Text("paid"), Cell::Decimal("10.50"), Cell::Unchanged];
    let mut out = writer().await;
    let event = Event {
        seen: Seen::In(Transaction { id: "727", index: 3 }),
        key: Some(Cells(&row)),
        after: Some(Cells(&row)),
        ..event(Operation::Update)
    };
    orders(true).write(&event, &mut out).unwrap();
    assert!(out.is_open() && out.is_empty());
    close(&mut out, true);
    let record = only(&out);
    assert_eq!(text(record.id), "shop/00000001-00000000016B3748-1-0000000000000030");
    assert_eq!(text(record.key), r#"{"id":7}"#);
    assert_eq!(record.related_key, None);
    assert_eq!((record.head.feed, record.head.operation, record.head.timestamp), (FeedId(0), Operation::Update, event.timestamp));
    assert_eq!(
        text(record.body.unwrap()),
        concat!(
            r#"{"v":1,"op":"update","schema":"public","table":"orders","key":{"id":7},"#,
            r#""before":null,"after":{"id":7,"status":"paid","total":"10.50"},"unchanged":["note"],"#,
            r#""source":{"backend":"postgres","name":"shop","database":"shop","position":"00000001-00000000016B3748-1-0000000000000030","#,
            r#""committed_at":"2026-11-23T07:25:28.123456Z","transaction":"727","index":3,"last":true}}"#,
        )
    );
}

#[tokio::test]
async fn an_update_has_the_old_row_and_the_new_row() {
    let old = [Cell::Integer("7"), Cell::Null, Cell::Absent, Cell::Absent];
    let new = [Cell::Integer("7"), Cell::Text("a\"b"), Cell::Null, Cell::Unchanged];
    let mut out = writer().await;
    let event = Event { key: Some(Cells(&new)), before: Some(Cells(&old)), after: Some(Cells(&new)), ..event(Operation::Update) };
    orders(true).write(&event, &mut out).unwrap();
    let body = text(only(&out).body.unwrap());
    assert!(
        body.contains(r#","before":{"id":7,"status":null},"after":{"id":7,"status":"a\"b","total":null},"unchanged":["note"],"source":{"#),
        "{body}"
    );
}

#[tokio::test]
async fn a_delete_is_followed_by_a_tombstone() {
    let row = [Cell::Integer("7"), Cell::Absent, Cell::Absent, Cell::Absent];
    let mut out = writer().await;
    let event = Event { seen: Seen::In(Transaction { id: "727", index: 0 }), key: Some(Cells(&row)), ..event(Operation::Delete) };
    orders(true).write(&event, &mut out).unwrap();
    close(&mut out, false);
    let records: Vec<_> = out.records().collect();
    let [delete, tombstone] = records[..] else { panic!("two records") };
    let body = text(delete.body.unwrap());
    assert!(
        body.starts_with(r#"{"v":1,"op":"delete","schema":"public","table":"orders","key":{"id":7},"before":null,"after":null,"source":{"#)
    );
    assert!(body.ends_with(r#","transaction":"727","index":0,"last":false}}"#));
    assert_eq!(tombstone, Record { body: None, ..delete });
}

#[tokio::test]
async fn without_tombstones_a_delete_is_one_record() {
    let row = [Cell::Integer("7"), Cell::Absent, Cell::Absent, Cell::Absent];
    let mut out = writer().await;
    orders(false).write(&Event { key: Some(Cells(&row)), ..event(Operation::Delete) }, &mut out).unwrap();
    assert!(only(&out).body.is_some());
}

#[tokio::test]
async fn a_delete_and_an_insert_for_a_changed_key_name_each_other() {
    let old = [Cell::Integer("7"), Cell::Absent, Cell::Absent, Cell::Absent];
    let new = [Cell::Integer("8"), Cell::Text("paid"), Cell::Null, Cell::Null];
    let mut out = writer().await;
    let encoder = orders(true);
    let delete = Event { key: Some(Cells(&old)), counterpart: Some(Cells(&new)), ..event(Operation::Delete) };
    let insert = Event { key: Some(Cells(&new)), after: Some(Cells(&new)), counterpart: Some(Cells(&old)), ..event(Operation::Insert) };
    encoder.write(&delete, &mut out).unwrap();
    encoder.write(&insert, &mut out).unwrap();
    let records: Vec<_> = out.records().map(|record| (text(record.key), record.related_key.map(text), record.body.is_some())).collect();
    assert_eq!(
        records,
        [
            (r#"{"id":7}"#, Some(r#"{"id":8}"#), true),
            (r#"{"id":7}"#, Some(r#"{"id":8}"#), false),
            (r#"{"id":8}"#, Some(r#"{"id":7}"#), true),
        ]
    );
}

#[tokio::test]
async fn prefeed_rows_have_no_commit_time_and_no_transaction() {
    let row = [Cell::Integer("7"), Cell::Null, Cell::Null, Cell::Null];
    let mut out = writer().await;
    orders(true).write(&Event { key: Some(Cells(&row)), after: Some(Cells(&row)), ..event(Operation::Read) }, &mut out).unwrap();
    let body = text(only(&out).body.unwrap());
    assert!(body.starts_with(r#"{"v":1,"op":"read","#));
    assert!(body.ends_with(r#""committed_at":null,"transaction":null,"index":null,"last":null}}"#));
}

#[tokio::test]
async fn table_wide_events_have_a_null_key() {
    for (operation, committed_at) in [(Operation::Truncate, r#""2026-11-23T07:25:28.123456Z""#), (Operation::Reset, "null")] {
        let mut out = writer().await;
        orders(true).write(&event(operation), &mut out).unwrap();
        let record = only(&out);
        assert_eq!(text(record.key), "null");
        let body = text(record.body.unwrap());
        assert_eq!(
            body,
            format!(
                concat!(
                    r#"{{"v":1,"op":"{}","schema":"public","table":"orders","key":null,"before":null,"after":null,"#,
                    r#""source":{{"backend":"postgres","name":"shop","database":"shop","position":"{}","#,
                    r#""committed_at":{},"transaction":null,"index":null,"last":null}}}}"#,
                ),
                operation,
                text(POSITION),
                committed_at
            )
        );
    }
}

#[tokio::test]
async fn a_change_that_was_found_by_comparison_is_marked() {
    let row = [Cell::Integer("7"), Cell::Null, Cell::Null, Cell::Null];
    let mut out = writer().await;
    let event = Event { seen: Seen::ByComparison, key: Some(Cells(&row)), ..event(Operation::Delete) };
    orders(false).write(&event, &mut out).unwrap();
    let record = only(&out);
    assert!(text(record.body.unwrap()).ends_with(r#","transaction":null,"index":null,"last":null,"compensating":true}}"#));
}

#[tokio::test]
async fn a_compound_key_is_in_table_order() {
    let row = [Cell::Text("é\n"), Cell::Integer("1"), Cell::Text("x")];
    let mut out = writer().await;
    let encoder = encoder(&[("b\"c", true), ("v", false), ("a", true)], true);
    encoder.write(&Event { key: Some(Cells(&row)), after: Some(Cells(&row)), ..event(Operation::Insert) }, &mut out).unwrap();
    let record = only(&out);
    assert_eq!(text(record.key), r#"{"b\"c":"é\n","a":"x"}"#);
    assert!(text(record.body.unwrap()).contains(r#""key":{"b\"c":"é\n","a":"x"},"before":null,"after":{"b\"c":"é\n","v":1,"a":"x"},"#));
}

#[tokio::test]
async fn a_malformed_row_leaves_the_batch_unchanged() {
    let good = [Cell::Integer("7"), Cell::Null, Cell::Null, Cell::Null];
    let short = &good[..3];
    let long = [Cell::Integer("7"); 5];
    let keyless = [Cell::Unchanged, Cell::Null, Cell::Null, Cell::Null];
    let hex = [Cell::Integer("7"), Cell::Bytes(Bytes::Hex(b"0g")), Cell::Null, Cell::Null];
    let odd = [Cell::Integer("7"), Cell::Bytes(Bytes::Hex(b"000")), Cell::Null, Cell::Null];
    let mut out = writer().await;
    let encoder = orders(true);
    encoder.write(&Event { key: Some(Cells(&good)), after: Some(Cells(&good)), ..event(Operation::Insert) }, &mut out).unwrap();
    let before = text(only(&out).body.unwrap()).to_owned();
    for bad in [short, &long, &keyless, &hex, &odd] {
        let event = Event { key: Some(Cells(bad)), after: Some(Cells(bad)), ..event(Operation::Insert) };
        assert!(matches!(encoder.write(&event, &mut out), Err(RowError::Malformed { .. })));
    }
    assert!(encoder.write(&event(Operation::Insert), &mut out).is_err(), "no key");
    assert_eq!(text(only(&out).body.unwrap()), before);
}

#[tokio::test]
async fn an_open_event_is_completed_in_the_next_batch() {
    let row = [Cell::Integer("7"), Cell::Null, Cell::Null, Cell::Null];
    let budget = Budget::new(1 << 20, 1 << 18);
    let mut out = budget.writer().await;
    let event = Event { seen: Seen::In(Transaction { id: "1", index: 0 }), key: Some(Cells(&row)), ..event(Operation::Delete) };
    orders(true).write(&event, &mut out).unwrap();
    let (batch, open) = out.seal(Seq(1), Progress::live(ResumeToken("t".into())));
    assert!(batch.is_empty());
    let mut out = budget.writer().await;
    out.adopt(&open.unwrap());
    close(&mut out, true);
    let records: Vec<_> = out.records().collect();
    assert_eq!(records.len(), 2);
    assert!(text(records[0].body.unwrap()).ends_with(r#""last":true}}"#));
    assert_eq!(text(records[1].key), r#"{"id":7}"#);
}

/// The JSON of a cell in an event.
async fn shown(cell: Cell<'_>) -> String {
    let row = [Cell::Integer("1"), cell];
    let mut out = writer().await;
    let encoder = encoder(&[("id", true), ("v", false)], false);
    let event = Event { key: Some(Cells(&row[..])), after: Some(Cells(&row[..])), ..event(Operation::Insert) };
    encoder.write(&event, &mut out).unwrap();
    let body = text(only(&out).body.unwrap());
    assert!(serde_json::from_str::<&serde_json::value::RawValue>(body).is_ok(), "{body}");
    let (_, rest) = body.split_once(r#""after":{"id":1,"v":"#).unwrap();
    let (value, _) = rest.rsplit_once(r#"},"source":{"#).unwrap();
    value.to_owned()
}

/// A document.
struct Document;

impl Fields for Document {
    fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        visit("a\"", Cell::Array(&Cells(&[Cell::Null, Cell::Signed(1)])))?;
        visit("b", Cell::MisplacedBytes(Bytes::Raw(b"a")))
    }
}

#[tokio::test]
async fn each_kind_of_cell_has_its_json() {
    let inner = [Cell::Null, Cell::Integer("1")];
    let elements = [Cell::Text("a,\""), Cell::Array(&Cells(&inner)), Cell::Array(&Cells(&[]))];
    for (cell, expected) in [
        (Cell::Null, "null"),
        (Cell::Boolean(true), "true"),
        (Cell::Boolean(false), "false"),
        (Cell::Integer("-9223372036854775808"), "-9223372036854775808"),
        (Cell::Float("0.1"), "0.1"),
        (Cell::Float("1e+20"), "1e+20"),
        (Cell::Float("-0"), "-0"),
        (Cell::Float("NaN"), "\"NaN\""),
        (Cell::Float("Infinity"), "\"Infinity\""),
        (Cell::Float("-Infinity"), "\"-Infinity\""),
        (Cell::Decimal("10.50"), "\"10.50\""),
        (Cell::Text("a\tb"), "\"a\\tb\""),
        (Cell::Signed(-7), "-7"),
        (Cell::Unsigned(u64::MAX), "18446744073709551615"),
        (Cell::Double(1.0), "1.0"),
        (Cell::Double(f64::NEG_INFINITY), "\"-Infinity\""),
        (Cell::Bytes(Bytes::Raw(b"")), "\"\""),
        (Cell::Bytes(Bytes::Raw(&[0xfb, 0xff])), "\"+/8=\""),
        (Cell::Bytes(Bytes::Hex(b"fBfF")), "\"+/8=\""),
        (Cell::MisplacedBytes(Bytes::Raw(b"abc")), "{\"base64\":\"YWJj\"}"),
        (Cell::Json("{ \"a\" : [1.0, \" \"] }"), "{\"a\":[1.0,\" \"]}"),
        (Cell::Json("{\"a\""), "\"{\\\"a\\\"\""),
        (Cell::Date("2026-11-23"), "\"2026-11-23\""),
        (Cell::Date("infinity"), "\"infinity\""),
        (Cell::Time("07:25:28.5"), "\"07:25:28.5\""),
        (Cell::Interval("P1Y2M3DT4H5M6S"), "\"P1Y2M3DT4H5M6S\""),
        (Cell::Timestamp("2026-11-23 07:25:28"), "\"2026-11-23T07:25:28\""),
        (Cell::Timestamp("2026-11-23 07:25:28.123"), "\"2026-11-23T07:25:28.123\""),
        (Cell::Timestamp("10000-01-01 00:00:00"), "\"10000-01-01 00:00:00\""),
        (Cell::Timestamp("0044-03-15 00:00:00 BC"), "\"0044-03-15 00:00:00 BC\""),
        (Cell::Timestamp("-infinity"), "\"-infinity\""),
        (Cell::TimestampUtc("2026-11-23 07:25:28.123456+00"), "\"2026-11-23T07:25:28.123456Z\""),
        (Cell::TimestampUtc("10000-01-01 00:00:00+00"), "\"10000-01-01 00:00:00+00\""),
        (Cell::TimestampUtc("0044-03-15 00:00:00+00 BC"), "\"0044-03-15 00:00:00+00 BC\""),
        (Cell::TimestampUtc("infinity"), "\"infinity\""),
        (Cell::Object(&Document), "{\"a\\\"\":[null,1],\"b\":{\"base64\":\"YQ==\"}}"),
        (Cell::Array(&Cells(&elements)), "[\"a,\\\"\",[null,1],[]]"),
    ] {
        assert_eq!(shown(cell).await, expected);
    }
}

#[tokio::test]
async fn long_bytes_are_written_without_padding_in_between() {
    for length in 0..1200_usize {
        let bytes: Vec<u8> = (0..length).map(|index| u8::try_from(index * 7 % 256).unwrap()).collect();
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(shown(Cell::Bytes(Bytes::Hex(hex.as_bytes()))).await, shown(Cell::Bytes(Bytes::Raw(&bytes))).await);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_can_be_read_back_from_every_field(value in any::<String>(), column in any::<String>(), id in any::<String>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut out = runtime.block_on(writer());
        let row = [Cell::Text(&value), Cell::Json(&value), Cell::Float(&value), Cell::Timestamp(&value), Cell::TimestampUtc(&value)];
        let encoder = encoder(&[(&column, true), ("j", false), ("f", false), ("t", false), ("u", false)], true);
        let event = Event {
            seen: Seen::In(Transaction { id: &id, index: u64::MAX }),
            key: Some(Cells(&row)),
            after: Some(Cells(&row)),
            ..event(Operation::Insert)
        };
        encoder.write(&event, &mut out).unwrap();
        close(&mut out, false);
        let record = only(&out);
        let key: Value = serde_json::from_slice(record.key).unwrap();
        let body: Value = serde_json::from_slice(record.body.unwrap()).unwrap();
        prop_assert_eq!(&key[&column], &Value::from(value.clone()));
        prop_assert_eq!(&body["key"], &key);
        prop_assert_eq!(&body["source"]["transaction"], &Value::from(id));
        prop_assert_eq!(&body["source"]["index"], &Value::from(u64::MAX));
    }
}
