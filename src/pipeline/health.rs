//! What the halves show of themselves: to the probes of an orchestrator, and to whoever asks for the lag.

use crate::change::Timestamp;
use crate::metrics::State;
use crate::metrics::lag::LagState;
use crate::source::Head;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a half may go without turning its loop. Each turns every few seconds at least, whatever it waits for.
const WEDGED_AFTER: Duration = Duration::from_secs(30);
/// How long a client that takes no more may go without a confirmation while events still flow: in a hurry, its queue is
/// full again and again.
const STILL_AFTER: Duration = Duration::from_secs(5);

/// The two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Reads the source.
    Feed,
    /// Writes to the sink.
    Deliver,
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

#[derive(Debug)]
struct Board {
    life: Life,
    phase: State,
    source_ready: bool,
    sink_ready: bool,
    /// What a start, the source and the sink wait for, as they said when they failed last.
    start_waits: Option<String>,
    source_waits: Option<String>,
    sink_waits: Option<String>,
    feed_turned: Instant,
    deliver_turned: Instant,
    /// Commit time of the oldest live record of each batch in flight; `None` for batches without one.
    in_flight: VecDeque<Option<Timestamp>>,
    /// When the oldest batch in flight became the oldest.
    oldest_since: Instant,
    lag: LagState,
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
                source_ready: false,
                sink_ready: false,
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
        let still = if board.in_flight.is_empty() { Duration::ZERO } else { now.saturating_duration_since(board.oldest_since) };
        let blocked = format!("the broker takes no events (feedline_sink_blocked is 1) and confirmed none for {} s", still.as_secs());
        let with_cause = |what: &str, why: &Option<String>| why.as_ref().map_or_else(|| what.to_owned(), |why| format!("{what}: {why}"));
        let starting = with_cause("starting", &board.start_waits);
        let no_source = with_cause("the source is not connected", &board.source_waits);
        let no_sink = with_cause("the sink is not connected", &board.sink_waits);
        let reasons = [
            (board.life == Life::Stopping, "stopping"),
            (board.life < Life::Running, starting.as_str()),
            (!board.source_ready, no_source.as_str()),
            (!board.sink_ready, no_sink.as_str()),
            (sink_blocked && STILL_AFTER <= still, &blocked),
        ];
        let reasons: Vec<_> = reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    /// What the pipeline is doing.
    #[must_use]
    pub fn state(&self) -> State {
        let board = self.board();
        match board.phase {
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

    /// The run cannot begin for now; the newest live change that the checkpoint knows to be confirmed, as far as it could be read.
    pub(crate) fn cannot_begin(&self, why: &str, newest_confirmed: Option<Timestamp>, now: Timestamp) {
        let mut board = self.board();
        board.start_waits = Some(why.to_owned());
        board.lag.newest_confirmed = newest_confirmed;
        board.lag.waiting_since.get_or_insert(now);
    }

    /// The halves begin; the newest live change that the checkpoint knows to be confirmed.
    pub(crate) fn set_running(&self, newest_confirmed: Option<Timestamp>) {
        let now = Instant::now();
        let mut board = self.board();
        board.life = Life::Running;
        board.lag.newest_confirmed = newest_confirmed;
        (board.feed_turned, board.deliver_turned) = (now, now);
    }

    pub(crate) fn set_phase(&self, phase: State) {
        self.board().phase = phase;
    }

    pub(crate) fn set_stopping(&self) {
        self.board().life = Life::Stopping;
    }

    pub(crate) fn set_connected(&self, half: Half, connected: bool) {
        let mut board = self.board();
        match half {
            Half::Feed => board.source_ready = connected,
            Half::Deliver => board.sink_ready = connected,
        }
        if connected {
            match half {
                Half::Feed => board.source_waits = None,
                Half::Deliver => board.sink_waits = None,
            }
        }
    }

    /// The half failed and tries again; why, until it is connected.
    pub(crate) fn set_waits(&self, half: Half, why: &str) {
        let mut board = self.board();
        let waits = match half {
            Half::Feed => &mut board.source_waits,
            Half::Deliver => &mut board.sink_waits,
        };
        *waits = Some(why.to_owned());
    }

    /// The half has turned its loop.
    pub(crate) fn turned(&self, half: Half) {
        let now = Instant::now();
        let mut board = self.board();
        match half {
            Half::Feed => board.feed_turned = now,
            Half::Deliver => board.deliver_turned = now,
        }
    }

    /// A batch is on its way.
    pub(crate) fn handed_over(&self, oldest: Option<Timestamp>) {
        let now = Instant::now();
        let mut board = self.board();
        if board.in_flight.is_empty() {
            board.oldest_since = now;
        }
        board.in_flight.push_back(oldest);
        if oldest.is_some() {
            board.lag.caught_up = false;
        }
    }

    /// The oldest batch on its way is confirmed.
    pub(crate) fn confirmed(&self, newest: Option<Timestamp>) {
        let now = Instant::now();
        let mut board = self.board();
        board.in_flight.pop_front();
        board.oldest_since = now;
        board.lag.newest_confirmed = board.lag.newest_confirmed.max(newest);
    }

    /// Whether nothing is on its way; a probe asks before it looks at the head.
    pub(crate) fn is_idle(&self) -> bool {
        self.board().in_flight.iter().all(Option::is_none)
    }

    /// A probe has seen the head, `idle` being what [`Self::is_idle`] said before it looked.
    pub(crate) fn seen_head(&self, head: &Head, idle: bool, now: Timestamp) {
        let mut board = self.board();
        if let Some(offset) = head.clock_offset_seconds {
            board.lag.clock_offset_seconds = offset;
        }
        board.lag.caught_up = head.caught_up && idle;
        if board.lag.caught_up {
            board.lag.caught_up_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Half, Health, STILL_AFTER};
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_takes_nothing_is_told_and_a_full_queue_that_moves_is_not() {
        let health = Health::default();
        health.set_running(None);
        health.set_connected(Half::Feed, true);
        health.set_connected(Half::Deliver, true);
        advance(Duration::from_hours(1)).await;
        health.handed_over(None);
        health.handed_over(None);
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "the broker had no time yet");
        advance(STILL_AFTER).await;
        assert_eq!(health.ready(false, Instant::now()), Ok(()));
        let reason = health.ready(true, Instant::now()).unwrap_err();
        assert!(reason.contains("feedline_sink_blocked") && reason.contains("5 s"), "{reason}");
        health.confirmed(None);
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "something was confirmed just now");
        health.confirmed(None);
        advance(STILL_AFTER).await;
        assert_eq!(health.ready(true, Instant::now()), Ok(()), "nothing waits");
    }
}
