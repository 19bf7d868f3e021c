//! From messages to events: transactions, ordinals, relations, filters, and the place to resume from.

use super::error::Error;
use super::identity::Timelines;
use super::pgoutput::{Begin, Malformed, Message, Old, Relation, Tuple};
use super::row::{Shape, WireRow};
use super::token::{Commit, Inside, Lsn, Token};
use super::types::Types;
use crate::batch::BatchWriter;
use crate::event::{Column, FeedId, Operation, Operations, Relation as Described, RowError};
use crate::feed::{Feed, Feeds, feed_name};
use crate::format::{Encoder, Format};
use crate::source::Resume;
use crate::status::metrics::SourceMetrics;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

mod old;
mod tally;
mod transaction;

use old::{OldRows, Told};
use tally::Tally;
use transaction::{Draft, Transaction};

/// The state of the stream between two messages.
#[derive(Debug)]
pub(super) struct Flow {
    format: Format,
    feeds: Arc<Feeds>,
    /// Feeds by the numbers that their tables had at the connect.
    numbers: HashMap<u32, FeedId>,
    /// Where each feed's events begin; `None` while its first cut is to come.
    starts: Vec<Option<Token>>,
    timelines: Timelines,
    relations: HashMap<u32, Known>,
    /// Partitions that were met, by the number of their root.
    partitions: HashMap<u32, BTreeMap<u32, Told>>,
    /// The relation that the message before described.
    described: Option<u32>,
    /// Root and partition, where a row of the root follows.
    may_be_partition: Option<(u32, u32)>,
    /// All transactions that commit before it have been read.
    boundary: Lsn,
    /// How far the transaction after the boundary was read by an earlier connection.
    skip: Option<Inside>,
    transaction: Option<Transaction>,
    /// The last commit that was read, and the one whose transaction is being read.
    last: Option<Commit>,
    current: Option<Commit>,
    tally: Tally,
    progress: Moved,
    /// Whether a table was described since somebody last asked.
    changed: bool,
    /// Columns of tables as the log showed them, until somebody compares them with what is remembered.
    shown: Vec<Shown>,
}

/// A table's columns at a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) feed: FeedId,
    pub(super) columns: Vec<String>,
    /// The commit of the transaction that showed them.
    pub(super) commit: Lsn,
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
    told: Told,
    /// `None` where the table is not published.
    published: Option<Published>,
}

#[derive(Debug)]
struct Published {
    feed: FeedId,
    operations: Operations,
    encoder: Encoder,
    shapes: Vec<Shape>,
    old: OldRows,
    /// A key column that its rows do not have.
    gone: Option<Arc<str>>,
    name: Arc<str>,
}

impl Flow {
    pub(super) fn new(
        format: Format,
        feeds: Arc<Feeds>,
        numbers: HashMap<u32, FeedId>,
        timelines: Timelines,
        from: Token,
        resume: &Resume,
    ) -> Result<Self, Error> {
        let starts = resume.feeds.iter().map(|feed| feed.start().map(Token::try_from).transpose()).collect::<Result<_, _>>()?;
        let transaction = None;
        Ok(Self {
            format,
            feeds,
            numbers,
            starts,
            timelines,
            relations: HashMap::new(),
            partitions: HashMap::new(),
            described: None,
            may_be_partition: None,
            boundary: from.boundary,
            skip: from.inside,
            transaction,
            last: from.last,
            current: None,
            tally: Tally::default(),
            progress: Moved::default(),
            changed: false,
            shown: Vec::new(),
        })
    }

    /// What the log showed of tables whose columns are new to this connection, or changed.
    pub(super) const fn shown(&mut self) -> &mut Vec<Shown> {
        &mut self.shown
    }

    /// Where to resume after the last closed record.
    pub(super) fn token(&self) -> Token {
        let (inside, last) = match self.transaction.as_ref().and_then(Transaction::resume_at) {
            Some(inside) => (Some(inside), self.current),
            None => (self.skip, self.last),
        };
        // The commit may lie on a later timeline than the boundary: what counts is how far the log was read.
        let token = Token { timeline: 0, boundary: self.boundary, inside, last };
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
        self.meet_partition(message);
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
        let from = Token { timeline: 0, boundary: self.boundary, inside: self.skip, last: None };
        self.transaction = Some(Transaction::new(begin, self.timelines.of(commit), &from));
        self.current = Some(Commit { at: commit, end: Lsn(commit.0 + 1), xid: begin.xid, committed_at: begin.committed_at });
        Ok(())
    }

    fn commit(&mut self, end: Lsn, out: &mut BatchWriter) -> Result<(), Error> {
        let transaction = self.transaction.take().ok_or(Error::Protocol { what: "a transaction before its end" })?;
        if transaction.is_open() {
            self.format.close(out, true);
            self.progress.records = true;
        }
        self.tally.transactions += 1;
        // Those on the way to the place inside a later one are passed over.
        self.last = self.last.max(self.current.take().map(|commit| Commit { end, ..commit }));
        self.advance(end);
        Ok(())
    }

    fn insert(&mut self, relation: u32, new: Tuple<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Insert, None, out, |published, publish| {
            let row = WireRow::new(&published.shapes, new, None);
            publish(&Draft { key: Some(row), after: Some(row), ..Draft::of(Operation::Insert) })
        })
    }

    fn update(&mut self, relation: u32, old: Option<Old<'_>>, new: Tuple<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Update, old, out, |published, publish| {
            let old = old.map(|old| published.old.row(&published.shapes, old));
            let before = old.filter(|old| published.old.shows_before(old));
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
        self.row(relation, Operation::Delete, Some(old), out, |published, publish| {
            let old = published.old.row(&published.shapes, old);
            let before = Some(old).filter(|old| published.old.shows_before(old));
            publish(&Draft { key: Some(old), before, ..Draft::of(Operation::Delete) })
        })
    }

    fn truncate(&mut self, relation: u32, out: &mut BatchWriter) -> Result<(), Error> {
        self.row(relation, Operation::Truncate, None, out, |_, publish| publish(&Draft::of(Operation::Truncate)))
    }

    /// Counts one row of the wire and has its events published, unless a filter holds it back.
    fn row<F>(&mut self, relation: u32, operation: Operation, old: Option<Old<'_>>, out: &mut BatchWriter, events: F) -> Result<(), Error>
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
                    published.check_key(operation, old, transaction)?;
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
        match self.feed_of(relation) {
            Some(_) => types.unknown(relation.columns.iter().map(|column| column.type_oid)),
            None => Vec::new(),
        }
    }

    /// The feed whose table this is, also where the log still, or already, speaks of it by another name.
    fn feed_of(&self, relation: &Relation<'_>) -> Option<&Feed> {
        let by_number = self.numbers.get(&relation.id).map(|feed| self.feeds.get(*feed));
        by_number.or_else(|| self.feeds.of_table(relation.schema, relation.name))
    }

    /// Whether it is a feed's table by another name.
    pub(super) fn renamed(&self, relation: &Relation<'_>) -> bool {
        self.feed_of(relation).is_some_and(|feed| (&*feed.schema, &*feed.table) != (relation.schema, relation.name))
    }

    /// Refuses the rows of a feed's table whose name is another one `now`: in the feeds it is to be found by its name. One that had
    /// another name before is the feed's all the same.
    pub(super) fn check_name(&self, relation: &Relation<'_>, now: Option<(String, String)>) -> Result<(), Error> {
        let Some(feed) = self.feed_of(relation).filter(|_| self.renamed(relation)) else { return Ok(()) };
        match now {
            Some((schema, name)) if (&*schema, &*name) != (&*feed.schema, &*feed.table) => Err(Error::TableChanged {
                table: feed.name.to_string(),
                reason: format!("its name is {} now; rename it back, or name it so in the feeds", feed_name(&schema, &name)),
            }),
            _ => Ok(()),
        }
    }

    /// Takes over how a relation is from here on. Cancel safe: done again it does the same.
    pub(super) async fn learn(&mut self, relation: &Relation<'_>, types: &Types) -> Result<(), Error> {
        let published = match self.feed_of(relation) {
            Some(feed) => Some(Published::prepare(feed, relation, types, &self.format).await?),
            None => None,
        };
        let columns: Vec<_> = relation.columns.iter().map(|column| (column.name.to_owned(), column.type_oid)).collect();
        let is_published = published.is_some();
        let told = Told::by(relation);
        let earlier = self.relations.insert(relation.id, Known { columns, told, published });
        let differs = earlier.as_ref().map(|earlier| earlier.columns != self.relations[&relation.id].columns);
        if differs == Some(true) {
            // They changed with it, and say so before their next rows.
            self.partitions.remove(&relation.id);
        }
        self.may_be_partition = self.described.replace(relation.id).map(|root| (root, relation.id));
        self.weigh(relation.id);
        // That a relation is described again says that something of it changed, or of the publication, whatever it is.
        self.changed |= is_published;
        if let Some(Published { feed, .. }) = self.relations[&relation.id].published.as_ref().filter(|_| differs != Some(false)) {
            let columns = relation.columns.iter().map(|column| column.name.to_owned()).collect();
            let shown = Shown { feed: *feed, columns, commit: self.transaction.as_ref().map_or(self.boundary, Transaction::commit) };
            if !self.shown.contains(&shown) {
                self.shown.push(shown);
            }
        }
        if is_published && differs == Some(true) {
            self.tally.schema_changes += 1;
            tracing::info!(table = %feed_name(relation.schema, relation.name), "the table's columns changed");
        }
        Ok(())
    }
}

impl Flow {
    /// A partition's description comes straight behind its root's, and before a row that speaks under the root's number.
    fn meet_partition(&mut self, message: &Message<'_>) {
        if matches!(message, Message::Type) {
            return;
        }
        self.described = None;
        let Some((root, partition)) = self.may_be_partition.take() else { return };
        let (Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. }) = message else {
            return;
        };
        let Some(told) = self.relations.get(&partition).map(|known| known.told.clone()).filter(|_| *relation == root) else { return };
        // Without an identity the application's next update of it fails.
        self.changed |= !told.identifies();
        let met = self.partitions.entry(root).or_default();
        if met.get(&partition) == Some(&told) {
            return;
        }
        let is_new = met.insert(partition, told.clone()).is_none();
        self.changed |= !is_new;
        match self.relations.get_mut(&root) {
            Some(Known { columns, published: Some(published), .. }) if is_new && 1 < met.len() => {
                if told.identifies() {
                    published.old.take_in(&told, columns, &mut published.shapes);
                }
            }
            _ => self.weigh(root),
        }
    }

    /// Takes together what is told of a table's old rows: by its partitions as soon as any is met, else by itself.
    fn weigh(&mut self, relation: u32) {
        let Some(Known { columns, told, published: Some(published) }) = self.relations.get_mut(&relation) else { return };
        published.old = OldRows::new(told.sql_name().to_owned(), &mut published.shapes);
        match self.partitions.get(&relation) {
            None => published.old.take_in(told, columns, &mut published.shapes),
            Some(partitions) => {
                for told in partitions.values().filter(|told| told.identifies()) {
                    published.old.take_in(told, columns, &mut published.shapes);
                }
            }
        }
    }
}

impl Published {
    async fn prepare(feed: &Feed, relation: &Relation<'_>, types: &Types, format: &Format) -> Result<Self, Error> {
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        let gone = feed.key.iter().find(|key| relation.columns.iter().all(|column| column.name != &***key)).cloned();
        let mut shapes: Vec<Shape> = relation
            .columns
            .iter()
            .map(|column| Shape { kind: types.kind(column.type_oid), identity: column.identity, key: is_key(column.name) })
            .collect();
        let columns = relation.columns.iter().map(|column| Column { name: column.name.into(), key: is_key(column.name) }).collect();
        let described = Described { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns };
        let unwritable = |source| Error::Row { table: feed.name.to_string(), position: "its definition".to_owned(), source };
        let encoder = format.prepare(&described).await.map_err(unwritable)?;
        let old = OldRows::new(String::new(), &mut shapes);
        Ok(Self { feed: feed.id, operations: feed.operations, encoder, shapes, old, gone, name: feed.name.clone() })
    }

    /// Refuses a row of which the key is not known. Only a row that is published: the way on is to read the table again, from a later
    /// place on.
    fn check_key(&self, operation: Operation, old: Option<Old<'_>>, transaction: &Transaction) -> Result<(), Error> {
        if operation == Operation::Truncate {
            return Ok(());
        }
        if let Some(gone) = &self.gone {
            return Err(Error::TableChanged {
                table: self.name.to_string(),
                reason: format!(
                    "its key column {gone:?} is not in the log at {}: renamed, dropped or not published; name another key for the feed and start with \
                     --accept-config-change, or start once without the table in the feeds",
                    transaction.position(0)
                ),
            });
        }
        if operation == Operation::Insert {
            return Ok(());
        }
        self.old.unknown(&self.shapes, old).map_or(Ok(()), |unknown| {
            Err(Error::KeyUnknown {
                feed: self.feed,
                table: self.name.to_string(),
                reason: format!("{}, at {}", unknown.reason, transaction.position(0)),
                remedy: unknown.remedy,
            })
        })
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol { what: malformed.0 }
    }
}
