//! What is in flight: handed over to the sink side, and not confirmed by the broker.

use super::metrics::lag::Moment;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The batches in flight, oldest first.
#[derive(Debug, Default)]
pub struct InFlight {
    batches: VecDeque<BatchInFlight>,
    records: u64,
    bytes: u64,
    submitted: u64,
    /// Since when the oldest batch has been the oldest.
    oldest_since: Option<Instant>,
}

/// One batch.
#[derive(Debug)]
pub(super) struct BatchInFlight {
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// When its oldest live record was committed; `None` for a batch without one.
    pub(super) oldest: Option<Moment>,
}

impl InFlight {
    /// Records in flight.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the records in flight.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The records of these that the session was given.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.submitted
    }

    /// How long the oldest batch has been the oldest; zero while there is none.
    pub(super) fn unconfirmed_for(&self, now: Instant) -> Duration {
        let since = self.oldest_since.filter(|_| !self.batches.is_empty());
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When the oldest live record was committed.
    pub(super) fn oldest_live(&self) -> Option<Moment> {
        self.batches.iter().find_map(|batch| batch.oldest)
    }

    pub(super) fn push(&mut self, records: u64, bytes: u64, oldest: Option<Moment>) {
        if self.batches.is_empty() {
            self.oldest_since = Some(Instant::now());
        }
        self.records += records;
        self.bytes += bytes;
        self.batches.push_back(BatchInFlight { records, bytes, oldest });
    }

    pub(super) const fn submit(&mut self, records: u64) {
        self.submitted += records;
    }

    /// The session is over: the next one is given everything again.
    pub(super) const fn go_back(&mut self) {
        self.submitted = 0;
    }

    /// A new session is open: the time without a confirmation counts from here.
    pub(super) fn begin_session(&mut self) {
        self.oldest_since = Some(Instant::now());
    }

    /// Takes out the oldest batch, which is confirmed.
    pub(super) fn pop(&mut self) -> Option<BatchInFlight> {
        self.oldest_since = Some(Instant::now());
        let batch = self.batches.pop_front()?;
        self.records -= batch.records;
        self.bytes -= batch.bytes;
        self.submitted = self.submitted.saturating_sub(batch.records);
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::InFlight;

    #[test]
    fn a_batch_counts_from_the_hand_over_to_the_confirmation() {
        let mut in_flight = InFlight::default();
        in_flight.push(3, 300, None);
        in_flight.push(2, 200, None);
        in_flight.submit(3);
        assert_eq!((in_flight.records(), in_flight.bytes(), in_flight.submitted()), (5, 500, 3));
        in_flight.pop();
        assert_eq!((in_flight.records(), in_flight.bytes(), in_flight.submitted()), (2, 200, 0));
        in_flight.submit(2);
        in_flight.go_back();
        assert_eq!((in_flight.records(), in_flight.submitted()), (2, 0), "a lost session does not confirm");
        in_flight.submit(2);
        in_flight.pop();
        assert_eq!((in_flight.records(), in_flight.bytes(), in_flight.submitted()), (0, 0, 0));
    }
}
