//! Writes metrics in Prometheus's text format, and lists them for the documentation.

use super::lag::lag_seconds;
use super::optional_gauge::OptionalGauge;
use super::pipeline::{Metrics, RESTARTS};
use super::process::OF_PROCESS;
use super::state::State;
use crate::event::Timestamp;
use crate::status::pipeline_status::Status;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// A metric, as the documentation lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Its help text.
    pub help: String,
}

/// A label of a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its values, where they are a closed set; else empty.
    pub values: Vec<String>,
}

impl Metrics {
    /// All metrics in the text format, version 0.0.4, with the status at `now`.
    #[must_use]
    pub fn render(&self, status: &Status, now: Instant) -> String {
        self.show(status, now);
        let mut absent: Vec<&str> = self.optional.iter().filter_map(OptionalGauge::absent).collect();
        if !self.restarts_restored.load(Ordering::Relaxed) {
            absent.push(RESTARTS);
        }
        let mut families = self.registry.gather();
        families.retain(|family| !absent.contains(&family.name()));
        families.extend(self.process.gather());
        let mut text = Vec::new();
        // Cannot fail: the writer is memory, and each family has a name and at least one sample.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(error = %error, "metrics cannot be written down");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Shows the states that the status holds.
    fn show(&self, status: &Status, now: Instant) {
        self.lag.set_lag(lag_seconds(&status.lag(), now));
        self.set_state(status.state());
        self.source_connected.count(status.source.connected.map(u64::from));
        self.sink_connected.count(status.sink.connected.map(u64::from));
        self.sink_inflight_events.set(i64::try_from(status.in_flight.submitted()).unwrap_or(i64::MAX));
        self.prefeed_tables_pending.count(status.feeds_pending().map(|pending| pending as u64));
        self.pipeline_stop_time_seconds.set(status.stopped_at().map(Timestamp::seconds));
    }

    /// Every metric, ordered by name.
    #[must_use]
    pub fn describe(&self) -> Vec<Description> {
        self.set_state(State::Starting);
        let mut all: Vec<_> = self.registry.gather().iter().chain(&self.process.gather()).map(describe).collect();
        all.sort();
        all
    }
}

fn describe(family: &MetricFamily) -> Description {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => "gauge",
    };
    let names: BTreeSet<&str> = family.get_metric().iter().flat_map(Metric::get_label).map(LabelPair::name).collect();
    let labels = names.into_iter().map(|name| Label { name: name.to_owned(), values: values(family, name) }).collect();
    Description { name: family.name().to_owned(), kind, labels, help: family.help().to_owned() }
}

/// The values of a label that is a closed set. Values of other labels differ between pipelines.
fn values(family: &MetricFamily, label: &str) -> Vec<String> {
    if !matches!(label, "op" | "reason" | "state") {
        return Vec::new();
    }
    let all = family.get_metric().iter().flat_map(Metric::get_label).filter(|pair| pair.name() == label);
    all.map(|pair| pair.value().to_owned()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// `docs/metrics.md`.
#[must_use]
pub fn markdown(descriptions: &[Description]) -> String {
    let of_process = OF_PROCESS.map(|name| format!("`{name}`")).join(", ");
    let mut out = format!(
        "# Metrics\n\n\
         <!-- Written by `feedline metrics --format markdown`; a test holds it equal to the code. -->\n\n\
         Served at `/metrics` of `admin.listen`. Every series exists from the start with 0, so that a first increment is seen. A gauge is\n\
         absent while its value is not known: bytes, for a source that counts none; whether the source is connected, before a connection\n\
         was tried; what probes of the log's head measure, while no probe succeeds. Restarts are absent until the checkpoint that keeps\n\
         them is read.\n\n\
         `feedline_lag_seconds` is computed when it is read, with a monotonic clock: it rises while nothing moves, and is 0 only while\n\
         probes of the log's head prove that nothing is missing. While the head cannot be read, and while a start cannot begin, it is an\n\
         upper bound: it counts from the last proof or from the newest confirmed change, whichever is later. The checkpoint keeps both. In\n\
         the first seconds of a run it is absent until a probe or a confirmation.\n\n\
         Where others write to the same server all the time, its log has moved on whenever it is looked at. Then probes prove what the\n\
         log was at an earlier look: the lag of tables that nobody writes to stays at a few seconds, and does not become 0.\n\n\
         Metrics of a pipeline have its name in the label `pipeline`. Metrics of the process have no such label:\n\
         {of_process}, and those of the operating system (`process_...`).\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n"
    );
    for description in descriptions {
        let Description { name, kind, help, .. } = description;
        writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels(description)).expect("writing to a string never fails");
    }
    out
}

/// The labels in one line, the values of closed sets in braces.
#[must_use]
pub fn labels(description: &Description) -> String {
    let label = |label: &Label| match label.values.as_slice() {
        [] => label.name.clone(),
        values => format!("{}={{{}}}", label.name, values.join(",")),
    };
    description.labels.iter().map(label).collect::<Vec<_>>().join(", ")
}
