//! From messages to events: transactions, ordinals, relations, filters, and the place to resume from.

use super::error::Error;
use super::identity::Timelines;
use super::pgoutput::{Begin, Identity, Malformed, Message, Old, Relation, Tuple};
use super::row::{Shape, WireRow};
use super::token::{Inside, Lsn, Token};
use super::types::Types;
use crate::batch::BatchWriter;
use crate::change::{FeedId, Operation, Operations};
use crate::feed::{Feed, Feeds, feed_name};
use crate::format::{Encoder, Format};
use crate::metrics::SourceMetrics;
use crate::row::{Column, Relation as Described, RowError};
use crate::source::Resume;
use std::collections::HashMap;
use std::sync::Arc;

mod tally;
mod transaction;

use tally::Tally;
use transaction::{Draft, Transaction};

/// The state of the stream between two messages.
#[derive(Debug)]
pub(super) struct Flow {
    format: Format,
    feeds: Arc<Feeds>,
    /// Where each feed's events begin; `None` while its first cut is to come.
    starts: Vec<Option<Token>>,
    timelines: Timelines,
    relations: HashMap<u32, Known>,
    /// All transactions that commit before it have been read.
    boundary: Lsn,
    /// How far the transaction after the boundary was read by an earlier connection.
    skip: Option<Inside>,
    transaction: Option<Transaction>,
    tally: Tally,
    progress: Moved,
    /// Whether a table was described since somebody last asked.
    changed: bool,
}

/// What moved since somebody last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// A record was closed.
    pub(super) records: bool,
    /// The boundary advanced.
    pub(super) boundary: bool,
}

/// A relation of the stream.
#[derive(Debug)]
struct Known {
    columns: Vec<(String, u32)>,
    /// `None` where the table is not published.
    published: Option<Published>,
}

#[derive(Debug)]
struct Published {
    feed: FeedId,
    operations: Operations,
    encoder: Encoder,
    shapes: Vec<Shape>,
    /// Whether the replica identity has columns that the key has not.
    beyond_key: bool,
    name: Arc<str>,
}

impl Flow {
    pub(super) fn new(format: Format, feeds: Arc<Feeds>, timelines: Timelines, from: Token, resume: &Resume) -> Result<Self, Error> {
        let starts = resume.feeds.iter().map(|feed| feed.start().map(Token::try_from).transpose()).collect::<Result<_, _>>()?;
        let transaction = None;
        Ok(Self {
            format,
            feeds,
            starts,
            timelines,
            relations: HashMap::new(),
            boundary: from.boundary,
            skip: from.inside,
            transaction,
            tally: Tally::default(),
            progress: Moved::default(),
            changed: false,
        })
    }

    /// Where to resume after the last closed record.
    pub(super) fn token(&self) -> Token {
        let inside = match &self.transaction {
            Some(transaction) => transaction.resume_at().or(self.skip),
            None => self.skip,
        };
        // The commit may lie on a later timeline than the boundary: what counts is how far the log was read.
        let token = Token { timeline: 0, boundary: self.boundary, inside };
        Token { timeline: self.timelines.of(token.reach()), ..token }
    }

    pub(super) const fn boundary(&self) -> Lsn {
        self.boundary
    }

    pub(super) const fn is_inside(&self) -> bool {
        self.transaction.is_some()
    }

    pub(super) fn start(&mut self, feed: FeedId, start: Token) {
        if let Some(place) = self.starts.get_mut(feed.index()) {
            *place = Some(start);
        }
    }

    /// Whether the feed's live events are published.
    pub(super) fn has_begun(&self, feed: FeedId) -> bool {
        self.starts.get(feed.index()).is_some_and(Option::is_some)
    }

    pub(super) const fn moved(&self) -> Moved {
        self.progress
    }

    pub(super) fn reset_moved(&mut self) {
        self.progress = Moved::default();
    }

    /// Whether a table was described since the last call: it, or the publication, may have changed.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    pub(super) fn report(&mut self, metrics: &SourceMetrics) {
        self.tally.report(metrics);
    }

    /// The server has sent all transactions that commit before `end`. Inside a transaction that says nothing of it.
    pub(super) fn caught_up_to(&mut self, end: Lsn) {
        if self.transaction.is_none() && self.boundary < end {
            self.advance(end);
        }
    }

    fn advance(&mut self, boundary: Lsn) {
        self.boundary = self.boundary.max(boundary);
        self.skip = self.skip.filter(|inside| self.boundary <= inside.commit);
        self.progress.boundary = true;
    }

    /// Applies any message but a relation.
    pub(super) fn apply(&mut self, message: &Message<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        match message {
            Message::Begin(begin) => self.begin(begin),
            Message::Commit { end_lsn, .. } => self.commit(Lsn(*end_lsn), out),
            Message::Insert { relation, new } => self.insert(*relation, *new, out),
            Message::Update { relation, old, new } => self.update(*relation, *old, *new, out),
            Message::Delete { relation, old } => self.delete(*relation, *old, out),
            Message::Truncate(relations) => relations.ids().try_for_each(|relation| self.truncate(relation, out)),
            Message::Relation(_) | Message::Type | Message::Origin | Message::Logical => Ok(()),
        }
    }

    fn begin(&mut self, begin: &Begin) -> Result<(), Error> {
        if self.transaction.is_some() {
            return Err(Error::Protocol { what: "the end of a transaction before the next begins" });
        }
        let commit = Lsn(begin.commit_lsn);
        let from = Token { timeline: 0, boundary: self.boundary, inside: self.skip };
        self.transaction = Some(Transaction::new(begin, self.timelines.of(commit), &from));
        Ok(())
    }

    fn commit(&mut self, end: Lsn, out: &mut BatchWriter) -> Result<(), Error> {
        let transaction = self.transaction.take().ok_or(Error::Protocol { what: "a transaction before its end" })?;
        if transaction.is_open() {
            self.format.close(out, true);
            self.progress.records = true;
        }
        self.tally.transactions += 1;
        self.advance(end);
        Ok(())
    }

    fn insert(&mut self, relation: u32, new: Tuple<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Insert, out, |published, publish| {
            let row = WireRow::new(&published.shapes, new, None);
            publish(&Draft { key: Some(row), after: Some(row), ..Draft::of(Operation::Insert) })
        })
    }

    fn update(&mut self, relation: u32, old: Option<Old<'_>>, new: Tuple<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Update, out, |published, publish| {
            let old = old.map(|old| published.old(old));
            let before = old.filter(|_| published.beyond_key);
            let new = WireRow::new(&published.shapes, new, old);
            match old {
                Some(old) if old.is_rekeyed_by(&new) => {
                    let delete = Draft { key: Some(old), before, counterpart: Some(new), ..Draft::of(Operation::Delete) };
                    publish(&delete)?;
                    let insert = Draft { key: Some(new), after: Some(new), counterpart: Some(old), ..Draft::of(Operation::Insert) };
                    publish(&Draft { half: 1, ..insert })
                }
                _ => publish(&Draft { key: Some(new), before, after: Some(new), ..Draft::of(Operation::Update) }),
            }
        })
    }

    fn delete(&mut self, relation: u32, old: Old<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Delete, out, |published, publish| {
            let old = published.old(old);
            let before = Some(old).filter(|_| published.beyond_key);
            publish(&Draft { key: Some(old), before, ..Draft::of(Operation::Delete) })
        })
    }

    fn truncate(&mut self, relation: u32, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Truncate, out, |_, publish| publish(&Draft::of(Operation::Truncate)))
    }

    /// Counts one row of the wire and has its events published, unless a filter holds it back.
    fn row<F>(&mut self, relation: u32, operation: Operation, out: &mut BatchWriter, events: F) -> Result<(), Error>
    where
        F: FnOnce(&Published, &mut dyn FnMut(&Draft<'_>) -> Result<(), RowError>) -> Result<(), RowError>,
    {
        let transaction = self.transaction.as_mut().ok_or(Error::Protocol { what: "a transaction around a row" })?;
        let known = self.relations.get(&relation).ok_or(Error::Protocol { what: "a relation before its rows" })?;
        self.tally.add(operation);
        match &known.published {
            Some(published) if published.operations.admits(operation) => {
                let start = self.starts.get(published.feed.index()).and_then(Option::as_ref);
                if start.is_some_and(|start| transaction.is_admitted_by(start)) {
                    let (format, closed) = (&self.format, &mut self.progress.records);
                    let mut publish = |draft: &Draft<'_>| {
                        *closed |= transaction.publish(draft, &published.encoder, format, out)?;
                        Ok(())
                    };
                    events(published, &mut publish).map_err(|source| Error::Row {
                        table: published.name.to_string(),
                        position: transaction.position(0),
                        source,
                    })?;
                }
            }
            _ => self.tally.filtered += 1,
        }
        transaction.next_row();
        Ok(())
    }

    /// The types of a relation's columns that are to be looked up first.
    pub(super) fn unknown_types(&self, relation: &Relation<'_>, types: &Types) -> Vec<u32> {
        match self.feeds.of_table(relation.schema, relation.name) {
            Some(_) => types.unknown(relation.columns.iter().map(|column| column.type_oid)),
            None => Vec::new(),
        }
    }

    /// Takes over how a relation is from here on. Cancel safe: done again it does the same.
    pub(super) async fn learn(&mut self, relation: &Relation<'_>, types: &Types) -> Result<(), Error> {
        let published = match self.feeds.of_table(relation.schema, relation.name) {
            Some(feed) => Some(Published::prepare(feed, relation, types, &self.format).await?),
            None => None,
        };
        if let Some(Known { published: Some(before), .. }) = self.relations.get(&relation.id)
            && published.as_ref().is_none_or(|now| now.feed != before.feed)
        {
            // Its changes would be passed over as another table's.
            return Err(Error::TableChanged {
                table: before.name.to_string(),
                reason: format!(
                    "its name is {} now; rename it back, or name it so in the feeds",
                    feed_name(relation.schema, relation.name)
                ),
            });
        }
        let columns: Vec<_> = relation.columns.iter().map(|column| (column.name.to_owned(), column.type_oid)).collect();
        let is_published = published.is_some();
        let earlier = self.relations.insert(relation.id, Known { columns, published });
        let differs = earlier.as_ref().map(|earlier| earlier.columns != self.relations[&relation.id].columns);
        // That a relation is described again says that something of it changed, or of the publication, whatever it is.
        self.changed |= is_published;
        if is_published && differs == Some(true) {
            self.tally.schema_changes += 1;
            tracing::info!(table = %feed_name(relation.schema, relation.name), "the table's columns changed");
        }
        Ok(())
    }
}

impl Published {
    async fn prepare(feed: &Feed, relation: &Relation<'_>, types: &Types, format: &Format) -> Result<Self, Error> {
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        if let Some(gone) = feed.key.iter().find(|key| relation.columns.iter().all(|column| column.name != &***key)) {
            return Err(Error::TableChanged {
                table: feed.name.to_string(),
                reason: format!("its key column {gone:?} is no longer there, or not published; name another key for the feed"),
            });
        }
        let shapes: Vec<Shape> = relation
            .columns
            .iter()
            .map(|column| Shape { kind: types.kind(column.type_oid), identity: column.identity, key: is_key(column.name) })
            .collect();
        let columns = relation.columns.iter().map(|column| Column { name: column.name.into(), key: is_key(column.name) }).collect();
        let described = Described { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns };
        let unwritable = |source| Error::Row { table: feed.name.to_string(), position: "its definition".to_owned(), source };
        let encoder = format.prepare(&described).await.map_err(unwritable)?;
        let beyond_key = relation.identity == Identity::Full || shapes.iter().any(|shape| shape.identity && !shape.key);
        Ok(Self { feed: feed.id, operations: feed.operations, encoder, shapes, beyond_key, name: feed.name.clone() })
    }

    const fn old<'a>(&'a self, old: Old<'a>) -> WireRow<'a> {
        match old {
            Old::Identity(tuple) => WireRow::old(self.shapes.as_slice(), tuple, true),
            Old::Full(tuple) => WireRow::old(self.shapes.as_slice(), tuple, false),
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol { what: malformed.0 }
    }
}
