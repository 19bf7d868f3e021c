//! The port to an open change log: live events, acknowledgement, changed tables.

use crate::batch::BatchWriter;
use crate::checkpoint::{Layout, ResumeToken};
use crate::event::FeedId;
use crate::fault::Classify;
use std::time::Duration;

/// The open change log of a database. The engine pulls events out of it.
///
/// One task owns it and calls one method at a time. It is opened by [`SourceConnector::connect`](crate::source::SourceConnector::connect)
/// and lives until the first error or the stop. After an error no method is called again: the engine drops it and opens a new one at the
/// token of the last batch that it handed over. Dropping it must release what it holds (sockets, threads) without waiting for the server.
pub trait Source: Send + 'static {
    /// Why the log could not be read.
    type Error: Classify;

    /// How often [`Self::acknowledge`] is called, see there.
    const HEARTBEAT: Duration;

    /// Waits for input and appends events to `out`, until the batch is full, the input is drained, or the log is read up to `until`.
    ///
    /// Called by the engine again and again, with memory for the batch already taken. While the engine opens a snapshot or reads
    /// existing rows it does not call it: the log is held then, and only [`Self::acknowledge`] is called.
    ///
    /// Before: `out` may already hold records, and an open record that the previous batch left. `until` is a token of this source; it is
    /// the cut of a snapshot, or a token that this log has returned.
    ///
    /// After `Ok`, [`Self::token`] stands behind the last closed record. Where nothing was written it may still have moved, past changes
    /// that are not published. With `until`:
    /// - everything before it is written, and nothing behind it;
    /// - the limit is checked where a transaction begins. A transaction that has begun is read to its end;
    /// - a limit that was reached stays reached, and is reported without waiting for further input.
    ///
    /// What is not published and not written: events of a feed without a start or before its start ([`Self::start`]), and operations
    /// outside the feed's mask. The same log gives the same records with the same ids and bytes, after each restart.
    ///
    /// # Errors
    /// The session is over. What the failed call wrote is not handed over: the next session reads it again. A source that has written
    /// records may return [`Filled::Drained`] first, and the error with the next call. [`Classify::fault`] decides what follows: a new
    /// session, the handling of a gap, or the end of the run.
    ///
    /// # Cancel safety
    /// Cancel safe, and cancelled often: at every heartbeat. What was written stays in `out`, what was received and not yet written stays
    /// in `self`, and the next call goes on behind it.
    fn fill(&mut self, out: &mut BatchWriter, until: Option<&ResumeToken>) -> impl Future<Output = Result<Filled, Self::Error>> + Send;

    /// Returns the position behind the last *closed* record, where a later session resumes. It may point into a transaction.
    ///
    /// Called after each [`Self::fill`], also after a cancelled one, and when the session begins. A batch's records and this token become
    /// durable together. When a session begins, it may be lower than the resumed one, where less of the log is proven.
    fn token(&self) -> ResumeToken;

    /// Sets the position from which on the feed's live events are published.
    ///
    /// Called when the first records of a feed that begins are handed over; `start` is the cut of its slice. The log has not been read
    /// beyond `start` then. A feed that began in an earlier session brings its start in [`Resume::feeds`](crate::source::Resume::feeds),
    /// and this is not called for it.
    fn start(&mut self, feed: FeedId, start: &ResumeToken);

    /// Tells the source what is durable, and keeps the session alive.
    ///
    /// Called every [`Self::HEARTBEAT`], whatever the engine waits for: memory, a snapshot, rows, the broker. While it waits in
    /// [`Self::fill`] and nothing comes, every third time only. Called once more at an orderly stop, with the last durable token.
    ///
    /// The source may forget its log before `durable`, and nothing beyond it (I1: confirmed by the broker, then durable in the
    /// checkpoint, then told to the source). With `None` nothing new may be forgotten, and the call is a keep-alive alone. `durable` may
    /// be lower than one of an earlier call: that is no error.
    ///
    /// # Errors
    /// The session is over, as with [`Self::fill`]. This is how a lost connection shows while the log is held.
    ///
    /// # Cancel safety
    /// Must be cancel safe: a stop may drop the call. What was told may then be told again.
    fn acknowledge(&mut self, durable: Option<&ResumeToken>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns the tables that were found changed since the last call, in a way that the log does not show.
    ///
    /// Called after each [`Self::acknowledge`]. A source compares the tables with [`Resume::layouts`](crate::source::Resume::layouts) when it
    /// connects, and from then on as often as it sees fit; each change is returned once. The engine stores the new layout in the
    /// checkpoint, and reads the table again where [`TableChange::reread`] asks for it.
    fn table_changes(&mut self) -> Vec<TableChange>;
}

/// Why [`Source::fill`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The batch is full; more input may be waiting.
    Full,
    /// No input is waiting: what is written may be handed over now.
    Drained,
    /// The log up to the limit is written, and nothing behind it.
    Reached,
}

/// A table that is not as the checkpoint remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    /// The feed.
    pub feed: FeedId,
    /// What to remember of the table from now on.
    pub layout: Layout,
    /// Set where rows changed and the log does not show it.
    pub reread: Option<Reread>,
}

/// Why a table's rows are to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reread {
    /// Whether rows may be gone: then a `reset` event tells readers to forget the rows that are not repeated.
    pub reset: bool,
    /// What happened, for logs and `feedline check`.
    pub reason: String,
}
