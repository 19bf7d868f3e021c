//! The headers of messages: which parts of a record they carry, and by which name.

use crate::batch::Record;
use crate::event::Operation;
use crate::feed::Feeds;
use crate::format::cloudevents::{self, Source, attribute};
use crate::format::json::rfc3339;
use std::cell::RefCell;
use std::sync::Arc;

/// The header with the media type of the body, on Kafka. AMQP has a property for it.
pub const CONTENT_TYPE: &str = "content-type";

/// The protocol that carries the messages. It decides how headers are named, and what has a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kafka. The record has the key, and the commit time as its timestamp.
    Kafka,
    /// AMQP 0-9-1. Properties hold id, operation, commit time and content type.
    Amqp,
}

/// The part of a record that a header carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `name/position`.
    Id,
    /// The operation's name.
    Operation,
    /// `schema.table`.
    Table,
    /// The record key.
    Key,
    /// On the delete of a key change: the new key.
    NewKey,
    /// On the insert of a key change: the old key.
    OldKey,
    /// The media type of the body. A tombstone has none.
    ContentType,
    /// The version of CloudEvents.
    SpecVersion,
    /// The pipeline and its database, as a URI.
    Source,
    /// The operation, as the type of an event of CloudEvents.
    Type,
    /// Table and key.
    Subject,
    /// The commit time, RFC 3339. Prefeed rows have none.
    Time,
    /// The record key, as an attribute. An event that concerns a whole table has none.
    PartitionKey,
}

impl Part {
    const fn holds_key(self) -> bool {
        matches!(self, Self::Key | Self::NewKey | Self::OldKey | Self::Subject | Self::PartitionKey)
    }
}

type Header = (&'static str, Part);

const NEW_KEY: Header = ("feedline-new-key", Part::NewKey);
const OLD_KEY: Header = ("feedline-old-key", Part::OldKey);
const TABLE: Header = ("feedline-table", Part::Table);
const ID: Header = ("feedline-id", Part::Id);
const OPERATION: Header = ("feedline-op", Part::Operation);
const TYPE_OF_CONTENT: Header = (CONTENT_TYPE, Part::ContentType);

pub(super) const KAFKA: [Header; 5] = [ID, OPERATION, TABLE, NEW_KEY, OLD_KEY];
pub(super) const KAFKA_STRUCTURED: [Header; 6] = [TYPE_OF_CONTENT, ID, OPERATION, TABLE, NEW_KEY, OLD_KEY];
/// CloudEvents, Kafka protocol binding, 3.2.3. What an attribute carries has no header of ours beside.
pub(super) const KAFKA_BINARY: [Header; 11] = [
    TYPE_OF_CONTENT,
    ("ce_specversion", Part::SpecVersion),
    ("ce_id", Part::Id),
    ("ce_source", Part::Source),
    ("ce_type", Part::Type),
    ("ce_subject", Part::Subject),
    ("ce_time", Part::Time),
    ("ce_partitionkey", Part::PartitionKey),
    TABLE,
    NEW_KEY,
    OLD_KEY,
];
pub(super) const AMQP: [Header; 4] = [TABLE, ("feedline-key", Part::Key), NEW_KEY, OLD_KEY];
/// CloudEvents, AMQP protocol binding, 3.1.3.
pub(super) const AMQP_BINARY: [Header; 10] = [
    ("cloudEvents:specversion", Part::SpecVersion),
    ("cloudEvents:id", Part::Id),
    ("cloudEvents:source", Part::Source),
    ("cloudEvents:type", Part::Type),
    ("cloudEvents:subject", Part::Subject),
    ("cloudEvents:time", Part::Time),
    ("cloudEvents:partitionkey", Part::PartitionKey),
    TABLE,
    NEW_KEY,
    OLD_KEY,
];

/// The value that a message's headers carry of a part, whatever the format of the message.
#[must_use]
pub fn carried(headers: &[(String, String)], part: Part) -> Option<&str> {
    let lists = [&KAFKA_STRUCTURED[..], &KAFKA_BINARY, &AMQP, &AMQP_BINARY];
    let mut names = lists.into_iter().flatten().filter(|header| header.1 == part).map(|header| header.0);
    names.find_map(|name| headers.iter().find(|(header, _)| header == name)).map(|(_, value)| &**value)
}

/// The headers of all messages of a session. Visiting them allocates nothing.
#[derive(Clone, Debug)]
pub struct Headers {
    list: Box<[Header]>,
    content_type: &'static str,
    source: Source,
    /// By feed.
    tables: Arc<[Table]>,
}

/// A table's name as headers carry it.
#[derive(Clone, Debug)]
struct Table {
    name: Arc<str>,
    /// As an attribute.
    subject: Vec<u8>,
}

impl Headers {
    pub(super) fn new(list: &[Header], content_type: &'static str, source: Source, feeds: &Feeds) -> Self {
        let table = |name: &str| Table { name: name.into(), subject: attribute::of(name) };
        Self { list: list.into(), content_type, source, tables: feeds.iter().map(|feed| table(&feed.name)).collect() }
    }

    /// The headers that hold no key, which may be long.
    #[must_use]
    pub fn without_keys(&self) -> Self {
        Self { list: self.list.iter().copied().filter(|(_, part)| !part.holds_key()).collect(), ..self.clone() }
    }

    /// The most headers that a message has.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.list.len()
    }

    /// Calls `add` with the name and the value of each header of a record.
    pub fn visit(&self, record: &Record<'_>, mut add: impl FnMut(&'static str, &[u8])) {
        let (head, table) = (&record.head, &self.tables[record.head.feed.index()]);
        let (is_delete, is_keyed) = (head.operation == Operation::Delete, !head.operation.is_table_wide());
        for &(name, part) in &self.list {
            match part {
                Part::Id => add(name, record.id),
                Part::Operation => add(name, head.operation.name().as_bytes()),
                Part::Table => add(name, table.name.as_bytes()),
                Part::Key => add(name, record.key),
                Part::NewKey | Part::OldKey => {
                    if let Some(related) = record.related_key.filter(|_| is_delete == (part == Part::NewKey)) {
                        add(name, related);
                    }
                }
                Part::ContentType if record.body.is_some() => add(name, self.content_type.as_bytes()),
                Part::SpecVersion => add(name, cloudevents::SPEC_VERSION.as_bytes()),
                Part::Source => add(name, self.source.as_bytes()),
                Part::Type => add(name, cloudevents::type_of(head.operation).as_bytes()),
                Part::Subject if is_keyed => composed(|out| {
                    out.extend_from_slice(&table.subject);
                    out.push(cloudevents::SUBJECT_SEPARATOR);
                    attribute::write(record.key, out);
                    add(name, out);
                }),
                Part::Subject => add(name, &table.subject),
                Part::PartitionKey if is_keyed => composed(|out| {
                    attribute::write(record.key, out);
                    add(name, out);
                }),
                Part::Time if !head.operation.is_prefeed() => {
                    if let Some(time) = rfc3339(head.timestamp) {
                        add(name, &time);
                    }
                }
                Part::ContentType | Part::PartitionKey | Part::Time => {}
            }
        }
    }

    /// The bytes of names and values of a record's headers.
    #[must_use]
    pub fn size_bytes(&self, record: &Record<'_>) -> usize {
        let mut size_bytes = 0;
        self.visit(record, |name, value| size_bytes += name.len() + value.len());
        size_bytes
    }
}

/// Lends an empty buffer, always the same one of this thread.
fn composed(compose: impl FnOnce(&mut Vec<u8>)) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        compose(buffer);
    });
}
