//! The subscriber of the demonstration: an ordinary Kafka consumer on its own thread. It reads feedline's own JSON, which the
//! demonstration's pipeline writes.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the consumer waits for a message before it checks whether to stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Capacity of the channel of events to print.
const QUEUED_MAX: usize = 1024;

/// The parts of an event that the demonstration prints.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "op")]
    pub(super) operation: String,
    pub(super) key: Option<Columns>,
    pub(super) after: Option<Columns>,
    pub(super) source: Source,
    #[serde(skip)]
    pub(super) topic: String,
    /// Milliseconds since 1970.
    #[serde(skip)]
    pub(super) timestamp: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Source {
    pub(super) position: String,
}

/// The columns of a row, in the order of the event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Columns(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A running consumer.
pub(super) struct Subscriber {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Subscriber {
    /// Starts to read the topics from their beginning.
    pub(super) fn start(bootstrap_servers: &str, topics: &[String]) -> KafkaResult<(Self, mpsc::Receiver<Event>)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("group.id", "feedline-demo")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .set("log_level", "0")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let (sender, events) = mpsc::channel(QUEUED_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || read(&consumer, &sender, &stopped));
        Ok((Self { stop, thread }, events))
    }

    /// Stops the consumer and waits for its thread.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn read(consumer: &BaseConsumer, events: &mpsc::Sender<Event>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        // The client retries errors itself.
        let Some(Ok(message)) = consumer.poll(POLL_TIMEOUT) else { continue };
        let Some(Ok(mut event)) = message.payload().map(serde_json::from_slice::<Event>) else { continue };
        message.topic().clone_into(&mut event.topic);
        event.timestamp = message.timestamp().to_millis();
        if events.blocking_send(event).is_err() {
            return;
        }
    }
}
