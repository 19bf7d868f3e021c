//! Builds AMQP messages from events: exchange, routing key, properties, headers.

use super::error::Error;
use super::options::Options;
use crate::batch::Record;
use crate::event::Operation;
use crate::fault::Classify as _;
use crate::feed::{Feed, Feeds};
use crate::format::{Headers, Protocol};
use crate::sink::{DESTINATION_HEADER, ERROR_HEADER};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use std::sync::Arc;

/// What is prepared once per session: each feed's routing keys and table name, and the broker's limits.
pub(super) struct Routes {
    exchange: ShortString,
    dead_letter_exchange: Option<ShortString>,
    /// By feed and operation.
    keys: Vec<[ShortString; Operation::ALL.len()]>,
    feeds: Arc<Feeds>,
    content_type: ShortString,
    headers: Headers,
    /// Those of a dead letter: without its key, which may be what is too large.
    dead_letter_headers: Headers,
    limits: BrokerLimits,
}

/// The sizes that a broker accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct BrokerLimits {
    /// The negotiated `frame_max`: the properties of an event must fit into one frame.
    pub(super) frame_bytes: usize,
    /// RabbitMQ's `max_message_size`, which is known only after it has refused an event.
    pub(super) body_bytes: usize,
}

impl BrokerLimits {
    /// No known limits.
    pub(super) const NONE: Self = Self { frame_bytes: usize::MAX, body_bytes: usize::MAX };
}

/// A message without its body.
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    /// How many bytes of the event's body are sent.
    pub(super) body_bytes: usize,
}

/// An upper bound for the properties without names and values of headers: constants, types, lengths.
const PROPERTIES_BYTES: usize = 512;

/// The tables with a routing key that is longer than the protocol allows.
pub(super) fn too_long(feeds: &Feeds) -> Vec<Error> {
    feeds.iter().filter_map(|feed| Operation::ALL.into_iter().find_map(|operation| routing_key(feed, operation).err())).collect()
}

fn routing_key(feed: &Feed, operation: Operation) -> Result<ShortString, Error> {
    let key = &**feed.destination(operation);
    ShortString::try_new(key).map_err(|_| Error::RoutingKey { table: feed.name.to_string(), key: key.to_owned() })
}
/// The header of a dead letter whose body was cut: how many bytes it had.
const BODY_BYTES_HEADER: &str = "feedline-body-bytes";

impl Routes {
    pub(super) fn new(options: &Options, feeds: &Arc<Feeds>, limits: BrokerLimits) -> Result<Self, Error> {
        let mut keys = Vec::with_capacity(feeds.len());
        for feed in feeds.iter() {
            let mut of_feed = std::array::from_fn(|_| ShortString::default());
            for operation in Operation::ALL {
                of_feed[operation as usize] = routing_key(feed, operation)?;
            }
            keys.push(of_feed);
        }
        let headers = options.format.headers(Protocol::Amqp, feeds);
        Ok(Self {
            exchange: options.exchange.as_str().into(),
            dead_letter_exchange: options.dead_letter.as_deref().map(ShortString::from),
            keys,
            feeds: Arc::clone(feeds),
            content_type: options.format.content_type().into(),
            dead_letter_headers: headers.without_keys(),
            headers,
            limits,
        })
    }

    /// Whether a dead-letter exchange is configured.
    pub(super) const fn has_dead_letters(&self) -> bool {
        self.dead_letter_exchange.is_some()
    }

    /// The message for an event. Fails if the broker would not accept its size.
    pub(super) fn message(&self, record: &Record<'_>) -> Result<Message, Error> {
        let (feed, operation) = (record.head.feed.index(), record.head.operation);
        let size_bytes = PROPERTIES_BYTES + self.headers.size_bytes(record);
        let BrokerLimits { frame_bytes, body_bytes: body_bytes_max } = self.limits;
        if frame_bytes < size_bytes {
            let reason = format!("its key needs {size_bytes} bytes of headers, frame_max is {frame_bytes}");
            return Err(self.too_large(record, reason));
        }
        let body_bytes = record.body.map_or(0, <[u8]>::len);
        if body_bytes_max < body_bytes {
            let reason = format!("it has {body_bytes} bytes, max_message_size is {body_bytes_max}");
            return Err(self.too_large(record, reason));
        }
        let (exchange, routing_key) = (self.exchange.clone(), self.keys[feed][operation as usize].clone());
        let properties = self.properties(record, table_of(&self.headers, record));
        Ok(Message { exchange, routing_key, properties, body_bytes })
    }

    fn too_large(&self, record: &Record<'_>, reason: String) -> Error {
        let table = self.feeds.get(record.head.feed).name.to_string();
        Error::TooLarge { id: String::from_utf8_lossy(record.id).into_owned(), table, reason }
    }

    /// The message for a dead letter: with the error in a header, and without its key, which may be what is too large. A body that is
    /// too large is cut to the broker's limit, and a header tells its full size. Without a dead-letter exchange the error is returned.
    pub(super) fn dead_letter(&self, record: &Record<'_>, error: &Error) -> Result<Message, Error> {
        let Some(exchange) = self.dead_letter_exchange.clone() else { return Err(error.clone()) };
        let (feed, operation) = (record.head.feed.index(), record.head.operation);
        let routing_key = self.keys[feed][operation as usize].clone();
        let full_bytes = record.body.map_or(0, <[u8]>::len);
        let body_bytes = full_bytes.min(self.limits.body_bytes);
        let mut headers = table_of(&self.dead_letter_headers, record);
        headers.insert(DESTINATION_HEADER.into(), long_string(format!("{}/{routing_key}", self.exchange).as_bytes()));
        headers.insert(ERROR_HEADER.into(), long_string(format!("{} {error}", error.code()).as_bytes()));
        if body_bytes < full_bytes {
            headers.insert(BODY_BYTES_HEADER.into(), long_string(full_bytes.to_string().as_bytes()));
        }
        Ok(Message { exchange, routing_key, properties: self.properties(record, headers), body_bytes })
    }

    /// The properties that every message has.
    fn properties(&self, record: &Record<'_>, headers: FieldTable) -> BasicProperties {
        let operation = record.head.operation;
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(self.content_type.clone())
            .with_app_id("feedline".into())
            .with_message_id(std::str::from_utf8(record.id).unwrap_or_default().into())
            .with_type(operation.name().into())
            .with_headers(headers);
        let seconds = u64::try_from(record.head.timestamp.millis() / 1_000).unwrap_or(0);
        if operation.is_prefeed() { properties } else { properties.with_timestamp(seconds) }
    }
}

fn table_of(headers: &Headers, record: &Record<'_>) -> FieldTable {
    let mut table = FieldTable::default();
    headers.visit(record, |name, value| {
        table.insert(name.into(), long_string(value));
    });
    table
}

fn long_string(bytes: &[u8]) -> AMQPValue {
    AMQPValue::LongString(LongString::from(bytes))
}
