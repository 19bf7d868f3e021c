//! An event as the broker gets it: its routing key and its properties.

use super::Options;
use super::error::Error;
use crate::batch::Record;
use crate::change::Operation;
use crate::fault::Classify as _;
use crate::feed::Feeds;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

/// What is known of all events before the first: where each feed's go, and what their properties share.
pub(super) struct Routes {
    pub(super) exchange: ShortString,
    /// The exchange of what no queue takes.
    pub(super) dead_letters: Option<ShortString>,
    keys: Vec<[ShortString; Operation::ALL.len()]>,
    tables: Vec<LongString>,
    /// The largest frame that both sides take: all properties of an event must fit into one.
    frame_bytes_max: usize,
}

/// What goes before an event's body.
pub(super) struct Message {
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
}

/// What the properties take besides those whose length is known: names, types, lengths, constants.
const PROPERTIES_BYTES: usize = 512;

impl Routes {
    pub(super) fn new(options: &Options, feeds: &Feeds, frame_bytes_max: usize) -> Result<Self, Error> {
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
            frame_bytes_max,
        })
    }

    /// The event as the broker gets it, once it is known to fit.
    pub(super) fn message(&self, record: &Record<'_>) -> Result<Message, Error> {
        let (feed, operation) = (record.head.feed.index(), record.head.operation);
        let related = record.related_key.map_or(0, <[u8]>::len);
        let size_bytes = PROPERTIES_BYTES + self.tables[feed].as_bytes().len() + record.key.len() + related;
        if self.frame_bytes_max < size_bytes {
            let reason =
                format!("its key takes {size_bytes} bytes in a header, the broker's frames have {} (frame_max)", self.frame_bytes_max);
            return Err(Error::TooLarge {
                id: String::from_utf8_lossy(record.id).into_owned(),
                table: self.tables[feed].to_string(),
                reason,
            });
        }
        let mut headers = self.of_table(feed);
        headers.insert("feedline-key".into(), text(record.key));
        if let Some(related) = record.related_key {
            let name = if operation == Operation::Delete { "feedline-new-key" } else { "feedline-old-key" };
            headers.insert(name.into(), text(related));
        }
        Ok(Message { routing_key: self.keys[feed][operation as usize].clone(), properties: properties(record, headers) })
    }

    /// The event as it goes to the dead letters: with the reason, without its key, which may be what is too large.
    pub(super) fn letter(&self, record: &Record<'_>, unfit: &Error) -> Message {
        let (feed, operation) = (record.head.feed.index(), record.head.operation);
        let routing_key = self.keys[feed][operation as usize].clone();
        let mut headers = self.of_table(feed);
        headers.insert("feedline-destination".into(), text(format!("{}/{routing_key}", self.exchange).as_bytes()));
        headers.insert("feedline-error".into(), text(format!("{} {unfit}", unfit.code()).as_bytes()));
        Message { routing_key, properties: properties(record, headers) }
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
