//! The port to existing rows: snapshots whose exact position in the log is known.

use crate::checkpoint::{ResumeToken, ScanPosition};
use crate::event::{FeedId, Timestamp};
use crate::fault::Classify;
use crate::source::rows::RowEmitter;
use std::time::Duration;

/// Reads existing rows of the database under a snapshot, on connections of its own.
///
/// It is opened by [`SourceConnector::prefeed`](crate::source::SourceConnector::prefeed) when a feed's rows are to be sent, and lives until
/// all are sent or the session ends. The order of the calls:
///
/// 1. [`Self::expected_rows`] for each feed that is not finished.
/// 2. For each slice: [`Self::open`]; [`Self::scan`] until the slice ends; [`Self::close`]. The log is held from `open` until `scan` has
///    read what the slice's memory holds; then it is carried to the cut.
///
/// The engine writes `reset` events, and the rows of files.
///
/// One task owns it and calls one method at a time. [`Source::acknowledge`](crate::source::Source::acknowledge) goes on beside these calls.
///
/// Errors and cancel safety of all calls, where nothing else is said: an error ends the session; [`Self::close`] may still be called,
/// and nothing else. A call is dropped when the pipeline stops or the session with the log fails; then too only `close` may follow.
pub trait Prefeed: Send + 'static {
    /// Why rows could not be read.
    type Error: Classify;

    /// The longest that a snapshot may be held: the engine ends the slice after that, or sooner.
    const SLICE_MAX: Duration;

    /// Opens a snapshot whose exact position in the log is known, within the given time.
    ///
    /// `feeds` are those that the slice may read, in the order in which it reads them; it may be empty. Called while the log is held, so
    /// that nothing is read beyond the cut. No snapshot is open then.
    ///
    /// After [`Opened::Cut`]: the snapshot shows every transaction before [`Cut::token`], and none behind it. The tables of `feeds` stay
    /// readable until [`Self::close`]. After [`Opened::Blocked`]: nothing is held. The engine lets live events go on, and tries again
    /// after 15 s and up to 2 min.
    ///
    /// # Errors
    /// As for all calls. Nothing may be held then.
    fn open(&mut self, feeds: &[ToRead], within: Duration) -> impl Future<Output = Result<Opened, Self::Error>> + Send;

    /// Gives `out` the feed's rows behind `after` as the snapshot shows them, until the batch is full or the rows end.
    ///
    /// Called with a snapshot open over the feed, as often as the slice goes on. `after` is what the last call returned for this feed,
    /// perhaps in an earlier slice or process; only the prefeed knows what it means.
    ///
    /// Each row comes once, in an order that a later snapshot continues. Where `after` does not fit the table any more (another key), the
    /// table is read from its first row. Rows that cannot be sent because the batch is full are read again, or kept for the next call.
    ///
    /// # Errors
    /// As for all calls. A row that cannot be encoded is an error; it is never skipped.
    fn scan(
        &mut self,
        feed: FeedId,
        after: Option<&ScanPosition>,
        out: &mut RowEmitter<'_>,
    ) -> impl Future<Output = Result<Scanned, Self::Error>> + Send;

    /// Returns whether somebody else waits for what the snapshot holds: the slice then ends early.
    ///
    /// Called every 250 ms while the engine waits under an open snapshot, and after each batch of rows. The default is for a snapshot for
    /// which nobody waits.
    ///
    /// # Errors
    /// As for all calls.
    ///
    /// # Cancel safety
    /// Must be cancel safe: it is dropped whenever what the engine waits for arrives, and called again later.
    fn is_waited_for(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send {
        std::future::ready(Ok(false))
    }

    /// Releases the snapshot and its locks.
    ///
    /// Called at the end of each slice, also after an error or a dropped call. Where no snapshot is open it does nothing. Afterwards
    /// [`Self::open`] may be called again.
    ///
    /// # Errors
    /// The session is over. What the snapshot held is released at the latest when the connection closes.
    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Estimates how many rows the feed's prefeed holds, for the progress report; `None` where that is not known cheaply.
    ///
    /// Called once per feed before the first slice. It must not take long: it may not read the whole of a large table.
    ///
    /// # Errors
    /// As for all calls.
    fn expected_rows(&mut self, _feed: FeedId) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send {
        std::future::ready(Ok(None))
    }
}

/// A feed whose rows a snapshot is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToRead {
    /// The feed.
    pub feed: FeedId,
    /// Its rows after this one; all where `None`.
    pub after: Option<ScanPosition>,
}

/// The result of an attempt to open a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The snapshot is open.
    Cut(Cut),
    /// Others hold it up; nothing is held.
    Blocked {
        /// Who, and with what, for a person.
        by: String,
    },
}

/// The exact position in the log that a snapshot shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Everything before it is visible in the snapshot, nothing behind it.
    pub token: ResumeToken,
    /// When the snapshot was opened: the record time of its rows.
    pub opened_at: Timestamp,
}

/// How far one call of [`Prefeed::scan`] has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The position of the last row written; `None` where there was none.
    pub after: Option<ScanPosition>,
    /// Whether the feed's rows end here.
    pub done: bool,
}
