//! An exchange and a queue on a real broker, read by an outside client.

use crate::contract_sink::{Subject, json};
use crate::servers::rabbitmq::RabbitMq;
use feedline::net::secret::Secret;
use feedline::net::{TlsMode, Trust};
use feedline::sink::amqp::{Address as Broker, Connector, Options};
use feedline::status::metrics::Metrics;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// An exchange with a queue of the same name.
#[derive(Clone)]
pub struct Destination {
    pub port: u16,
    pub name: String,
}

/// An event as a consumer receives it.
#[derive(Debug)]
pub struct ReceivedEvent {
    pub key: String,
    pub body: String,
    pub properties: lapin::BasicProperties,
    pub headers: FieldTable,
    pub routing_key: String,
}

impl Destination {
    pub fn new(broker: &RabbitMq, bindings: &[&str], arguments: FieldTable) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let destination = Self { port: broker.port(), name: format!("it{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)) };
        let name = destination.name.clone();
        let bindings: Vec<String> = bindings.iter().map(|&binding| binding.to_owned()).collect();
        destination.with_channel(async move |channel| {
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(name.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
            for binding in bindings {
                let (queue, exchange) = (name.as_str().into(), name.as_str().into());
                channel
                    .queue_bind(queue, exchange, binding.as_str().into(), QueueBindOptions::default(), FieldTable::default())
                    .await
                    .unwrap();
            }
        });
        destination
    }

    pub fn options(&self) -> Options {
        Options {
            addresses: vec![Broker { host: "127.0.0.1".to_owned(), port: self.port }],
            trust: Trust { mode: TlsMode::Disable, section: "sink", ..Trust::default() },
            external: false,
            user: "guest".to_owned(),
            password: Some(Secret::new("guest".to_owned())),
            vhost: "/".to_owned(),
            exchange: self.name.clone(),
            declare: true,
            dead_letter: None,
            queues: Vec::new(),
            format: json(),
            ordering: feedline::sink::amqp::Ordering::default(),
            window: 100,
            management: None,
            pipeline: self.name.as_str().into(),
            keeps_checkpoint: false,
        }
    }

    /// Gives `work` a channel of an outside client, on a runtime of its own.
    pub fn with_channel<T: Send + 'static>(&self, work: impl AsyncFnOnce(lapin::Channel) -> T + Send + 'static) -> T {
        // The client's buffers are many times as large as the negotiated frame.
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f?frame_max=131072", self.port);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
                let channel = connection.create_channel().await.unwrap();
                let done = work(channel.clone()).await;
                connection.close(200, "done".into()).await.unwrap();
                done
            })
        });
        thread.join().unwrap()
    }

    /// All events in the queue, without removing them.
    pub fn read(&self) -> Vec<ReceivedEvent> {
        let name = self.name.clone();
        self.with_channel(async move |channel| {
            let mut seen = Vec::new();
            while let Some(message) = channel.basic_get(name.as_str().into(), BasicGetOptions::default()).await.unwrap() {
                seen.push(ReceivedEvent::new(&message.delivery));
            }
            seen
        })
    }

    /// Takes all events out of the queue until `stop` is set.
    pub fn take_until(&self, stop: &Arc<AtomicBool>) -> Vec<ReceivedEvent> {
        let (name, stop) = (self.name.clone(), Arc::clone(stop));
        self.with_channel(async move |channel| {
            let mut seen = Vec::new();
            loop {
                let is_last = stop.load(Ordering::Relaxed);
                match channel.basic_get(name.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() {
                    Some(message) => seen.push(ReceivedEvent::new(&message.delivery)),
                    None if is_last => return seen,
                    None => tokio::task::yield_now().await,
                }
            }
        })
    }
}

impl ReceivedEvent {
    fn new(delivery: &lapin::message::Delivery) -> Self {
        let properties = delivery.properties.clone();
        let headers = properties.headers().clone().unwrap_or_default();
        Self {
            key: header(&headers, "feedline-key").unwrap_or_default(),
            body: String::from_utf8(delivery.data.clone()).unwrap(),
            routing_key: delivery.routing_key.to_string(),
            properties,
            headers,
        }
    }
}

pub fn header(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

impl Subject for Destination {
    type Connector = Connector;

    fn connector(&self) -> Connector {
        Connector::new(self.options(), Metrics::new("shop").sink)
    }

    fn read_back(&self) -> Vec<(String, String)> {
        self.read().into_iter().map(|seen| (seen.key, seen.body)).collect()
    }
}
