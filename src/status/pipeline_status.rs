//! The status of a pipeline: one value that its parts publish, batch by batch.

use super::feed::{FeedPhase, FeedStatus};
use super::in_flight::InFlight;
use super::metrics::State;
use super::metrics::lag::LagState;
use super::rate::ConfirmedRate;
use super::side::{LastError, SideStatus};
use crate::event::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lifecycle {
    /// The store, the source and the sink are being reached, for as long as it takes.
    Starting,
    /// Both sides run.
    Running,
    /// Both sides drain.
    Stopping,
}

/// What is known of a pipeline now. What is not known is absent.
#[derive(Debug)]
pub struct Status {
    pub(super) lifecycle: Lifecycle,
    pub(super) phase: State,
    pub(super) is_paused: bool,
    pub(super) since: Instant,
    pub(super) stopping_since: Option<Instant>,
    pub(super) stopped_at: Option<Timestamp>,
    /// Since when the source has not answered probes.
    pub(super) source_silent_since: Option<Instant>,
    /// Since when the run cannot begin.
    pub(super) start_failing_since: Option<Instant>,
    /// Why the last attempt to begin failed; over once both sides run.
    pub start_error: Option<LastError>,
    /// Why the run ended, if it was for a failure.
    pub ended_by: Option<LastError>,
    /// The source side.
    pub source: SideStatus,
    /// The sink side.
    pub sink: SideStatus,
    /// Why the checkpoint could not be saved last.
    pub checkpoint_error: Option<LastError>,
    /// Where the log goes on after the newest batch that was handed over. Its spelling is the source's.
    pub handed_over: Option<Arc<str>>,
    /// Where the log goes on after all that the broker has confirmed.
    pub confirmed: Option<Arc<str>>,
    /// Where the log goes on after the newest durable checkpoint.
    pub durable: Option<Arc<str>>,
    /// The feeds, in the order of their ids; `None` until they are known.
    pub feeds: Option<Vec<FeedStatus>>,
    /// Tables that were made after the start and match the feeds' patterns.
    pub new_tables: BTreeSet<Arc<str>>,
    /// What is in flight.
    pub in_flight: InFlight,
    /// What the broker confirms.
    pub confirmed_rate: ConfirmedRate,
    pub(super) lag: LagState,
    /// See [`crate::source::Source::FINDS_CHANGES_LATE`].
    pub(super) finds_changes_late: bool,
}

impl Default for Status {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            lifecycle: Lifecycle::Starting,
            phase: State::Starting,
            is_paused: false,
            since: now,
            stopping_since: None,
            stopped_at: None,
            source_silent_since: None,
            start_failing_since: None,
            start_error: None,
            ended_by: None,
            source: SideStatus::new(now),
            sink: SideStatus::new(now),
            checkpoint_error: None,
            handed_over: None,
            confirmed: None,
            durable: None,
            feeds: None,
            new_tables: BTreeSet::new(),
            in_flight: InFlight::default(),
            confirmed_rate: ConfirmedRate::new(now),
            lag: LagState::default(),
            finds_changes_late: false,
        }
    }
}

impl Status {
    /// The pipeline's state.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            State::Prefeed | State::Live | State::Standby if self.lifecycle == Lifecycle::Stopping => State::Draining,
            State::Prefeed | State::Live if self.is_paused => State::Paused,
            State::Prefeed | State::Live if !self.source.is_connected() || !self.sink.is_connected() => State::Retrying,
            phase => phase,
        }
    }

    /// Since when it is in this state.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Whether no memory is given out until it is resumed.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether both sides run.
    pub(crate) fn is_running(&self) -> bool {
        self.lifecycle == Lifecycle::Running
    }

    /// When the run had drained and stopped.
    #[must_use]
    pub const fn stopped_at(&self) -> Option<Timestamp> {
        self.stopped_at
    }

    /// How long the pipeline has been stopping.
    pub(crate) fn stopping_for(&self) -> Duration {
        self.stopping_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How many feeds still have rows to be sent; `None` until the feeds are known.
    #[must_use]
    pub fn feeds_pending(&self) -> Option<usize> {
        self.feeds.as_ref().map(|feeds| feeds.iter().filter(|feed| feed.phase != FeedPhase::Live).count())
    }

    /// What the lag is computed from.
    #[must_use]
    pub fn lag(&self) -> LagState {
        let oldest_unconfirmed = self.in_flight.oldest_live();
        // Only outages that last: nothing is known to have been missing since one that is over.
        let waiting_since = [self.start_failing_since, self.source.away_since, self.sink.away_since].into_iter().flatten().min();
        let caught_up = self.lag.caught_up && oldest_unconfirmed.is_none();
        // Where changes are found late, an older one than those in flight may be missing.
        let oldest_unconfirmed = oldest_unconfirmed.filter(|_| !self.finds_changes_late);
        LagState { oldest_unconfirmed, caught_up, waiting_since, ..self.lag }
    }

    /// Whether no live record is in flight. A probe asks before it reads the head.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.oldest_live().is_none()
    }

    /// When it was last proved that nothing was missing, by our clock.
    pub(crate) fn caught_up_at(&self) -> Option<Timestamp> {
        self.lag.caught_up_at.map(|moment| moment.clock())
    }

    /// How long the broker has confirmed none of the batches in flight; `None` where no session is open.
    pub(crate) fn unconfirmed_for(&self, now: Instant) -> Option<Duration> {
        self.sink.is_connected().then(|| self.in_flight.unconfirmed_for(now))
    }
}
