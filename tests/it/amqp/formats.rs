//! CloudEvents on a real broker, read by an outside client.

use super::connector;
use super::dead_letters::letters;
use super::destination::{Destination, header};
use crate::contract_sink::{Builder, Settling, Spec, json, open};
use crate::servers::rabbitmq::RabbitMq;
use feedline::event::Operation;
use feedline::format::cloudevents::Mode;
use feedline::format::{Format, Part, carried};
use feedline::sink::Sink as _;
use feedline::sink::amqp::Options;
use lapin::types::{FieldTable, ShortString};
use std::sync::Arc;

fn cloud_events(mode: Mode) -> Format {
    let Format::Json(envelope) = json() else { unreachable!("it is JSON") };
    Format::CloudEvents(envelope, mode)
}

/// Publishes these events.
async fn publish(options: Options, records: &[Spec<'_>]) {
    let mut connector = connector(options);
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = builder.batch(records).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_message_is_an_event_by_its_headers_in_binary_mode_and_by_its_body_in_structured_mode() {
    for (mode, content_type) in [(Mode::Binary, "application/json"), (Mode::Structured, "application/cloudevents+json")] {
        let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
        let read = Spec { operation: Operation::Read, ..Spec::insert("shop/2", "{\"id\":3}", "{}") };
        let records = [Spec::insert("shop/1", "{\"id\":1}", "{\"v\":1}"), read];
        publish(Options { format: cloud_events(mode), ..destination.options() }, &records).await;
        let seen = destination.read();
        let [insert, read] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(insert.properties.content_type().as_ref().map(ShortString::as_str), Some(content_type));
        assert_eq!(insert.properties.message_id().as_ref().map(ShortString::as_str), Some("shop/1"));
        assert_eq!(header(&insert.headers, "feedline-table").as_deref(), Some("public.orders"));
        let is_binary = mode == Mode::Binary;
        for (name, value) in [
            ("cloudEvents:specversion", "1.0"),
            ("cloudEvents:id", "shop/1"),
            ("cloudEvents:source", "/feedline/shop/shop"),
            ("cloudEvents:type", "feedline.insert"),
            ("cloudEvents:subject", "public.orders/{\"id\":1}"),
            ("cloudEvents:time", "2023-11-14T22:13:20.123456Z"),
            ("cloudEvents:partitionkey", "{\"id\":1}"),
        ] {
            assert_eq!(header(&insert.headers, name).as_deref(), is_binary.then_some(value), "{name}");
        }
        assert_eq!(header(&insert.headers, "feedline-key").as_deref(), (!is_binary).then_some("{\"id\":1}"));
        assert_eq!(header(&read.headers, "cloudEvents:time"), None, "existing rows have no commit time");
    }
}

#[tokio::test]
async fn a_dead_letter_is_found_by_its_parts_in_every_format() {
    for format in [json(), cloud_events(Mode::Binary), cloud_events(Mode::Structured)] {
        let destination = Destination::new(RabbitMq::shared(), &["nothing"], FieldTable::default());
        let options = Options { format, dead_letter: Some(format!("{}.dead", destination.name).into()), ..destination.options() };
        publish(options.clone(), &[Spec::insert("shop/1", "{\"id\":1}", "{\"v\":1}")]).await;
        let letters = letters(&options).await;
        let [letter] = letters.as_slice() else { panic!("{letters:?}") };
        assert_eq!(carried(&letter.headers, Part::Id), Some("shop/1"));
        assert_eq!(carried(&letter.headers, Part::Table), Some("public.orders"));
        assert_eq!(letter.content_type.as_deref(), Some(options.format.content_type()));
        assert_eq!(letter.body.as_deref(), Some(&b"{\"v\":1}"[..]));
    }
}
