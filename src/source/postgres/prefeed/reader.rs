//! One session that reads rows under the snapshot: a portal, fetched piece by piece, so that a slice ends without breaking anything off.
//!
//! Two requests are always on their way: the server reads on while we write rows down.

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

/// About how much one request brings.
const REQUEST_BYTES: usize = 512 * 1024;
/// Rows of the first request, while their size is unknown.
const FIRST_ROWS: u32 = 128;
/// How long the rest of the requests may take to arrive at the end of a slice, before they are broken off.
const DRAIN: Duration = Duration::from_millis(200);
/// How long a reader may take to be as new, before it is given up.
const RELEASE: Duration = Duration::from_secs(5);
const PORTAL: &str = "rows";
/// An index in key order is used although sorting everything once would cost less: a slice reads only a part.
const SETTINGS: [(&str, &str); 2] = [("enable_sort", "off"), ("jit", "off")];

/// What a reader is reading.
#[derive(Debug)]
struct Job {
    feed: FeedId,
    range: usize,
    /// Requests that are not answered to their end.
    outstanding: u32,
    /// Whether the last row has come.
    complete: bool,
    rows_a_request: u32,
    rows: u64,
    bytes: u64,
    /// The newest row, while it lies in the buffer.
    newest: Option<Frame>,
}

#[derive(Debug)]
pub(super) struct Reader {
    session: Session,
    interrupter: Interrupter,
    job: Option<Job>,
}

/// What comes next from a reader.
#[derive(Debug)]
pub(super) enum Next {
    /// A row, first in the buffer.
    Row(Frame),
    /// Nothing yet.
    Pending,
    /// No more rows; the reader is free.
    Ended,
}

impl Reader {
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let mut session = Session::open(options, Mode::Ordinary).await?;
        snapshot::settle_in(&mut session, &SETTINGS).await?;
        let interrupter = session.interrupter(options);
        Ok(Self { session, interrupter, job: None })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.session.pid()
    }

    pub(super) const fn is_free(&self) -> bool {
        self.job.is_none()
    }

    /// Which range of this feed it reads.
    pub(super) fn range_of(&self, feed: FeedId) -> Option<usize> {
        self.job.as_ref().filter(|job| job.feed == feed).map(|job| job.range)
    }

    /// Shows what the snapshot shows.
    pub(super) async fn import(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        snapshot.import(&mut self.session).await
    }

    /// The session, for questions between two jobs.
    pub(super) fn session(&mut self) -> &mut Session {
        assert!(self.is_free(), "a reader that reads answers no questions");
        &mut self.session
    }

    /// Begins to read what this statement yields.
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
            // No formats, which is text; no parameters; no formats of results, which is text again.
            out.extend_from_slice(&[0; 6]);
        });
        let job = Job { feed, range, outstanding: 0, complete: false, rows_a_request: FIRST_ROWS, rows: 0, bytes: 0, newest: None };
        self.job = Some(job);
        self.request();
        self.request();
        self.session.wire().flush().await
    }

    fn request(&mut self) {
        let Some(job) = &mut self.job else { return };
        job.outstanding += 1;
        let rows = job.rows_a_request;
        let wire = self.session.wire();
        wire.push(Some(b'E'), |out| {
            put_text(out, PORTAL);
            out.extend_from_slice(&rows.to_be_bytes());
        });
        wire.push(Some(b'S'), |_| {});
    }

    /// What comes next, from what is there.
    pub(super) async fn next(&mut self) -> Result<Next, Error> {
        loop {
            let Some(job) = &mut self.job else { return Ok(Next::Ended) };
            let wire = self.session.wire();
            let Some(frame) = wire.frame()? else { return Ok(Next::Pending) };
            match frame.tag {
                b'D' => return Ok(Next::Row(frame)),
                b'E' => {
                    let error = ServerError::parse(wire.body(&frame));
                    return Err(self.session.refused(error));
                }
                b'C' => job.complete = true,
                b'Z' => job.outstanding -= 1,
                // Bound, parsed, closed, suspended, and notices.
                _ => {}
            }
            wire.consume(&frame);
            if job.outstanding == 0 && job.complete {
                self.job = None;
                return Ok(Next::Ended);
            }
            if frame.tag == b'Z' && !job.complete {
                job.rows_a_request = fitting(job.rows, job.bytes);
                self.request();
                self.session.wire().flush().await?;
            }
        }
    }

    /// The bytes of a row that was not taken yet.
    pub(super) fn body(&mut self, frame: &Frame) -> &[u8] {
        self.session.wire().body(frame)
    }

    /// Goes on to what follows this row; it stays readable until the next input is taken in.
    pub(super) fn take(&mut self, frame: Frame) {
        self.session.wire().consume(&frame);
        if let Some(job) = &mut self.job {
            job.rows += 1;
            job.bytes += frame.body.len() as u64;
            job.newest = Some(frame);
        }
    }

    /// The newest row that was taken, once.
    pub(super) fn newest(&mut self) -> Option<&[u8]> {
        let frame = self.job.as_mut()?.newest.take()?;
        Some(self.session.wire().body(&frame))
    }

    /// Takes in what has come; rows that were taken before are gone then.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.session.wire().poll_input(context)
    }

    /// Ends the job and the transaction; the reader is as new. Where the server is too slow with that, the reader is given up.
    pub(super) async fn release(mut self) -> Option<Self> {
        let released = async {
            let drained = timeout(DRAIN, self.drain()).await;
            if drained.is_err() {
                self.interrupter.interrupt().await?;
                self.drain().await?;
            }
            self.session.query("ROLLBACK").await
        };
        let released = timeout(RELEASE, released).await;
        matches!(released, Ok(Ok(_))).then_some(self)
    }

    /// Reads past what is on its way, errors too.
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

/// How many rows of this average size a request asks for.
fn fitting(rows: u64, bytes: u64) -> u32 {
    let average = bytes.checked_div(rows).unwrap_or(1).max(1);
    u32::try_from(REQUEST_BYTES as u64 / average).unwrap_or(u32::MAX).clamp(1, 1 << 16)
}
