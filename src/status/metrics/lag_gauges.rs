//! Gauges of the lag, and of what probes measure at the log's head.

use super::builder::Builder;
use super::optional_gauge::OptionalGauge;
use crate::status::log_head::LogHead;

#[derive(Clone, Debug)]
pub(super) struct LagGauges {
    lag_seconds: OptionalGauge,
    source_lag_bytes: OptionalGauge,
    source_retained_bytes: OptionalGauge,
    source_xmin_age_transactions: OptionalGauge,
    source_retention_headroom_ratio: OptionalGauge,
    source_clock_offset_seconds: OptionalGauge,
}

impl LagGauges {
    pub(super) fn new(b: &mut Builder) -> Self {
        Self {
            lag_seconds: b.optional_gauge(
                "lag_seconds",
                "Age of the oldest change that the broker has not confirmed; 0 only when a probe of the log's head proves it.",
            ),
            source_lag_bytes: b.optional_gauge("source_lag_bytes", "Bytes of log between the confirmed position and the head."),
            source_retained_bytes: b.optional_gauge("source_retained_bytes", "Bytes of log that the source keeps for this pipeline."),
            source_xmin_age_transactions: b.optional_gauge(
                "source_xmin_age_transactions",
                "Age, in transactions, of the oldest transaction whose dead rows the server keeps for our slot or snapshots.",
            ),
            source_retention_headroom_ratio: b.optional_gauge(
                "source_retention_headroom_ratio",
                "Share of the log-retention limit that is left; at 0 the log is lost, with RethinkDB states of documents. 1 where no limit is set.",
            ),
            source_clock_offset_seconds: b.optional_gauge("source_clock_offset_seconds", "The source's clock minus ours."),
        }
    }

    /// Shows what a probe measured. After a failed probe the gauges are absent: earlier values are no longer true.
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
