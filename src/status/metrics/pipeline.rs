//! All metrics of one pipeline, in a registry of their own.

use super::builder::{Builder, DURATION_BUCKETS};
use super::lag_gauges::LagGauges;
use super::optional_gauge::OptionalGauge;
use super::process;
use super::restart::RestartReason;
use super::sink::SinkMetrics;
use super::source::{GapReason, SourceMetrics};
use super::state::State;
use crate::event::Timestamp;
use crate::status::log_head::LogHead;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Kept in the checkpoint, and so unknown until that is read.
pub(super) const RESTARTS: &str = "feedline_pipeline_restarts_total";

const AGE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
const COUNT_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// All metrics of one pipeline.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) registry: Registry,
    /// Metrics of the process, without the pipeline's label.
    pub(super) process: Registry,
    pipeline_info: IntGaugeVec,
    pipeline_start_time_seconds: Gauge,
    /// When the run had drained and stopped.
    pub(super) pipeline_stop_time_seconds: OptionalGauge,
    state: IntGaugeVec,
    restarts: IntCounterVec,
    attempts: IntCounterVec,
    gaps: IntCounterVec,
    /// For the source's adapter.
    pub source: SourceMetrics,
    /// For the sink's adapter.
    pub sink: SinkMetrics,
    /// 1 while the log is open; absent until a connection was tried.
    pub(super) source_connected: OptionalGauge,
    /// Failed probes of the log's head.
    pub source_probe_errors: IntCounter,
    /// 1 while a session with the broker is open; absent until one was tried.
    pub(super) sink_connected: OptionalGauge,
    /// Records confirmed by the broker.
    pub sink_events: IntCounter,
    /// Bytes of records confirmed by the broker.
    pub sink_bytes: IntCounter,
    /// Sessions that ended with an error.
    pub sink_errors: IntCounter,
    /// Records sent again after a fault.
    pub sink_retries: IntCounter,
    /// Records handed to the broker's client and not confirmed.
    pub(super) sink_inflight_events: IntGauge,
    /// Records of each batch that was handed over.
    pub sink_batch_events: Histogram,
    /// Seconds from the source's commit to the broker's confirmation, live events.
    pub event_age_seconds: Histogram,
    /// Bytes of the memory budget in use.
    pub buffer_bytes: IntGauge,
    /// Share of the memory budget in use.
    pub buffer_fill_ratio: Gauge,
    /// Prefeed rows confirmed.
    pub prefeed_rows: IntCounter,
    /// Prefeed rows expected in total, estimated.
    pub prefeed_rows_expected: OptionalGauge,
    /// Tables whose rows are still to be sent.
    pub(super) prefeed_tables_pending: OptionalGauge,
    /// Seconds until the prefeed is complete, at the rate so far.
    pub prefeed_remaining_seconds: OptionalGauge,
    /// Checkpoints saved.
    pub checkpoint_commits: IntCounter,
    /// When the last checkpoint became durable: seconds since 1970.
    checkpoint_timestamp_seconds: OptionalGauge,
    /// Seconds to save a checkpoint.
    pub checkpoint_commit_duration_seconds: Histogram,
    pub(super) lag: LagGauges,
    /// All gauges that may have no value.
    pub(super) optional: Vec<OptionalGauge>,
    /// Whether the restarts of earlier runs are known.
    pub(super) restarts_restored: Arc<AtomicBool>,
}

impl Metrics {
    /// Metrics of the pipeline `name`, all at 0.
    ///
    /// # Panics
    /// Never: names and labels are constants.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let labels = HashMap::from([("pipeline".to_owned(), name.to_owned())]);
        let mut b = Builder::new(Registry::new_custom(None, Some(labels)).expect("the label is valid"));
        Self {
            state: b.register(IntGaugeVec::new(Opts::new("feedline_pipeline_state", "1 for the pipeline's state."), &["state"])),
            restarts: b.counters(
                "pipeline_restarts_total",
                "Outages after which the source side, the sink side, the process or a start began again, by reason: one per outage, \
                 however many attempts it took. Kept in the checkpoint.",
                "reason",
                RestartReason::ALL.map(RestartReason::name),
            ),
            attempts: b.counters(
                "pipeline_attempts_total",
                "Failed attempts of this process that are made again, by reason: an outage is one restart and may take many attempts.",
                "reason",
                RestartReason::ALL.map(RestartReason::name),
            ),
            gaps: b.counters(
                "source_gaps_total",
                "Gaps in the source's log, by reason: the pipeline stopped, or read tables again.",
                "reason",
                GapReason::ALL.map(GapReason::name),
            ),
            source: SourceMetrics::new(&mut b),
            sink: SinkMetrics::new(&b),
            source_connected: b
                .optional_gauge("source_connected", "1 while the source's log is open; absent until a connection was tried."),
            source_probe_errors: b.counter("source_probe_errors_total", "Failed probes of the log's head."),
            sink_connected: b.optional_gauge("sink_connected", "1 while a session with the broker is open; absent until one was tried."),
            sink_events: b.counter("sink_events_total", "Records that the broker confirmed."),
            sink_bytes: b.counter("sink_bytes_total", "Bytes of records that the broker confirmed."),
            sink_errors: b.counter("sink_errors_total", "Broker sessions that ended with an error."),
            sink_retries: b.counter("sink_retries_total", "Records sent again after a fault."),
            sink_inflight_events: b.int_gauge("sink_inflight_events", "Records handed over and not yet confirmed."),
            sink_batch_events: b.histogram("sink_batch_events", "Records of each batch handed over.", COUNT_BUCKETS),
            event_age_seconds: b.histogram(
                "event_age_seconds",
                "Seconds from commit to confirmation of the oldest live event of each batch.",
                AGE_BUCKETS,
            ),
            buffer_bytes: b.int_gauge("buffer_bytes", "Bytes of the memory budget in use."),
            buffer_fill_ratio: b.gauge("buffer_fill_ratio", "Share of the memory budget in use."),
            prefeed_rows: b.counter("prefeed_rows_total", "Existing rows that the broker confirmed."),
            prefeed_rows_expected: b.optional_gauge("prefeed_rows_expected", "Existing rows expected in total; an estimate."),
            prefeed_remaining_seconds: b
                .optional_gauge("prefeed_remaining_seconds", "Seconds until every existing row is read, at the rate so far."),
            prefeed_tables_pending: b.optional_gauge("prefeed_tables_pending", "Tables whose existing rows are still to be sent."),
            checkpoint_commits: b.counter("checkpoint_commits_total", "Checkpoints made durable."),
            checkpoint_timestamp_seconds: b.optional_gauge("checkpoint_timestamp_seconds", "When the last checkpoint became durable."),
            checkpoint_commit_duration_seconds: b.histogram(
                "checkpoint_commit_duration_seconds",
                "Seconds that it took to save a checkpoint.",
                DURATION_BUCKETS,
            ),
            lag: LagGauges::new(&mut b),
            pipeline_info: b.register(IntGaugeVec::new(
                Opts::new("feedline_pipeline_info", "1; the labels name the source, the sink and the delivery."),
                &["source_type", "sink_type", "delivery"],
            )),
            pipeline_start_time_seconds: b.gauge("pipeline_start_time_seconds", "When this run began."),
            pipeline_stop_time_seconds: b
                .optional_gauge("pipeline_stop_time_seconds", "When this run had drained and stopped; absent before."),
            process: process::registry(),
            optional: b.optional,
            restarts_restored: Arc::default(),
            registry: b.registry,
        }
    }

    /// Counts a failed attempt of an outage.
    pub fn count_attempt(&self, reason: RestartReason) {
        self.attempts.with_label_values(&[reason.name()]).inc();
    }

    /// How many attempts failed for this reason.
    #[must_use]
    pub fn attempts(&self, reason: RestartReason) -> u64 {
        self.attempts.with_label_values(&[reason.name()]).get()
    }

    /// Shows what a probe measured at the log's head; `None` where it failed.
    pub fn set_head(&self, head: Option<&LogHead>) {
        self.lag.set_head(head);
    }

    /// Sets the names of source, sink and delivery, and the start of the run to now.
    pub fn set_pipeline(&self, source_type: &str, sink_type: &str, delivery: &str) {
        self.pipeline_info.with_label_values(&[source_type, sink_type, delivery]).set(1);
        self.pipeline_start_time_seconds.set(Timestamp::now().seconds());
    }

    /// A checkpoint became durable now.
    pub fn checkpoint_saved(&self) {
        self.checkpoint_timestamp_seconds.set(Timestamp::now().seconds());
    }

    /// Sets this state to 1 and all others to 0.
    pub(super) fn set_state(&self, state: State) {
        for other in State::ALL {
            self.state.with_label_values(&[other.name()]).set(i64::from(other == state));
        }
    }

    /// Counts a restart.
    pub fn count_restart(&self, reason: RestartReason) {
        self.restarts.with_label_values(&[reason.name()]).inc();
    }

    /// Counts a gap.
    pub fn count_gap(&self, reason: GapReason) {
        self.gaps.with_label_values(&[reason.name()]).inc();
    }

    /// Restarts so far by reason, for the checkpoint.
    #[must_use]
    pub fn restarts(&self) -> BTreeMap<String, u64> {
        RestartReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), self.restarts.with_label_values(&[reason.name()]).get()))
            .collect()
    }

    /// Adds the restarts that a checkpoint holds; an empty map where there is no checkpoint yet.
    pub fn restore_restarts(&self, restarts: &BTreeMap<String, u64>) {
        for reason in RestartReason::ALL {
            let restored = restarts.get(reason.name()).copied().unwrap_or(0);
            self.restarts.with_label_values(&[reason.name()]).inc_by(restored);
        }
        self.restarts_restored.store(true, Ordering::Relaxed);
    }
}
