//! Health of a running pipeline: whether it is live and ready, what it is doing, and what its lag is computed from.

use super::log_head::LogHead;
use super::metrics::State;
use super::metrics::lag::{LagState, Moment};
use crate::event::Timestamp;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a side may go without a turn of its loop. Each turns every few seconds at least, whatever it waits for.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long a broker may take to confirm the oldest batch in flight before the pipeline is not ready.
const UNCONFIRMED_AFTER: Duration = Duration::from_secs(5);
/// How long a source may leave probes of its log's head unanswered, and send nothing else.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// How long after its start a run reports no lag from the checkpoint, which may be as old as the last event. The first probes are due
/// before.
const UNKNOWN_FOR: Duration = Duration::from_secs(15);

/// One side of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Reads the source.
    Source,
    /// Writes to the sink.
    Sink,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lifecycle {
    /// The store, the source and the sink are being reached, for as long as it takes.
    Starting,
    /// Both sides run.
    Running,
    /// Both sides drain.
    Stopping,
}

/// What the checkpoint says of earlier runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PreviousRun {
    /// When the newest confirmed live change was committed.
    pub(crate) newest_confirmed: Option<Moment>,
    /// When it was last proved that nothing was missing.
    pub(crate) caught_up_at: Option<Moment>,
}

#[derive(Debug)]
struct Inner {
    lifecycle: Lifecycle,
    phase: State,
    stopping_since: Option<Instant>,
    source_connected: bool,
    sink_connected: bool,
    /// Since when the source has not answered probes.
    source_silent_since: Option<Instant>,
    /// The last errors of the start, the source and the sink, until they succeed.
    start_error: Option<String>,
    source_error: Option<String>,
    sink_error: Option<String>,
    source_alive_at: Instant,
    sink_alive_at: Instant,
    /// For each batch in flight, when its oldest live record was committed; `None` for a batch without one.
    in_flight: VecDeque<Option<Moment>>,
    /// Since when the oldest batch in flight has been the oldest.
    oldest_since: Instant,
    lag: LagState,
}

impl Inner {
    /// How long the oldest batch in flight has been the oldest.
    fn unconfirmed_for(&self, now: Instant) -> Duration {
        if self.in_flight.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.oldest_since) }
    }
}

/// The health of a pipeline, as both sides report it, batch by batch.
#[derive(Debug)]
pub struct Health {
    inner: Mutex<Inner>,
}

impl Default for Health {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            inner: Mutex::new(Inner {
                lifecycle: Lifecycle::Starting,
                phase: State::Starting,
                stopping_since: None,
                source_connected: false,
                sink_connected: false,
                source_silent_since: None,
                start_error: None,
                source_error: None,
                sink_error: None,
                source_alive_at: now,
                sink_alive_at: now,
                in_flight: VecDeque::new(),
                oldest_since: now,
                lag: LagState::default(),
            }),
        }
    }
}

impl Health {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the loops of both sides turn. They do while a database or a broker is away, so that this never fails for it: a restart
    /// would not bring them back.
    ///
    /// # Errors
    /// Which side is stuck, and for how long.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let inner = self.inner();
        for (side, alive_at) in [("source", inner.source_alive_at), ("sink", inner.sink_alive_at)] {
            let stuck = now.saturating_duration_since(alive_at);
            if Lifecycle::Running <= inner.lifecycle && STUCK_AFTER < stuck {
                return Err(format!("the {side} side has been stuck for {} s", stuck.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether events flow now. `sink_blocked`: whether the broker's client takes no more.
    ///
    /// # Errors
    /// Why they do not.
    pub fn ready(&self, sink_blocked: bool, now: Instant) -> Result<(), String> {
        let inner = self.inner();
        let unconfirmed_for = inner.unconfirmed_for(now);
        let takes = if sink_blocked { "takes no events (feedline_sink_blocked is 1) and" } else { "has events in flight and" };
        let unconfirmed = format!("the broker {takes} confirmed none for {} s", unconfirmed_for.as_secs());
        let with_error =
            |reason: &str, error: &Option<String>| error.as_ref().map_or_else(|| reason.to_owned(), |error| format!("{reason}: {error}"));
        let starting = with_error("starting", &inner.start_error);
        let no_source = with_error("the source is not connected", &inner.source_error);
        let silent_for = inner.source_silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let no_answer = format!("the source has answered nothing for {} s", silent_for.as_secs());
        let no_sink = with_error("the sink is not connected", &inner.sink_error);
        let reasons = [
            (inner.lifecycle == Lifecycle::Stopping, "stopping"),
            (inner.lifecycle < Lifecycle::Running, starting.as_str()),
            (!inner.source_connected, no_source.as_str()),
            (inner.source_connected && SILENT_AFTER <= silent_for, &no_answer),
            (!inner.sink_connected, no_sink.as_str()),
            (UNCONFIRMED_AFTER <= unconfirmed_for, &unconfirmed),
        ];
        let reasons: Vec<_> = reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    /// How long the broker has confirmed none of the batches in flight; `None` where no session is open.
    pub(crate) fn unconfirmed_for(&self, now: Instant) -> Option<Duration> {
        let inner = self.inner();
        inner.sink_connected.then(|| inner.unconfirmed_for(now))
    }

    /// The pipeline's state.
    #[must_use]
    pub fn state(&self) -> State {
        let inner = self.inner();
        match inner.phase {
            State::Prefeed | State::Live | State::Standby if inner.lifecycle == Lifecycle::Stopping => State::Draining,
            State::Prefeed | State::Live if !inner.source_connected || !inner.sink_connected => State::Retrying,
            phase => phase,
        }
    }

    /// What the lag is computed from.
    #[must_use]
    pub fn lag(&self) -> LagState {
        let inner = self.inner();
        let oldest_unconfirmed = inner.in_flight.iter().flatten().next().copied();
        LagState { oldest_unconfirmed, caught_up: inner.lag.caught_up && inner.in_flight.iter().all(Option::is_none), ..inner.lag }
    }

    /// An attempt to start failed and will be made again.
    pub(crate) fn start_failed(&self, error: &str, previous: PreviousRun) {
        let mut inner = self.inner();
        inner.start_error = Some(error.to_owned());
        inner.lag.newest_confirmed = previous.newest_confirmed;
        inner.lag.caught_up_at = previous.caught_up_at;
        inner.lag.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Both sides begin.
    pub(crate) fn set_running(&self, previous: PreviousRun) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.lifecycle = Lifecycle::Running;
        inner.lag.newest_confirmed = previous.newest_confirmed;
        inner.lag.caught_up_at = previous.caught_up_at;
        inner.lag.waiting_since = None;
        inner.lag.unknown_until = Some(now + UNKNOWN_FOR);
        (inner.source_alive_at, inner.sink_alive_at) = (now, now);
    }

    pub(crate) fn set_phase(&self, phase: State) {
        self.inner().phase = phase;
    }

    pub(crate) fn set_stopping(&self) {
        let mut inner = self.inner();
        inner.lifecycle = Lifecycle::Stopping;
        inner.stopping_since = Some(Instant::now());
    }

    /// The pipeline has drained and stopped, or was stopped before it began.
    pub(crate) fn set_stopped(&self) {
        self.set_phase(State::Stopped);
    }

    /// How long the pipeline has been stopping.
    pub(crate) fn stopping_for(&self) -> Duration {
        self.inner().stopping_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn set_connected(&self, side: Side, connected: bool) {
        let mut inner = self.inner();
        match side {
            Side::Source => inner.source_connected = connected,
            Side::Sink => inner.sink_connected = connected,
        }
        if connected {
            match side {
                Side::Source => inner.source_error = None,
                Side::Sink => {
                    inner.sink_error = None;
                    // Records in flight are sent again in the new session: their time counts from here.
                    inner.oldest_since = Instant::now();
                }
            }
        }
    }

    /// The side failed and will try again. The error is shown until the side is connected.
    pub(crate) fn set_error(&self, side: Side, error: &str) {
        let mut inner = self.inner();
        let shown = match side {
            Side::Source => &mut inner.source_error,
            Side::Sink => &mut inner.sink_error,
        };
        *shown = Some(error.to_owned());
        inner.lag.waiting_since.get_or_insert_with(Instant::now);
    }

    /// The side's loop has turned.
    pub(crate) fn mark_alive(&self, side: Side) {
        let now = Instant::now();
        let mut inner = self.inner();
        match side {
            Side::Source => inner.source_alive_at = now,
            Side::Sink => inner.sink_alive_at = now,
        }
    }

    /// A batch was handed over; `oldest` is the commit time of its oldest live record.
    pub(crate) fn handed_over(&self, oldest: Option<Timestamp>) {
        let now = Instant::now();
        let mut inner = self.inner();
        if inner.in_flight.is_empty() {
            inner.oldest_since = now;
        }
        let oldest = oldest.map(|clock| Moment::of_source(clock, inner.lag.clock_offset_seconds));
        inner.in_flight.push_back(oldest);
        if oldest.is_some() {
            inner.lag.caught_up = false;
        }
    }

    /// The oldest batch in flight is confirmed; `newest` is the commit time of its newest live record. Returns the age of its oldest one, in
    /// seconds.
    pub(crate) fn confirmed(&self, newest: Option<Timestamp>) -> Option<f64> {
        let now = Instant::now();
        let mut inner = self.inner();
        let oldest = inner.in_flight.pop_front().flatten();
        inner.oldest_since = now;
        let offset = inner.lag.clock_offset_seconds;
        if let Some(newest) = newest.map(|clock| Moment::of_source(clock, offset)) {
            let known = inner.lag.newest_confirmed.filter(|known| known.age(offset, now) < newest.age(offset, now));
            inner.lag.newest_confirmed = known.or(Some(newest));
            inner.lag.unknown_until = None;
        }
        oldest.map(|oldest| oldest.age(offset, now))
    }

    /// Whether no live record is in flight. A probe asks before it reads the head.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner().in_flight.iter().all(Option::is_none)
    }

    /// A probe has read the head. `was_idle` and `asked` are [`Self::is_idle`] and the time before that. Returns whether this proves that
    /// nothing is missing.
    pub(crate) fn head_read(&self, head: &LogHead, was_idle: bool, asked: Moment) -> bool {
        let mut inner = self.inner();
        inner.source_silent_since = None;
        inner.lag.clock_offset_seconds = head.clock_offset_seconds.or(inner.lag.clock_offset_seconds);
        // Batches handed over since then are in flight.
        inner.lag.caught_up = head.caught_up && was_idle && inner.in_flight.iter().all(Option::is_none);
        if inner.lag.caught_up {
            inner.lag.caught_up_at = Some(asked);
            inner.lag.unknown_until = None;
        }
        inner.lag.caught_up
    }

    /// A probe has failed: an earlier proof no longer holds. `silent_since`: since when the source has not answered.
    pub(crate) fn head_unread(&self, silent_since: Option<Instant>) {
        let mut inner = self.inner();
        inner.lag.caught_up = false;
        inner.source_silent_since = silent_since;
    }

    /// When it was last proved that nothing was missing, by our clock.
    pub(crate) fn caught_up_at(&self) -> Option<Timestamp> {
        self.inner().lag.caught_up_at.map(|moment| moment.clock())
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, PreviousRun, SILENT_AFTER, Side, UNCONFIRMED_AFTER};
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_confirms_nothing_is_not_ready_and_a_slow_one_is() {
        let health = Health::default();
        health.set_running(PreviousRun::default());
        health.set_connected(Side::Source, true);
        health.set_connected(Side::Sink, true);
        advance(Duration::from_hours(1)).await;
        health.handed_over(None);
        health.handed_over(None);
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "the broker had no time yet");
        advance(UNCONFIRMED_AFTER).await;
        for (blocked, part) in [(true, "feedline_sink_blocked is 1"), (false, "events in flight")] {
            let reason = health.ready(blocked, Instant::now()).unwrap_err();
            assert!(reason.contains(part) && reason.contains("5 s"), "{reason}");
        }
        health.confirmed(None);
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "a batch was confirmed just now");
        health.confirmed(None);
        advance(UNCONFIRMED_AFTER).await;
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "nothing is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_without_confirmation_starts_anew_with_each_session() {
        let health = Health::default();
        health.set_connected(Side::Sink, true);
        health.handed_over(None);
        advance(Duration::from_mins(1)).await;
        assert_eq!(health.unconfirmed_for(Instant::now()), Some(Duration::from_mins(1)));
        health.set_connected(Side::Sink, false);
        assert_eq!(health.unconfirmed_for(Instant::now()), None);
        health.set_connected(Side::Sink, true);
        assert_eq!(health.unconfirmed_for(Instant::now()), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_answers_nothing_is_not_ready() {
        let health = Health::default();
        health.set_running(PreviousRun::default());
        health.set_connected(Side::Source, true);
        health.set_connected(Side::Sink, true);
        let since = Instant::now();
        advance(SILENT_AFTER).await;
        health.head_unread(None);
        assert_eq!(health.ready(false, Instant::now()), Ok(()), "it answers, and refuses the probe");
        health.head_unread(Some(since));
        assert_eq!(health.ready(false, Instant::now()).unwrap_err(), "the source has answered nothing for 10 s");
    }
}
