//! Turns messages of the log into events: tracks transactions, relations, partitions and the token, and applies the feeds' filters.

use super::error::Error;
use super::identity::Timelines;
use super::pgoutput::{Begin, Malformed, Message, Old, Relation, Tuple};
use super::row::WireRow;
use super::token::{Commit, Inside, Lsn, Token};
use super::types::Types;
use crate::event::{FeedId, Operation, RowError};
use crate::feed::{Feed, Feeds, feed_name};
use crate::source::{Admitted, Emission, Emitter};
use crate::status::metrics::SourceMetrics;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

mod identity;
mod published;
mod transaction;

use identity::{OldRows, ReplicaIdentity};
use published::Published;
use transaction::Transaction;

/// The state between two messages of the log.
#[derive(Debug)]
pub(super) struct Flow {
    feeds: Arc<Feeds>,
    /// Feeds by the OIDs that their tables had when the log was opened.
    oids: HashMap<u32, FeedId>,
    timelines: Timelines,
    relations: HashMap<u32, KnownRelation>,
    /// Replica identities of the partitions that were seen, by the OID of their root table.
    partitions: HashMap<u32, BTreeMap<u32, ReplicaIdentity>>,
    /// The relation that the previous message described.
    described: Option<u32>,
    /// Root and partition, if a row of the root follows.
    may_be_partition: Option<(u32, u32)>,
    /// All transactions that commit before this position have been read.
    boundary: Lsn,
    /// How much of the transaction after the boundary an earlier connection has read.
    skip: Option<Inside>,
    transaction: Option<Transaction>,
    /// The last commit that was read, and the commit of the current transaction.
    last: Option<Commit>,
    current: Option<Commit>,
    metrics: SourceMetrics,
    /// Whether the boundary advanced since progress was last reported.
    has_advanced: bool,
    /// Whether a table was described since the last [`Self::take_changed`].
    changed: bool,
    /// Columns that the log showed, until [`Self::take_shown_columns`].
    shown: Vec<ShownColumns>,
}

/// A table's columns as the log showed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShownColumns {
    pub(super) feed: FeedId,
    pub(super) columns: Vec<String>,
    /// The commit of the transaction in which they were shown.
    pub(super) commit: Lsn,
}

/// A relation that the log has described.
#[derive(Debug)]
struct KnownRelation {
    /// Name and type of each column.
    columns: Vec<(String, u32)>,
    identity: ReplicaIdentity,
    /// `None` if no feed publishes the table.
    published: Option<Published>,
}

impl Flow {
    pub(super) fn new(feeds: Arc<Feeds>, oids: HashMap<u32, FeedId>, timelines: Timelines, from: Token, metrics: SourceMetrics) -> Self {
        Self {
            feeds,
            oids,
            timelines,
            relations: HashMap::new(),
            partitions: HashMap::new(),
            described: None,
            may_be_partition: None,
            boundary: from.boundary,
            skip: from.inside,
            transaction: None,
            last: from.last,
            current: None,
            metrics,
            has_advanced: false,
            changed: false,
            shown: Vec::new(),
        }
    }

    /// Columns of tables that are new to this connection or have changed, since the last call.
    pub(super) fn take_shown_columns(&mut self) -> Vec<ShownColumns> {
        std::mem::take(&mut self.shown)
    }

    /// Where to resume after the last closed record.
    pub(super) fn token(&self, written: &Emission<Token>) -> Token {
        let (inside, last) = match self.transaction.as_ref().and_then(|transaction| transaction.resume_at(written)) {
            Some(inside) => (Some(inside), self.current),
            None => (self.skip, self.last),
        };
        // The commit may lie on a later timeline than the boundary. The timeline of the furthest position that was read counts.
        let token = Token { timeline: 0, boundary: self.boundary, inside, last };
        Token { timeline: self.timelines.of(token.reach()), ..token }
    }

    pub(super) const fn boundary(&self) -> Lsn {
        self.boundary
    }

    pub(super) const fn is_inside(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the boundary advanced since [`Self::reset_advanced`].
    pub(super) const fn has_advanced(&self) -> bool {
        self.has_advanced
    }

    pub(super) const fn reset_advanced(&mut self) {
        self.has_advanced = false;
    }

    /// Whether a table was described since the last call. The table or the publication may have changed.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Notes that the server has sent all transactions that commit before `end`. Inside a transaction this says nothing about its rows.
    pub(super) fn caught_up_to(&mut self, end: Lsn) {
        if self.transaction.is_none() && self.boundary < end {
            self.advance(end);
        }
    }

    fn advance(&mut self, boundary: Lsn) {
        self.boundary = self.boundary.max(boundary);
        self.skip = self.skip.filter(|inside| self.boundary <= inside.commit);
        self.has_advanced = true;
    }

    /// Applies any message except a relation.
    pub(super) fn apply(&mut self, message: &Message<'_>, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.note_partition(message);
        match message {
            Message::Begin(begin) => self.begin(begin, out),
            Message::Commit { end_lsn, .. } => self.commit(Lsn(*end_lsn), out),
            Message::Insert { relation, new } => self.insert(*relation, *new, out),
            Message::Update { relation, old, new } => self.update(*relation, *old, *new, out),
            Message::Delete { relation, old } => self.delete(*relation, *old, out),
            Message::Truncate(relations) => relations.ids().try_for_each(|relation| self.truncate(relation, out)),
            Message::Relation(_) | Message::Type | Message::Origin | Message::Logical => Ok(()),
        }
    }

    fn begin(&mut self, begin: &Begin, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        if self.transaction.is_some() {
            return Err(Error::Protocol { what: "the end of a transaction before the next begins" });
        }
        let commit = Lsn(begin.commit_lsn);
        let from = Token { timeline: 0, boundary: self.boundary, inside: self.skip, last: None };
        self.transaction = Some(Transaction::begin(begin, self.timelines.of(commit), &from, out));
        self.current = Some(Commit { at: commit, end: Lsn(commit.0 + 1), xid: begin.xid, committed_at: begin.committed_at });
        Ok(())
    }

    fn commit(&mut self, end: Lsn, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.transaction.take().ok_or(Error::Protocol { what: "a transaction before its end" })?;
        out.commit();
        // If reading resumed inside a later transaction, `last` is that one's commit already.
        self.last = self.last.max(self.current.take().map(|commit| Commit { end, ..commit }));
        self.advance(end);
        Ok(())
    }

    fn insert(&mut self, relation: u32, new: Tuple<'_>, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.row(relation, Operation::Insert, None, out, |published, row| row.insert(WireRow::new(&published.shapes, new, None)))
    }

    fn update(&mut self, relation: u32, old: Option<Old<'_>>, new: Tuple<'_>, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.row(relation, Operation::Update, old, out, |published, row| {
            let old = old.map(|old| published.old.row(&published.shapes, old));
            let before = old.filter(|old| published.old.shows_before(old));
            let new = WireRow::new(&published.shapes, new, old);
            match old {
                Some(old) if old.is_rekeyed_by(&new) => row.change_key(old, before, new),
                _ => row.update(before, new),
            }
        })
    }

    fn delete(&mut self, relation: u32, old: Old<'_>, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.row(relation, Operation::Delete, Some(old), out, |published, row| {
            let old = published.old.row(&published.shapes, old);
            row.delete(old, Some(old).filter(|old| published.old.shows_before(old)))
        })
    }

    fn truncate(&mut self, relation: u32, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.row(relation, Operation::Truncate, None, out, |_, table| table.truncate())
    }

    /// Gives one row of the log to the emitter, with what `write` makes of it where it is published.
    fn row<F>(
        &mut self,
        relation: u32,
        operation: Operation,
        old: Option<Old<'_>>,
        out: &mut Emitter<'_, Token>,
        write: F,
    ) -> Result<(), Error>
    where
        F: FnOnce(&Published, Admitted<'_, Token>) -> Result<(), RowError>,
    {
        let transaction = self.transaction.as_mut().ok_or(Error::Protocol { what: "a transaction around a row" })?;
        let known = self.relations.get(&relation).ok_or(Error::Protocol { what: "a relation before its rows" })?;
        let row = transaction.row();
        transaction.next_row();
        let Some(published) = &known.published else {
            out.skip(operation);
            return Ok(());
        };
        let Some(mut admitted) = out.admit(&published.definition, operation, row, row.ordinal) else { return Ok(()) };
        if operation != Operation::Truncate {
            published.check_key(operation, old, &mut admitted)?;
        }
        write(published, admitted).map_err(|source| Error::Row {
            table: published.name.to_string(),
            position: format!("{:?}", out.position(row.ordinal)),
            source,
        })
    }

    /// The types of a relation's columns that must be looked up first.
    pub(super) fn unknown_types(&self, relation: &Relation<'_>, types: &Types) -> Vec<u32> {
        match self.feed_of(relation) {
            Some(_) => types.unknown(relation.columns.iter().map(|column| column.type_oid)),
            None => Vec::new(),
        }
    }

    /// The feed of this table, even if the log shows the table by an earlier or a later name.
    fn feed_of(&self, relation: &Relation<'_>) -> Option<&Feed> {
        let by_oid = self.oids.get(&relation.id).map(|feed| self.feeds.get(*feed));
        by_oid.or_else(|| self.feeds.of_table(relation.schema, relation.name))
    }

    /// Whether this is a feed's table by another name.
    pub(super) fn is_renamed(&self, relation: &Relation<'_>) -> bool {
        self.feed_of(relation).is_some_and(|feed| (&*feed.schema, &*feed.table) != (relation.schema, relation.name))
    }

    /// Refuses the rows of a feed's table whose current name is not the feed's: at the next start the feed would not find it. A table that
    /// only had another name earlier is accepted.
    pub(super) fn check_name(&self, relation: &Relation<'_>, now: Option<(String, String)>) -> Result<(), Error> {
        let Some(feed) = self.feed_of(relation).filter(|_| self.is_renamed(relation)) else { return Ok(()) };
        match now {
            Some((schema, name)) if (&*schema, &*name) != (&*feed.schema, &*feed.table) => Err(Error::TableChanged {
                table: feed.name.to_string(),
                reason: format!("its name is {} now; rename it back, or use this name in the feeds", feed_name(&schema, &name)),
            }),
            _ => Ok(()),
        }
    }

    /// Takes over the description of a relation. Cancel safe: repeating it gives the same result.
    pub(super) async fn learn(&mut self, relation: &Relation<'_>, types: &Types, out: &Emitter<'_, Token>) -> Result<(), Error> {
        let published = match self.feed_of(relation) {
            Some(feed) => Some(Published::prepare(feed, relation, types, out).await?),
            None => None,
        };
        let columns: Vec<_> = relation.columns.iter().map(|column| (column.name.to_owned(), column.type_oid)).collect();
        let is_published = published.is_some();
        let identity = ReplicaIdentity::of(relation);
        let earlier = self.relations.insert(relation.id, KnownRelation { columns, identity, published });
        let differs = earlier.as_ref().map(|earlier| earlier.columns != self.relations[&relation.id].columns);
        if differs == Some(true) {
            // The partitions changed too. The log describes each of them again before its next row.
            self.partitions.remove(&relation.id);
        }
        self.may_be_partition = self.described.replace(relation.id).map(|root| (root, relation.id));
        self.combine_identities(relation.id);
        // The server describes a relation again only after it or the publication has changed.
        self.changed |= is_published;
        if let Some(published) = self.relations[&relation.id].published.as_ref().filter(|_| differs != Some(false)) {
            let columns = relation.columns.iter().map(|column| column.name.to_owned()).collect();
            let shown = ShownColumns {
                feed: published.feed(),
                columns,
                commit: self.transaction.as_ref().map_or(self.boundary, Transaction::commit),
            };
            if !self.shown.contains(&shown) {
                self.shown.push(shown);
            }
        }
        if is_published && differs == Some(true) {
            self.metrics.schema_changes.inc();
            tracing::info!(table = %feed_name(relation.schema, relation.name), "the table's columns changed");
        }
        Ok(())
    }
}

impl Flow {
    /// Notes a partition. Its description follows directly after its root's, and a row with the root's OID follows.
    fn note_partition(&mut self, message: &Message<'_>) {
        if matches!(message, Message::Type) {
            return;
        }
        self.described = None;
        let Some((root, partition)) = self.may_be_partition.take() else { return };
        let (Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. }) = message else {
            return;
        };
        let Some(identity) = self.relations.get(&partition).map(|known| known.identity.clone()).filter(|_| *relation == root) else {
            return;
        };
        // Without a replica identity the application's next update of the partition fails.
        self.changed |= !identity.identifies();
        let seen = self.partitions.entry(root).or_default();
        if seen.get(&partition) == Some(&identity) {
            return;
        }
        let is_new = seen.insert(partition, identity.clone()).is_none();
        self.changed |= !is_new;
        match self.relations.get_mut(&root) {
            Some(KnownRelation { columns, published: Some(published), .. }) if is_new && 1 < seen.len() => {
                if identity.identifies() {
                    published.old.add(&identity, columns, &mut published.shapes);
                }
            }
            _ => self.combine_identities(root),
        }
    }

    /// Works out what old rows of a table hold: from its partitions once one was seen, otherwise from the table itself.
    fn combine_identities(&mut self, relation: u32) {
        let Some(KnownRelation { columns, identity, published: Some(published) }) = self.relations.get_mut(&relation) else { return };
        published.old = OldRows::new(identity.sql_name().to_owned(), &mut published.shapes);
        match self.partitions.get(&relation) {
            None => published.old.add(identity, columns, &mut published.shapes),
            Some(partitions) => {
                for identity in partitions.values().filter(|identity| identity.identifies()) {
                    published.old.add(identity, columns, &mut published.shapes);
                }
            }
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol { what: malformed.0 }
    }
}
