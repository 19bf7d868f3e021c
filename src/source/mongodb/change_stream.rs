//! The change stream of a database: its cursor, and the events that have arrived.
//!
//! The next batch is asked for as soon as one has arrived, so that the server reads its oplog while the events of this one are published.

use super::action::Action;
use super::bson::{Document, Element, Elements, Value, Writer};
use super::change_event::{Fragment, SPLIT, fragment, time_of};
use super::error::Error;
use super::options::Options;
use super::server_error::ErrorKind;
use super::session::{BATCH_DOCUMENTS, Session};
use super::token::Token;
use super::wire::Frame;
use crate::feed::Feeds;
use memchr::memmem;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// How long the server waits for an event before it answers with none, when nobody waits for that answer: milliseconds.
const WAIT_MILLIS: i32 = 1000;
/// The same while somebody waits for it: the end of a transaction, a limit.
const SHORT_WAIT_MILLIS: i32 = 20;
/// A server whose tokens tell no time may show an event a moment after it has told of its time.
const SHOWN_WITHIN: Duration = Duration::from_millis(500);
/// The longest event that is put together. It has three documents at most, each of 16 MiB.
const EVENT_BYTES_MAX: usize = 96 << 20;

/// An open change stream.
#[derive(Debug)]
pub(super) struct ChangeStream {
    session: Session,
    database: String,
    /// The number of the cursor; 0 once the server has closed it.
    cursor: i64,
    /// The request whose reply is awaited.
    asked: Option<i32>,
    /// The operation time that the server had told when it was asked.
    told_before: u64,
    /// The newest operation time that the server has told.
    told: u64,
    /// A time that the server had told, and when: since then its replies have had no event.
    quiet_since: Option<(Instant, u64)>,
    batch: Option<Batch>,
    /// The fragments of an event that is not complete.
    fragments: Vec<u8>,
    /// The event that was put together last.
    joined: Vec<u8>,
}

/// A reply that is being read. Places are in its document.
#[derive(Clone, Debug)]
struct Batch {
    frame: Frame,
    /// The events that are not read yet.
    events: Range<usize>,
    /// The token behind all of them.
    token: Option<Range<usize>>,
    is_empty: bool,
    /// A time that the server told long ago, if no reply since then had an event.
    told_long_before: Option<u64>,
}

/// What comes next.
pub(super) enum Next<'b> {
    /// An event, and where the one after it begins.
    Event(Document<'b>, NextEvent),
    /// All events of a reply were read.
    End(BatchEnd<'b>),
    /// Nothing has arrived.
    Nothing,
}

/// Where the event after this one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextEvent(usize);

/// What a reply says of the log behind its events.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchEnd<'b> {
    /// The token from which a later stream goes on.
    pub(super) token: Option<Document<'b>>,
    /// Whether the reply had no event. On a replica set nothing of a transaction is left then.
    pub(super) is_empty: bool,
    /// All events with a lower time were read.
    pub(super) through: Option<u64>,
    /// Those of that time too.
    pub(super) is_whole: bool,
}

/// A cursor that was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) cursor: i64,
    /// The operation time that the server told.
    told: u64,
    /// Whether the server splits events that are too large for a reply.
    pub(super) splits_events: bool,
}

/// Opens a cursor behind a token. A server that cannot split events is asked again without that stage.
pub(super) async fn open_cursor(session: &mut Session, options: &Options, feeds: &Feeds, from: &Token) -> Result<Opened, Error> {
    let (splits_events, reply) = match session.run(Action::Watch, command(options, feeds, from, true)).await {
        Err(Error::Refused { error, .. }) if error.kind == ErrorKind::Unknown => {
            (false, session.run(Action::Watch, command(options, feeds, from, false)).await?)
        }
        reply => (true, reply?),
    };
    let reply = Document::new(&reply)?;
    let told = reply.get("operationTime")?.and_then(Value::timestamp).unwrap_or(0);
    let cursor = reply.document("cursor")?.map(|cursor| cursor.number("id")).transpose()?.flatten();
    let cursor = cursor.ok_or(Error::Protocol { what: "the cursor of the change stream" })?;
    Ok(Opened { cursor, told, splits_events })
}

/// The command that opens the stream behind a token.
fn command(options: &Options, feeds: &Feeds, from: &Token, splits_events: bool) -> Writer {
    let images = [("fullDocument", options.full_document), ("fullDocumentBeforeChange", options.pre_images)];
    let mut stage = Writer::new();
    for (name, image) in images {
        if let Some(option) = image.option() {
            stage = stage.text(name, option);
        }
    }
    // It goes on behind an invalidation too, unlike `resumeAfter`.
    stage = match &from.resume {
        Some(token) => stage.document("startAfter", token),
        None => stage.timestamp("startAtOperationTime", from.place.time),
    };
    let among = |name: &str| {
        let names = Writer::new().texts("$in", feeds.iter().map(|feed| &*feed.table)).finish();
        Writer::new().document(name, &names).finish()
    };
    let ends = Writer::new().text("operationType", "invalidate").finish();
    let matched = Writer::new().documents("$or", [among("ns.coll"), among("to.coll"), ends]).finish();
    let mut stages =
        vec![Writer::new().document("$changeStream", &stage.finish()).finish(), Writer::new().document("$match", &matched).finish()];
    if splits_events {
        stages.push(Writer::new().document("$changeStreamSplitLargeEvent", Document::EMPTY.bytes()).finish());
    }
    // With no event at first, so that a stream that has to read far is open at once.
    let cursor = Writer::new().int("batchSize", 0).finish();
    Writer::new().int("aggregate", 1).documents("pipeline", stages).document("cursor", &cursor)
}

impl ChangeStream {
    /// Opens the stream behind a token.
    pub(super) async fn open(mut session: Session, options: &Options, feeds: &Feeds, from: &Token) -> Result<Self, Error> {
        let Opened { cursor, told, .. } = open_cursor(&mut session, options, feeds, from).await?;
        let database = options.database.clone();
        let (fragments, joined) = (Vec::new(), Vec::new());
        Ok(Self { session, database, cursor, asked: None, told_before: told, told, quiet_since: None, batch: None, fragments, joined })
    }

    pub(super) fn address(&self) -> &str {
        self.session.address()
    }

    /// Asks for the next batch, if that was not done. `is_awaited`: somebody waits for a reply without events.
    pub(super) fn ask(&mut self, is_awaited: bool) {
        if self.asked.is_some() || self.cursor == 0 {
            return;
        }
        // Behind events, the end of what they belong to is awaited.
        let has_events = self.batch.as_ref().is_some_and(|batch| !batch.is_empty);
        let wait = if is_awaited || has_events { SHORT_WAIT_MILLIS } else { WAIT_MILLIS };
        let command = Writer::new().long("getMore", self.cursor).text("collection", "$cmd.aggregate");
        self.told_before = self.told;
        self.asked = Some(self.session.ask(command.int("batchSize", BATCH_DOCUMENTS).int("maxTimeMS", wait)));
    }

    /// Sends what was asked. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.session.flush().await
    }

    /// Waits for bytes; returns how many have come. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<usize, Error> {
        self.session.read().await
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    pub(super) fn try_read(&mut self) -> Result<Option<usize>, Error> {
        self.session.try_read()
    }

    /// Whether a reply is there that was not read to its end.
    pub(super) fn has_arrived(&self) -> Result<bool, Error> {
        Ok(self.batch.is_some() || self.session.arrived()?.is_some())
    }

    /// Takes the next reply, if it has arrived; fails if it is an error.
    pub(super) fn take_reply(&mut self) -> Result<bool, Error> {
        if self.batch.is_some() {
            return Ok(true);
        }
        let Some(frame) = self.session.arrived()? else { return Ok(false) };
        if self.asked != Some(frame.answers) {
            return Err(Error::Protocol { what: "a reply that nobody asked for" });
        }
        self.asked = None;
        let reply = self.session.reply(&frame)?;
        self.session.check(Action::Watch, reply)?;
        self.told = reply.get("operationTime")?.and_then(Value::timestamp).unwrap_or(0).max(self.told);
        let cursor = reply.document("cursor")?.ok_or(Error::Protocol { what: "a reply of the change stream" })?;
        let events = cursor.get("nextBatch")?.and_then(Value::array).ok_or(Error::Protocol { what: "the events of a reply" })?.content();
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr() - reply.bytes().as_ptr().addr();
            start..start + part.len()
        };
        let token = cursor.document("postBatchResumeToken")?.map(|token| place(token.bytes()));
        let is_empty = events.is_empty();
        let now = Instant::now();
        self.quiet_since = self.quiet_since.filter(|_| is_empty);
        let told_long_before = self.quiet_since.take_if(|(since, _)| SHOWN_WITHIN <= now - *since).map(|(_, told)| told);
        if is_empty {
            self.quiet_since.get_or_insert((now, self.told_before));
        }
        let batch = Batch { events: place(events), token, is_empty, told_long_before, frame };
        self.cursor = cursor.number("id")?.unwrap_or(0);
        self.batch = Some(batch);
        Ok(true)
    }

    /// What comes next. An event is returned again until [`Self::pass`] is called.
    pub(super) fn next(&mut self) -> Result<Next<'_>, Error> {
        loop {
            if !self.take_reply()? {
                if self.cursor == 0 && self.asked.is_none() {
                    return Err(Error::StreamEnded {
                        database: self.database.clone(),
                        reason: "the database was dropped, or the cursor was closed",
                    });
                }
                return Ok(Next::Nothing);
            }
            let Some(Batch { frame, events, .. }) = &self.batch else { return Ok(Next::Nothing) };
            let body = self.session.reply(frame)?.bytes();
            let mut elements = Elements::of(&body[events.clone()]);
            let Some(element) = elements.next() else { break };
            let event = element?.value.document().ok_or(Error::Event { what: "it is no document" })?;
            let next = NextEvent(events.end - elements.length());
            match part(event)? {
                None => {
                    // Looked up again, because the loop may go on with another borrow.
                    let event = event.bytes().as_ptr().addr() - body.as_ptr().addr()..next.0;
                    let Some(Batch { frame, .. }) = &self.batch else { return Ok(Next::Nothing) };
                    let body = self.session.reply(frame)?.bytes();
                    return Ok(Next::Event(Document::new(&body[event])?, next));
                }
                Some(Fragment { number, of }) => {
                    if EVENT_BYTES_MAX < self.fragments.len() + event.bytes().len() {
                        return Err(Error::Event { what: "its fragments are larger than 96 MiB" });
                    }
                    if number == of {
                        self.joined = join(&self.fragments, event)?;
                        return Ok(Next::Event(Document::new(&self.joined)?, next));
                    }
                    append(&mut self.fragments, event)?;
                    self.move_to(next);
                }
            }
        }
        let Some(Batch { frame, token, is_empty, told_long_before, .. }) = &self.batch else { return Ok(Next::Nothing) };
        let body = self.session.reply(frame)?.bytes();
        let token = token.clone().map(|token| Document::new(&body[token])).transpose()?;
        // A token that tells no time is one of a server whose empty replies show that it has read its whole log. A router's do not.
        let read = told_long_before.filter(|_| !self.session.is_router());
        let time = token.and_then(time_of);
        let is_empty = *is_empty && !self.session.is_router();
        Ok(Next::End(BatchEnd { token, is_empty, through: time.or(read), is_whole: time.is_none() && read.is_some() }))
    }

    fn move_to(&mut self, NextEvent(next): NextEvent) {
        if let Some(batch) = &mut self.batch {
            batch.events.start = next;
        }
    }

    /// Moves on behind an event that was applied.
    pub(super) fn pass(&mut self, next: NextEvent) {
        self.fragments.clear();
        self.joined = Vec::new();
        self.move_to(next);
    }

    /// Moves on behind the reply whose end was seen.
    pub(super) fn pass_reply(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.session.consume(&batch.frame);
        }
    }
}

/// Which fragment a document is; `None` for a whole event.
fn part(event: Document<'_>) -> Result<Option<Fragment>, Error> {
    // Hardly any event is a fragment, and this is asked of each.
    if memmem::find(event.bytes(), SPLIT).is_none() {
        return Ok(None);
    }
    for element in event.elements() {
        if let Some(fragment) = fragment(&element?)? {
            return Ok(Some(fragment).filter(|fragment| 1 < fragment.of));
        }
    }
    Ok(None)
}

/// The elements of a fragment that belong to the event.
fn is_of_event(element: &Element<'_>) -> bool {
    element.name != SPLIT
}

/// Appends the elements of a fragment. Only the last one's token counts.
fn append(fragments: &mut Vec<u8>, event: Document<'_>) -> Result<(), Error> {
    let mut written = Writer::new();
    for element in event.elements() {
        let element = element?;
        if is_of_event(&element) && element.name != b"_id" {
            written = written.raw(element.name, element.raw);
        }
    }
    fragments.extend_from_slice(Document::new(&written.finish())?.content());
    Ok(())
}

/// The event that these fragments and this last one are.
fn join(fragments: &[u8], last: Document<'_>) -> Result<Vec<u8>, Error> {
    let mut written = Writer::new().elements(fragments);
    for element in last.elements() {
        let element = element?;
        if is_of_event(&element) {
            written = written.raw(element.name, element.raw);
        }
    }
    Ok(written.finish())
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Writer};
    use super::{append, join, part};

    #[test]
    fn fragments_become_one_event_with_the_last_token() {
        let fragment = |number, token: &str, name: &str| {
            let split = Writer::new().int("fragment", number).int("of", 3).finish();
            let token = Writer::new().text("_data", token).finish();
            Writer::new().document("_id", &token).document("splitEvent", &split).text(name, name).finish()
        };
        let (first, second, third) = (fragment(1, "a", "x"), fragment(2, "b", "y"), fragment(3, "c", "z"));
        let mut fragments = Vec::new();
        for part in [&first, &second] {
            append(&mut fragments, Document::new(part).unwrap()).unwrap();
        }
        let joined = join(&fragments, Document::new(&third).unwrap()).unwrap();
        let joined = Document::new(&joined).unwrap();
        let names: Vec<_> = joined.elements().map(|element| element.unwrap().text_name().unwrap()).collect();
        assert_eq!(names, ["x", "y", "_id", "z"]);
        assert_eq!(joined.document("_id").unwrap().unwrap().text("_data").unwrap(), Some("c"));
        assert_eq!(part(Document::new(&second).unwrap()).unwrap().unwrap().number, 2);
        assert_eq!(part(joined).unwrap(), None);
    }
}
