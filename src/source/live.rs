//! The port to an open change log: live events, acknowledgement, changed tables.

use crate::checkpoint::{Layout, ResumeToken};
use crate::event::FeedId;
use crate::fault::Classify;
use crate::source::emission::Emission;
use crate::source::emitter::Emitter;
use crate::source::token::LogToken;
use std::time::Duration;

/// The open change log of a database. The engine pulls events out of it.
///
/// One task owns it and calls one method at a time. It is opened by [`SourceConnector::connect`](crate::source::SourceConnector::connect)
/// and lives until the first error or the stop. After an error no method is called again: the engine drops it and opens a new one at the
/// token of the last batch that it handed over. Dropping it must release what it holds (sockets, threads) without waiting for the server.
pub trait Source: Send + 'static {
    /// Why the log could not be read.
    type Error: Classify;
    /// A position in its log.
    type Token: LogToken<Error = Self::Error>;

    /// How often [`Self::acknowledge`] is called, see there.
    const HEARTBEAT: Duration;

    /// Whether a change may come into the log long after it was made, where somebody finds it. Then a confirmed change says nothing of older ones,
    /// and the lag counts from the last proof alone.
    const FINDS_CHANGES_LATE: bool = false;

    /// Waits for input and gives the log's changes to `out`, until the batch is full, the input is drained, or the log is read up to `until`.
    ///
    /// Called by the engine again and again, with memory for the batch already taken. While the engine opens a snapshot or reads
    /// existing rows it does not call it: the log is held then, and only [`Self::acknowledge`] is called.
    ///
    /// A source only decodes. It gives every change of a feed's table to `out`, which decides what is published and writes the events. `until`
    /// is the cut of a snapshot, or a token that this log has returned.
    ///
    /// After `Ok`, [`Self::progress`] tells the position behind the last *closed* record. Where nothing was written it may still have moved,
    /// past changes that are not published. With `until`:
    /// - everything before it is written, and nothing behind it;
    /// - the limit is checked where a transaction begins. A transaction that has begun is read to its end;
    /// - a limit that was reached stays reached, and is reported without waiting for further input.
    ///
    /// The same log gives the same changes with the same positions and ordinals, after each restart.
    ///
    /// # Errors
    /// The session is over. What the failed call wrote is not handed over: the next session reads it again. A source that has written
    /// records may return [`Filled::Drained`] first, and the error with the next call. [`Classify::fault`] decides what follows: a new
    /// session, the handling of a gap, or the end of the run.
    ///
    /// # Cancel safety
    /// Cancel safe, and cancelled often: at every heartbeat. What was written stays in the batch, what was received and not yet written stays
    /// in `self`, and the next call goes on behind it.
    fn fill(
        &mut self,
        out: &mut Emitter<'_, Self::Token>,
        until: Option<&Self::Token>,
    ) -> impl Future<Output = Result<Filled, Self::Error>> + Send;

    /// Returns the position behind the last *closed* record, where a later session resumes, and the tables that changed. It may point into a
    /// transaction; `written` knows which of its events are closed.
    ///
    /// Called when the session begins, after each [`Self::fill`], also after a cancelled one, and after each [`Self::acknowledge`]. A batch's
    /// records and this token become durable together. When a session begins, it may be lower than the resumed one, where less of the log
    /// is proven.
    fn progress(&mut self, written: &Emission<Self::Token>) -> SourceProgress;

    /// Tells the source what is durable, and keeps the session alive.
    ///
    /// Called every [`Self::HEARTBEAT`], whatever the engine waits for: memory, a snapshot, rows, the broker. While it waits in
    /// [`Self::fill`] and nothing comes, every third time only. Called once more at an orderly stop, with the last durable token.
    ///
    /// The source may forget its log before `durable`, and nothing beyond it (I1: confirmed by the broker, then durable in the
    /// checkpoint, then told to the source). With `None` nothing new may be forgotten, and the call is a keep-alive alone. `durable` may
    /// be lower than one of an earlier call: that is no error. `written` tells which feeds have started.
    ///
    /// # Errors
    /// The session is over, as with [`Self::fill`]. This is how a lost connection shows while the log is held.
    ///
    /// # Cancel safety
    /// Must be cancel safe: a stop may drop the call. What was told may then be told again.
    fn acknowledge(
        &mut self,
        durable: Option<&Self::Token>,
        written: &Emission<Self::Token>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// How far a source has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProgress {
    /// Where a later session resumes.
    pub token: ResumeToken,
    /// The tables that were found changed since the last call, in a way that the log does not show.
    ///
    /// A source compares the tables with [`Resume::layouts`](crate::source::Resume::layouts) when it connects, and from then on as often
    /// as it sees fit; each change is returned once. The engine stores the new layout in the checkpoint, with this token or a later one, and
    /// reads the table again where [`TableChange::reread`] asks for it.
    pub table_changes: Vec<TableChange>,
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
