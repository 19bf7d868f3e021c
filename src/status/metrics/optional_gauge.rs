//! A gauge that is absent while its value is not known. A 0 that nobody measured would be wrong, and so would an old value.

use prometheus::Gauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A gauge whose value may be unknown.
#[derive(Clone, Debug)]
pub struct OptionalGauge {
    name: Arc<str>,
    gauge: Gauge,
    has_value: Arc<AtomicBool>,
}

impl OptionalGauge {
    pub(super) fn new(name: &str, gauge: Gauge) -> Self {
        Self { name: name.into(), gauge, has_value: Arc::default() }
    }

    /// Sets the value; with `None` the gauge is absent.
    pub fn set(&self, value: impl Into<Option<f64>>) {
        let value = value.into();
        self.gauge.set(value.unwrap_or_default());
        self.has_value.store(value.is_some(), Ordering::Relaxed);
    }

    /// As [`Self::set`], for a count.
    #[expect(clippy::cast_precision_loss, reason = "samples are floats; the error beyond 2^53 does not matter")]
    pub fn count(&self, value: impl Into<Option<u64>>) {
        self.set(value.into().map(|value| value as f64));
    }

    /// The current value.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.has_value.load(Ordering::Relaxed).then(|| self.gauge.get())
    }

    /// The metric's name, if it has no value now.
    pub(super) fn absent(&self) -> Option<&str> {
        (!self.has_value.load(Ordering::Relaxed)).then_some(&*self.name)
    }
}
