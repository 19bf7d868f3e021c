//! What changes the status: each event of a run that its parts publish.

use super::log_head::LogHead;
use super::metrics::State;
use super::metrics::lag::Moment;
use super::pipeline_status::{Lifecycle, Status};
use super::side::{LastError, Side, SideStatus, WaitFor, Waiting};
use crate::event::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long after its start a run reports no lag from the checkpoint, which may be as old as the last event. The first probes are due
/// before.
const UNKNOWN_FOR: Duration = Duration::from_secs(15);

/// What the checkpoint says of earlier runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PreviousRun {
    /// When the newest confirmed live change was committed.
    pub(crate) newest_confirmed: Option<Moment>,
    /// When it was last proved that nothing was missing.
    pub(crate) caught_up_at: Option<Moment>,
}

/// A batch that is handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver<'b> {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// The commit time of its oldest live record.
    pub(crate) oldest: Option<Timestamp>,
    /// Where the log goes on after it.
    pub(crate) position: &'b Arc<str>,
}

impl Status {
    /// Applies a change. Returns its result, and whether the state is another one.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = self.state();
        let result = change(self);
        let is_other = self.state() != before;
        if is_other {
            self.since = Instant::now();
        }
        (result, is_other)
    }

    const fn side(&mut self, side: Side) -> &mut SideStatus {
        match side {
            Side::Source => &mut self.source,
            Side::Sink => &mut self.sink,
        }
    }

    /// A run begins, perhaps after another one of the same process.
    pub(crate) fn begin(&mut self) {
        *self = Self { lag: self.lag, ..Self::default() };
    }

    pub(crate) const fn set_phase(&mut self, phase: State) {
        self.phase = phase;
    }

    pub(crate) const fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// An attempt to start failed and will be made again. `failed`: the part that is known to be away.
    pub(crate) fn start_failed(&mut self, error: LastError, failed: Option<Side>, previous: PreviousRun) {
        self.source.connected = (failed == Some(Side::Source)).then_some(false);
        self.sink.connected = (failed == Some(Side::Sink)).then_some(false);
        self.start_error = Some(error);
        self.set_previous(previous);
        self.start_failing_since.get_or_insert_with(Instant::now);
    }

    /// Both sides begin.
    pub(crate) fn set_running(&mut self, previous: PreviousRun) {
        let now = Instant::now();
        self.lifecycle = Lifecycle::Running;
        self.set_previous(previous);
        self.start_failing_since = None;
        if let Some(error) = &mut self.start_error {
            error.end();
        }
        self.source.waiting = None;
        self.lag.unknown_until = Some(now + UNKNOWN_FOR);
        (self.source.alive_at, self.sink.alive_at) = (now, now);
    }

    /// See [`crate::source::Source::FINDS_CHANGES_LATE`].
    pub(crate) const fn set_finds_changes_late(&mut self, finds_changes_late: bool) {
        self.finds_changes_late = finds_changes_late;
    }

    fn set_previous(&mut self, previous: PreviousRun) {
        self.lag.newest_confirmed = previous.newest_confirmed.filter(|_| !self.finds_changes_late);
        self.lag.caught_up_at = previous.caught_up_at;
    }

    pub(crate) fn set_stopping(&mut self) {
        self.lifecycle = Lifecycle::Stopping;
        self.stopping_since = Some(Instant::now());
    }

    /// The pipeline has drained and stopped, or was stopped before it began.
    pub(crate) fn set_stopped(&mut self) {
        self.phase = State::Stopped;
        self.stopped_at = Some(Timestamp::now());
    }

    pub(crate) fn set_connected(&mut self, side: Side, connected: bool) {
        self.side(side).set_connected(connected);
        if connected && side == Side::Sink {
            self.in_flight.begin_session();
        }
    }

    /// The side failed and will try again.
    pub(crate) fn failed(&mut self, side: Side, error: LastError) {
        self.side(side).failed(error);
    }

    /// The side waits for something, or no longer does.
    pub(crate) fn set_waiting(&mut self, side: Side, what: Option<(WaitFor, Option<String>)>) {
        let waiting = &mut self.side(side).waiting;
        let since =
            waiting.as_ref().filter(|before| what.as_ref().is_some_and(|(what, _)| before.what == *what)).map(|before| before.since);
        *waiting = what.map(|(what, held_by)| Waiting { what, held_by, since: since.unwrap_or_else(Instant::now) });
    }

    /// The side begins to wait for this, unless it waits for something else all along.
    pub(crate) fn begin_wait(&mut self, side: Side, what: WaitFor) {
        self.side(side).waiting.get_or_insert_with(|| Waiting { what, held_by: None, since: Instant::now() });
    }

    /// The side no longer waits for this.
    pub(crate) fn end_wait(&mut self, side: Side, what: WaitFor) {
        self.side(side).waiting.take_if(|waiting| waiting.what == what);
    }

    /// The side's loop has turned.
    pub(crate) fn mark_alive(&mut self, side: Side) {
        self.side(side).alive_at = Instant::now();
    }

    /// A batch was handed over.
    pub(crate) fn handed_over(&mut self, batch: HandedOver<'_>) {
        let HandedOver { records, bytes, oldest, position } = batch;
        let oldest = oldest.map(|clock| Moment::of_source(clock, self.lag.clock_offset_seconds));
        self.lag.caught_up &= oldest.is_none();
        self.in_flight.push(records as u64, bytes as u64, oldest);
        self.handed_over = Some(Arc::clone(position));
    }

    /// Records in flight were given to the session.
    pub(crate) const fn submitted(&mut self, records: usize) {
        self.in_flight.submit(records as u64);
    }

    /// The session is over: what is in flight is given to the next one.
    pub(crate) const fn gone_back(&mut self) {
        self.in_flight.go_back();
    }

    /// The oldest batch in flight is confirmed; the log goes on at `position` after it, and `newest` is the commit time of its newest live
    /// record. Returns the age of its oldest one, in seconds.
    pub(crate) fn confirmed(&mut self, position: &Arc<str>, newest: Option<Timestamp>) -> Option<f64> {
        let now = Instant::now();
        self.confirmed = Some(Arc::clone(position));
        let batch = self.in_flight.pop();
        if let Some(batch) = &batch {
            self.confirmed_rate.add(batch.records, batch.bytes, now);
        }
        let offset = self.lag.clock_offset_seconds;
        if let Some(newest) = newest.filter(|_| !self.finds_changes_late).map(|clock| Moment::of_source(clock, offset)) {
            let known = self.lag.newest_confirmed.filter(|known| known.age(offset, now) < newest.age(offset, now));
            self.lag.newest_confirmed = known.or(Some(newest));
            self.lag.unknown_until = None;
        }
        batch.and_then(|batch| batch.oldest).map(|oldest| oldest.age(offset, now))
    }

    /// A checkpoint is durable; the log goes on at `position` after it.
    pub(crate) fn saved(&mut self, position: &Arc<str>) {
        self.durable = Some(Arc::clone(position));
        if let Some(error) = &mut self.checkpoint_error {
            error.end();
        }
    }

    /// A probe has read the head. `was_idle` and `asked` are [`Self::is_idle`] and the time before that. Returns whether this proves that
    /// nothing is missing.
    pub(crate) fn head_read(&mut self, head: &LogHead, was_idle: bool, asked: Moment) -> bool {
        self.source_silent_since = None;
        self.lag.clock_offset_seconds = head.clock_offset_seconds.or(self.lag.clock_offset_seconds);
        // Batches handed over since then are in flight.
        self.lag.caught_up = head.caught_up && was_idle && self.is_idle();
        let proved = if self.lag.caught_up { Some(asked) } else { head.reached_at.map(Moment::ours_at) };
        if let Some(proved) = proved {
            let now = Instant::now();
            let known = self.lag.caught_up_at.filter(|known| known.age(None, now) < proved.age(None, now));
            self.lag.caught_up_at = known.or(Some(proved));
            self.lag.unknown_until = None;
        }
        self.lag.caught_up
    }

    /// A probe has failed: an earlier proof no longer holds. `silent_since`: since when the source has not answered.
    pub(crate) const fn head_unread(&mut self, silent_since: Option<Instant>) {
        self.lag.caught_up = false;
        self.source_silent_since = silent_since;
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::lag::lag_seconds;
    use super::{HandedOver, LastError, LogHead, Moment, PreviousRun, Side, State, Status};
    use crate::event::Timestamp;
    use crate::fault::Code;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    fn error() -> LastError {
        LastError::new(Code::SourceUnreachable, "no route", Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_is_over_does_not_count_as_lag() {
        for side in [Side::Source, Side::Sink] {
            let mut status = Status::default();
            status.set_running(PreviousRun::default());
            status.set_connected(side, true);
            advance(Duration::from_mins(1)).await;
            status.set_connected(side, false);
            status.failed(side, error());
            advance(Duration::from_mins(2)).await;
            assert_eq!(lag_seconds(&status.lag(), Instant::now()), Some(120.0), "nothing else is known");
            status.set_connected(side, true);
            assert_eq!(lag_seconds(&status.lag(), Instant::now()), None, "nothing is known, and nothing is away");
            advance(Duration::from_hours(1)).await;
            status.set_connected(side, false);
            status.failed(side, error());
            advance(Duration::from_secs(5)).await;
            assert_eq!(lag_seconds(&status.lag(), Instant::now()), Some(5.0), "it counts from the outage that lasts");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_was_reached_bounds_the_lag() {
        let mut status = Status::default();
        status.set_running(PreviousRun::default());
        let lag = |status: &Status| lag_seconds(&status.lag(), Instant::now()).map(f64::round);
        advance(Duration::from_mins(1)).await;
        let asked = Instant::now();
        advance(Duration::from_secs(3)).await;
        let read = |status: &mut Status, reached_at| {
            let head = LogHead { reached_at, ..LogHead::default() };
            assert!(!status.head_read(&head, true, Moment::ours_at(Instant::now())), "the head itself is not reached");
        };
        read(&mut status, Some(asked));
        assert_eq!(lag(&status), Some(3.0));
        advance(Duration::from_secs(2)).await;
        read(&mut status, None);
        assert_eq!(lag(&status), Some(5.0), "what was proved stays proved");
        read(&mut status, Some(asked + Duration::from_secs(4)));
        assert_eq!(lag(&status), Some(1.0));
        read(&mut status, Some(asked));
        assert_eq!(lag(&status), Some(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_is_confirmed_bounds_the_lag_only_where_none_is_found_late() {
        for finds_changes_late in [false, true] {
            let mut status = Status::default();
            status.set_finds_changes_late(finds_changes_late);
            let previous = Moment::ours_at(Instant::now());
            status.set_running(PreviousRun { newest_confirmed: Some(previous), caught_up_at: Some(previous) });
            advance(Duration::from_mins(1)).await;
            status.confirmed(&"1".into(), Some(Timestamp::now()));
            let lag = lag_seconds(&status.lag(), Instant::now()).map(f64::round);
            assert_eq!(lag, Some(if finds_changes_late { 60.0 } else { 0.0 }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_in_flight_bounds_the_lag_only_where_none_is_found_late() {
        for finds_changes_late in [false, true] {
            let mut status = Status::default();
            status.set_finds_changes_late(finds_changes_late);
            status.set_running(PreviousRun { newest_confirmed: None, caught_up_at: Some(Moment::ours_at(Instant::now())) });
            advance(Duration::from_mins(1)).await;
            status.handed_over(HandedOver { records: 1, bytes: 1, oldest: Some(Timestamp::now()), position: &"1".into() });
            let lag = lag_seconds(&status.lag(), Instant::now()).map(f64::round);
            assert_eq!(lag, Some(if finds_changes_late { 60.0 } else { 0.0 }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_of_a_side_is_over_once_it_is_connected() {
        let mut status = Status::default();
        status.failed(Side::Sink, error());
        let shown = status.sink.error.clone().unwrap();
        assert!(!shown.is_over && shown.next_attempt == Some(Instant::now() + Duration::from_secs(1)));
        status.set_connected(Side::Sink, true);
        let shown = status.sink.error.clone().unwrap();
        assert!(shown.is_over && shown.next_attempt.is_none() && shown.code == Code::SourceUnreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_counts_from_its_first_change() {
        let mut status = Status::default();
        status.change(|status| {
            status.set_running(PreviousRun::default());
            status.set_phase(State::Live);
            status.set_connected(Side::Source, true);
            status.set_connected(Side::Sink, true);
        });
        let live = status.since();
        advance(Duration::from_secs(1)).await;
        assert_eq!(status.change(|status| status.mark_alive(Side::Source)), ((), false));
        assert_eq!((status.state(), status.since()), (State::Live, live));
        assert_eq!(status.change(|status| status.set_paused(true)), ((), true));
        assert_eq!((status.state(), status.since()), (State::Paused, Instant::now()));
        status.change(Status::set_stopping);
        assert_eq!(status.state(), State::Draining, "a stop needs no resume");
    }
}
