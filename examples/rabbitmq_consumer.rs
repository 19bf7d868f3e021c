//! Folds feedline's events from a RabbitMQ queue into tables, and prints them once no event has arrived for five seconds.
//! `cargo run --example rabbitmq_consumer amqp://guest:guest@127.0.0.1:5672/%2f billing`

mod tables;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, from_slice};
use std::time::Duration;

fn header(delivery: &Delivery, name: &str) -> Option<Value> {
    from_slice(delivery.properties.headers().as_ref()?.inner().get(name)?.as_long_string()?.as_bytes()).ok()
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
    let mut tables = tables::Tables::default();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(5), deliveries.next()).await {
        let delivery = delivery?;
        let mut event: Value = from_slice(&delivery.data)?;
        if delivery.properties.content_type().as_ref().is_some_and(|kind| kind.as_str() == "application/cloudevents+json") {
            event = event["data"].take();
        }
        let (old_key, new_key) = (header(&delivery, "feedline-old-key"), header(&delivery, "feedline-new-key"));
        if !tables.fold(&event, old_key.as_ref(), new_key.as_ref()) {
            // The broker refused the delete of the old key. It comes again, followed by this event.
            tables.fold(&event, None, None);
        }
        delivery.ack(BasicAckOptions::default()).await?; // if you store the tables, only after that
    }
    tables.print();
    Ok(())
}
