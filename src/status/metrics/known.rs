//! Gauges that show nothing while their value is not known: a 0 that nobody has measured would be a lie, and so would a value of
//! long ago.

use prometheus::Gauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A gauge whose value may be unknown.
#[derive(Clone, Debug)]
pub struct Known {
    name: Arc<str>,
    gauge: Gauge,
    has_value: Arc<AtomicBool>,
}

impl Known {
    pub(super) fn new(name: &str, gauge: Gauge) -> Self {
        Self { name: name.into(), gauge, has_value: Arc::default() }
    }

    /// Shows this value from now on; nothing where there is none.
    pub fn set(&self, value: impl Into<Option<f64>>) {
        let value = value.into();
        self.gauge.set(value.unwrap_or_default());
        self.has_value.store(value.is_some(), Ordering::Relaxed);
    }

    /// The same for what is counted.
    #[expect(clippy::cast_precision_loss, reason = "a sample is a float; beyond 2^53 it may be off by as little as that")]
    pub fn count(&self, value: impl Into<Option<u64>>) {
        self.set(value.into().map(|value| value as f64));
    }

    /// What it shows.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.has_value.load(Ordering::Relaxed).then(|| self.gauge.get())
    }

    /// The metric's name, where it has no value now.
    pub(super) fn absent(&self) -> Option<&str> {
        (!self.has_value.load(Ordering::Relaxed)).then_some(&*self.name)
    }
}
