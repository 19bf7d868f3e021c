//! What the broker shows of a topic, and the actions, refusals and warnings that follow from it.

use crate::fault::Code;
use crate::preflight::{Warning, named};
use rdkafka::admin::ConfigResource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings by name: of a topic, or a broker's defaults for new topics.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(BTreeMap<String, String>);

/// How long a topic keeps events; sizes are not considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    Unlimited,
    Milliseconds(u64),
}

/// A duration in minutes or hours, rounded down.
pub(super) fn duration(milliseconds: u64) -> String {
    let minutes = milliseconds / 60_000;
    if minutes < 60 { format!("{minutes} minutes") } else { format!("{} hours", minutes / 60) }
}

impl Settings {
    pub(super) fn of(config: &ConfigResource) -> Self {
        Self(config.entries.iter().filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect())
    }

    /// These settings, with others added or replaced.
    pub(super) fn with(mut self, config: &BTreeMap<String, String>) -> Self {
        self.0.extend(config.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// These settings without the retention time.
    pub(super) fn without_retention(mut self) -> Self {
        self.0.retain(|name, _| name != "retention.ms");
        self
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    /// Whether a cleanup policy is active. The names of a broker's defaults begin with `log.`.
    fn cleans_by(&self, policy: &str) -> bool {
        let policies = self.get("cleanup.policy").or_else(|| self.get("log.cleanup.policy"));
        policies.is_some_and(|policies| policies.split(',').any(|found| found.trim() == policy))
    }

    /// How long events are kept. Of a broker's defaults, the smallest unit that is set counts.
    pub(super) fn retention(&self) -> Retention {
        const UNITS: [(&str, u64); 4] =
            [("retention.ms", 1), ("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)];
        if !self.cleans_by("delete") {
            return Retention::Unlimited;
        }
        let set = UNITS.iter().find_map(|(name, milliseconds)| Some((self.get(name)?, milliseconds)));
        // A negative number means no limit.
        let time = set.and_then(|(value, milliseconds)| value.parse::<u64>().ok()?.checked_mul(*milliseconds));
        time.map_or(Retention::Unlimited, Retention::Milliseconds)
    }
}

/// Which kinds of events are sent to a topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// Updates that may leave values out (`unchanged`).
    pub(super) has_partial_updates: bool,
    /// Truncates.
    pub(super) has_truncates: bool,
    /// Deletes without tombstones.
    pub(super) lacks_tombstones: bool,
}

/// What is known about a topic.
pub(super) struct TopicFacts {
    pub(super) topic: Arc<str>,
    pub(super) partitions: u32,
    pub(super) replicas: usize,
    /// `None` if the broker does not show them.
    pub(super) settings: Option<Settings>,
    pub(super) contents: Contents,
}

/// Says which existing topics are written to; one line for topics that are alike.
pub(super) fn write_actions(facts: &[TopicFacts]) -> Vec<String> {
    let mut alike: BTreeMap<(u32, &str), Vec<String>> = BTreeMap::new();
    for found in facts {
        let limit = found.settings.as_ref().and_then(|settings| settings.get("max.message.bytes")).unwrap_or("not shown");
        alike.entry((found.partitions, limit)).or_default().push(found.topic.to_string());
    }
    let action = |((partitions, limit), topics): ((u32, &str), Vec<String>)| {
        let unit = if partitions == 1 { "partition" } else { "partitions" };
        format!("write to topics as they are ({partitions} {unit}, max.message.bytes {limit}): {}", named(topics))
    };
    alike.into_iter().map(action).collect()
}

/// Refuses topics in which no event would ever be confirmed.
pub(super) fn refusals(facts: &[TopicFacts]) -> Vec<Warning> {
    let wanted = |found: &TopicFacts| found.settings.as_ref()?.get("min.insync.replicas")?.parse::<usize>().ok();
    let never_confirms = |found: &&TopicFacts| found.replicas != 0 && wanted(found).is_some_and(|wanted| found.replicas < wanted);
    let message = |found: &TopicFacts| {
        format!(
            "{}: min.insync.replicas is {}, but it has {} replicas, so no event is ever confirmed; lower the setting, or add replicas",
            found.topic,
            wanted(found).unwrap_or_default(),
            found.replicas
        )
    };
    facts.iter().filter(never_confirms).map(|found| Warning { code: Code::TopicFragile, message: message(found) }).collect()
}

/// Warns about risks in the topics' settings. `is_stamped` says whether records carry their commit time.
pub(super) fn warnings(facts: &[TopicFacts], is_stamped: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    warnings.extend(compaction_warnings(facts));
    warnings.extend(retention_warnings(facts));
    warnings.extend(commit_time_warnings(facts, is_stamped));
    warnings.extend(durability_warnings(facts));
    warnings
}

/// One warning that names the topics for which `concerns` holds; `None` if there are none.
fn warn_where(facts: &[TopicFacts], code: Code, message: &str, concerns: impl Fn(&TopicFacts, &Settings) -> bool) -> Option<Warning> {
    let is_concerned = |facts: &&TopicFacts| facts.settings.as_ref().is_some_and(|settings| concerns(facts, settings));
    let topics: Vec<_> = facts.iter().filter(is_concerned).map(|facts| facts.topic.to_string()).collect();
    (!topics.is_empty()).then(|| Warning { code, message: format!("{}: {message}", named(topics)) })
}

/// What compaction loses, or never removes.
fn compaction_warnings(facts: &[TopicFacts]) -> impl Iterator<Item = Warning> {
    let warn = |message, concerns: fn(&Contents) -> bool| {
        warn_where(facts, Code::TopicForgets, message, |facts, settings| settings.cleans_by("compact") && concerns(&facts.contents))
    };
    let partial_updates = warn(
        "compaction keeps only the last event of a key, and an update may leave values out (`unchanged`); give such tables REPLICA IDENTITY \
         FULL, or set cleanup.policy=delete",
        |contents| contents.has_partial_updates,
    );
    let truncates = warn(
        "truncates have the key `null`, and compaction keeps only the last one of each partition; if readers need every one, set \
         cleanup.policy=delete",
        |contents| contents.has_truncates,
    );
    let deletes = warn(
        "without tombstones, compaction never forgets a deleted key; set sink.tombstones = true, or cleanup.policy=delete",
        |contents| contents.lacks_tombstones,
    );
    [partial_updates, truncates, deletes].into_iter().flatten()
}

/// Topics that delete events by age: one warning for each age.
fn retention_warnings(facts: &[TopicFacts]) -> impl Iterator<Item = Warning> {
    let mut by_time: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for found in facts {
        if let Some(Retention::Milliseconds(time)) = found.settings.as_ref().map(Settings::retention) {
            by_time.entry(time).or_default().push(found.topic.to_string());
        }
    }
    by_time.into_iter().map(|(time, topics)| {
        let message = format!(
            "{}: events older than {} are deleted (retention.ms), existing rows among them; set retention.ms=-1, or cleanup.policy=compact",
            named(topics),
            duration(time)
        );
        Warning { code: Code::TopicForgets, message }
    })
}

/// Limits that count from the commit, because records carry its time.
fn commit_time_warnings(facts: &[TopicFacts], is_stamped: bool) -> impl Iterator<Item = Warning> {
    const BOUNDS: [&str; 2] = ["message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"];
    let is_by_commit = move |settings: &Settings| is_stamped && !settings.is("message.timestamp.type", "LogAppendTime");
    let retention = warn_where(
        facts,
        Code::TopicForgets,
        "retention counts from the commit time, so events are deleted as they arrive after an outage that is longer; set sink.timestamp = \
         \"append\"",
        |_, settings| is_by_commit(settings) && settings.retention() != Retention::Unlimited,
    );
    let age = warn_where(
        facts,
        Code::RecordRefused,
        "events committed longer ago than message.timestamp.before.max.ms are refused, and stop the pipeline; set sink.timestamp = \
         \"append\", or raise it",
        |_, settings| {
            let bound = BOUNDS.iter().find_map(|name| settings.get(name));
            is_by_commit(settings) && bound.and_then(|bound| bound.parse::<i64>().ok()).is_some_and(|bound| bound < i64::MAX / 2)
        },
    );
    [retention, age].into_iter().flatten()
}

/// Deletion by size, and settings with which one broker's failure loses confirmed events.
fn durability_warnings(facts: &[TopicFacts]) -> impl Iterator<Item = Warning> {
    let size = warn_where(
        facts,
        Code::TopicForgets,
        "the oldest events of a partition are deleted when it exceeds retention.bytes, even if nobody has read them; set retention.bytes=-1",
        |_, settings| settings.cleans_by("delete") && settings.get("retention.bytes").is_some_and(|bytes| !bytes.starts_with('-')),
    );
    let replicas = warn_where(
        facts,
        Code::TopicFragile,
        "min.insync.replicas is 1: a confirmed event may be on one broker only, and is lost with it; set it to 2",
        |facts, settings| settings.is("min.insync.replicas", "1") && 1 < facts.replicas,
    );
    let election = warn_where(
        facts,
        Code::TopicFragile,
        "unclean.leader.election.enable is true: a replica without some confirmed events may become the leader; set it to false",
        |_, settings| settings.is("unclean.leader.election.enable", "true"),
    );
    [size, replicas, election].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::{Contents, Retention, Settings, TopicFacts, duration, refusals, warnings, write_actions};
    use crate::fault::Code;

    fn settings_of(settings: &[(&str, &str)]) -> Settings {
        Settings(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn facts(topic: &str, replicas: usize, contents: Contents, settings: &[(&str, &str)]) -> TopicFacts {
        TopicFacts { topic: topic.into(), partitions: 3, replicas, settings: Some(settings_of(settings)), contents }
    }

    fn of(found: TopicFacts) -> Vec<(Code, String)> {
        warnings(&[found], true).into_iter().map(|warning| (warning.code, warning.message)).collect()
    }

    #[test]
    fn a_confirmed_event_needs_a_second_replica_if_there_are_several() {
        let alone = [("min.insync.replicas", "1")];
        let found = of(facts("t", 3, Contents::default(), &alone));
        assert!(matches!(&found[..], [(Code::TopicFragile, message)] if message.contains("t: min.insync.replicas is 1")), "{found:?}");
        assert!(of(facts("t", 1, Contents::default(), &alone)).is_empty(), "there is no second replica");
        assert!(of(facts("t", 3, Contents::default(), &[("min.insync.replicas", "2")])).is_empty());
    }

    #[test]
    fn warnings_about_compaction_depend_on_the_topics_events() {
        let compacted = [("cleanup.policy", "compact")];
        assert!(of(facts("t", 1, Contents::default(), &compacted)).is_empty());
        let cases: [(Contents, &str); 3] = [
            (Contents { has_partial_updates: true, ..Contents::default() }, "REPLICA IDENTITY FULL"),
            (Contents { has_truncates: true, ..Contents::default() }, "truncates have the key `null`"),
            (Contents { lacks_tombstones: true, ..Contents::default() }, "sink.tombstones = true"),
        ];
        for (contents, words) in cases {
            assert!(of(facts("t", 1, contents.clone(), &[("cleanup.policy", "delete")])).is_empty());
            let found = of(facts("t", 1, contents, &compacted));
            assert!(matches!(&found[..], [(Code::TopicForgets, message)] if message.contains(words)), "{words}: {found:?}");
        }
    }

    #[test]
    fn deletion_by_time_or_size_is_a_warning() {
        for (settings, expected) in [
            (&[("cleanup.policy", "delete"), ("retention.ms", "7200000")][..], Retention::Milliseconds(7_200_000)),
            (&[("cleanup.policy", "delete"), ("retention.ms", "-1")], Retention::Unlimited),
            (&[("cleanup.policy", "compact"), ("retention.ms", "7200000")], Retention::Unlimited),
            (&[("cleanup.policy", "compact,delete"), ("retention.ms", "7200000")], Retention::Milliseconds(7_200_000)),
            (&[("log.cleanup.policy", "delete"), ("log.retention.hours", "168")], Retention::Milliseconds(604_800_000)),
            (
                &[("log.cleanup.policy", "delete"), ("log.retention.hours", "168"), ("log.retention.minutes", "120")],
                Retention::Milliseconds(7_200_000),
            ),
            (&[("log.cleanup.policy", "delete"), ("log.retention.hours", "168"), ("log.retention.ms", "-1")], Retention::Unlimited),
        ] {
            assert_eq!(settings_of(settings).retention(), expected, "{settings:?}");
        }
        assert_eq!((duration(90_000), duration(7_300_000)), ("1 minutes".to_owned(), "2 hours".to_owned()));
        let found = of(facts("t", 1, Contents::default(), &[("cleanup.policy", "delete"), ("retention.bytes", "1000")]));
        assert!(matches!(&found[..], [(Code::TopicForgets, message)] if message.contains("retention.bytes")), "{found:?}");
    }

    #[test]
    fn limits_that_count_from_the_commit_are_warnings_if_records_carry_its_time() {
        let codes = |settings: &[(&str, &str)], is_stamped| {
            let warnings = warnings(&[facts("t", 1, Contents::default(), settings)], is_stamped);
            warnings
                .into_iter()
                .filter(|warning| warning.message.contains("sink.timestamp"))
                .map(|warning| warning.code)
                .collect::<Vec<_>>()
        };
        let forgetting = [("cleanup.policy", "delete"), ("retention.ms", "7200000")];
        assert_eq!(codes(&forgetting, true), [Code::TopicForgets]);
        assert!(codes(&forgetting, false).is_empty());
        assert!(
            codes(&[("cleanup.policy", "delete"), ("retention.ms", "7200000"), ("message.timestamp.type", "LogAppendTime")], true)
                .is_empty()
        );
        assert_eq!(codes(&[("message.timestamp.before.max.ms", "3600000")], true), [Code::RecordRefused]);
        assert!(codes(&[("message.timestamp.before.max.ms", "9223372036854775807")], true).is_empty());
    }

    #[test]
    fn a_topic_with_fewer_replicas_than_must_confirm_is_refused() {
        let found = |replicas, least| refusals(&[facts("t", replicas, Contents::default(), &[("min.insync.replicas", least)])]).len();
        assert_eq!((found(1, "2"), found(2, "2"), found(1, "1")), (1, 0, 0));
    }

    #[test]
    fn topics_that_are_alike_share_a_line() {
        let limit = [("max.message.bytes", "1048588")];
        let hidden = TopicFacts { settings: None, ..facts("c", 1, Contents::default(), &[]) };
        let lines = write_actions(&[facts("a", 1, Contents::default(), &limit), facts("b", 1, Contents::default(), &limit), hidden]);
        assert_eq!(
            lines,
            [
                "write to topics as they are (3 partitions, max.message.bytes 1048588): a, b",
                "write to topics as they are (3 partitions, max.message.bytes not shown): c"
            ]
        );
    }
}
