//! Applies the events of the change stream: gives them to the emitter, and knows the place that is reached.

use super::bson::{Document, Value};
use super::change_event::{ChangeEvent, Kind, TransactionName};
use super::change_stream::BatchEnd;
use super::document::{FIXED, Fields, KEY, shown_key};
use super::error::Error;
use super::hex::hex;
use super::options::Spelling;
use super::token::{Place, Token};
use crate::checkpoint::Layout;
use crate::event::{FeedId, Operation, RowError, Timestamp};
use crate::feed::Feeds;

use crate::source::{Definition, Emission, Emitter, HandedOver, Inside, Reread, Shape, TableChange};
use std::collections::HashMap;
use std::sync::Arc;

/// The state of a session behind the stream.
#[derive(Debug)]
pub(super) struct Flow {
    feeds: Arc<Feeds>,
    spelling: Spelling,
    collections: HashMap<Arc<str>, Followed>,
    /// Behind everything that was applied.
    position: Mark,
    transaction: Option<OpenTransaction>,
    /// Where an earlier session stopped in a transaction.
    resumed: Option<Inside>,
    table_changes: Vec<TableChange>,
    has_advanced: bool,
}

/// A collection that a feed publishes.
#[derive(Debug)]
struct Followed {
    feed: FeedId,
    shape: Shape<Definition>,
}

/// A position, whose memory is used again.
#[derive(Clone, Debug)]
struct Mark {
    place: Place,
    /// The resume token; empty if there is none yet.
    resume: Vec<u8>,
}

impl Mark {
    fn set(&mut self, place: Place, resume: &[u8]) {
        self.place = place;
        self.resume.clear();
        self.resume.extend_from_slice(resume);
    }

    fn token(&self, inside: Option<Inside>) -> Token {
        Token { place: self.place, inside, resume: (!self.resume.is_empty()).then(|| self.resume.clone()) }
    }
}

/// A transaction that has begun and has not ended.
#[derive(Debug)]
struct OpenTransaction {
    session: Vec<u8>,
    number: i64,
    time: u64,
    /// In front of its first event in this session.
    begin: Mark,
    /// In front of its newest event that was written.
    newest: Mark,
}

impl OpenTransaction {
    fn is(&self, event: &ChangeEvent<'_>) -> bool {
        self.time == event.time
            && event.transaction.is_some_and(|TransactionName { session, number }| self.number == number && self.session == session.bytes())
    }
}

impl Flow {
    pub(super) fn new(feeds: Arc<Feeds>, spelling: Spelling, from: Token) -> Self {
        let followed = |(id, name): (FeedId, &Arc<str>)| (Arc::clone(name), Followed { feed: id, shape: Shape::new(KEY, FIXED) });
        let collections = feeds.iter().map(|feed| followed((feed.id, &feed.table))).collect();
        let position = Mark { place: from.place, resume: from.resume.unwrap_or_default() };
        Self {
            feeds,
            spelling,
            collections,
            position,
            transaction: None,
            resumed: from.inside,
            table_changes: Vec::new(),
            has_advanced: false,
        }
    }

    /// Everything before it was applied.
    pub(super) const fn place(&self) -> Place {
        self.position.place
    }

    pub(super) const fn is_inside(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the position has moved since [`Self::reset_advanced`].
    pub(super) const fn has_advanced(&self) -> bool {
        self.has_advanced
    }

    pub(super) const fn reset_advanced(&mut self) {
        self.has_advanced = false;
    }

    /// Where an event lies.
    pub(super) fn place_of(&self, event: &ChangeEvent<'_>) -> Result<Place, Error> {
        let Place { epoch, time, passed } = self.position.place;
        match event.time.cmp(&time) {
            std::cmp::Ordering::Less => Err(Error::Event { what: "it is older than the one before it" }),
            std::cmp::Ordering::Equal => Ok(Place { epoch, time, passed }),
            std::cmp::Ordering::Greater => Ok(Place { epoch, time: event.time, passed: 0 }),
        }
    }

    /// Whether an event belongs to the transaction that has begun.
    pub(super) fn goes_on_with(&self, event: &ChangeEvent<'_>) -> bool {
        self.transaction.as_ref().is_some_and(|open| open.is(event))
    }

    /// Ends the transaction that has begun, if there is one: something else follows it.
    pub(super) fn end_transaction(&mut self, out: &mut Emitter<'_, Token>) {
        if self.transaction.take().is_some() {
            out.commit();
        }
    }

    /// Applies an event. Cancel safe: if the call is dropped, it is made again with the same event.
    pub(super) async fn apply(&mut self, event: &ChangeEvent<'_>, place: Place, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        if !self.goes_on_with(event) {
            self.end_transaction(out);
            self.begin(event, place, out);
        }
        match event.kind {
            Kind::Insert | Kind::Replace | Kind::Update | Kind::Delete => self.change(event, place, out).await?,
            Kind::Drop => self.empty(event.collection, place, out).await?,
            Kind::Rename => {
                self.empty(event.collection, place, out).await?;
                self.filled(event);
            }
            Kind::Invalidate | Kind::Other => {}
        }
        let next = Place { passed: place.passed.saturating_add(1), ..place };
        self.position.set(next, event.token.bytes());
        self.has_advanced = true;
        Ok(())
    }

    fn begin(&mut self, event: &ChangeEvent<'_>, place: Place, out: &mut Emitter<'_, Token>) {
        let committed_at = Timestamp(event.committed_at());
        let Some(TransactionName { session, number }) = event.transaction else {
            return out.go_to(place.prefix().as_ref(), committed_at);
        };
        let handed_over = match self.resumed.take() {
            Some(inside) if place == self.position.place && inside.ordinal == place.ordinal() => HandedOver::Until(inside),
            _ => HandedOver::Nothing,
        };
        out.begin(place.prefix().as_ref(), committed_at, &name(session, number), handed_over);
        // What stands here must not say that anything of the transaction's time was read.
        let begin = self.position.clone();
        let newest = Mark { place, resume: begin.resume.clone() };
        self.transaction = Some(OpenTransaction { session: session.bytes().to_vec(), number, time: event.time, newest, begin });
    }

    /// Notes that the event at this place is written.
    fn written(transaction: Option<&mut OpenTransaction>, place: Place, resume: &[u8]) {
        if let Some(transaction) = transaction {
            transaction.newest.set(place, resume);
        }
    }

    /// A change of one document.
    async fn change(&mut self, event: &ChangeEvent<'_>, place: Place, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let operation = match event.kind {
            Kind::Insert => Operation::Insert,
            Kind::Delete => Operation::Delete,
            _ => Operation::Update,
        };
        let Some(followed) = self.collections.get_mut(event.collection) else {
            out.skip(operation);
            return Ok(());
        };
        let feed = self.feeds.get(followed.feed);
        let failed = |source| Error::Row { table: feed.name.to_string(), key: shown_key(event.key.or(event.after)), source };
        let old = event.before.map(Fields::of).transpose().map_err(failed)?;
        let new = after(event).transpose().map_err(failed)?;
        // A delete without a pre-image tells the key alone.
        let old_key =
            if operation == Operation::Delete && old.is_none() { event.key.map(Fields::key).transpose().map_err(failed)? } else { None };
        for fields in [&old, &new, &old_key].into_iter().flatten() {
            followed.shape.admit(fields.names());
        }
        if followed.shape.prepared().is_none() {
            let prepared = out.prepare(&followed.shape.relation(feed)).await?;
            followed.shape.set_prepared(prepared);
        }
        let Some(definition) = followed.shape.prepared() else { return Ok(()) };
        let Some(admitted) = out.admit(definition, operation, place, place.ordinal()) else { return Ok(()) };
        let (columns, spelling) = (followed.shape.columns(), self.spelling);
        let old_row = old.as_ref().map(|fields| fields.row(columns, spelling));
        let key_row = old_key.as_ref().map(|fields| fields.row(columns, spelling));
        let new_row = new.as_ref().map(|fields| fields.row(columns, spelling));
        let written = match (operation, new_row) {
            (Operation::Delete, _) => match old_row.or(key_row) {
                Some(row) => admitted.delete(row, old_row),
                None => Err(RowError::Malformed { what: "a delete names no document" }),
            },
            (Operation::Insert, Some(new)) => admitted.insert(new),
            (_, Some(new)) => admitted.update(old_row, new),
            (_, None) => Err(RowError::Malformed { what: "the event has neither a document nor what changed in it" }),
        };
        written.map_err(failed)?;
        Self::written(self.transaction.as_mut(), place, &self.position.resume);
        Ok(())
    }

    /// A collection that lost all its documents at once.
    async fn empty(&mut self, collection: &str, place: Place, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let Some(followed) = self.collections.get_mut(collection) else { return Ok(()) };
        let feed = self.feeds.get(followed.feed);
        tracing::warn!(table = %feed.name, "the collection was dropped or renamed: readers are told that it is empty");
        if followed.shape.prepared().is_none() {
            let prepared = out.prepare(&followed.shape.relation(feed)).await?;
            followed.shape.set_prepared(prepared);
        }
        let Some(definition) = followed.shape.prepared() else { return Ok(()) };
        let Some(admitted) = out.admit(definition, Operation::Truncate, place, place.ordinal()) else { return Ok(()) };
        let failed = |source| Error::Row { table: feed.name.to_string(), key: "of a drop".to_owned(), source };
        admitted.truncate().map_err(failed)?;
        Self::written(self.transaction.as_mut(), place, &self.position.resume);
        Ok(())
    }

    /// A collection that got the documents of another one, of which the log tells nothing: they must be read.
    fn filled(&mut self, event: &ChangeEvent<'_>) {
        let Some(followed) = event.renamed_to.and_then(|name| self.collections.get(name)) else { return };
        let reason = format!("another collection, {:?}, was renamed to it", event.collection);
        let layout = Layout(format!("renamed at {:016x}", event.time).into());
        self.table_changes.push(TableChange { feed: followed.feed, layout, reread: Some(Reread { reset: true, reason }) });
    }

    /// Takes what a reply says of the log behind its events. The position moves to the limit at most: what is behind it was not asked for.
    pub(super) fn pass(&mut self, end: &BatchEnd<'_>, until: Option<Place>, out: &mut Emitter<'_, Token>) {
        // On the way to a limit it is told whether everything up to there is read.
        let is_before_limit = end.is_whole && until.is_some();
        let through = end.through.map_or(0, |through| through + u64::from(is_before_limit));
        if self.transaction.as_ref().is_some_and(|open| end.is_empty || open.time < through) {
            self.end_transaction(out);
        }
        let place = self.position.place;
        let read = Place { time: through, passed: 0, ..place };
        let moved = place.max(until.map_or(read, |until| read.min(until)));
        if let Some(token) = end.token.map(Document::bytes)
            && (moved != place || self.position.resume != token)
        {
            self.position.set(moved, token);
            self.has_advanced = true;
        }
    }

    /// Nothing is left before this place.
    pub(super) fn caught_up_to(&mut self, place: Place) {
        if self.position.place < place {
            self.position.place = place;
            self.has_advanced = true;
        }
    }

    /// Where a later session goes on, behind the last closed record.
    pub(super) fn token(&self, written: &Emission<Token>) -> Token {
        let Some(OpenTransaction { begin, newest, .. }) = &self.transaction else { return self.position.token(None) };
        match written.inside(self.position.place.ordinal()) {
            None => begin.token(None),
            Some(inside) if inside.ordinal == newest.place.ordinal() => newest.token(Some(inside)),
            Some(inside) => self.position.token(Some(inside)),
        }
    }

    pub(super) fn take_table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }
}

/// The document after a change, or what is known of it.
fn after<'e>(event: &ChangeEvent<'e>) -> Option<Result<Fields<'e>, RowError>> {
    match (event.kind, event.after, event.key.zip(event.update)) {
        (Kind::Delete, ..) => None,
        (_, Some(document), _) => Some(Fields::of(document)),
        (Kind::Update, None, Some((key, update))) => Some(Fields::updated(key, update)),
        _ => None,
    }
}

/// The name of a transaction: the session's id, and its number there.
fn name(session: Document<'_>, number: i64) -> String {
    match session.get("id") {
        Ok(Some(Value::Binary { bytes, .. })) => format!("{}:{number}", hex(bytes)),
        _ => format!("?:{number}"),
    }
}
