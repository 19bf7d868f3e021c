//! What topics accept and keep: record size, age of records, retention.

use crate::sink::kafka::client_config::LIMIT_BYTES_DEFAULT;
use rdkafka::admin::ConfigResource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The limits of one topic, as far as the broker shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicLimits {
    /// The largest record, as the broker counts it.
    pub(crate) record_bytes: usize,
    /// How far a record's timestamp may be in the past, in milliseconds; `None` for no limit.
    pub(crate) max_age_ms: Option<i64>,
    /// How far it may be in the future, in milliseconds; `None` for no limit.
    pub(crate) max_ahead_ms: Option<i64>,
    /// How long records are kept, counted from their timestamp; `None` for ever, or if it does not count from there.
    pub(crate) retention_ms: Option<i64>,
}

impl Default for TopicLimits {
    /// Kafka's defaults. The retention is unknown.
    fn default() -> Self {
        Self { record_bytes: LIMIT_BYTES_DEFAULT, max_age_ms: None, max_ahead_ms: Some(3_600_000), retention_ms: None }
    }
}

impl TopicLimits {
    /// How far the clocks of the broker and of this machine may differ.
    const CLOCK_DIFFERENCE_MS: i64 = 60_000;

    fn of(config: &ConfigResource) -> Self {
        let number = |name: &str| config_value(config, name).and_then(|value| value.parse::<i64>().ok());
        let record_bytes = number("max.message.bytes").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_BYTES_DEFAULT);
        if config_value(config, "message.timestamp.type") == Some("LogAppendTime") {
            // The broker replaces the timestamp by its own clock, and checks none.
            return Self { record_bytes, max_age_ms: None, max_ahead_ms: None, retention_ms: None };
        }
        // The largest number means no limit. Before Kafka 3.6 there was one setting for both directions.
        let bound =
            |name: &str| number(name).or_else(|| number("message.timestamp.difference.max.ms")).filter(|bound| *bound < i64::MAX / 2);
        let deletes = config_value(config, "cleanup.policy").is_some_and(|policy| policy.contains("delete"));
        Self {
            record_bytes,
            max_age_ms: bound("message.timestamp.before.max.ms"),
            max_ahead_ms: bound("message.timestamp.after.max.ms"),
            retention_ms: number("retention.ms").filter(|retention| deletes && 0 <= *retention),
        }
    }

    /// The earliest timestamp that may be accepted, by this machine's clock. One that is a little later may be refused too.
    pub(crate) fn earliest(&self, now_ms: i64) -> Option<i64> {
        self.max_age_ms.map(|age| now_ms - age - Self::CLOCK_DIFFERENCE_MS)
    }

    /// The latest timestamp that is surely accepted.
    pub(crate) fn latest(&self, now_ms: i64) -> i64 {
        self.max_ahead_ms.map_or(i64::MAX, |ahead| now_ms + ahead - Self::CLOCK_DIFFERENCE_MS.min(ahead / 2))
    }
}

/// The limits of each topic. Empty before they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits(BTreeMap<Arc<str>, TopicLimits>);

impl Limits {
    /// The limits in these topics' configurations.
    pub(super) fn new(configs: Vec<(Arc<str>, ConfigResource)>) -> Self {
        Self(configs.into_iter().map(|(topic, config)| (topic, TopicLimits::of(&config))).collect())
    }

    pub(crate) fn of(&self, topic: &str) -> TopicLimits {
        self.0.get(topic).cloned().unwrap_or_default()
    }

    /// The largest record that any topic accepts.
    pub(crate) fn largest(&self) -> usize {
        self.0.values().map(|limits| limits.record_bytes).max().unwrap_or(LIMIT_BYTES_DEFAULT)
    }

    /// The largest record that every topic accepts.
    pub(crate) fn smallest(&self) -> usize {
        self.0.values().map(|limits| limits.record_bytes).min().unwrap_or(LIMIT_BYTES_DEFAULT)
    }

    /// Takes over the limits as they are now. Returns whether a client that was created before has other size limits.
    pub(crate) fn update(&mut self, now: Self) -> bool {
        let before = std::mem::replace(self, now);
        (before.largest(), before.smallest()) != (self.largest(), self.smallest())
    }
}

/// The value of a topic's or a broker's setting, if the broker shows it.
pub(crate) fn config_value<'r>(config: &'r ConfigResource, name: &str) -> Option<&'r str> {
    config.get(name)?.value.as_deref()
}
