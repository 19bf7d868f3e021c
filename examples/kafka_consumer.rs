//! Folds feedline's events from Kafka topics into tables, and prints them once it has been quiet for five seconds.
//! `cargo run --example kafka_consumer 127.0.0.1:9092 shop.public.orders`

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Tables {
    /// By table and key: the newest position, and the row; null where it is deleted.
    rows: BTreeMap<(String, String), (String, Value)>,
    floor: BTreeMap<String, String>,
}

impl Tables {
    fn fold(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (table, position) = (format!("{}.{}", text(&event["schema"]), text(&event["table"])), text(&event["source"]["position"]));
        let floor = self.floor.entry(table.clone()).or_default();
        if matches!(event["op"].as_str(), Some("truncate" | "reset")) {
            *floor = position.max(std::mem::take(floor));
            return self.rows.retain(|(of, _), (at, _)| *of != table || *floor <= *at);
        }
        let (at, row) = self.rows.entry((table, event["key"].to_string())).or_default();
        if position <= *at || position <= *floor {
            return; // a repeat: positions of a key only grow
        }
        let mut after = event["after"].clone();
        for column in event["unchanged"].as_array().into_iter().flatten().map(text) {
            after[&column] = row[&column].take(); // a large value that the log left out
        }
        (*at, *row) = (position, after);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (servers, topics) = arguments.split_first().ok_or("usage: kafka_consumer SERVERS TOPIC...")?;
    let group = format!("fold-{}", std::process::id());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", group).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    let (mut tables, mut last) = (Tables::default(), Instant::now());
    while last.elapsed() < Duration::from_secs(5) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
        last = Instant::now();
        // Without a value it is a tombstone: its delete came before.
        if let Some(body) = message.payload() {
            tables.fold(&serde_json::from_slice(body)?);
        }
    }
    for ((table, _), (_, row)) in tables.rows.into_iter().filter(|(_, (_, row))| !row.is_null()) {
        println!("{table} {row}");
    }
    Ok(())
}
