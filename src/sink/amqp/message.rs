//! Builds AMQP messages from events: exchange, routing key, properties, headers.

use super::error::Error;
use super::options::Options;
use crate::batch::Record;
use crate::event::Operation;
use crate::fault::Classify as _;
use crate::feed::{Feed, Feeds};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

/// What is prepared once per session: each feed's routing keys and table name, and the broker's limits.
pub(super) struct Routes {
    exchange: ShortString,
    dead_letter_exchange: Option<ShortString>,
    /// By feed and operation.
    keys: Vec<[ShortString; Operation::ALL.len()]>,
    /// By feed.
    tables: Vec<LongString>,
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

/// An upper bound for the properties without table name and keys: names, types, lengths, constants.
const PROPERTIES_BYTES: usize = 512;

/// The tables with a routing key that is longer than the protocol allows.
pub(super) fn too_long(feeds: &Feeds) -> Vec<Error> {
    feeds.iter().filter_map(|feed| Operation::ALL.into_iter().find_map(|operation| routing_key(feed, operation).err())).collect()
}

fn routing_key(feed: &Feed, operation: Operation) -> Result<ShortString, Error> {
    let key = &**feed.destination(operation);
    ShortString::try_new(key).map_err(|_| Error::RoutingKey { table: feed.name.to_string(), key: key.to_owned() })
}

impl Routes {
    pub(super) fn new(options: &Options, feeds: &Feeds, limits: BrokerLimits) -> Result<Self, Error> {
        let mut keys = Vec::with_capacity(feeds.len());
        for feed in feeds.iter() {
            let mut of_feed = std::array::from_fn(|_| ShortString::default());
            for operation in Operation::ALL {
                of_feed[operation as usize] = routing_key(feed, operation)?;
            }
            keys.push(of_feed);
        }
        Ok(Self {
            exchange: options.exchange.as_str().into(),
            dead_letter_exchange: options.dead_letter.as_deref().map(ShortString::from),
            keys,
            tables: feeds.iter().map(|feed| LongString::from(feed.name.as_bytes())).collect(),
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
        let related = record.related_key.map_or(0, <[u8]>::len);
        let size_bytes = PROPERTIES_BYTES + self.tables[feed].as_bytes().len() + record.key.len() + related;
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
        let mut headers = self.table_header(feed);
        headers.insert("feedline-key".into(), long_string(record.key));
        if let Some(related) = record.related_key {
            let name = if operation == Operation::Delete { "feedline-new-key" } else { "feedline-old-key" };
            headers.insert(name.into(), long_string(related));
        }
        let (exchange, routing_key) = (self.exchange.clone(), self.keys[feed][operation as usize].clone());
        Ok(Message { exchange, routing_key, properties: properties(record, headers), body_bytes })
    }

    fn too_large(&self, record: &Record<'_>, reason: String) -> Error {
        let table = self.tables[record.head.feed.index()].to_string();
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
        let mut headers = self.table_header(feed);
        headers.insert("feedline-destination".into(), long_string(format!("{}/{routing_key}", self.exchange).as_bytes()));
        headers.insert("feedline-error".into(), long_string(format!("{} {error}", error.code()).as_bytes()));
        if body_bytes < full_bytes {
            headers.insert("feedline-body-bytes".into(), long_string(full_bytes.to_string().as_bytes()));
        }
        Ok(Message { exchange, routing_key, properties: properties(record, headers), body_bytes })
    }

    fn table_header(&self, feed: usize) -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert("feedline-table".into(), AMQPValue::LongString(self.tables[feed].clone()));
        headers
    }
}

/// The properties that every message has.
fn properties(record: &Record<'_>, headers: FieldTable) -> BasicProperties {
    let operation = record.head.operation;
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_app_id("feedline".into())
        .with_message_id(std::str::from_utf8(record.id).unwrap_or_default().into())
        .with_type(operation.name().into())
        .with_headers(headers);
    let seconds = u64::try_from(record.head.timestamp.millis() / 1_000).unwrap_or(0);
    if operation.is_prefeed() { properties } else { properties.with_timestamp(seconds) }
}

fn long_string(bytes: &[u8]) -> AMQPValue {
    AMQPValue::LongString(LongString::from(bytes))
}
