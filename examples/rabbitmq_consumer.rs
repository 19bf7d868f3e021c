//! Folds feedline's events from a RabbitMQ queue into tables, and prints them once it has been quiet for five seconds.
//! `cargo run --example rabbitmq_consumer amqp://guest:guest@127.0.0.1:5672/%2f billing`

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, queue] = arguments.as_slice() else { return Err("usage: rabbitmq_consumer URL QUEUE".into()) };
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(1000, BasicQosOptions::default()).await?;
    let (name, plain) = (queue.as_str().into(), BasicConsumeOptions::default());
    let mut deliveries = channel.basic_consume(name, "".into(), plain, FieldTable::default()).await?;
    let mut tables = Tables::default();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(5), deliveries.next()).await {
        let delivery = delivery?;
        tables.fold(&serde_json::from_slice(&delivery.data)?);
        delivery.ack(BasicAckOptions::default()).await?; // once the tables are stored, where they are
    }
    for ((table, _), (_, row)) in tables.rows.into_iter().filter(|(_, (_, row))| !row.is_null()) {
        println!("{table} {row}");
    }
    Ok(())
}
