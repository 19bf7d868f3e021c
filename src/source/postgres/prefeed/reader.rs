//! A session that reads rows under the snapshot. It fetches from a portal in portions, so that a slice can end without cancelling a statement.
//!
//! Two requests are always outstanding: the server reads the next rows while feedline encodes the ones before.

use super::snapshot::{self, Snapshot};
use crate::event::FeedId;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::server_error::ServerError;
use crate::source::postgres::session::{Interrupter, Mode, Session};
use crate::source::postgres::wire::{Frame, put_text};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// About how many bytes of rows one request returns.
const REQUEST_BYTES: usize = 512 * 1024;
/// Rows per request while the size of rows is not known.
const FIRST_ROWS: u32 = 128;
/// How long outstanding requests may take to finish at the end of a slice, before they are cancelled.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// How long the release of a reader may take, before its connection is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
const PORTAL: &str = "rows";
/// Sorting is disabled so that the server uses an index in key order. A slice reads only part of the table, and would sort all of it each time.
const SETTINGS: [(&str, &str); 2] = [("enable_sort", "off"), ("jit", "off")];

/// The range that a reader is reading.
#[derive(Debug)]
struct Job {
    feed: FeedId,
    range: usize,
    /// Requests that are not completely answered.
    outstanding: u32,
    /// Whether the last row has arrived.
    complete: bool,
    rows_per_request: u32,
    rows: u64,
    bytes: u64,
    /// The newest row, as long as it is in the buffer.
    newest: Option<Frame>,
}

#[derive(Debug)]
pub(super) struct Reader {
    session: Session,
    interrupter: Interrupter,
    job: Option<Job>,
}

/// The next row of a reader, if there is one.
#[derive(Debug)]
pub(super) enum NextRow {
    /// A row, at the front of the buffer.
    Row(Frame),
    /// None has arrived yet.
    Pending,
    /// No more rows; the reader is free.
    Ended,
}

impl Reader {
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let mut session = Session::open(options, Mode::Ordinary).await?;
        snapshot::apply_settings(&mut session, &SETTINGS).await?;
        let interrupter = session.interrupter(options);
        Ok(Self { session, interrupter, job: None })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.session.pid()
    }

    pub(super) const fn is_free(&self) -> bool {
        self.job.is_none()
    }

    /// The number of the range that it reads, if it reads this feed.
    pub(super) fn range_of(&self, feed: FeedId) -> Option<usize> {
        self.job.as_ref().filter(|job| job.feed == feed).map(|job| job.range)
    }

    /// Starts a transaction that uses the snapshot.
    pub(super) async fn import(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        snapshot.import(&mut self.session).await
    }

    /// The session, for other queries between two jobs.
    pub(super) fn session(&mut self) -> &mut Session {
        assert!(self.is_free(), "the reader is busy");
        &mut self.session
    }

    /// Starts to read the rows of this statement.
    pub(super) async fn begin(&mut self, feed: FeedId, range: usize, select: &str) -> Result<(), Error> {
        assert!(self.is_free(), "one job at a time");
        let wire = self.session.wire();
        wire.push(Some(b'C'), |out| {
            out.push(b'P');
            put_text(out, PORTAL);
        });
        wire.push(Some(b'P'), |out| {
            put_text(out, "");
            put_text(out, select);
            out.extend_from_slice(&0_u16.to_be_bytes());
        });
        wire.push(Some(b'B'), |out| {
            put_text(out, PORTAL);
            put_text(out, "");
            // No parameter formats (all text), no parameters, no result formats (all text).
            out.extend_from_slice(&[0; 6]);
        });
        let job = Job { feed, range, outstanding: 0, complete: false, rows_per_request: FIRST_ROWS, rows: 0, bytes: 0, newest: None };
        self.job = Some(job);
        self.request();
        self.request();
        self.session.wire().flush().await
    }

    fn request(&mut self) {
        let Some(job) = &mut self.job else { return };
        job.outstanding += 1;
        let rows = job.rows_per_request;
        let wire = self.session.wire();
        wire.push(Some(b'E'), |out| {
            put_text(out, PORTAL);
            out.extend_from_slice(&rows.to_be_bytes());
        });
        wire.push(Some(b'S'), |_| {});
    }

    /// The next row in the buffer. Does not wait for input, but may send the next request.
    pub(super) async fn next(&mut self) -> Result<NextRow, Error> {
        loop {
            let Some(job) = &mut self.job else { return Ok(NextRow::Ended) };
            let wire = self.session.wire();
            let Some(frame) = wire.frame()? else { return Ok(NextRow::Pending) };
            match frame.tag {
                b'D' => return Ok(NextRow::Row(frame)),
                b'E' => {
                    let error = ServerError::parse(wire.body(&frame));
                    return Err(self.session.refused(error));
                }
                b'C' => job.complete = true,
                b'Z' => job.outstanding -= 1,
                // BindComplete, ParseComplete, CloseComplete, PortalSuspended, and notices.
                _ => {}
            }
            wire.consume(&frame);
            if job.outstanding == 0 && job.complete {
                self.job = None;
                return Ok(NextRow::Ended);
            }
            if frame.tag == b'Z' && !job.complete {
                job.rows_per_request = rows_per_request(job.rows, job.bytes);
                self.request();
                self.session.wire().flush().await?;
            }
        }
    }

    /// The bytes of a row that has not been taken yet.
    pub(super) fn body(&mut self, frame: &Frame) -> &[u8] {
        self.session.wire().body(frame)
    }

    /// Moves past this row. Its bytes stay readable until [`Self::poll_input`].
    pub(super) fn take(&mut self, frame: Frame) {
        self.session.wire().consume(&frame);
        if let Some(job) = &mut self.job {
            job.rows += 1;
            job.bytes += frame.body.len() as u64;
            job.newest = Some(frame);
        }
    }

    /// The newest row that was taken. Each row is returned at most once.
    pub(super) fn newest(&mut self) -> Option<&[u8]> {
        let frame = self.job.as_mut()?.newest.take()?;
        Some(self.session.wire().body(&frame))
    }

    /// Reads input that has arrived. The bytes of rows that were taken before are lost.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.session.wire().poll_input(context)
    }

    /// Ends the job and the transaction, and returns the reader for reuse. `None` if the server is too slow or fails; the connection is
    /// closed then.
    pub(super) async fn release(mut self) -> Option<Self> {
        let released = async {
            let drained = timeout(DRAIN_TIMEOUT, self.drain()).await;
            if drained.is_err() {
                self.interrupter.interrupt().await?;
                self.drain().await?;
            }
            self.session.query("ROLLBACK").await
        };
        let released = timeout(RELEASE_TIMEOUT, released).await;
        matches!(released, Ok(Ok(_))).then_some(self)
    }

    /// Discards all outstanding answers, errors included.
    async fn drain(&mut self) -> Result<(), Error> {
        while let Some(job) = &mut self.job {
            if job.outstanding == 0 {
                self.job = None;
                break;
            }
            let wire = self.session.wire();
            match wire.frame()? {
                Some(frame) => {
                    job.outstanding -= u32::from(frame.tag == b'Z');
                    wire.consume(&frame);
                }
                None => drop(wire.read().await?),
            }
        }
        Ok(())
    }
}

/// How many rows a request asks for, given that `rows` rows had `bytes` bytes.
fn rows_per_request(rows: u64, bytes: u64) -> u32 {
    let average = bytes.checked_div(rows).unwrap_or(1).max(1);
    u32::try_from(REQUEST_BYTES as u64 / average).unwrap_or(u32::MAX).clamp(1, 1 << 16)
}
