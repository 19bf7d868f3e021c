//! `sink.ordering`: the order in which a consumer that cannot compare positions receives events.

use super::connector;
use super::destination::Destination;
use super::retries::{id, refusing, until_refused};
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, feed, open};
use crate::servers::rabbitmq::RabbitMq;
use feedline::event::Operation;
use feedline::feed::Feeds;
use feedline::sink::amqp::{Connector, Options, Ordering};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::Metrics;
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::time::timeout;

/// Sends 600 events of ten keys into a queue that is often full while a consumer empties it: any event may be refused, and the next one
/// stored. Returns, for each key, the numbers of its events in the order in which they were stored.
async fn stored() -> BTreeMap<String, Vec<u64>> {
    let destination = Destination::new(RabbitMq::shared(), &["#"], refusing(25));
    let mut connector = connector(Options { ordering: Ordering::PerKey, ..destination.options() });
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let mut batches = Vec::new();
    for batch in 0..30 {
        let events: Vec<(String, String)> =
            (batch * 20..batch * 20 + 20).map(|n| (format!("shop/{n:06}"), format!("{}", n % 10))).collect();
        let specs: Vec<Spec<'_>> = events.iter().map(|(id, key)| Spec::insert(id, key, "{}")).collect();
        batches.push(builder.batch(&specs).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let subscriber = {
        let (destination, stop) = (destination.clone(), Arc::clone(&stop));
        std::thread::spawn(move || destination.take_until(&stop))
    };
    let mut first = 0;
    for attempt in 1.. {
        let mut session = open(&mut connector).await;
        for batch in &batches[first..] {
            if session.submit(Arc::clone(batch), settling.ack(batch, attempt)).await.is_err() {
                break;
            }
        }
        drop(session.close().await);
        // Like the engine, go on from the first batch that was not confirmed whole.
        let confirmed: Vec<_> = settling.so_far().into_iter().filter(|settled| settled.confirmed && settled.attempt == attempt).collect();
        while first < batches.len() && confirmed.iter().any(|settled| settled.seq == batches[first].seq()) {
            first += 1;
        }
        if first == batches.len() {
            break;
        }
        assert!(attempt < 1_000, "no progress at batch {first}");
    }
    stop.store(true, Relaxed);
    let mut stored: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for seen in subscriber.join().unwrap() {
        let id = seen.properties.message_id().as_ref().unwrap().as_str()[5..].parse().unwrap();
        stored.entry(seen.key).or_default().push(id);
    }
    stored
}

/// Counts the events that were stored before an earlier event of their key. A suffix may be stored twice.
fn early(stored: &BTreeMap<String, Vec<u64>>) -> usize {
    let mut early = 0;
    for (key, numbers) in stored {
        let mut next: u64 = key.parse().unwrap();
        for number in numbers {
            early += usize::from(next < *number);
            next = next.max(number + 10);
        }
        assert_eq!(next, 600 + key.parse::<u64>().unwrap(), "the last event of key {key}");
    }
    early
}

#[tokio::test]
async fn no_event_comes_before_an_earlier_one_of_its_key() {
    assert_eq!(early(&stored().await), 0);
}

/// Inserts go into a queue that holds one message, updates into one without a limit.
#[tokio::test]
async fn events_after_a_refused_event_of_their_key_wait_or_are_sent_twice() {
    for (ordering, before, after) in [
        // A reader that compares positions does not need `per_key`: it drops the event that came too early.
        (Ordering::GoBack, &["shop/2", "shop/3"][..], &["shop/2", "shop/3", "shop/2", "shop/3"][..]),
        (Ordering::PerKey, &[], &["shop/2", "shop/3"]),
    ] {
        let inserts = Destination::new(RabbitMq::shared(), &["insert"], refusing(1));
        let updates = Destination { name: format!("{}.updates", inserts.name), ..inserts.clone() };
        bind(&inserts, &updates, "update");
        let metrics = Metrics::new("shop").sink;
        let mut connector = Connector::new(Options { ordering, ..inserts.options() }, metrics.clone());
        let mut orders = feed("orders", "insert");
        orders.destinations[Operation::Update as usize] = "update".into();
        connector.select(Arc::new(Feeds::new(vec![orders])));
        let mut session = open(&mut connector).await;
        let (mut builder, mut settling) = (Builder::new(), Settling::new());
        let update = |id| Spec { operation: Operation::Update, ..Spec::insert(id, "1", "{}") };
        let specs = [Spec::insert("shop/0", "0", "{}"), Spec::insert("shop/1", "1", "{}"), update("shop/2"), update("shop/3")];
        let batch = builder.batch(&specs).await;
        session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
        until_refused(&metrics).await;
        assert_eq!(updates.read().iter().map(id).collect::<Vec<_>>(), before, "{ordering:?}");
        purge(&inserts);
        assert!(timeout(DEADLINE, settling.next()).await.unwrap().confirmed, "{ordering:?}");
        session.close().await.unwrap();
        assert_eq!(inserts.read().iter().map(id).collect::<Vec<_>>(), ["shop/1"], "{ordering:?}");
        assert_eq!(updates.read().iter().map(id).collect::<Vec<_>>(), after, "{ordering:?}");
    }
}

/// Makes `queue` and binds it to the exchange.
fn bind(exchange: &Destination, queue: &Destination, key: &'static str) {
    let (exchange, queue) = (exchange.name.clone(), queue.clone());
    queue.clone().with_channel(async move |channel| {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.name.as_str().into(), durable, FieldTable::default()).await.unwrap();
        let (queue, exchange) = (queue.name.as_str().into(), exchange.as_str().into());
        channel.queue_bind(queue, exchange, key.into(), QueueBindOptions::default(), FieldTable::default()).await.unwrap();
    });
}

/// Empties the queue.
fn purge(queue: &Destination) {
    let name = queue.name.clone();
    queue.with_channel(async move |channel| {
        channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
    });
}

#[tokio::test]
async fn a_table_wide_event_is_sent_alone() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let mut connector = connector(Options { ordering: Ordering::PerKey, ..destination.options() });
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let truncate = Spec { operation: Operation::Truncate, ..Spec::insert("shop/000001", "null", "{}") };
    let specs = [Spec::insert("shop/000000", "1", "{}"), truncate, Spec::insert("shop/000002", "1", "{}"), truncate];
    let batch = builder.batch(&specs).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    session.close().await.unwrap();
    assert_eq!(destination.read().len(), 4);
}
