//! CloudEvents, as specification 1.0.2 defines them.

use super::{Cells, envelope, event, feeds, only, relation, text, writer};
use feedline::event::{Cell, Event, Operation, Seen, Transaction};
use feedline::format::cloudevents::Mode;
use feedline::format::{Format, Protocol};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const ROW: [Cell<'static>; 2] = [Cell::Text("a\u{85}\"é"), Cell::Null];

fn format(mode: Mode) -> Format {
    Format::CloudEvents(Arc::new(envelope(true)), mode)
}

/// The attributes of an event and its data, in each of the three ways in which they are sent.
async fn sent(event: &Event<'static, Cells<'static>>) -> Vec<(BTreeMap<String, String>, Value)> {
    let mut found = Vec::new();
    for (mode, protocol, prefix) in
        [(Mode::Binary, Protocol::Kafka, "ce_"), (Mode::Binary, Protocol::Amqp, "cloudEvents:"), (Mode::Structured, Protocol::Kafka, "")]
    {
        let (format, mut out) = (format(mode), writer().await);
        let encoder = format.prepare(&relation(&[("id", true), ("note", false)])).await.unwrap();
        encoder.write(event, &mut out).unwrap();
        format.close(&mut out, true);
        let record = out.records().next().unwrap();
        let mut body: Value = serde_json::from_slice(record.body.unwrap()).unwrap();
        let mut attributes = BTreeMap::new();
        if mode == Mode::Structured {
            assert_eq!(format.content_type(), "application/cloudevents+json");
            let Value::Object(mut object) = body else { panic!("an object") };
            body = object.remove("data").unwrap();
            attributes.extend(object.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())));
        } else {
            attributes.insert("datacontenttype".to_owned(), format.content_type().to_owned());
            format.headers(protocol, &feeds()).visit(&record, |name, value| {
                if let Some(name) = name.strip_prefix(prefix) {
                    attributes.insert(name.to_owned(), text(value).to_owned());
                }
            });
        }
        found.push((attributes, body));
    }
    found
}

#[tokio::test]
async fn attributes_follow_the_grammar_and_are_the_same_in_headers_and_in_bodies() {
    let row = Some(Cells(&ROW));
    let of_row = |operation| Event {
        seen: Seen::In(Transaction { id: "1", index: 0 }),
        key: row,
        after: row.filter(|_| operation != Operation::Delete),
        ..event(operation)
    };
    for operation in Operation::ALL {
        let event = if operation.is_table_wide() { event(operation) } else { of_row(operation) };
        let sent = sent(&event).await;
        let (attributes, data) = &sent[0];
        assert!(sent.iter().all(|other| other == &sent[0]), "{sent:#?}");
        assert_eq!(data["v"], 1, "the data is our own event");
        for name in ["specversion", "id", "source", "type", "subject", "datacontenttype"] {
            assert!(!attributes[name].is_empty(), "{name}");
        }
        assert_eq!(attributes["specversion"], "1.0");
        assert_eq!(attributes["source"], "/feedline/shop/shop");
        assert_eq!(attributes["type"], format!("feedline.{operation}"));
        assert_eq!(attributes.get("time").map(String::as_str), (!operation.is_prefeed()).then_some("2026-11-23T07:25:28.123456Z"));
        let key = (!operation.is_table_wide()).then_some(r#"{"id":"a\u0085\"é"}"#);
        assert_eq!(attributes.get("partitionkey").map(String::as_str), key);
        assert_eq!(attributes["subject"], key.map_or("public.orders".to_owned(), |key| format!("public.orders/{key}")));
        for (name, value) in attributes {
            assert!(name.len() <= 20 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{name}");
            assert!(!value.chars().any(char::is_control), "{name}: {value:?}");
        }
    }
}

#[tokio::test]
async fn a_tombstone_is_an_event_without_data_in_binary_mode_and_none_in_structured_mode() {
    for (mode, expected) in [(Mode::Binary, true), (Mode::Structured, false)] {
        let (format, mut out) = (format(mode), writer().await);
        let encoder = format.prepare(&relation(&[("id", true), ("note", false)])).await.unwrap();
        encoder.write(&Event { key: Some(Cells(&ROW)), ..event(Operation::Delete) }, &mut out).unwrap();
        let tombstone = out.records().nth(1).unwrap();
        let mut names = Vec::new();
        format.headers(Protocol::Kafka, &feeds()).visit(&tombstone, |name, _| names.push(name));
        assert_eq!(names.contains(&"ce_id"), expected, "{names:?}");
        assert!(!names.contains(&"content-type"), "no data, no content type");
    }
}

#[tokio::test]
async fn names_of_tables_are_attributes_too() {
    let (format, mut out) = (format(Mode::Structured), writer().await);
    let relation = feedline::event::Relation { table: "a\"\n.b".into(), ..relation(&[("id", true)]) };
    let row = [Cell::Signed(1)];
    let event = Event { key: Some(Cells(&row)), after: Some(Cells(&row)), ..event(Operation::Insert) };
    format.prepare(&relation).await.unwrap().write(&event, &mut out).unwrap();
    let body: Value = serde_json::from_slice(only(&out).body.unwrap()).unwrap();
    assert_eq!(body["subject"], "public.\"a\"\"\\u000a.b\"/{\"id\":1}");
    assert_eq!(body["data"]["table"], "a\"\n.b");
}
