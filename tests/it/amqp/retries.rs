//! Retries of refused and returned events within one session: until the event is stored, or is known to be unroutable.

use super::dead_letters::{header as letter_header, letters};
use super::destination::{Destination, header};
use super::{batches, connector};
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, feeds, open};
use crate::servers::rabbitmq::RabbitMq;
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::amqp::{Connector, Options, Ordering};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::{DeadLetter, Metrics, SinkMetrics};
use lapin::options::QueueBindOptions;
use lapin::types::{AMQPValue, FieldTable};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;

/// Arguments of a queue that refuses more than this many messages.
pub fn refusing(messages_max: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(messages_max));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments
}

/// Waits until the sink reports that it is blocked.
pub async fn until_refused(metrics: &SinkMetrics) {
    let refused = async {
        while metrics.blocked.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, refused).await.unwrap();
}

pub fn id(event: &super::destination::ReceivedEvent) -> String {
    event.properties.message_id().as_ref().unwrap().to_string()
}

#[tokio::test]
async fn a_batch_larger_than_a_full_queue_gets_through_as_it_is_emptied() {
    for ordering in [Ordering::GoBack, Ordering::PerKey] {
        let destination = Destination::new(RabbitMq::shared(), &["#"], refusing(10));
        let metrics = Metrics::new("shop").sink;
        let mut connector = Connector::new(Options { ordering, ..destination.options() }, metrics.clone());
        connector.select(feeds(&["orders"]));
        let mut session = open(&mut connector).await;
        let (mut builder, mut settling) = (Builder::new(), Settling::new());
        let ids: Vec<(String, String)> = (0..300).map(|n| (format!("shop/{n:06}"), n.to_string())).collect();
        let specs: Vec<Spec<'_>> = ids.iter().map(|(id, key)| Spec::insert(id, key, "{}")).collect();
        let batch = builder.batch(&specs).await;
        session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
        // While nothing is taken out of the queue, the sink waits and reports that it is blocked.
        until_refused(&metrics).await;
        assert!(settling.so_far().is_empty());
        let stop = Arc::new(AtomicBool::new(false));
        let subscriber = {
            let (destination, stop) = (destination.clone(), Arc::clone(&stop));
            std::thread::spawn(move || destination.take_until(&stop))
        };
        assert!(timeout(DEADLINE, settling.next()).await.unwrap().confirmed, "{ordering:?}");
        session.close().await.unwrap();
        assert_eq!(metrics.blocked.get(), 0);
        stop.store(true, Relaxed);
        let taken: Vec<String> = subscriber.join().unwrap().iter().map(id).collect();
        let distinct: BTreeSet<&String> = taken.iter().collect();
        assert_eq!(distinct.len(), 300, "{ordering:?}");
        // At most one window of events is sent again, not the whole batch again and again.
        assert!(taken.len() < 600, "{} for 300", taken.len());
    }
}

#[tokio::test]
async fn a_binding_missing_for_a_moment_is_waited_for() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let metrics = Metrics::new("shop").sink;
    let mut connector = Connector::new(destination.options(), metrics.clone());
    connector.select(feeds(&["orders"]));
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = batches(&mut builder, 1).await.remove(0);
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    until_refused(&metrics).await;
    let name = destination.name.clone();
    let binding = destination.clone();
    tokio::task::spawn_blocking(move || {
        binding.with_channel(async move |channel| {
            let (queue, exchange) = (name.as_str().into(), name.as_str().into());
            channel.queue_bind(queue, exchange, "#".into(), QueueBindOptions::default(), FieldTable::default()).await.unwrap();
        });
    })
    .await
    .unwrap();
    assert!(timeout(DEADLINE, settling.next()).await.unwrap().confirmed);
    session.close().await.unwrap();
    let stored: Vec<String> = destination.read().iter().map(id).collect();
    assert_eq!(stored.iter().collect::<BTreeSet<_>>().len(), 10);
    assert!(stored.is_sorted(), "the retried event first, then all its successors: {stored:?}");
}

/// The client attaches a returned message to whichever confirm it resolves next, among thousands that one frame confirms.
#[tokio::test]
async fn each_of_thousands_of_unroutable_events_becomes_a_dead_letter() {
    const EVENTS: usize = 4_000;
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let options = Options { dead_letter: Some(format!("{}.dead", destination.name).into()), window: 1_000, ..destination.options() };
    let metrics = Metrics::new("shop").sink;
    let mut connector = Connector::new(options.clone(), metrics.clone());
    connector.select(feeds(&["orders"]));
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    for batch in batches(&mut builder, EVENTS / 10).await {
        session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    }
    assert!(settling.take(EVENTS / 10).await.values().all(|confirmed| *confirmed));
    session.close().await.unwrap();
    assert_eq!(metrics.dead_letters(DeadLetter::Unroutable), EVENTS as u64);
    let ids: BTreeSet<String> = letters(&options).await.iter().map(|letter| letter_header(letter, "feedline-id")).collect();
    assert_eq!(ids.len(), EVENTS);
}

#[tokio::test]
async fn an_event_larger_than_the_brokers_limit_is_named_or_becomes_a_cut_dead_letter() {
    let broker = RabbitMq::start(&[("max_message_size", "2000")]);
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(5_000));
    let specs = [Spec::insert("shop/1", "1", "{}"), Spec::insert("shop/2", "2", &body), Spec::insert("shop/3", "3", "{}")];
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = builder.batch(&specs).await;
    // The broker's limit is unknown until it refuses an event. That ends the session, and the next one knows the limit.
    let mut limited = connector(destination.options());
    for (attempt, code, fault) in
        [(1, Code::RecordsUnconfirmed, Fault::Transient), (2, Code::RecordTooLarge, Fault::Fatal), (3, Code::RecordTooLarge, Fault::Fatal)]
    {
        let mut session = open(&mut limited).await;
        session.submit(Arc::clone(&batch), settling.ack(&batch, attempt)).await.unwrap();
        let error = timeout(DEADLINE, session.close()).await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.fault()), (code, fault), "{error}");
        let text = error.to_string();
        assert!(text.contains("2000"), "{text}");
        assert!(fault == Fault::Transient || text.contains("shop/2") && text.contains("public.orders"), "{text}");
        assert!(!settling.next().await.confirmed);
    }

    // The failed session's connection closes in the background, and only its own connector waits for that: the next one is another.
    open(&mut limited).await.close().await.unwrap();

    let options = Options { dead_letter: Some(format!("{}.dead", destination.name).into()), ..destination.options() };
    let mut with_dead_letters = connector(options.clone());
    let mut session = open(&mut with_dead_letters).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 4)).await.unwrap();
    timeout(DEADLINE, session.close()).await.unwrap().unwrap_err();
    assert!(!settling.next().await.confirmed);
    let mut session = open(&mut with_dead_letters).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 5)).await.unwrap();
    assert!(timeout(DEADLINE, settling.next()).await.unwrap().confirmed);
    session.close().await.unwrap();
    let found = letters(&options).await;
    let [letter] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(letter_header(letter, "feedline-id"), "shop/2");
    assert_eq!(letter_header(letter, "feedline-body-bytes"), body.len().to_string());
    assert_eq!(letter.body.as_deref(), Some(&body.as_bytes()[..2_000]));
    let stored: BTreeSet<String> = destination.read().iter().map(id).collect();
    assert_eq!(stored, BTreeSet::from(["shop/1".to_owned(), "shop/3".to_owned()]));
    assert_eq!(header(&destination.read()[0].headers, "feedline-body-bytes"), None);
}

#[tokio::test]
async fn a_deleted_lock_ends_the_session() {
    let broker = Arc::new(RabbitMq::start(&[]));
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    let lock = format!("{}.lock", destination.name);
    let removing = Arc::clone(&broker);
    let script = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{lock}\">>)), rabbit_amqqueue:delete(Q, false, false, <<\"test\">>)."
    );
    tokio::task::spawn_blocking(move || removing.ctl(&["eval", &script])).await.unwrap();
    let (mut builder, settling) = (Builder::new(), Settling::new());
    let error = timeout(DEADLINE, async {
        loop {
            let batch = batches(&mut builder, 1).await.remove(0);
            if let Err(error) = session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let error = error.await.unwrap();
    assert_eq!(error.fault(), Fault::Transient, "{error}");
    assert!(error.to_string().contains(&lock), "{error}");
}
