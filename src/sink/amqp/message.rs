//! An event as the broker gets it: its routing key and its properties.

use super::Options;
use super::error::Error;
use crate::batch::Record;
use crate::event::Operation;
use crate::fault::Classify as _;
use crate::feed::Feeds;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

/// What is known of all events before the first: where each feed's go, and what their properties share.
pub(super) struct Routes {
    exchange: ShortString,
    /// The exchange of what no queue takes.
    dead_letters: Option<ShortString>,
    keys: Vec<[ShortString; Operation::ALL.len()]>,
    tables: Vec<LongString>,
    limits: Limits,
}

/// What a broker takes at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The largest frame that both sides take: all properties of an event must fit into one.
    pub(super) frame_bytes: usize,
    /// The largest body: RabbitMQ's `max_message_size`, known once it has refused one.
    pub(super) body_bytes: usize,
}

impl Limits {
    /// Before anything is known.
    pub(super) const NONE: Self = Self { frame_bytes: usize::MAX, body_bytes: usize::MAX };
}

/// Where an event goes, and what goes before its body.
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    /// How much of the body goes.
    pub(super) body_bytes: usize,
}

/// What the properties take besides those whose length is known: names, types, lengths, constants.
const PROPERTIES_BYTES: usize = 512;

impl Routes {
    pub(super) fn new(options: &Options, feeds: &Feeds, limits: Limits) -> Result<Self, Error> {
        let mut keys = Vec::with_capacity(feeds.len());
        for feed in feeds.iter() {
            let mut of_feed = std::array::from_fn(|_| ShortString::default());
            for operation in Operation::ALL {
                let key = &**feed.destination(operation);
                let too_long = |_| Error::RoutingKey { table: feed.name.to_string(), key: key.to_owned() };
                of_feed[operation as usize] = ShortString::try_new(key).map_err(too_long)?;
            }
            keys.push(of_feed);
        }
        Ok(Self {
            exchange: options.exchange.as_str().into(),
            dead_letters: options.dead_letter.as_deref().map(ShortString::from),
            keys,
            tables: feeds.iter().map(|feed| LongString::from(feed.name.as_bytes())).collect(),
            limits,
        })
    }

    /// Whether there is a place for what its destination does not take.
    pub(super) const fn has_dead_letters(&self) -> bool {
        self.dead_letters.is_some()
    }

    /// The event as the broker gets it, once it is known to fit.
    pub(super) fn message(&self, record: &Record<'_>) -> Result<Message, Error> {
        let (feed, operation) = (record.head.feed.index(), record.head.operation);
        let related = record.related_key.map_or(0, <[u8]>::len);
        let size_bytes = PROPERTIES_BYTES + self.tables[feed].as_bytes().len() + record.key.len() + related;
        let Limits { frame_bytes, body_bytes: body_bytes_max } = self.limits;
        if frame_bytes < size_bytes {
            let reason = format!("its key takes {size_bytes} bytes in a header, the broker's frames have {frame_bytes} (frame_max)");
            return Err(self.too_large(record, reason));
        }
        let body_bytes = record.body.map_or(0, <[u8]>::len);
        if body_bytes_max < body_bytes {
            let reason = format!("it has {body_bytes} bytes, the broker takes {body_bytes_max} (max_message_size)");
            return Err(self.too_large(record, reason));
        }
        let mut headers = self.of_table(feed);
        headers.insert("feedline-key".into(), text(record.key));
        if let Some(related) = record.related_key {
            let name = if operation == Operation::Delete { "feedline-new-key" } else { "feedline-old-key" };
            headers.insert(name.into(), text(related));
        }
        let (exchange, routing_key) = (self.exchange.clone(), self.keys[feed][operation as usize].clone());
        Ok(Message { exchange, routing_key, properties: properties(record, headers), body_bytes })
    }

    fn too_large(&self, record: &Record<'_>, reason: String) -> Error {
        let table = self.tables[record.head.feed.index()].to_string();
        Error::TooLarge { id: String::from_utf8_lossy(record.id).into_owned(), table, reason }
    }

    /// The event as it goes to the dead letters: with the reason, without its key, which may be what is too large. Of a body that
    /// the broker does not take goes what it takes, and how long the whole is. Where there is no place for it, its error is the end.
    pub(super) fn letter(&self, record: &Record<'_>, unfit: &Error) -> Result<Message, Error> {
        let Some(exchange) = self.dead_letters.clone() else { return Err(unfit.clone()) };
        let (feed, operation) = (record.head.feed.index(), record.head.operation);
        let routing_key = self.keys[feed][operation as usize].clone();
        let whole_bytes = record.body.map_or(0, <[u8]>::len);
        let body_bytes = whole_bytes.min(self.limits.body_bytes);
        let mut headers = self.of_table(feed);
        headers.insert("feedline-destination".into(), text(format!("{}/{routing_key}", self.exchange).as_bytes()));
        headers.insert("feedline-error".into(), text(format!("{} {unfit}", unfit.code()).as_bytes()));
        if body_bytes < whole_bytes {
            headers.insert("feedline-body-bytes".into(), text(whole_bytes.to_string().as_bytes()));
        }
        Ok(Message { exchange, routing_key, properties: properties(record, headers), body_bytes })
    }

    fn of_table(&self, feed: usize) -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert("feedline-table".into(), AMQPValue::LongString(self.tables[feed].clone()));
        headers
    }
}

/// What every event has.
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

fn text(bytes: &[u8]) -> AMQPValue {
    AMQPValue::LongString(LongString::from(bytes))
}
