//! Lag: the age of the oldest change that the broker has not confirmed, computed when it is asked for.

use crate::change::Timestamp;
use crate::metrics::Builder;
use crate::source::Head;
use prometheus::{Gauge, IntGauge};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What lag is computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LagState {
    /// Commit time of the oldest live change in flight, on the source's clock.
    pub oldest_unconfirmed: Option<Timestamp>,
    /// Commit time of the newest live change confirmed, on the source's clock.
    pub newest_confirmed: Option<Timestamp>,
    /// When a probe last proved that nothing was missing, on our clock.
    pub caught_up_at: Option<Timestamp>,
    /// Whether that still holds: nothing is in flight, and the last probe saw nothing beyond what is confirmed.
    pub caught_up: bool,
    /// When the run could first not begin, on our clock.
    pub waiting_since: Option<Timestamp>,
    /// The source's clock minus ours, in seconds.
    pub clock_offset_seconds: f64,
}

/// Seconds of lag at `now` on our clock; 0 only where a probe has proved it.
///
/// What is in flight counts from its commit. Where nothing is in flight but the log goes on, the next change is younger
/// than the newest confirmed one and than the last proof, so that lag counts from the later of the two and keeps rising.
/// Where neither is known it counts from when the run could first not begin. `None` until anything is known.
#[must_use]
pub fn lag_seconds(state: &LagState, now: Timestamp) -> Option<f64> {
    if let Some(oldest) = state.oldest_unconfirmed {
        return Some((now.seconds() + state.clock_offset_seconds - oldest.seconds()).max(0.0));
    }
    if state.caught_up {
        return Some(0.0);
    }
    let confirmed = state.newest_confirmed.map(|at| at.seconds() - state.clock_offset_seconds);
    let since = match (confirmed, state.caught_up_at.map(Timestamp::seconds)) {
        (Some(confirmed), Some(proved)) => confirmed.max(proved),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => state.waiting_since?.seconds(),
    };
    Some((now.seconds() - since).max(0.0))
}

#[derive(Clone, Debug)]
pub(super) struct LagGauges {
    lag_seconds: Gauge,
    source_lag_bytes: IntGauge,
    source_retained_bytes: IntGauge,
    source_xmin_age_transactions: IntGauge,
    source_retention_headroom_ratio: Gauge,
    source_clock_offset_seconds: Gauge,
    known: Arc<Known>,
}

/// Which of the gauges have a value: a 0 that nobody has measured would be a lie.
#[derive(Debug, Default)]
struct Known {
    lag: AtomicBool,
    lag_bytes: AtomicBool,
    retained_bytes: AtomicBool,
    xmin_age: AtomicBool,
    headroom_ratio: AtomicBool,
    clock_offset: AtomicBool,
}

impl LagGauges {
    pub(super) fn new(b: &Builder) -> Self {
        Self {
            lag_seconds: b.gauge(
                "lag_seconds",
                "Age of the oldest change that the broker has not confirmed; 0 only when a look at the log's head proves it.",
            ),
            source_lag_bytes: b.int_gauge("source_lag_bytes", "Bytes of log between the confirmed place and the head."),
            source_retained_bytes: b.int_gauge("source_retained_bytes", "Bytes of log that the source keeps for this pipeline."),
            source_xmin_age_transactions: b.int_gauge(
                "source_xmin_age_transactions",
                "Transactions since the oldest one that our slot or a snapshot of ours makes the source keep dead rows for.",
            ),
            source_retention_headroom_ratio: b
                .gauge("source_retention_headroom_ratio", "What is left before the source forgets our place: 1 all, 0 nothing."),
            source_clock_offset_seconds: b.gauge("source_clock_offset_seconds", "The source's clock minus ours."),
            known: Arc::default(),
        }
    }

    pub(super) fn set_head(&self, head: &Head) {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        if let Some(bytes) = bytes(head.lag_bytes) {
            self.source_lag_bytes.set(bytes);
            self.known.lag_bytes.store(true, Ordering::Relaxed);
        }
        if let Some(age) = bytes(head.xmin_age) {
            self.source_xmin_age_transactions.set(age);
            self.known.xmin_age.store(true, Ordering::Relaxed);
        }
        if let Some(bytes) = bytes(head.retained_bytes) {
            self.source_retained_bytes.set(bytes);
            self.known.retained_bytes.store(true, Ordering::Relaxed);
        }
        if let Some(ratio) = head.headroom_ratio {
            self.source_retention_headroom_ratio.set(ratio);
            self.known.headroom_ratio.store(true, Ordering::Relaxed);
        }
        if let Some(seconds) = head.clock_offset_seconds {
            self.source_clock_offset_seconds.set(seconds);
            self.known.clock_offset.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn set_lag(&self, seconds: f64) {
        self.lag_seconds.set(seconds);
        self.known.lag.store(true, Ordering::Relaxed);
    }

    /// Names of the gauges that have no value yet.
    pub(super) fn absent(&self) -> Vec<&'static str> {
        let Known { lag, lag_bytes, retained_bytes, xmin_age, headroom_ratio, clock_offset } = &*self.known;
        [
            (lag, "feedline_lag_seconds"),
            (lag_bytes, "feedline_source_lag_bytes"),
            (retained_bytes, "feedline_source_retained_bytes"),
            (xmin_age, "feedline_source_xmin_age_transactions"),
            (headroom_ratio, "feedline_source_retention_headroom_ratio"),
            (clock_offset, "feedline_source_clock_offset_seconds"),
        ]
        .into_iter()
        .filter_map(|(known, name)| (!known.load(Ordering::Relaxed)).then_some(name))
        .collect()
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
mod tests {
    use super::{LagState, lag_seconds};
    use crate::change::Timestamp;
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    const NOW: i64 = 1_800_000_000_000_000;

    fn moment() -> impl Strategy<Value = Option<Timestamp>> {
        prop::option::of((NOW - 1_000_000_000..NOW).prop_map(Timestamp))
    }

    fn state() -> impl Strategy<Value = LagState> {
        (moment(), moment(), moment(), moment(), any::<bool>(), -5.0..5.0_f64).prop_map(
            |(oldest_unconfirmed, newest_confirmed, caught_up_at, waiting_since, caught_up, clock_offset_seconds)| LagState {
                oldest_unconfirmed,
                newest_confirmed,
                caught_up_at,
                caught_up,
                waiting_since,
                clock_offset_seconds,
            },
        )
    }

    proptest! {
            #[test]
            fn lag_is_never_negative_and_rises_second_by_second_while_nothing_moves(state in state(), wait in 0..3_600_i64) {
                let (before, after) = (lag_seconds(&state, Timestamp(NOW)), lag_seconds(&state, Timestamp(NOW + wait * 1_000_000)));
                prop_assert_eq!(before.is_some(), after.is_some());
                if let (Some(before), Some(after)) = (before, after) {
                    prop_assert!(before >= 0.0);
                    let proved = state.caught_up && state.oldest_unconfirmed.is_none();
                    // A clock ahead of ours may hold it at 0 for the offset, and no longer.
                    let risen = after - before;
    let as_it_should =
                        if proved { after == 0.0 } else { (0.0..=wait as f64 + 1e-3).contains(&risen) && wait as f64 - risen < 5.01 };
                    prop_assert!(as_it_should);
                }
            }

            #[test]
            fn what_is_on_its_way_counts_from_its_commit_whatever_a_probe_said(state in state(), age in 10..1_000_i64) {
                let oldest = Timestamp(NOW - age * 1_000_000);
                let lag = lag_seconds(&LagState { oldest_unconfirmed: Some(oldest), ..state }, Timestamp(NOW));
                prop_assert!(lag.is_some_and(|lag| (lag - age as f64 - state.clock_offset_seconds).abs() < 1e-3));
            }
        }

    #[test]
    fn nothing_known_is_not_nothing_missing() {
        assert_eq!(lag_seconds(&LagState::default(), Timestamp(NOW)), None);
    }
}
