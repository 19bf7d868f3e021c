//! Metrics as Prometheus reads them, and as documentation lists them.

use crate::status::metrics::known::Known;
use crate::status::metrics::lag::{LagState, lag_seconds};
use crate::status::metrics::{Metrics, OF_PROCESS, RESTARTS, State};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What is said about a metric in the documentation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, with all values where the set is closed.
    pub labels: Vec<Label>,
    /// What it counts.
    pub help: String,
}

/// A label of a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// The values that it takes; empty where they are the user's.
    pub values: Vec<String>,
}

impl Metrics {
    /// The text format, version 0.0.4. Lag and state are those of `now`: they go on changing while nothing moves.
    #[must_use]
    pub fn render(&self, lag: &LagState, state: State, now: Instant) -> String {
        self.lag.set_lag(lag_seconds(lag, now));
        self.set_state(state);
        let mut absent: Vec<&str> = self.known.iter().filter_map(Known::absent).collect();
        if !self.history_known.load(Ordering::Relaxed) {
            absent.push(RESTARTS);
        }
        let mut families = self.registry.gather();
        families.retain(|family| !absent.contains(&family.name()));
        families.extend(self.process.gather());
        let mut text = Vec::new();
        // The writer is memory, and the families are well formed: each has a name and at least one sample.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(error = %error, "metrics cannot be written down");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Every metric, in the order of its name.
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

/// The values of a closed label. Those of others differ from one pipeline to the next.
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
         Served at `/metrics` of `admin.listen`. Every series exists from the start with 0, so that the first increment is seen;\n\
         a gauge whose value is not known (a source that counts no bytes, whether the source is connected before that was tried, what\n\
         a look at the log's head would show while none succeeds) is absent, and so are restarts until the checkpoint that keeps them\n\
         is read. `feedline_lag_seconds` is computed when it is asked for, by a clock that nobody sets: it rises while nothing moves, and\n\
         is 0 only while looks at the log's head prove that nothing is missing. Where the head cannot be seen, and while a start cannot\n\
         begin, it counts from the last proof or from the newest change that is confirmed, which the checkpoint keeps, whichever is\n\
         later: an upper bound. In the first seconds of a run it is absent until a look or a confirmation tells it.\n\n\
         A metric of a pipeline has the pipeline's name in the label `pipeline`. What belongs to the process as a whole has no such label: what\n\
         the operating system says of it (`process_...`), and {of_process}.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n"
    );
    for description in descriptions {
        let Description { name, kind, help, .. } = description;
        writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels(description)).expect("a string takes all");
    }
    out
}

/// The labels in one line, closed sets in braces.
#[must_use]
pub fn labels(description: &Description) -> String {
    let label = |label: &Label| match label.values.as_slice() {
        [] => label.name.clone(),
        values => format!("{}={{{}}}", label.name, values.join(",")),
    };
    description.labels.iter().map(label).collect::<Vec<_>>().join(", ")
}
