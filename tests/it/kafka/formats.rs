//! CloudEvents on a real broker, read by an outside client.

use super::real::{Real, aside};
use super::{Received, connector, options, read, submit};
use crate::contract_sink::{Builder, Settling, Spec, Subject as _, json, open};
use crate::servers::kafka::Kafka;
use feedline::event::Operation;
use feedline::format::Format;
use feedline::format::cloudevents::Mode;
use feedline::sink::kafka::Options;
use feedline::sink::kafka::consume::{Span, consume};
use feedline::sink::{Consumed, Sink as _};
use std::ops::ControlFlow;

/// What arrives of an insert, of the delete of a key change with its tombstone, and of a truncate.
async fn arrived(mode: Mode) -> Vec<Received> {
    let Format::Json(envelope) = json() else { unreachable!("it is JSON") };
    let (real, servers) = (Real::new(1, &[]), Kafka::shared().bootstrap());
    let mut connector = connector(Options { format: Format::CloudEvents(envelope, mode), ..options(&servers) }, real.feeds());
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let (old, new) = ("{\"id\":\"a\u{85}\"}", "{\"id\":2}");
    let records = [
        Spec::insert("shop/1", old, "{\"n\":1}"),
        Spec { operation: Operation::Delete, related: Some(new), tombstone: true, ..Spec::insert("shop/2", old, "{\"n\":2}") },
        Spec { operation: Operation::Truncate, ..Spec::insert("shop/3", "null", "{\"n\":3}") },
    ];
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    sink.close().await.unwrap();
    assert!(settling.next().await.confirmed);
    let mut types = Vec::new();
    let mut on_consumed = |event: Consumed| {
        types.push(event.content_type);
        ControlFlow::Continue(())
    };
    consume(&options(&servers), &[real.topic.as_str().into()], Span::Present, &mut on_consumed).await.unwrap();
    assert_eq!(types.iter().flatten().count(), 3, "all but the tombstone: {types:?}");
    aside(|| read(&servers, &real.topic))
}

fn headers(received: &Received) -> Vec<(&str, &str)> {
    received.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_binary_mode_is_an_event_by_its_headers() {
    let received = arrived(Mode::Binary).await;
    let [insert, delete, tombstone, truncate] = received.as_slice() else { panic!("{received:#?}") };
    let attributes = |id, of_type, subject| {
        vec![
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/feedline/shop/shop"),
            ("ce_type", of_type),
            ("ce_subject", subject),
            ("ce_time", "2023-11-14T22:13:20.123456Z"),
        ]
    };
    let (subject, key) = ("public.orders/{\"id\":\"a\\u0085\"}", ("ce_partitionkey", "{\"id\":\"a\\u0085\"}"));
    let (content, table) = (vec![("content-type", "application/json")], vec![("feedline-table", "public.orders")]);
    let expected = [content.clone(), attributes("shop/1", "feedline.insert", subject), vec![key], table.clone()].concat();
    assert_eq!(
        (headers(insert), insert.key.as_deref(), insert.body.as_deref()),
        (expected, Some("{\"id\":\"a\u{85}\"}"), Some("{\"n\":1}"))
    );
    let moved = vec![("feedline-new-key", "{\"id\":2}")];
    let expected = [attributes("shop/2", "feedline.delete", subject), vec![key], table.clone(), moved].concat();
    assert_eq!((headers(tombstone), tombstone.body.as_deref()), (expected.clone(), None), "an event without data");
    assert_eq!(headers(delete), [content.clone(), expected].concat());
    let expected = [content, attributes("shop/3", "feedline.truncate", "public.orders"), table].concat();
    assert_eq!(headers(truncate), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_structured_mode_says_so_and_keeps_our_headers() {
    let received = arrived(Mode::Structured).await;
    let [insert, _, tombstone, _] = received.as_slice() else { panic!("{received:#?}") };
    let ours = |id, operation| vec![("feedline-id", id), ("feedline-op", operation), ("feedline-table", "public.orders")];
    let content = vec![("content-type", "application/cloudevents+json")];
    assert_eq!(headers(insert), [content, ours("shop/1", "insert")].concat());
    assert_eq!(headers(tombstone), [ours("shop/2", "delete"), vec![("feedline-new-key", "{\"id\":2}")]].concat());
}
