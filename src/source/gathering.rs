//! Reads a log that arrives over a socket, and decides when a batch of it is handed over: how long it waits for more changes, and when progress
//! without records is due.

use super::emitter::Emitter;
use super::live::{Filled, Source};
use std::time::Duration;
use tokio::time::Instant;

/// If bytes arrive this soon after a batch, the log is busy. Then waiting for more changes saves work here and in the server, which otherwise
/// wakes up and sends once per change.
const BUSY_WITHIN: Duration = Duration::from_micros(300);
/// How long one wait for more changes takes. It is below the resolution of the runtime's timer.
const PAUSE: Duration = Duration::from_micros(400);
/// How long a batch waits for more changes in total.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// After a read of at least this size no wait is needed: the server is ahead of us.
const LARGE_READ_BYTES: usize = 32 * 1024;
/// How often progress without records is reported. Each report leads to a checkpoint.
const IDLE_REPORT: Duration = Duration::from_secs(2);

/// A log that arrives over a socket: what [`gather`] asks of it.
pub trait SocketLog: Source {
    /// What the session knows of its batches.
    fn gathering(&mut self) -> &mut Gathering<Self::Error>;

    /// Gives the changes that have arrived to `out`. `None` if there are no more. Cancel safe: what has arrived is passed only after it has
    /// been given.
    fn drain(
        &mut self,
        out: &mut Emitter<'_, Self::Token>,
        until: Option<&Self::Token>,
    ) -> impl Future<Output = Result<Option<Filled>, Self::Error>> + Send;

    /// Receives what the socket has, without waiting. Returns false if that is nothing.
    ///
    /// # Errors
    /// The connection broke.
    fn try_receive(&mut self) -> Result<bool, Self::Error>;

    /// Waits for bytes. Returns false if progress without records is due before any arrive. Cancel safe.
    fn wait(&mut self, has_limit: bool) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// [`Source::fill`] of such a log.
///
/// # Errors
/// As [`Source::fill`].
pub async fn gather<L: SocketLog>(log: &mut L, out: &mut Emitter<'_, L::Token>, until: Option<&L::Token>) -> Result<Filled, L::Error> {
    log.gathering().check()?;
    let filled = fill_until(log, out, until).await;
    log.gathering().end(filled, out.closed_records())
}

async fn fill_until<L: SocketLog>(log: &mut L, out: &mut Emitter<'_, L::Token>, until: Option<&L::Token>) -> Result<Filled, L::Error> {
    loop {
        if let Some(filled) = log.drain(out, until).await? {
            return Ok(filled);
        }
        let goes_on = if log.gathering().has_records(out.closed_records()) {
            log.gathering().pause().await && log.try_receive()?
        } else {
            log.wait(until.is_some()).await?
        };
        if !goes_on {
            return Ok(Filled::Drained);
        }
    }
}

/// What a session knows of its batches. `E` is the source's error.
#[derive(Debug)]
pub struct Gathering<E> {
    /// When anything arrived last.
    received_at: Instant,
    is_busy: bool,
    /// Since when the current batch waits for more changes. It outlives a cancelled call.
    since: Option<Instant>,
    /// When the last records were handed over; `None` once more bytes have arrived.
    handed_over_at: Option<Instant>,
    reported_at: Option<Instant>,
    /// How many closed records were handed over in this session.
    reported_records: u64,
    /// The error that the next call returns: what was written before it is handed over first.
    failure: Option<E>,
}

impl<E> Default for Gathering<E> {
    fn default() -> Self {
        Self {
            received_at: Instant::now(),
            is_busy: false,
            since: None,
            handed_over_at: None,
            reported_at: None,
            reported_records: 0,
            failure: None,
        }
    }
}

impl<E> Gathering<E> {
    /// Notes that so many bytes have arrived.
    pub fn received(&mut self, bytes: usize) {
        self.received_at = Instant::now();
        if let Some(handed_over_at) = self.handed_over_at.take() {
            self.is_busy = handed_over_at.elapsed() < BUSY_WITHIN;
        }
        self.is_busy &= bytes < LARGE_READ_BYTES;
    }

    /// When anything arrived last.
    #[must_use]
    pub const fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Whether the batch has records. `closed`: how many closed records this session has written.
    const fn has_records(&self, closed: u64) -> bool {
        self.reported_records < closed
    }

    /// Waits a moment for more changes, if that is worth it. Returns false if the batch is to be handed over. Cancel safe.
    async fn pause(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.is_busy || GATHER_MAX < since.elapsed() {
            return false;
        }
        std::thread::sleep(PAUSE);
        // The runtime polls the socket before it comes back here.
        tokio::task::yield_now().await;
        true
    }

    /// When progress without records is to be reported.
    #[must_use]
    pub fn idle_due(&self) -> Instant {
        self.reported_at.map_or(self.received_at, |at| at + IDLE_REPORT)
    }

    /// Returns the error that is still to be returned, if there is one.
    fn check(&mut self) -> Result<(), E> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// The end of a call: what is written is handed over, also before an error.
    fn end(&mut self, filled: Result<Filled, E>, closed: u64) -> Result<Filled, E> {
        let filled = match filled {
            Err(failure) if self.has_records(closed) => {
                self.failure = Some(failure);
                Filled::Drained
            }
            filled => filled?,
        };
        self.since = None;
        if std::mem::replace(&mut self.reported_records, closed) < closed {
            self.handed_over_at = Some(Instant::now());
        }
        self.reported_at = Some(Instant::now());
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::{Filled, Gathering, IDLE_REPORT};
    use tokio::time::Instant;

    #[test]
    fn what_was_written_before_an_error_is_handed_over_first() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.end(Err("lost"), 3), Ok(Filled::Drained));
        assert_eq!(gathering.check(), Err("lost"));
        assert_eq!(gathering.check(), Ok(()));
        assert_eq!(gathering.end(Err("lost"), 3), Err("lost"), "nothing was written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_more_only_while_the_log_is_busy() {
        let mut gathering = Gathering::<()>::default();
        assert!(!gathering.pause().await, "nothing has come soon after a batch");
        gathering.end(Ok(Filled::Drained), 1).unwrap();
        gathering.received(100);
        assert!(gathering.pause().await);
        gathering.end(Ok(Filled::Drained), 2).unwrap();
        gathering.received(1 << 20);
        assert!(!gathering.pause().await, "the server is ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn progress_without_records_is_reported_at_once_and_then_at_an_interval() {
        let mut gathering = Gathering::<()>::default();
        assert_eq!(gathering.idle_due(), Instant::now());
        gathering.end(Ok(Filled::Drained), 0).unwrap();
        assert_eq!(gathering.idle_due(), Instant::now() + IDLE_REPORT);
    }
}
