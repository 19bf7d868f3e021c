//! Dead letters: events that the exchange or the broker does not accept, if `sink.on_unpublishable` says so.

use super::destination::Destination;
use super::{batches, connector};
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, feeds, open};
use crate::servers::rabbitmq::RabbitMq;
use feedline::event::Operation;
use feedline::fault::{Classify, Code};
use feedline::sink::amqp::{Connector, Error, Options, Ordering, consume};
use feedline::sink::{Consumed, Sink, SinkConnector};
use feedline::status::metrics::{DeadLetter, Metrics};
use lapin::types::FieldTable;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::{Instant, timeout};

fn options(destination: &Destination) -> Options {
    Options { dead_letter: Some(format!("{}.dead", destination.name).into()), ..destination.options() }
}

pub(super) async fn letters(options: &Options) -> Vec<Consumed> {
    let mut received = Vec::new();
    let mut on_consumed = |event| {
        received.push(event);
        ControlFlow::Continue(())
    };
    consume::dead_letters(options, options.dead_letter.as_deref().unwrap(), &mut on_consumed).await.unwrap();
    received
}

pub(super) fn header(event: &Consumed, name: &str) -> String {
    event.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_event_that_no_queue_takes_becomes_a_dead_letter_with_its_reason() {
    for ordering in [Ordering::GoBack, Ordering::PerKey] {
        // Updates have a queue, inserts have none.
        let destination = Destination::new(RabbitMq::shared(), &["*.update"], FieldTable::default());
        let options = Options { ordering, ..options(&destination) };
        let metrics = Metrics::new("shop").sink;
        let mut connector = Connector::new(options.clone(), metrics.clone());
        let mut feed = crate::contract_sink::feed("orders", "orders.insert");
        feed.destinations[Operation::Update as usize] = "orders.update".into();
        connector.select(Arc::new(feedline::feed::Feeds::new(vec![feed])));
        let mut session = open(&mut connector).await;
        let (mut builder, mut settling) = (Builder::new(), Settling::new());
        for batch in 0..20 {
            let ids: Vec<String> = (0..20).map(|record| format!("shop/{:06}", batch * 20 + record)).collect();
            let spec = |(number, id): (usize, &'static str)| {
                let operation = if number % 3 == 0 { Operation::Insert } else { Operation::Update };
                Spec { operation, ..Spec::insert(id, "{\"id\":1}", "{\"v\":1}") }
            };
            let specs: Vec<Spec<'_>> = ids.iter().map(|id| &*String::leak(id.clone())).enumerate().map(spec).collect();
            let batch = builder.batch(&specs).await;
            session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
        }
        assert!(settling.take(20).await.values().all(|confirmed| *confirmed), "each batch is confirmed whole");
        session.close().await.unwrap();
        let letters = letters(&options).await;
        assert_eq!((destination.read().len(), letters.len()), (260, 140));
        assert_eq!(metrics.dead_letters(DeadLetter::Unroutable), 140);
        let first = &letters[0];
        assert_eq!(header(first, "feedline-id"), "shop/000000");
        assert_eq!(header(first, "feedline-table"), "public.orders");
        assert_eq!(header(first, "feedline-destination"), format!("{}/orders.insert", destination.name));
        assert!(header(first, "feedline-error").starts_with("FL3203 "), "{first:?}");
        assert_eq!(first.body.as_deref(), Some(&b"{\"v\":1}"[..]));
        // Reading removes nothing.
        assert_eq!(self::letters(&options).await.len(), 140);
    }
}

#[tokio::test]
async fn an_event_whose_key_is_larger_than_a_frame_becomes_a_dead_letter_without_its_key() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let options = options(&destination);
    let mut connector = connector(options.clone());
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let key = format!("{{\"id\":\"{}\"}}", "x".repeat(140_000));
    let specs = [Spec::insert("shop/1", "1", "{}"), Spec::insert("shop/2", &key, "{\"v\":2}"), Spec::insert("shop/3", "3", "{}")];
    let batch = builder.batch(&specs).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    session.close().await.unwrap();
    let letters = letters(&options).await;
    assert_eq!((destination.read().len(), letters.len()), (2, 1));
    assert_eq!((header(&letters[0], "feedline-id").as_str(), letters[0].body.as_deref()), ("shop/2", Some(&b"{\"v\":2}"[..])));
    assert!(header(&letters[0], "feedline-error").starts_with("FL3007 "));
}

#[tokio::test]
async fn a_dead_letter_that_no_queue_takes_stops_the_pipeline() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let options = options(&destination);
    connector(options.clone()).establish().await.unwrap();
    let name = options.dead_letter.clone().unwrap();
    destination.with_channel(async move |channel| {
        channel.queue_delete((&*name).into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    });
    // With `declare` off the queue is not declared again.
    let mut connector = Connector::new(Options { declare: false, ..options }, Metrics::new("shop").sink);
    connector.select(feeds(&["orders"]));
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = batches(&mut builder, 1).await.remove(0);
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    let error = timeout(DEADLINE, session.close()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::EventUnroutable);
    assert!(matches!(&error, Error::Unroutable { exchange, .. } if *exchange == format!("{}.dead", destination.name)), "{error}");
    assert!(!settling.next().await.confirmed);
}

#[tokio::test]
async fn a_consumer_receives_published_events_and_takes_nothing_away() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let options = destination.options();
    connector(options.clone()).establish().await.unwrap();
    let consumer_options = options.clone();
    let received = tokio::spawn(async move {
        let mut received = Vec::new();
        let mut on_consumed = |event: Consumed| {
            received.push(event.address);
            if received.len() == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        consume::consume(&consumer_options, &["shop.public.*".into()], &mut on_consumed).await.unwrap();
        received
    });
    let mut connector = connector(options);
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let (mut sent, deadline) = (0, Instant::now() + DEADLINE);
    while !received.is_finished() {
        assert!(Instant::now() < deadline, "ten events are received");
        let batch = batches(&mut builder, 1).await.remove(0);
        session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
        assert!(settling.next().await.confirmed);
        sent += 10;
    }
    session.close().await.unwrap();
    assert_eq!(received.await.unwrap(), vec!["shop.public.orders"; 10]);
    assert_eq!(destination.read().len(), sent);
}
