//! A session that reads rows under the snapshot. One statement sends all rows of a range, and is killed if the slice ends before.

use super::field::Field;
use super::row::AnswerRow;
use super::table::Table;
use crate::event::FeedId;
use crate::source::mysql::error::Error;
use crate::source::mysql::kind::Space;
use crate::source::mysql::options::Options;
use crate::source::mysql::session::{NextRow, Prepared, Session};
use crate::source::mysql::wire::Packet;
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// How long the release of a reader may take, before its connection is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Text and labels come in the encoding of their column, as in the log. Rows wait in the server while others are read, for as long as a slice
/// lasts. A date that is none (`ALLOW_INVALID_DATES`) is compared as what it is. Keys that no index sorts are sorted by all their bytes.
const SETTINGS: &str =
    "SET SESSION character_set_results = NULL, SESSION sql_mode = 'ALLOW_INVALID_DATES', SESSION max_sort_length = 16384";

/// Begins the transaction of a slice.
const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// The range that a reader is reading.
#[derive(Debug)]
struct Job {
    feed: FeedId,
    range: usize,
    statement: Prepared,
    fields: Vec<Field>,
    /// The places of the newest row, until its key is noted.
    newest: Option<Range<usize>>,
}

/// A session for rows.
#[derive(Debug)]
pub(super) struct Reader {
    session: Session,
    /// Whether its transaction shows the slice's snapshot.
    shows_snapshot: bool,
    job: Option<Job>,
    /// Whether its statement may still be running.
    is_busy: bool,
}

impl Reader {
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let mut session = Session::open(options).await?;
        session.query(SETTINGS).await?;
        Ok(Self { session, shows_snapshot: false, job: None, is_busy: false })
    }

    /// The number by which the server knows its session.
    pub(super) const fn id(&self) -> u32 {
        self.session.id()
    }

    /// Whether a statement of it may be running.
    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether it is in a transaction.
    pub(super) const fn is_used(&self) -> bool {
        self.shows_snapshot || self.is_busy
    }

    /// Whether it can read another range.
    pub(super) const fn is_free(&self) -> bool {
        self.shows_snapshot && self.job.is_none()
    }

    /// The number of the range that it reads, if it reads this feed.
    pub(super) fn range_of(&self, feed: FeedId) -> Option<usize> {
        self.job.as_ref().filter(|job| job.feed == feed).map(|job| job.range)
    }

    /// Begins a transaction whose snapshot is taken now.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.shows_snapshot = true;
        self.session.query(BEGIN).await.map(drop)
    }

    /// Ends the transaction. The reader takes no part in the slice.
    pub(super) async fn leave(&mut self) -> Result<(), Error> {
        self.shows_snapshot = false;
        self.session.query("ROLLBACK").await.map(drop)
    }

    /// The session, between two ranges.
    pub(super) const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Starts to read the rows of this statement.
    pub(super) async fn read(&mut self, feed: FeedId, range: usize, table: &Table, select: &str) -> Result<(), Error> {
        self.is_busy = true;
        let statement = self.session.prepare(select).await;
        if let Err(Error::Refused(_)) = statement {
            self.is_busy = false;
        }
        let statement = statement?;
        let fields = table.fields(&statement.columns)?;
        self.session.execute(&statement).await?;
        self.job = Some(Job { feed, range, statement, fields, newest: None });
        Ok(())
    }

    /// The next row that has arrived. Does not wait for input.
    pub(super) fn next(&mut self) -> Result<NextRow, Error> {
        let next = self.session.next_row()?;
        if next == NextRow::Ended {
            self.is_busy = false;
            if let Some(job) = self.job.take() {
                self.session.forget(&job.statement);
            }
        }
        Ok(next)
    }

    /// How the row's values are sent, and its bytes. It was not taken yet.
    pub(super) fn row(&self, packet: &Packet) -> (&[Field], &[u8]) {
        (self.job.as_ref().map_or(&[][..], |job| &job.fields), self.session.row(packet))
    }

    /// Moves on behind a row. Its bytes stay readable until [`Self::poll_input`].
    pub(super) fn take(&mut self, packet: &Packet) {
        let places = self.session.take_row(packet);
        if let Some(job) = &mut self.job {
            job.newest = Some(places);
        }
    }

    /// The newest row that was taken. Each row is returned at most once.
    pub(super) fn newest(&mut self) -> Option<(&[Field], &[u8])> {
        let job = self.job.as_mut()?;
        let places = job.newest.take()?;
        Some((&job.fields, self.session.at(places)))
    }

    /// Reads input that has arrived. The bytes of rows that were taken before are lost.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.session.poll_input(context)
    }

    /// Ends the statement, which was killed if it is still running, and the transaction; returns the reader for reuse. `None` if the server is
    /// too slow or fails; the connection is closed then.
    pub(super) async fn release(mut self) -> Option<Self> {
        self.job = None;
        let released = timeout(RELEASE_TIMEOUT, self.leave()).await;
        self.is_busy = false;
        matches!(released, Ok(Ok(()))).then_some(self)
    }
}

/// A row as its table shows it.
pub(super) const fn row<'a>(table: &'a Table, (fields, body): (&'a [Field], &'a [u8]), space: &'a Space) -> AnswerRow<'a> {
    AnswerRow { shapes: table.shapes.as_slice(), fields, body, space }
}
