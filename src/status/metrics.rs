//! Every metric of a pipeline: name, help and labels, defined once.
//!
//! Labels are closed sets, and every combination exists from the start with 0, so that the first increment is seen.
//! Counters are added to per batch, never per record.

use crate::event::Operation;
use crate::fault::Code;
use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub mod known;
pub mod lag;
mod process;
pub mod render;
mod state;

use known::Known;
pub use process::{BUILD, Build, OF_PROCESS, log_lines_dropped};
pub use state::State;

/// Kept in the checkpoint, and so unknown until that is read.
const RESTARTS: &str = "feedline_pipeline_restarts_total";

/// Why a part of the pipeline started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// The feed half met a transient fault.
    SourceError,
    /// The log has a gap, and tables are read again.
    SourceGap,
    /// The deliver half met a transient fault.
    SinkError,
    /// The checkpoint could not be read or saved for now.
    CheckpointError,
    /// The process started after an unclean end.
    Process,
}

impl RestartReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::SourceError, Self::SourceGap, Self::SinkError, Self::CheckpointError, Self::Process];

    /// What a failure with this number is a restart for; none where it concerns the configuration.
    #[must_use]
    pub const fn of(code: Code) -> Option<Self> {
        match code.number() / 1000 {
            2 | 5 => Some(Self::SourceError),
            3 => Some(Self::SinkError),
            4 => Some(Self::CheckpointError),
            _ => None,
        }
    }

    /// Its label, and its key in the checkpoint.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SourceError => "source_error",
            Self::SourceGap => "source_gap",
            Self::SinkError => "sink_error",
            Self::CheckpointError => "checkpoint_error",
            Self::Process => "process",
        }
    }
}

/// How a log came to have a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The log no longer holds what comes next.
    LogLost,
    /// The log was rewound below what was published.
    Rewound,
    /// It is the log of another database.
    Foreign,
}

impl Gap {
    /// Every kind.
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

/// What the adapters of a source count.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// One counter an operation, in the order of [`Operation::ALL`].
    events: [IntCounter; Operation::ALL.len()],
    /// Bytes received from the log.
    pub bytes: IntCounter,
    /// Transactions seen to their end.
    pub transactions: IntCounter,
    /// Events that a feed's mask leaves out.
    pub filtered_operations: IntCounter,
    /// Changes of a table's definition that were followed.
    pub schema_changes: IntCounter,
    /// When anything last came from the source, keep-alives included: seconds since 1970.
    pub last_message_timestamp_seconds: Known,
}

impl SourceMetrics {
    /// Counts events read from the log or by the prefeed, published or not.
    pub fn add_events(&self, operation: Operation, count: u64) {
        self.events[operation as usize].inc_by(count);
    }

    /// Notes that something came from the source now.
    pub fn heard(&self) {
        self.last_message_timestamp_seconds.set(crate::event::Timestamp::now().seconds());
    }
}

/// What the adapters of a sink count; confirmed records are counted by the engine.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// 1 while the broker's client takes no more records.
    pub blocked: IntGauge,
    /// Seconds from a record's hand-over to the broker's client until its confirmation, as the client reports it.
    pub publish_duration_seconds: Histogram,
    /// 1 where the number of partitions of a topic changed while running, so that keys moved.
    pub partitions_changed: IntGauge,
    dead_letters: IntCounterVec,
    complaint: Arc<Mutex<Option<String>>>,
}

impl SinkMetrics {
    /// What the broker's client complains of; nothing once it works again.
    pub fn complain(&self, complaint: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    /// What the broker's client complained of last.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An event went to the dead letters.
    pub fn count_dead_letter(&self, reason: DeadLetter) {
        self.dead_letters.with_label_values(&[reason.name()]).inc();
    }

    /// How many events went there for this reason.
    #[must_use]
    pub fn dead_letters(&self, reason: DeadLetter) -> u64 {
        self.dead_letters.with_label_values(&[reason.name()]).get()
    }
}

/// Why an event is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetter {
    /// It is larger than its destination accepts.
    TooLarge,
    /// No queue takes it.
    Unroutable,
    /// The broker refuses it for what it is.
    Refused,
}

impl DeadLetter {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::TooLarge, Self::Unroutable, Self::Refused];

    /// As metrics write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
        }
    }
}

/// All metrics of one pipeline, in a registry of their own.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// What is the process's and not the pipeline's: without the pipeline's label.
    process: Registry,
    pipeline_info: IntGaugeVec,
    pipeline_start_time_seconds: Gauge,
    /// When the run drained and stopped, where it has.
    pipeline_stop_time_seconds: Known,
    state: IntGaugeVec,
    restarts: IntCounterVec,
    attempts: IntCounterVec,
    gaps: IntCounterVec,
    /// For the source's adapter.
    pub source: SourceMetrics,
    /// For the sink's adapter.
    pub sink: SinkMetrics,
    /// 1 while the log is open.
    pub source_connected: Known,
    /// Probes of the log's head that failed.
    pub source_probe_errors: IntCounter,
    /// 1 while a session with the broker is open; absent until it was tried.
    pub sink_connected: Known,
    /// Records confirmed by the broker.
    pub sink_events: IntCounter,
    /// Bytes of records confirmed by the broker.
    pub sink_bytes: IntCounter,
    /// Sessions that ended with an error.
    pub sink_errors: IntCounter,
    /// Records sent again after a fault.
    pub sink_retries: IntCounter,
    /// Records with the broker's client, unconfirmed.
    pub sink_inflight_events: IntGauge,
    /// Records in each batch that was handed over.
    pub sink_batch_events: Histogram,
    /// Seconds from the source's commit to the broker's confirmation, live events.
    pub event_age_seconds: Histogram,
    /// Bytes of room in use.
    pub buffer_bytes: IntGauge,
    /// The share of the room that is in use.
    pub buffer_fill_ratio: Gauge,
    /// Prefeed rows confirmed.
    pub prefeed_rows: IntCounter,
    /// Prefeed rows expected in all, roughly.
    pub prefeed_rows_expected: Known,
    /// Tables whose rows are still to be sent.
    pub prefeed_tables_pending: Known,
    /// Seconds until the prefeed is complete, at the rate so far.
    pub prefeed_remaining_seconds: Known,
    /// Checkpoints saved.
    pub checkpoint_commits: IntCounter,
    /// When the last checkpoint became durable: seconds since 1970.
    checkpoint_timestamp_seconds: Known,
    /// Seconds that it took to save a checkpoint.
    pub checkpoint_commit_duration_seconds: Histogram,
    lag: lag::LagGauges,
    /// Those of the gauges that may be unknown.
    known: Vec<Known>,
    /// Whether it is known how often the pipeline started again before.
    history_known: Arc<AtomicBool>,
}

struct Builder {
    registry: Registry,
    known: Vec<Known>,
}

impl Builder {
    fn register<C: Collector + Clone + 'static>(&self, collector: Result<C, prometheus::Error>) -> C {
        let collector = collector.expect("names and labels are constants that a test has seen");
        self.registry.register(Box::new(collector.clone())).expect("each name is registered once");
        collector
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(format!("feedline_{name}"), help))
    }
    fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(format!("feedline_{name}"), help))
    }
    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(format!("feedline_{name}"), help))
    }
    fn known(&mut self, name: &str, help: &str) -> Known {
        let known = Known::new(&format!("feedline_{name}"), self.gauge(name, help));
        self.known.push(known.clone());
        known
    }
    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(format!("feedline_{name}"), help).buckets(buckets.to_vec())))
    }
    fn counters<'l>(&self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = &'l str>) -> IntCounterVec {
        let counters = self.register(IntCounterVec::new(Opts::new(format!("feedline_{name}"), help), &[label]));
        for value in values {
            counters.with_label_values(&[value]).inc_by(0);
        }
        counters
    }
}

const AGE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
const DURATION_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const COUNT_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

impl Metrics {
    /// Metrics of the pipeline `name`, all at 0.
    ///
    /// # Panics
    /// Never: names and labels are constants.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let labels = HashMap::from([("pipeline".to_owned(), name.to_owned())]);
        let mut b = Builder { registry: Registry::new_custom(None, Some(labels)).expect("the label is valid"), known: Vec::new() };
        let operations = Operation::ALL.map(Operation::name);
        let events = b.counters("source_events_total", "Events read from the source, published or not.", "op", operations);
        let source = SourceMetrics {
            events: operations.map(|operation| events.with_label_values(&[operation])),
            bytes: b.counter("source_bytes_total", "Bytes received from the source's log."),
            transactions: b.counter("source_transactions_total", "Source transactions seen to their end."),
            filtered_operations: b.counter("filtered_events_total", "Events that a feed's operations leave out."),
            schema_changes: b.counter("schema_changes_total", "Changes of a table's definition that were followed."),
            last_message_timestamp_seconds: b.known("source_last_message_timestamp_seconds", "When anything last came from the source."),
        };
        let sink = SinkMetrics {
            blocked: b.int_gauge(
                "sink_blocked",
                "1 while the broker takes no more: it blocks publishers, its client is full, or a queue refuses events.",
            ),
            publish_duration_seconds: b.histogram(
                "sink_publish_duration_seconds",
                "Seconds from hand-over to confirmation of a record.",
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
        };
        Self {
            state: b.register(IntGaugeVec::new(Opts::new("feedline_pipeline_state", "1 for what the pipeline is doing."), &["state"])),
            restarts: b.counters(
                "pipeline_restarts_total",
                "Outages for which a half, the process or a start had to begin again, by reason, however many attempts each took; kept in the checkpoint.",
                "reason",
                RestartReason::ALL.map(RestartReason::name),
            ),
            attempts: b.counters(
                "pipeline_attempts_total",
                "Attempts of this process that failed and are made again, by reason: an outage is one restart and may take many.",
                "reason",
                RestartReason::ALL.map(RestartReason::name),
            ),
            gaps: b.counters(
                "source_gaps_total",
                "Gaps in the source's log, by reason: the pipeline stopped, or read tables again.",
                "reason",
                Gap::ALL.map(Gap::name),
            ),
            source,
            sink,
            source_connected: b.known("source_connected", "1 while the source's log is open; absent until it was tried."),
            source_probe_errors: b.counter("source_probe_errors_total", "Looks at the log's head that failed."),
            sink_connected: b.known("sink_connected", "1 while a session with the broker is open."),
            sink_events: b.counter("sink_events_total", "Records that the broker confirmed."),
            sink_bytes: b.counter("sink_bytes_total", "Bytes of records that the broker confirmed."),
            sink_errors: b.counter("sink_errors_total", "Broker sessions that ended with an error."),
            sink_retries: b.counter("sink_retries_total", "Records sent again after a fault."),
            sink_inflight_events: b.int_gauge("sink_inflight_events", "Records handed over and not yet confirmed."),
            sink_batch_events: b.histogram("sink_batch_events", "Records of each batch handed over.", COUNT_BUCKETS),
            event_age_seconds: b.histogram(
                "event_age_seconds",
                "Seconds from commit to confirmation, oldest live event of each batch.",
                AGE_BUCKETS,
            ),
            buffer_bytes: b.int_gauge("buffer_bytes", "Bytes of room in use."),
            buffer_fill_ratio: b.gauge("buffer_fill_ratio", "Share of the room in use."),
            prefeed_rows: b.counter("prefeed_rows_total", "Existing rows that the broker confirmed."),
            prefeed_rows_expected: b.known("prefeed_rows_expected", "Existing rows expected in all, roughly."),
            prefeed_remaining_seconds: b
                .known("prefeed_remaining_seconds", "Seconds until every existing row is read, at the rate so far."),
            prefeed_tables_pending: b.known("prefeed_tables_pending", "Tables whose existing rows are still to be sent."),
            checkpoint_commits: b.counter("checkpoint_commits_total", "Checkpoints made durable."),
            checkpoint_timestamp_seconds: b.known("checkpoint_timestamp_seconds", "When the last checkpoint became durable."),
            checkpoint_commit_duration_seconds: b.histogram(
                "checkpoint_commit_duration_seconds",
                "Seconds that it took to save a checkpoint.",
                DURATION_BUCKETS,
            ),
            lag: lag::LagGauges::new(&mut b),
            pipeline_info: b.register(IntGaugeVec::new(
                Opts::new("feedline_pipeline_info", "1; says what the pipeline is made of."),
                &["source_type", "sink_type", "delivery"],
            )),
            pipeline_start_time_seconds: b.gauge("pipeline_start_time_seconds", "When this run began."),
            pipeline_stop_time_seconds: b.known("pipeline_stop_time_seconds", "When this run had drained and stopped; absent before."),
            process: process::registry(),
            known: b.known,
            history_known: Arc::default(),
            registry: b.registry,
        }
    }

    /// An attempt of an outage failed.
    pub fn attempted(&self, reason: RestartReason) {
        self.attempts.with_label_values(&[reason.name()]).inc();
    }

    /// How many attempts failed for this reason.
    #[must_use]
    pub fn attempts(&self, reason: RestartReason) -> u64 {
        self.attempts.with_label_values(&[reason.name()]).get()
    }

    /// Shows what a look at the log's head has seen; nothing where it failed.
    pub fn set_head(&self, head: Option<&crate::status::LogHead>) {
        self.lag.set_head(head);
    }

    /// Says what the pipeline is made of, and that its run begins now.
    pub fn set_pipeline(&self, source_type: &str, sink_type: &str, delivery: &str) {
        self.pipeline_info.with_label_values(&[source_type, sink_type, delivery]).set(1);
        self.pipeline_start_time_seconds.set(crate::event::Timestamp::now().seconds());
    }

    /// The run has drained and stopped.
    pub fn set_stopped(&self) {
        self.pipeline_stop_time_seconds.set(crate::event::Timestamp::now().seconds());
    }

    /// The checkpoint became durable just now.
    pub fn checkpoint_saved(&self) {
        self.checkpoint_timestamp_seconds.set(crate::event::Timestamp::now().seconds());
    }

    /// Exactly one state is 1.
    pub fn set_state(&self, state: State) {
        for other in State::ALL {
            self.state.with_label_values(&[other.name()]).set(i64::from(other == state));
        }
    }

    /// Counts a restart.
    pub fn restarted(&self, reason: RestartReason) {
        self.restarts.with_label_values(&[reason.name()]).inc();
    }

    /// Counts a gap.
    pub fn gap(&self, gap: Gap) {
        self.gaps.with_label_values(&[gap.name()]).inc();
    }

    /// Restarts so far by reason, for the checkpoint.
    #[must_use]
    pub fn restarts(&self) -> std::collections::BTreeMap<String, u64> {
        RestartReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), self.restarts.with_label_values(&[reason.name()]).get()))
            .collect()
    }

    /// Adds the restarts that a checkpoint remembers: none where there is no checkpoint yet.
    pub fn restore_restarts(&self, restarts: &std::collections::BTreeMap<String, u64>) {
        for reason in RestartReason::ALL {
            let known = restarts.get(reason.name()).copied().unwrap_or(0);
            self.restarts.with_label_values(&[reason.name()]).inc_by(known);
        }
        self.history_known.store(true, Ordering::Relaxed);
    }
}
