//! How many records and bytes the broker has confirmed a second.

use std::time::Duration;
use tokio::time::Instant;

/// A rate is that of so many whole seconds.
const SECONDS: usize = 10;

/// What was confirmed in each of the last seconds.
#[derive(Debug)]
pub struct ConfirmedRate {
    begun: Instant,
    /// The second, counted from `begun`, that is being added to.
    second: u64,
    /// By second, in a ring: the one that is being added to, and those before it.
    counts: [Count; SECONDS + 1],
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    records: u64,
    bytes: u64,
}

/// A rate over the last seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerSecond {
    /// Records a second.
    pub records: f64,
    /// Bytes of these records a second.
    pub bytes: f64,
}

impl ConfirmedRate {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, second: 0, counts: [Count::default(); SECONDS + 1] }
    }

    /// Adds a confirmed batch.
    pub(super) fn add(&mut self, records: u64, bytes: u64, now: Instant) {
        let second = self.second_of(now);
        // A second that passed without a batch holds what was confirmed a round earlier.
        let passed = second.saturating_sub(self.second).min(self.counts.len() as u64);
        for past in second - passed..second {
            *self.count(past + 1) = Count::default();
        }
        self.second = second;
        let count = self.count(second);
        count.records += records;
        count.bytes += bytes;
    }

    /// The rate over the last ten whole seconds, or as many as there are; `None` in the first second of a run.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    #[must_use]
    pub fn per_second(&self, now: Instant) -> Option<PerSecond> {
        let second = self.second_of(now);
        let whole = second.min(SECONDS as u64);
        if whole == 0 {
            return None;
        }
        // Nothing was confirmed after `self.second`, and the ring holds nothing older than itself.
        let oldest = (second - whole).max(self.second.saturating_sub(SECONDS as u64));
        let counts = (oldest..second.min(self.second + 1)).map(|second| self.counts[Self::index(second)]);
        let (records, bytes) = counts.fold((0, 0), |(records, bytes), count| (records + count.records, bytes + count.bytes));
        Some(PerSecond { records: records as f64 / whole as f64, bytes: bytes as f64 / whole as f64 })
    }

    fn second_of(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).max(Duration::from_secs(self.second)).as_secs()
    }

    fn count(&mut self, second: u64) -> &mut Count {
        &mut self.counts[Self::index(second)]
    }

    const fn index(second: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "less than the ring is long")]
        let index = (second % (SECONDS as u64 + 1)) as usize;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfirmedRate, PerSecond};
    use proptest::prelude::{any, prop};
    use proptest::proptest;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_rate_is_that_of_the_last_whole_seconds() {
        let begun = Instant::now();
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        let mut rate = ConfirmedRate::new(begun);
        assert_eq!(rate.per_second(at(0.9)), None, "not known");
        rate.add(10, 1_000, at(0.5));
        rate.add(30, 3_000, at(1.5));
        assert_eq!(rate.per_second(at(1.9)), Some(PerSecond { records: 10.0, bytes: 1_000.0 }), "the present second is not over");
        assert_eq!(rate.per_second(at(2.0)), Some(PerSecond { records: 20.0, bytes: 2_000.0 }));
        assert_eq!(rate.per_second(at(10.0)), Some(PerSecond { records: 4.0, bytes: 400.0 }));
        assert_eq!(rate.per_second(at(11.0)), Some(PerSecond { records: 3.0, bytes: 300.0 }));
        assert_eq!(rate.per_second(at(12.0)), Some(PerSecond { records: 0.0, bytes: 0.0 }));
    }

    proptest! {
        #[test]
        fn it_is_what_a_list_of_all_batches_gives(batches in prop::collection::vec((0..4_000_u64, 1..100_u64), 1..60), after in any::<u8>()) {
            let begun = Instant::now();
            let (mut rate, mut milliseconds, mut all) = (ConfirmedRate::new(begun), 0, Vec::new());
            for (pause, records) in batches {
                milliseconds += pause;
                rate.add(records, 2 * records, begun + Duration::from_millis(milliseconds));
                all.push((milliseconds / 1_000, records));
            }
            let now = milliseconds + 100 * u64::from(after);
            let (second, whole) = (now / 1_000, (now / 1_000).min(10));
            let sum: u64 = all.iter().filter(|(at, _)| (second - whole..second).contains(at)).map(|(_, records)| records).sum();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let expected = (0 < whole).then(|| sum as f64 / whole as f64);
            assert_eq!(rate.per_second(begun + Duration::from_millis(now)).map(|rate| rate.records), expected);
        }
    }
}
