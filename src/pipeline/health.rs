//! What the halves show of themselves: to the probes of an orchestrator, and to whoever asks for the lag.

use crate::event::Timestamp;
use crate::status::LogHead;
use crate::status::metrics::State;
use crate::status::metrics::lag::{LagState, Moment};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a half may go without turning its loop. Each turns every few seconds at least, whatever it waits for.
const WEDGED_AFTER: Duration = Duration::from_secs(30);
/// How long a broker may take over the oldest batch on its way while events still flow.
const STILL_AFTER: Duration = Duration::from_secs(5);
/// For how long a source may leave looks at its log's head unanswered, and say nothing else.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// How long after it began a run says nothing of its lag that it has not seen: the first looks at the head are due before, and
/// what the checkpoint knows is as old as the last event.
const UNKNOWN_FOR: Duration = Duration::from_secs(15);

/// The two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Reads the source.
    Source,
    /// Writes to the sink.
    Sink,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    /// The store, the source and the sink are asked, for as long as it takes.
    Starting,
    /// The halves run.
    Running,
    /// They drain.
    Stopping,
}

/// How far a run came, as its checkpoint knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    /// When the newest live change that is confirmed was committed.
    pub(crate) newest_confirmed: Option<Moment>,
    /// When nothing was missing.
    pub(crate) proved: Option<Moment>,
}

#[derive(Debug)]
struct Board {
    life: Life,
    phase: State,
    stopping_since: Option<Instant>,
    source_ready: bool,
    sink_ready: bool,
    /// Since when the source has answered nothing though it was asked.
    source_silent_since: Option<Instant>,
    /// What a start, the source and the sink wait for, as they said when they failed last.
    start_waits: Option<String>,
    source_waits: Option<String>,
    sink_waits: Option<String>,
    feed_turned: Instant,
    deliver_turned: Instant,
    /// When the oldest live record of each batch in flight was committed; `None` for batches without one.
    in_flight: VecDeque<Option<Moment>>,
    /// When the oldest batch in flight became the oldest.
    oldest_since: Instant,
    lag: LagState,
}

impl Board {
    /// For how long the oldest batch on its way has been the oldest.
    fn still(&self, now: Instant) -> Duration {
        if self.in_flight.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.oldest_since) }
    }
}

/// The state of a pipeline as its halves report it, a batch at a time.
#[derive(Debug)]
pub struct Health {
    board: Mutex<Board>,
}

impl Default for Health {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            board: Mutex::new(Board {
                life: Life::Starting,
                phase: State::Starting,
                stopping_since: None,
                source_ready: false,
                sink_ready: false,
                source_silent_since: None,
                start_waits: None,
                source_waits: None,
                sink_waits: None,
                feed_turned: now,
                deliver_turned: now,
                in_flight: VecDeque::new(),
                oldest_since: now,
                lag: LagState::default(),
            }),
        }
    }
}

impl Health {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each half turns its loop. It does so while a database or a broker is away too, so that their absence never
    /// fails this: a restart would not bring them back.
    ///
    /// # Errors
    /// Which half is wedged, and for how long.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let board = self.board();
        for (name, turned) in [("feed", board.feed_turned), ("deliver", board.deliver_turned)] {
            let still = now.saturating_duration_since(turned);
            if Life::Running <= board.life && WEDGED_AFTER < still {
                return Err(format!("the {name} half has not moved for {} s", still.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether the pipeline carries events now. `sink_blocked`: whether the broker's client takes no more.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ready(&self, sink_blocked: bool, now: Instant) -> Result<(), String> {
        let board = self.board();
        let still = board.still(now);
        let takes = if sink_blocked { "takes no events (feedline_sink_blocked is 1) and" } else { "has events on their way and" };
        let unconfirmed = format!("the broker {takes} confirmed none for {} s", still.as_secs());
        let with_cause = |what: &str, why: &Option<String>| why.as_ref().map_or_else(|| what.to_owned(), |why| format!("{what}: {why}"));
        let starting = with_cause("starting", &board.start_waits);
        let no_source = with_cause("the source is not connected", &board.source_waits);
        let silent = board.source_silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let no_answer = format!("the source has answered nothing for {} s", silent.as_secs());
        let no_sink = with_cause("the sink is not connected", &board.sink_waits);
        let reasons = [
            (board.life == Life::Stopping, "stopping"),
            (board.life < Life::Running, starting.as_str()),
            (!board.source_ready, no_source.as_str()),
            (board.source_ready && SILENT_AFTER <= silent, &no_answer),
            (!board.sink_ready, no_sink.as_str()),
            (STILL_AFTER <= still, &unconfirmed),
        ];
        let reasons: Vec<_> = reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    /// For how long the broker has confirmed nothing though it was given something; `None` where there is no session with it.
    pub(crate) fn still(&self, now: Instant) -> Option<Duration> {
        let board = self.board();
        board.sink_ready.then(|| board.still(now))
    }

    /// What the pipeline is doing.
    #[must_use]
    pub fn state(&self) -> State {
        let board = self.board();
        match board.phase {
            State::Prefeed | State::Live | State::Standby if board.life == Life::Stopping => State::Draining,
            State::Prefeed | State::Live if !board.source_ready || !board.sink_ready => State::Retrying,
            phase => phase,
        }
    }

    /// What the lag is computed from.
    #[must_use]
    pub fn lag(&self) -> LagState {
        let board = self.board();
        let oldest_unconfirmed = board.in_flight.iter().flatten().next().copied();
        LagState { oldest_unconfirmed, caught_up: board.lag.caught_up && board.in_flight.iter().all(Option::is_none), ..board.lag }
    }

    /// The run cannot begin for now; what is known of how far the one before came.
    pub(crate) fn cannot_begin(&self, why: &str, reached: Reached) {
        let mut board = self.board();
        board.start_waits = Some(why.to_owned());
        board.lag.newest_confirmed = reached.newest_confirmed;
        board.lag.proved = reached.proved;
        board.lag.waiting_since.get_or_insert_with(Instant::now);
    }

    /// The halves begin; what is known of how far the run before came.
    pub(crate) fn set_running(&self, reached: Reached) {
        let now = Instant::now();
        let mut board = self.board();
        board.life = Life::Running;
        board.lag.newest_confirmed = reached.newest_confirmed;
        board.lag.proved = reached.proved;
        board.lag.waiting_since = None;
        board.lag.unknown_until = Some(now + UNKNOWN_FOR);
        (board.feed_turned, board.deliver_turned) = (now, now);
    }

    pub(crate) fn set_phase(&self, phase: State) {
        self.board().phase = phase;
    }

    pub(crate) fn set_stopping(&self) {
        let mut board = self.board();
        board.life = Life::Stopping;
        board.stopping_since = Some(Instant::now());
    }

    /// It has drained and stopped, or was stopped before it began.
    pub(crate) fn set_stopped(&self) {
        self.set_phase(State::Stopped);
    }

    /// For how long it has been stopping.
    pub(crate) fn stopping_for(&self) -> Duration {
        self.board().stopping_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn set_connected(&self, half: Side, connected: bool) {
        let mut board = self.board();
        match half {
            Side::Source => board.source_ready = connected,
            Side::Sink => board.sink_ready = connected,
        }
        if connected {
            match half {
                Side::Source => board.source_waits = None,
                Side::Sink => {
                    board.sink_waits = None;
                    // What is on its way is sent again in the new session: what it takes counts from here.
                    board.oldest_since = Instant::now();
                }
            }
        }
    }

    /// The half failed and tries again; why, until it is connected.
    pub(crate) fn set_waits(&self, half: Side, why: &str) {
        let mut board = self.board();
        let waits = match half {
            Side::Source => &mut board.source_waits,
            Side::Sink => &mut board.sink_waits,
        };
        *waits = Some(why.to_owned());
        board.lag.waiting_since.get_or_insert_with(Instant::now);
    }

    /// The half has turned its loop.
    pub(crate) fn turned(&self, half: Side) {
        let now = Instant::now();
        let mut board = self.board();
        match half {
            Side::Source => board.feed_turned = now,
            Side::Sink => board.deliver_turned = now,
        }
    }

    /// A batch is on its way.
    pub(crate) fn handed_over(&self, oldest: Option<Timestamp>) {
        let now = Instant::now();
        let mut board = self.board();
        if board.in_flight.is_empty() {
            board.oldest_since = now;
        }
        let oldest = oldest.map(|clock| Moment::of_source(clock, board.lag.clock_offset_seconds));
        board.in_flight.push_back(oldest);
        if oldest.is_some() {
            board.lag.caught_up = false;
        }
    }

    /// The oldest batch on its way is confirmed; how old its oldest live record is.
    pub(crate) fn confirmed(&self, newest: Option<Timestamp>) -> Option<f64> {
        let now = Instant::now();
        let mut board = self.board();
        let oldest = board.in_flight.pop_front().flatten();
        board.oldest_since = now;
        let offset = board.lag.clock_offset_seconds;
        if let Some(newest) = newest.map(|clock| Moment::of_source(clock, offset)) {
            let known = board.lag.newest_confirmed.filter(|known| known.age(offset, now) < newest.age(offset, now));
            board.lag.newest_confirmed = known.or(Some(newest));
            board.lag.unknown_until = None;
        }
        oldest.map(|oldest| oldest.age(offset, now))
    }

    /// Whether nothing is on its way; who looks at the head asks before.
    pub(crate) fn is_idle(&self) -> bool {
        self.board().in_flight.iter().all(Option::is_none)
    }

    /// The head was seen, `idle` being what [`Self::is_idle`] said before, and `asked` when that was. Returns whether that proves
    /// that nothing is missing.
    pub(crate) fn seen_head(&self, head: &LogHead, idle: bool, asked: Moment) -> bool {
        let mut board = self.board();
        board.source_silent_since = None;
        board.lag.clock_offset_seconds = head.clock_offset_seconds.or(board.lag.clock_offset_seconds);
        // What was handed over meanwhile is on its way.
        board.lag.caught_up = head.caught_up && idle && board.in_flight.iter().all(Option::is_none);
        if board.lag.caught_up {
            board.lag.proved = Some(asked);
            board.lag.unknown_until = None;
        }
        board.lag.caught_up
    }

    /// The head could not be seen: what was proved is so no more. `silent_since`: since when the source has answered nothing.
    pub(crate) fn unseen_head(&self, silent_since: Option<Instant>) {
        let mut board = self.board();
        board.lag.caught_up = false;
        board.source_silent_since = silent_since;
    }

    /// When it was last proved that nothing was missing, by our clock.
    pub(crate) fn proved(&self) -> Option<Timestamp> {
        self.board().lag.proved.map(|proved| proved.clock())
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Reached, SILENT_AFTER, STILL_AFTER, Side};
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_takes_nothing_is_told_and_a_full_queue_that_moves_is_not() {
        let health = Health::default();
        health.set_running(Reached::default());
        health.set_connected(Side::Source, true);
        health.set_connected(Side::Sink, true);
        advance(Duration::from_hours(1)).await;
        health.handed_over(None);
        health.handed_over(None);
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "the broker had no time yet");
        advance(STILL_AFTER).await;
        for (blocked, said) in [(true, "feedline_sink_blocked is 1"), (false, "events on their way")] {
            let reason = health.ready(blocked, Instant::now()).unwrap_err();
            assert!(reason.contains(said) && reason.contains("5 s"), "{reason}");
        }
        health.confirmed(None);
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "something was confirmed just now");
        health.confirmed(None);
        advance(STILL_AFTER).await;
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "nothing waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ended_is_not_one_that_confirms_and_a_new_one_has_its_time() {
        let health = Health::default();
        health.set_connected(Side::Sink, true);
        health.handed_over(None);
        advance(Duration::from_mins(1)).await;
        assert_eq!(health.still(Instant::now()), Some(Duration::from_mins(1)));
        health.set_connected(Side::Sink, false);
        assert_eq!(health.still(Instant::now()), None);
        health.set_connected(Side::Sink, true);
        assert_eq!(health.still(Instant::now()), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_answers_nothing_is_not_ready() {
        let health = Health::default();
        health.set_running(Reached::default());
        health.set_connected(Side::Source, true);
        health.set_connected(Side::Sink, true);
        let since = Instant::now();
        advance(SILENT_AFTER).await;
        health.unseen_head(None);
        assert_eq!(health.ready(false, Instant::now()), Ok(()), "it answers, and refuses the look");
        health.unseen_head(Some(since));
        assert_eq!(health.ready(false, Instant::now()).unwrap_err(), "the source has answered nothing for 10 s");
    }
}
