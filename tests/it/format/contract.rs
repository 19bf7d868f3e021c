//! What every format promises.

use super::{Cells, event, feeds, formats, only, relation, text, writer};
use feedline::batch::{BatchWriter, Budget, Seq};
use feedline::checkpoint::{Progress, ResumeToken};
use feedline::event::{Bytes, Cell, Event, Operation, Position, RowError, Seen, Timestamp, Transaction};
use feedline::format::{Encoder, Format, Protocol};

const ROW: [Cell<'static>; 2] = [Cell::Signed(7), Cell::Text("paid")];
const DELETED: [Cell<'static>; 2] = [Cell::Signed(7), Cell::Absent];

async fn orders(format: &Format) -> Encoder {
    format.prepare(&relation(&[("id", true), ("status", false)])).await.unwrap()
}

fn insert() -> Event<'static, Cells<'static>> {
    Event { key: Some(Cells(&ROW)), after: Some(Cells(&ROW)), ..event(Operation::Insert) }
}

fn of_transaction(index: u64, event: Event<'static, Cells<'static>>) -> Event<'static, Cells<'static>> {
    Event { seen: Seen::In(Transaction { id: "727", index }), ..event }
}

/// Id, key and body.
type Written = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// The closed records.
fn records(out: &BatchWriter) -> Vec<Written> {
    out.records().map(|record| (record.id.to_vec(), record.key.to_vec(), record.body.map(<[u8]>::to_vec))).collect()
}

#[tokio::test]
async fn the_same_event_has_the_same_bytes() {
    for (name, format) in formats(true) {
        let (mut first, mut second) = (writer().await, writer().await);
        for out in [&mut first, &mut second] {
            orders(&format).await.write(&insert(), out).unwrap();
        }
        assert_eq!(records(&first), records(&second), "{name}");
        assert!(text(only(&first).id).starts_with("shop/"), "{name}: an id begins with the pipeline's name");
    }
}

#[tokio::test]
async fn an_event_of_a_transaction_stays_open_until_it_is_known_to_be_the_last_or_not() {
    for (name, format) in formats(true) {
        let budget = Budget::new(1 << 20, 1 << 18);
        let mut bodies = Vec::new();
        for last in [false, true] {
            let mut out = budget.writer().await;
            format.close(&mut out, last);
            orders(&format).await.write(&of_transaction(0, insert()), &mut out).unwrap();
            assert!(out.is_open() && out.is_empty(), "{name}");
            let (_, open) = out.seal(Seq(1), Progress::live(ResumeToken("t".into())));
            let mut out = budget.writer().await;
            out.adopt(&open.unwrap());
            format.close(&mut out, last);
            assert!(!out.is_open(), "{name}");
            bodies.push(only(&out).body.unwrap().to_vec());
        }
        assert_ne!(bodies[0], bodies[1], "{name}: the body tells");
    }
}

#[tokio::test]
async fn a_tombstone_follows_a_delete_and_shares_its_id_and_key() {
    for tombstones in [true, false] {
        for (name, format) in formats(tombstones) {
            let mut out = writer().await;
            let delete = Event { key: Some(Cells(&DELETED)), ..event(Operation::Delete) };
            orders(&format).await.write(&of_transaction(0, delete), &mut out).unwrap();
            format.close(&mut out, true);
            let records = records(&out);
            assert!(records[0].2.is_some(), "{name}");
            let tombstone = (records[0].0.clone(), records[0].1.clone(), None);
            assert_eq!(records[1..], vec![tombstone; usize::from(tombstones)], "{name}");
        }
    }
}

#[tokio::test]
async fn a_row_that_does_not_fit_its_relation_leaves_the_batch_unchanged() {
    let bad: [&[Cell<'static>]; 4] = [
        &[Cell::Signed(7)],
        &[Cell::Signed(7), Cell::Null, Cell::Null],
        &[Cell::Unchanged, Cell::Null],
        &[Cell::Signed(7), Cell::Bytes(Bytes::Hex(b"0g"))],
    ];
    for (name, format) in formats(true) {
        let (mut out, encoder) = (writer().await, orders(&format).await);
        encoder.write(&insert(), &mut out).unwrap();
        let before = records(&out);
        for row in bad {
            let event = Event { key: Some(Cells(row)), after: Some(Cells(row)), ..event(Operation::Insert) };
            assert!(matches!(encoder.write(&event, &mut out), Err(RowError::Malformed { .. })), "{name}");
        }
        assert!(encoder.write(&event(Operation::Insert), &mut out).is_err(), "{name}: an event without a key");
        assert_eq!(records(&out), before, "{name}");
    }
}

#[tokio::test]
async fn a_reset_is_the_event_that_the_tables_encoder_writes() {
    for (name, format) in formats(true) {
        let (mut reset, mut written) = (writer().await, writer().await);
        let (feeds, now) = (feeds(), Timestamp(1_795_418_728_123_456));
        format.write_reset(feeds.iter().next().unwrap(), Position::new(super::POSITION), now, &mut reset).unwrap();
        orders(&format).await.write(&event(Operation::Reset), &mut written).unwrap();
        assert_eq!(records(&reset), records(&written), "{name}");
        assert_eq!(text(only(&reset).key), "null", "{name}");
    }
}

#[tokio::test]
async fn headers_are_named_once_and_none_of_a_dead_letters_holds_its_key() {
    for (name, format) in formats(true) {
        for protocol in [Protocol::Kafka, Protocol::Amqp] {
            let mut out = writer().await;
            let moved = Event { counterpart: Some(Cells(&ROW)), ..insert() };
            orders(&format).await.write(&moved, &mut out).unwrap();
            let (headers, record) = (format.headers(protocol, &feeds()), only(&out));
            let (mut names, mut size_bytes) = (Vec::new(), 0);
            headers.visit(&record, |header, value| {
                names.push(header);
                size_bytes += header.len() + value.len();
            });
            assert_eq!(headers.size_bytes(&record), size_bytes, "{name}");
            assert!(names.len() <= headers.max(), "{name}");
            names.sort_unstable();
            names.dedup();
            let mut count = 0;
            headers.visit(&record, |_, _| count += 1);
            assert_eq!(names.len(), count, "{name}: {names:?}");
            headers.without_keys().visit(&record, |header, value| {
                assert!(!text(value).contains("{\"id\":7}"), "{name}: {header} holds the key");
            });
        }
    }
}
