//! Metrics that a source counts.

use super::builder::Builder;
use super::optional_gauge::OptionalGauge;
use crate::event::{Operation, Timestamp};
use prometheus::IntCounter;

/// Why a part of the log is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The log no longer holds what comes next.
    LogLost,
    /// The log was rewound to a position before what was published.
    Rewound,
    /// It is the log of another database.
    Foreign,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::LogLost, Self::Rewound, Self::Foreign];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogLost => "log_lost",
            Self::Rewound => "rewound",
            Self::Foreign => "foreign",
        }
    }
}

/// What the adapter of a source counts.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// One counter per operation, in the order of [`Operation::ALL`].
    events: [IntCounter; Operation::ALL.len()],
    /// Bytes received from the log.
    pub bytes: IntCounter,
    /// Transactions read to their end.
    pub transactions: IntCounter,
    /// Events that a feed's operations exclude.
    pub filtered_operations: IntCounter,
    /// Changes of table definitions that were followed.
    pub schema_changes: IntCounter,
    /// Scans of whole tables that began because a changefeed was opened.
    pub scans: IntCounter,
    /// Documents that scans compared with those that are known.
    pub scanned_rows: IntCounter,
    /// Changes that scans found and no changefeed had told.
    pub scan_differences: IntCounter,
    /// Changefeeds that left changes out.
    pub overflows: IntCounter,
    /// When anything last came from the source, keep-alives included: seconds since 1970.
    pub last_message_timestamp_seconds: OptionalGauge,
}

impl SourceMetrics {
    pub(super) fn new(b: &mut Builder) -> Self {
        let operations = Operation::ALL.map(Operation::name);
        let events = b.counters("source_events_total", "Events read from the source, published or not.", "op", operations);
        Self {
            events: operations.map(|operation| events.with_label_values(&[operation])),
            bytes: b.counter("source_bytes_total", "Bytes received from the source's log."),
            transactions: b.counter("source_transactions_total", "Source transactions read to their end."),
            filtered_operations: b
                .counter("filtered_events_total", "Events that are not published because a feed's operations exclude them."),
            schema_changes: b.counter("schema_changes_total", "Changes of table definitions that were followed."),
            scans: b.counter("source_scans_total", "RethinkDB: scans of whole tables, one for each time that a changefeed was opened."),
            scanned_rows: b.counter("source_scanned_rows_total", "RethinkDB: documents that scans compared with the local store."),
            scan_differences: b
                .counter("source_scan_differences_total", "RethinkDB: changes that scans found, and that no changefeed had told."),
            overflows: b.counter("source_overflows_total", "RethinkDB: changefeeds that left changes out; their tables are scanned again."),
            last_message_timestamp_seconds: b
                .optional_gauge("source_last_message_timestamp_seconds", "When anything last came from the source."),
        }
    }

    /// Counts events read from the log or by the prefeed, published or not.
    pub fn add_events(&self, operation: Operation, count: u64) {
        self.events[operation as usize].inc_by(count);
    }

    /// Notes that a message came from the source now.
    pub fn message_received(&self) {
        self.last_message_timestamp_seconds.set(Timestamp::now().seconds());
    }
}
