//! Metrics that a sink counts, and the last error of its client.

use super::builder::{Builder, DURATION_BUCKETS};
use crate::fault::Code;
use crate::status::storm::Storm;
use prometheus::{Histogram, IntCounterVec, IntGauge};
use std::sync::{Arc, Mutex, PoisonError};

/// Why an event is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetter {
    /// It is larger than its destination accepts.
    TooLarge,
    /// It is routed to no queue.
    Unroutable,
    /// The broker refuses its content.
    Refused,
}

impl DeadLetter {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::TooLarge, Self::Unroutable, Self::Refused];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
        }
    }
}

/// What the adapter of a sink counts. Confirmed records are counted by the engine.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// 1 while the broker's client takes no more records.
    pub blocked: IntGauge,
    /// Seconds from handing a record to the broker's client until its confirmation, as the client reports it.
    pub publish_duration_seconds: Histogram,
    /// 1 once the number of partitions of a topic changed while running, so that keys moved.
    pub partitions_changed: IntGauge,
    dead_letters: IntCounterVec,
    complaint: Arc<Mutex<Option<String>>>,
    dead_letters_logged: Arc<Mutex<Storm>>,
}

impl SinkMetrics {
    pub(super) fn new(b: &Builder) -> Self {
        Self {
            blocked: b.int_gauge(
                "sink_blocked",
                "1 while the broker takes no more: it blocks publishers, its client is full, or a queue refuses events.",
            ),
            publish_duration_seconds: b.histogram(
                "sink_publish_duration_seconds",
                "Seconds from handing a record to the client until its confirmation.",
                DURATION_BUCKETS,
            ),
            partitions_changed: b
                .int_gauge("sink_partitions_changed", "1 once the partitions of a topic changed while running: keys moved."),
            dead_letters: b.counters(
                "dead_letters_total",
                "Events sent to the dead letters because their destination does not take them, by reason.",
                "reason",
                DeadLetter::ALL.map(DeadLetter::name),
            ),
            complaint: Arc::default(),
            dead_letters_logged: Arc::default(),
        }
    }

    /// Keeps the last error of the broker's client; `None` once it works again.
    pub fn complain(&self, complaint: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    /// The last error of the broker's client.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts an event that went to the dead letters.
    pub fn count_dead_letter(&self, reason: DeadLetter) {
        self.dead_letters.with_label_values(&[reason.name()]).inc();
    }

    /// Whether a dead letter with this code is to be logged, as [`Storm::due_line`].
    #[must_use]
    pub fn due_dead_letter_line(&self, code: Code) -> Option<u64> {
        self.dead_letters_logged.lock().unwrap_or_else(PoisonError::into_inner).due_line(code)
    }

    /// How many events went to the dead letters for this reason.
    #[must_use]
    pub fn dead_letters(&self, reason: DeadLetter) -> u64 {
        self.dead_letters.with_label_values(&[reason.name()]).get()
    }
}
