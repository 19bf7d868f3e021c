//! Lag: the age of the oldest change that the broker has not confirmed, computed when it is asked for.

use crate::event::Timestamp;
use crate::status::LogHead;
use crate::status::metrics::Builder;
use crate::status::metrics::known::Known;
use std::time::Duration;
use tokio::time::Instant;

/// How long a look at the head proves something: the next one is due before, and says so where it fails.
const PROOF_HOLDS: Duration = Duration::from_secs(12);

/// A moment of the past. Clocks say once how long ago it was, and may be set afterwards: its age grows by one that is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// What a clock said then.
    clock: Timestamp,
    /// How far that clock is ahead of ours, as far as that was known; else whatever is known later.
    offset_seconds: Option<f64>,
    noted: Timestamp,
    noted_at: Instant,
}

impl Moment {
    /// By the source's clock, which is so far ahead of ours.
    #[must_use]
    pub fn of_source(clock: Timestamp, offset_seconds: Option<f64>) -> Self {
        Self { clock, offset_seconds, noted: Timestamp::now(), noted_at: Instant::now() }
    }

    /// By our clock.
    #[must_use]
    pub fn ours(clock: Timestamp) -> Self {
        Self::of_source(clock, Some(0.0))
    }

    /// What its clock said.
    #[must_use]
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Its age in seconds: what it was when it was noted, and what has passed since.
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
    /// When a look last proved that nothing was missing, by this process or the one before.
    pub proved: Option<Moment>,
    /// Whether that still holds: nothing is in flight, and the last look saw nothing beyond what is confirmed.
    pub caught_up: bool,
    /// Until when nothing is said that this process has not seen: the first looks are due before.
    pub unknown_until: Option<Instant>,
    /// Since when the run cannot begin, or the source is away, where nothing else is known.
    pub waiting_since: Option<Instant>,
    /// The source's clock minus ours, in seconds, where it is known.
    pub clock_offset_seconds: Option<f64>,
}

/// Seconds of lag at `now`; 0 only where a look has proved it a moment ago.
///
/// What is in flight counts from its commit. Where nothing is in flight but the log goes on, or cannot be seen, the next change is
/// younger than the newest confirmed one and than the last proof, so that lag counts from the later of the two and keeps rising.
/// Where neither is known it counts from when the run could first not begin. `None` until anything is known.
#[must_use]
pub fn lag_seconds(state: &LagState, now: Instant) -> Option<f64> {
    let age = |moment: &Moment| moment.age(state.clock_offset_seconds, now);
    if let Some(oldest) = &state.oldest_unconfirmed {
        return Some(age(oldest));
    }
    let proved = state.proved.as_ref().map(age);
    if state.caught_up && proved.is_some_and(|proved| proved < PROOF_HOLDS.as_secs_f64()) {
        return Some(0.0);
    }
    if state.unknown_until.is_some_and(|until| now < until) {
        return None;
    }
    let bounds = [state.newest_confirmed.as_ref().map(age), proved];
    let least = bounds.into_iter().flatten().reduce(f64::min);
    least.or_else(|| Some(now.saturating_duration_since(state.waiting_since?).as_secs_f64()))
}

#[derive(Clone, Debug)]
pub(super) struct LagGauges {
    lag_seconds: Known,
    source_lag_bytes: Known,
    source_retained_bytes: Known,
    source_xmin_age_transactions: Known,
    source_retention_headroom_ratio: Known,
    source_clock_offset_seconds: Known,
}

impl LagGauges {
    pub(super) fn new(b: &mut Builder) -> Self {
        Self {
            lag_seconds: b.known(
                "lag_seconds",
                "Age of the oldest change that the broker has not confirmed; 0 only when a look at the log's head proves it.",
            ),
            source_lag_bytes: b.known("source_lag_bytes", "Bytes of log between the confirmed place and the head."),
            source_retained_bytes: b.known("source_retained_bytes", "Bytes of log that the source keeps for this pipeline."),
            source_xmin_age_transactions: b.known(
                "source_xmin_age_transactions",
                "Transactions since the oldest one that our slot or a snapshot of ours makes the source keep dead rows for.",
            ),
            source_retention_headroom_ratio: b.known(
                "source_retention_headroom_ratio",
                "What is left before the source forgets our place: 1 all, or no limit is set; 0 nothing.",
            ),
            source_clock_offset_seconds: b.known("source_clock_offset_seconds", "The source's clock minus ours."),
        }
    }

    /// Shows what a look has seen; nothing where it failed: what an earlier one saw is not so any more.
    pub(super) fn set_head(&self, head: Option<&LogHead>) {
        let LogHead { lag_bytes, retained_bytes, xmin_age, headroom_ratio, clock_offset_seconds, .. } = head.copied().unwrap_or_default();
        self.source_lag_bytes.count(lag_bytes);
        self.source_retained_bytes.count(retained_bytes);
        self.source_xmin_age_transactions.count(xmin_age);
        self.source_retention_headroom_ratio.set(headroom_ratio);
        self.source_clock_offset_seconds.set(clock_offset_seconds);
    }

    pub(super) fn set_lag(&self, seconds: Option<f64>) {
        self.lag_seconds.set(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::{LagState, Moment, PROOF_HOLDS, lag_seconds};
    use crate::event::Timestamp;
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
    use std::time::Duration;
    use tokio::time::Instant;

    const NOW: i64 = 1_800_000_000_000_000;

    /// Of the last quarter of an hour, or up to a minute in the future: clocks are set.
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
            |(oldest_unconfirmed, newest_confirmed, proved, waiting_since, caught_up, clock_offset_seconds)| LagState {
                oldest_unconfirmed,
                newest_confirmed,
                proved,
                caught_up,
                unknown_until: None,
                waiting_since,
                clock_offset_seconds,
            },
        )
    }

    fn states() -> impl Strategy<Value = (LagState, Instant)> {
        // Long enough after whatever the clock of this machine counts from.
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
                // What was proved holds for a moment, and then counts from then.
                let as_it_should = if proved(after) {
                    wait <= PROOF_HOLDS.as_secs_f64()
                } else {
                    proved(before) || (after - before - wait).abs() < 1e-3
                };
                prop_assert!(as_it_should, "{} {} {}", before, after, wait);
            }
        }

        #[test]
        fn what_is_on_its_way_counts_from_its_commit_whatever_a_look_said((state, now) in states(), age in 10..1_000_i64) {
            let oldest = Moment { clock: Timestamp(NOW - age * 1_000_000), offset_seconds: Some(0.0), noted: Timestamp(NOW), noted_at: now };
            let lag = lag_seconds(&LagState { oldest_unconfirmed: Some(oldest), ..state }, now).unwrap();
            prop_assert!((lag - f64::from(i32::try_from(age).unwrap())).abs() < 1e-3);
        }
    }

    #[test]
    fn nothing_known_is_not_nothing_missing() {
        assert_eq!(lag_seconds(&LagState::default(), Instant::now()), None);
    }

    /// The clock of this machine was set back an hour after the change was committed, or before its records were handed over.
    #[test]
    fn a_clock_that_was_set_back_makes_no_lag_vanish() {
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
    fn a_proof_ends_where_the_next_look_does_not_come() {
        let now = Instant::now() + Duration::from_hours(1);
        let proved = |ago| Moment {
            clock: Timestamp(NOW),
            offset_seconds: Some(0.0),
            noted: Timestamp(NOW),
            noted_at: now - Duration::from_secs(ago),
        };
        let state = |ago, caught_up| LagState { proved: Some(proved(ago)), caught_up, ..LagState::default() };
        assert_eq!(lag_seconds(&state(5, true), now), Some(0.0));
        assert_eq!(lag_seconds(&state(5, false), now), Some(5.0));
        assert_eq!(lag_seconds(&state(60, true), now), Some(60.0));
        let soon = LagState { unknown_until: Some(now + Duration::from_secs(1)), ..state(60, false) };
        assert_eq!(lag_seconds(&soon, now), None, "a start says nothing of the time before it");
    }
}
