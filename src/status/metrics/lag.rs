//! Lag: the age of the oldest change that the broker has not confirmed. It is computed when it is read.

use crate::event::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// How long a probe of the head proves that nothing is missing. The next probe is due before, and a failed one ends the proof.
const PROOF_HOLDS: Duration = Duration::from_secs(12);

/// A moment in the past. Its age is taken once from wall clocks, and then grows with a monotonic clock: wall clocks may be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// What the clock showed at that moment.
    clock: Timestamp,
    /// How far that clock is ahead of ours. `None` where that was not known yet: then a value known later is used.
    offset_seconds: Option<f64>,
    noted: Timestamp,
    noted_at: Instant,
}

impl Moment {
    /// A moment by the source's clock, which is `offset_seconds` ahead of ours.
    #[must_use]
    pub fn of_source(clock: Timestamp, offset_seconds: Option<f64>) -> Self {
        Self { clock, offset_seconds, noted: Timestamp::now(), noted_at: Instant::now() }
    }

    /// A moment by our clock.
    #[must_use]
    pub fn ours(clock: Timestamp) -> Self {
        Self::of_source(clock, Some(0.0))
    }

    /// A moment in the past by our clock.
    #[must_use]
    pub fn ours_at(instant: Instant) -> Self {
        let ago = i64::try_from(instant.elapsed().as_micros()).unwrap_or(i64::MAX);
        Self::ours(Timestamp(Timestamp::now().0.saturating_sub(ago)))
    }

    /// What the clock showed.
    #[must_use]
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Its age in seconds: the age when it was noted, and the time since.
    #[must_use]
    pub fn age(&self, offset_seconds: Option<f64>, now: Instant) -> f64 {
        let offset = self.offset_seconds.or(offset_seconds).unwrap_or(0.0);
        let then = (self.noted.seconds() + offset - self.clock.seconds()).max(0.0);
        then + now.saturating_duration_since(self.noted_at).as_secs_f64()
    }
}

/// What lag is computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LagState {
    /// When the oldest live change in flight was committed.
    pub oldest_unconfirmed: Option<Moment>,
    /// When the newest live change that is confirmed was committed.
    pub newest_confirmed: Option<Moment>,
    /// The newest moment of which a probe has proved that everything committed before is confirmed, in this process or the one before.
    pub caught_up_at: Option<Moment>,
    /// Whether that still holds: nothing is in flight, and the last probe saw nothing after the confirmed position.
    pub caught_up: bool,
    /// Until then the lag is unknown unless this process has seen something itself. The first probes are due before.
    pub unknown_until: Option<Instant>,
    /// Since when the run cannot begin or the source is away. Used where nothing else is known.
    pub waiting_since: Option<Instant>,
    /// The source's clock minus ours, in seconds, where it is known.
    pub clock_offset_seconds: Option<f64>,
}

/// Seconds of lag at `now`; 0 only where a probe proved it a moment ago.
///
/// While changes are in flight, lag counts from the commit of the oldest. Otherwise, if the log goes on or its head cannot be read, the
/// next change is younger than the newest confirmed change and than the last proof: lag counts from the later of the two and keeps
/// rising. Where neither is known, it counts from `waiting_since`. `None` until anything is known.
#[must_use]
pub fn lag_seconds(state: &LagState, now: Instant) -> Option<f64> {
    let age = |moment: &Moment| moment.age(state.clock_offset_seconds, now);
    if let Some(oldest) = &state.oldest_unconfirmed {
        return Some(age(oldest));
    }
    let since_caught_up = state.caught_up_at.as_ref().map(age);
    if state.caught_up && since_caught_up.is_some_and(|age| age < PROOF_HOLDS.as_secs_f64()) {
        return Some(0.0);
    }
    if state.unknown_until.is_some_and(|until| now < until) {
        return None;
    }
    let bounds = [state.newest_confirmed.as_ref().map(age), since_caught_up];
    let least = bounds.into_iter().flatten().reduce(f64::min);
    least.or_else(|| Some(now.saturating_duration_since(state.waiting_since?).as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::{LagState, Moment, PROOF_HOLDS, lag_seconds};
    use crate::event::Timestamp;
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
    use std::time::Duration;
    use tokio::time::Instant;

    const NOW: i64 = 1_800_000_000_000_000;

    /// A moment of the last quarter of an hour, or up to a minute in the future: clocks may be set.
    fn moment(noted_at: Instant) -> impl Strategy<Value = Moment> {
        let clock = (NOW - 900_000_000..NOW + 60_000_000).prop_map(Timestamp);
        (clock, prop::option::of(-5.0..5.0_f64)).prop_map(move |(clock, offset_seconds)| Moment {
            clock,
            offset_seconds,
            noted: Timestamp(NOW),
            noted_at,
        })
    }

    fn state(now: Instant) -> impl Strategy<Value = LagState> {
        let moment = || prop::option::of(moment(now));
        let since = prop::option::of((0..900_u64).prop_map(move |ago| now - Duration::from_secs(ago)));
        (moment(), moment(), moment(), since, any::<bool>(), prop::option::of(-5.0..5.0_f64)).prop_map(
            |(oldest_unconfirmed, newest_confirmed, caught_up_at, waiting_since, caught_up, clock_offset_seconds)| LagState {
                oldest_unconfirmed,
                newest_confirmed,
                caught_up_at,
                caught_up,
                unknown_until: None,
                waiting_since,
                clock_offset_seconds,
            },
        )
    }

    fn states() -> impl Strategy<Value = (LagState, Instant)> {
        // Long after the zero of the machine's monotonic clock.
        let now = Instant::now() + Duration::from_hours(1);
        state(now).prop_map(move |state| (state, now))
    }

    proptest! {
        #[test]
        fn lag_rises_second_by_second_while_nothing_moves((state, now) in states(), wait in 0..3_600_u64) {
            let (before, after) = (lag_seconds(&state, now), lag_seconds(&state, now + Duration::from_secs(wait)));
            prop_assert_eq!(before.is_some(), after.is_some());
            if let (Some(before), Some(after)) = (before, after) {
                let wait = Duration::from_secs(wait).as_secs_f64();
                prop_assert!(0.0 <= before);
                let proved = |lag: f64| lag == 0.0 && state.caught_up && state.oldest_unconfirmed.is_none();
                // A proof holds for a while. Then lag counts from its moment.
                let is_right = if proved(after) {
                    wait <= PROOF_HOLDS.as_secs_f64()
                } else {
                    proved(before) || (after - before - wait).abs() < 1e-3
                };
                prop_assert!(is_right, "{} {} {}", before, after, wait);
            }
        }

        #[test]
        fn a_change_in_flight_counts_from_its_commit_whatever_a_probe_said((state, now) in states(), age in 10..1_000_i64) {
            let oldest = Moment { clock: Timestamp(NOW - age * 1_000_000), offset_seconds: Some(0.0), noted: Timestamp(NOW), noted_at: now };
            let lag = lag_seconds(&LagState { oldest_unconfirmed: Some(oldest), ..state }, now).unwrap();
            prop_assert!((lag - f64::from(i32::try_from(age).unwrap())).abs() < 1e-3);
        }
    }

    #[test]
    fn lag_is_unknown_while_nothing_is_known() {
        assert_eq!(lag_seconds(&LagState::default(), Instant::now()), None);
    }

    /// Our clock was set back an hour after the change was committed, before its records were handed over.
    #[test]
    fn a_clock_that_was_set_back_does_not_hide_lag() {
        let now = Instant::now() + Duration::from_hours(1);
        let oldest = Moment {
            clock: Timestamp(NOW + 3_600_000_000),
            offset_seconds: None,
            noted: Timestamp(NOW),
            noted_at: now - Duration::from_secs(30),
        };
        let state = LagState { clock_offset_seconds: Some(-3600.0), ..LagState::default() };
        assert_eq!(lag_seconds(&LagState { oldest_unconfirmed: Some(oldest), ..state }, now), Some(30.0));
        assert_eq!(lag_seconds(&LagState { newest_confirmed: Some(oldest), ..state }, now), Some(30.0));
    }

    #[test]
    fn a_proof_ends_when_the_next_probe_does_not_come() {
        let now = Instant::now() + Duration::from_hours(1);
        let moment_before = |ago| Moment {
            clock: Timestamp(NOW),
            offset_seconds: Some(0.0),
            noted: Timestamp(NOW),
            noted_at: now - Duration::from_secs(ago),
        };
        let state = |ago, caught_up| LagState { caught_up_at: Some(moment_before(ago)), caught_up, ..LagState::default() };
        assert_eq!(lag_seconds(&state(5, true), now), Some(0.0));
        assert_eq!(lag_seconds(&state(5, false), now), Some(5.0));
        assert_eq!(lag_seconds(&state(60, true), now), Some(60.0));
        let soon = LagState { unknown_until: Some(now + Duration::from_secs(1)), ..state(60, false) };
        assert_eq!(lag_seconds(&soon, now), None, "lag is unknown in the first seconds of a run");
    }
}
