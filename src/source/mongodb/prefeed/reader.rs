//! One session that reads a range of documents after the other, under the snapshot of a cluster time.

use super::super::action::Action;
use super::super::bson::{Document, Elements, Value, Writer};
use super::super::error::Error;
use super::super::options::Options;
use super::super::session::{BATCH_DOCUMENTS, Session};
use super::super::wire::Frame;
use crate::event::FeedId;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A session, and what it reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) session: Session,
    job: Option<Job>,
}

/// A range that is being read.
#[derive(Debug)]
struct Job {
    feed: FeedId,
    /// The number of the range.
    range: usize,
    collection: Arc<str>,
    /// The number of the cursor; 0 once the server has sent all.
    cursor: i64,
    asked: Option<i32>,
    batch: Option<(Frame, Range<usize>)>,
    /// The first document of the range, if an earlier slice has read it.
    skipped: Option<Vec<u8>>,
}

/// What a reader has.
pub(super) enum NextRow<'b> {
    /// A document, and where the one after it begins.
    Row(Document<'b>, usize),
    /// Nothing has arrived.
    Pending,
    /// The range was read to its end.
    Ended,
}

impl Reader {
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        Ok(Self { session: Session::open(options).await?, job: None })
    }

    pub(super) const fn is_free(&self) -> bool {
        self.job.is_none()
    }

    /// The range of this feed that is being read.
    pub(super) fn range_of(&self, feed: FeedId) -> Option<usize> {
        self.job.as_ref().filter(|job| job.feed == feed).map(|job| job.range)
    }

    /// Begins to read a range: sends the `find`.
    pub(super) fn begin(&mut self, feed: FeedId, range: usize, collection: Arc<str>, find: Writer, skipped: Option<Vec<u8>>) {
        let asked = Some(self.session.ask(find.int("batchSize", BATCH_DOCUMENTS)));
        self.job = Some(Job { feed, range, collection, cursor: 0, asked, batch: None, skipped });
    }

    /// Sends what was asked. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.session.flush().await
    }

    /// The next document, which is returned again until [`Self::pass`] is called.
    pub(super) fn next(&mut self) -> Result<NextRow<'_>, Error> {
        loop {
            let Some(job) = &mut self.job else { return Ok(NextRow::Ended) };
            if job.batch.is_none() && !Self::take_reply(&mut self.session, job)? {
                return Ok(if job.asked.is_none() { NextRow::Ended } else { NextRow::Pending });
            }
            let Some((frame, documents)) = &job.batch else { return Ok(NextRow::Pending) };
            if documents.is_empty() {
                self.session.consume(frame);
                job.batch = None;
                continue;
            }
            let body = self.session.reply(frame)?.bytes();
            let mut elements = Elements::of(&body[documents.clone()]);
            let Some(element) = elements.next() else { return Ok(NextRow::Pending) };
            let document = element?.value.document().ok_or(Error::Protocol { what: "a document of a cursor" })?;
            let next = documents.end - elements.length();
            if job.skipped.take().is_some_and(|skipped| has_key(document, &skipped)) {
                if let Some((_, documents)) = &mut job.batch {
                    documents.start = next;
                }
                continue;
            }
            let place = document.bytes().as_ptr().addr() - body.as_ptr().addr()..next;
            let Some((frame, _)) = &job.batch else { return Ok(NextRow::Pending) };
            return Ok(NextRow::Row(Document::new(&self.session.reply(frame)?.bytes()[place])?, next));
        }
    }

    /// Takes the next reply, if it has arrived, and asks for the one after it.
    fn take_reply(session: &mut Session, job: &mut Job) -> Result<bool, Error> {
        let Some(frame) = session.arrived()? else { return Ok(false) };
        if job.asked != Some(frame.answers) {
            return Err(Error::Protocol { what: "a reply that nobody asked for" });
        }
        job.asked = None;
        let reply = session.reply(&frame)?;
        session.check(Action::Read, reply)?;
        let cursor = reply.document("cursor")?.ok_or(Error::Protocol { what: "a reply of a cursor" })?;
        let batch = cursor.get("firstBatch")?.or(cursor.get("nextBatch")?).and_then(Value::array);
        let documents = batch.ok_or(Error::Protocol { what: "the documents of a reply" })?.content();
        let start = documents.as_ptr().addr() - reply.bytes().as_ptr().addr();
        let documents = start..start + documents.len();
        job.cursor = cursor.number("id")?.unwrap_or(0);
        job.batch = Some((frame, documents));
        if job.cursor != 0 {
            let more = Writer::new().long("getMore", job.cursor).text("collection", &job.collection).int("batchSize", BATCH_DOCUMENTS);
            job.asked = Some(session.ask(more));
        }
        Ok(true)
    }

    /// Moves on behind a document that was written.
    pub(super) fn pass(&mut self, next: usize) {
        if let Some((_, documents)) = self.job.as_mut().and_then(|job| job.batch.as_mut()) {
            documents.start = next;
        }
    }

    /// The range is read.
    pub(super) fn end(&mut self) {
        self.job = None;
    }

    /// Polls for input; returns how many bytes have come.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.session.poll_read(context)
    }

    /// Ends what is being read, and closes its cursor. Returns the reader if it can be used again.
    pub(super) async fn release(mut self) -> Option<Self> {
        let Some(job) = self.job.take() else { return Some(self) };
        if let Some((frame, _)) = &job.batch {
            self.session.consume(frame);
        }
        if job.cursor != 0 {
            let kill = Writer::new().text("killCursors", &job.collection).array("cursors", [job.cursor], Writer::long);
            // A reply that is under way comes first. If it cannot be read, the server closes the cursor after ten minutes.
            self.session.run(Action::Read, kill).await.ok()?;
        } else if job.asked.is_some() {
            // The reply to a `find` would bring a cursor that nobody knows.
            return None;
        }
        Some(self)
    }
}

/// Whether a document has the same `_id` as this one, byte for byte.
fn has_key(document: Document<'_>, other: &[u8]) -> bool {
    let key = super::ranges::key_of(document);
    key.is_some() && key == Document::new(other).ok().and_then(super::ranges::key_of)
}
