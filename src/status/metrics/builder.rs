//! Makes metrics and registers them under their full names.

use super::optional_gauge::OptionalGauge;
use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// A registry that is being filled.
pub(super) struct Builder {
    pub(super) registry: Registry,
    /// Gauges that may have no value.
    pub(super) optional: Vec<OptionalGauge>,
}

impl Builder {
    pub(super) const fn new(registry: Registry) -> Self {
        Self { registry, optional: Vec::new() }
    }

    pub(super) fn register<C: Collector + Clone + 'static>(&self, collector: Result<C, prometheus::Error>) -> C {
        let collector = collector.expect("names and labels are constants that a test has seen");
        self.registry.register(Box::new(collector.clone())).expect("each name is registered once");
        collector
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(format!("feedline_{name}"), help))
    }

    pub(super) fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(format!("feedline_{name}"), help))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(format!("feedline_{name}"), help))
    }

    pub(super) fn optional_gauge(&mut self, name: &str, help: &str) -> OptionalGauge {
        let gauge = OptionalGauge::new(&format!("feedline_{name}"), self.gauge(name, help));
        self.optional.push(gauge.clone());
        gauge
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(format!("feedline_{name}"), help).buckets(buckets.to_vec())))
    }

    /// A counter for each of `values` of one label, all at 0.
    pub(super) fn counters<'l>(&self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = &'l str>) -> IntCounterVec {
        let counters = self.register(IntCounterVec::new(Opts::new(format!("feedline_{name}"), help), &[label]));
        for value in values {
            counters.with_label_values(&[value]).inc_by(0);
        }
        counters
    }
}

/// Buckets for times that an operation takes, in seconds.
pub(super) const DURATION_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
