//! The bytes of each format's messages, as they are in `tests/golden/formats`. `GOLDEN_WRITE=1` writes the files anew.

use super::{Cells, event, feeds, formats, relation, text, writer};
use feedline::batch::Record;
use feedline::event::{Cell, Event, Operation, Seen, Transaction};
use feedline::format::{Format, Protocol};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const OLD: [Cell<'static>; 3] = [Cell::Text("ä\u{85}\"7"), Cell::Absent, Cell::Absent];
const NEW: [Cell<'static>; 3] = [Cell::Text("8"), Cell::Decimal("10.50"), Cell::Unchanged];

fn events() -> Vec<Event<'static, Cells<'static>>> {
    let of = |index, operation| Event { seen: Seen::In(Transaction { id: "727", index }), ..event(operation) };
    let (old, new) = (Some(Cells(&OLD)), Some(Cells(&NEW)));
    vec![
        Event { key: new, after: new, ..event(Operation::Read) },
        Event { key: new, after: new, ..of(0, Operation::Update) },
        Event { key: old, counterpart: new, ..of(1, Operation::Delete) },
        Event { key: new, after: new, counterpart: old, ..of(2, Operation::Insert) },
        of(3, Operation::Truncate),
        event(Operation::Reset),
    ]
}

/// A message as text: a line for each header, the key, the body.
fn message(format: &Format, protocol: Protocol, record: &Record<'_>, out: &mut String) {
    writeln!(out, "-- {protocol:?} {}", record.head.operation).unwrap();
    format.headers(protocol, &feeds()).visit(record, |name, value| writeln!(out, "{name}: {}", text(value).escape_debug()).unwrap());
    writeln!(out, "key {}", text(record.key).escape_debug()).unwrap();
    match record.body {
        Some(body) => writeln!(out, "{} {}", format.content_type(), text(body)).unwrap(),
        None => writeln!(out, "no body").unwrap(),
    }
}

#[tokio::test]
async fn every_byte_of_a_message_is_as_it_was() {
    for (name, format) in formats(true) {
        let encoder = format.prepare(&relation(&[("id", true), ("total", false), ("note", false)])).await.unwrap();
        let mut written = String::new();
        for event in events() {
            let mut out = writer().await;
            encoder.write(&event, &mut out).unwrap();
            format.close(&mut out, event.operation == Operation::Truncate);
            for protocol in [Protocol::Kafka, Protocol::Amqp] {
                out.records().for_each(|record| message(&format, protocol, &record, &mut written));
            }
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/formats/{name}.txt"));
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            fs::write(&path, &written).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), written, "{name}");
    }
}
