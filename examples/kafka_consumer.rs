//! Folds feedline's events from Kafka topics into tables, and prints them once no event has arrived for five seconds.
//! `cargo run --example kafka_consumer 127.0.0.1:9092 shop.public.orders`

mod tables;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message};
use serde_json::{Value, from_slice};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m [u8]> {
    message.headers()?.iter().find(|header| header.key == name)?.value
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (servers, topics) = arguments.split_first().ok_or("usage: kafka_consumer SERVERS TOPIC...")?;
    let group = format!("fold-{}", std::process::id());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", group).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut tables = tables::Tables::default();
    // By topic and partition: events that wait for the delete of a changed key, and the events after them.
    let mut queues = BTreeMap::<_, VecDeque<_>>::new();
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(5) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
        last = Instant::now();
        // A record without a value is a tombstone: its delete came before.
        let Some(body) = message.payload() else { continue };
        let mut event: Value = from_slice(body)?;
        if header(&message, "content-type") == Some(b"application/cloudevents+json") {
            event = event["data"].take();
        }
        let key = |name| header(&message, name).and_then(|key| from_slice(key).ok());
        let event: (Value, _, _) = (event, key("feedline-old-key"), key("feedline-new-key"));
        queues.entry((message.topic().to_owned(), message.partition())).or_default().push_back(event);
        let mut is_folded = |(event, old, new): &(Value, Option<Value>, Option<Value>)| tables.fold(event, old.as_ref(), new.as_ref());
        while queues.values_mut().any(|queue| queue.pop_front_if(|event| is_folded(event)).is_some()) {}
    }
    tables.print();
    let late: usize = queues.values().map(VecDeque::len).sum();
    if late == 0 { Ok(()) } else { Err(format!("{late} events wait for the delete of an old key, which is not in the topic").into()) }
}
