//! What is known of a topic, and what follows from it.

use crate::fault::Code;
use crate::preflight::{Warning, named};
use rdkafka::admin::ConfigResource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The settings of a topic, or of a broker for the topics that it makes, by name; those that have a value.
#[derive(Clone, Debug, Default)]
pub(super) struct Values(BTreeMap<String, String>);

/// How long a topic keeps events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    Always,
    Milliseconds(u64),
}

/// A time as a person reads it, rounded down.
pub(super) fn span(milliseconds: u64) -> String {
    let minutes = milliseconds / 60_000;
    if minutes < 60 { format!("{minutes} minutes") } else { format!("{} hours", minutes / 60) }
}

impl Values {
    pub(super) fn of(resource: &ConfigResource) -> Self {
        Self(resource.entries.iter().filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect())
    }

    /// The same with these settings.
    pub(super) fn with(mut self, config: &BTreeMap<String, String>) -> Self {
        self.0.extend(config.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// The same without what says how long events are kept.
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

    /// Whether a policy is among those that hold; a broker says `log.` before its defaults.
    fn cleans_by(&self, policy: &str) -> bool {
        let policies = self.get("cleanup.policy").or_else(|| self.get("log.cleanup.policy"));
        policies.is_some_and(|policies| policies.split(',').any(|found| found.trim() == policy))
    }

    /// How long what is written is kept. Of a broker's defaults the finest unit that is set counts.
    pub(super) fn retention(&self) -> Retention {
        const UNITS: [(&str, u64); 4] =
            [("retention.ms", 1), ("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)];
        if !self.cleans_by("delete") {
            return Retention::Always;
        }
        let set = UNITS.iter().find_map(|(name, milliseconds)| Some((self.get(name)?, milliseconds)));
        // A negative number is without end.
        let time = set.and_then(|(value, milliseconds)| value.parse::<u64>().ok()?.checked_mul(*milliseconds));
        time.map_or(Retention::Always, Retention::Milliseconds)
    }
}

/// What comes to a topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// Updates that may leave values out.
    pub(super) lacks_values: bool,
    /// Truncates.
    pub(super) empties: bool,
    /// Deletes without a tombstone.
    pub(super) keeps_deleted: bool,
}

/// A topic that is there.
pub(super) struct Facts {
    pub(super) topic: Arc<str>,
    pub(super) partitions: u32,
    pub(super) replicas: usize,
    /// `None` where the broker does not show it.
    pub(super) resource: Option<Values>,
    pub(super) contents: Contents,
}

/// What is written to, topics that are alike in one line.
pub(super) fn written(facts: &[Facts]) -> Vec<String> {
    let mut alike: BTreeMap<(u32, &str), Vec<String>> = BTreeMap::new();
    for found in facts {
        let limit = found.resource.as_ref().and_then(|resource| resource.get("max.message.bytes")).unwrap_or("not shown");
        alike.entry((found.partitions, limit)).or_default().push(found.topic.to_string());
    }
    let line = |((partitions, limit), topics): ((u32, &str), Vec<String>)| {
        let unit = if partitions == 1 { "partition" } else { "partitions" };
        format!("write to topics as they are ({partitions} {unit}, max.message.bytes {limit}): {}", named(topics))
    };
    alike.into_iter().map(line).collect()
}

/// Topics in which nothing would ever be confirmed.
pub(super) fn stuck(facts: &[Facts]) -> Vec<Warning> {
    let wanted = |found: &Facts| found.resource.as_ref()?.get("min.insync.replicas")?.parse::<usize>().ok();
    let is_stuck = |found: &&Facts| found.replicas != 0 && wanted(found).is_some_and(|wanted| found.replicas < wanted);
    let message = |found: &Facts| {
        format!(
            "{}: min.insync.replicas is {}, and it has {} replicas: nothing that is sent there is ever confirmed; lower the one, or add replicas",
            found.topic,
            wanted(found).unwrap_or_default(),
            found.replicas
        )
    };
    facts.iter().filter(is_stuck).map(|found| Warning { code: Code::TopicFragile, message: message(found) }).collect()
}

/// What the topics' configurations leave to be regretted, where records carry their commit time or do not.
pub(super) fn warnings(facts: &[Facts], is_stamped: bool) -> Vec<Warning> {
    let those = |is: &dyn Fn(&Facts, &Values) -> bool| {
        let found: Vec<_> = facts.iter().filter(|facts| facts.resource.as_ref().is_some_and(|resource| is(facts, resource))).collect();
        (!found.is_empty()).then(|| named(found.iter().map(|facts| facts.topic.to_string())))
    };
    let mut warnings = Vec::new();
    let mut warn = |code, topics: Option<String>, message: &str| {
        warnings.extend(topics.map(|topics| Warning { code, message: format!("{topics}: {message}") }));
    };
    warn(
        Code::TopicForgets,
        those(&|facts, resource| resource.cleans_by("compact") && facts.contents.lacks_values),
        "compaction keeps the last event of a key alone, and an update may leave values out (`unchanged`): where readers rebuild rows from the topic, \
         give such tables REPLICA IDENTITY FULL, or set cleanup.policy=delete",
    );
    warn(
        Code::TopicForgets,
        those(&|facts, resource| resource.cleans_by("compact") && facts.contents.empties),
        "truncates have the key `null`, on every partition: compaction keeps the last one of each alone, and readers that begin later see only that one; \
         where they need each of them, set cleanup.policy=delete",
    );
    warn(
        Code::TopicForgets,
        those(&|facts, resource| resource.cleans_by("compact") && facts.contents.keeps_deleted),
        "without tombstones (sink.tombstones = false) compaction never forgets a key that was deleted; set sink.tombstones = true, or \
         cleanup.policy=delete",
    );
    let mut by_time: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for found in facts {
        if let Some(Retention::Milliseconds(time)) = found.resource.as_ref().map(Values::retention) {
            by_time.entry(time).or_default().push(found.topic.to_string());
        }
    }
    for (time, topics) in by_time {
        let message = format!(
            "events older than {} are deleted (retention.ms), existing rows among them: a reader that comes later, or stays away for longer, \
             has a hole; set retention.ms=-1, or cleanup.policy=compact",
            span(time)
        );
        warn(Code::TopicForgets, Some(named(topics)), &message);
    }
    let is_by_commit = |resource: &Values| is_stamped && !resource.is("message.timestamp.type", "LogAppendTime");
    warn(
        Code::TopicForgets,
        those(&|_, resource| is_by_commit(resource) && resource.retention() != Retention::Always),
        "retention counts from the commit, whose time records carry: after an outage that is longer than it, events are deleted as they arrive; \
         set sink.timestamp = \"append\", with which it counts from their arrival",
    );
    warn(
        Code::RecordRefused,
        those(&|_, resource| {
            let bound =
                ["message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"].iter().find_map(|name| resource.get(name));
            is_by_commit(resource) && bound.and_then(|bound| bound.parse::<i64>().ok()).is_some_and(|bound| bound < i64::MAX / 2)
        }),
        "events that were committed longer ago than message.timestamp.before.max.ms are refused, and stop the pipeline; set \
         sink.timestamp = \"append\", or raise it",
    );
    warn(
        Code::TopicForgets,
        those(&|_, resource| resource.cleans_by("delete") && resource.get("retention.bytes").is_some_and(|bytes| !bytes.starts_with('-'))),
        "the oldest events of a partition are deleted when it grows beyond retention.bytes, read or not; set retention.bytes=-1",
    );
    warn(
        Code::TopicFragile,
        those(&|facts, resource| resource.is("min.insync.replicas", "1") && 1 < facts.replicas),
        "min.insync.replicas is 1: an event that one replica alone has is confirmed, and lost with that broker; set it to 2",
    );
    warn(
        Code::TopicFragile,
        those(&|_, resource| resource.is("unclean.leader.election.enable", "true")),
        "unclean.leader.election.enable is true: a replica that lacks confirmed events may become the leader; set it to false",
    );
    warnings
}

#[cfg(test)]
mod tests {
    use super::{Contents, Facts, Retention, Values, span, stuck, warnings, written};
    use crate::fault::Code;

    fn place(settings: &[(&str, &str)]) -> Values {
        Values(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn facts(topic: &str, replicas: usize, contents: Contents, settings: &[(&str, &str)]) -> Facts {
        Facts { topic: topic.into(), partitions: 3, replicas, resource: Some(place(settings)), contents }
    }

    fn of(found: Facts) -> Vec<(Code, String)> {
        warnings(&[found], true).into_iter().map(|warning| (warning.code, warning.message)).collect()
    }

    #[test]
    fn a_confirmed_event_needs_a_second_replica_where_there_are_several() {
        let alone = [("min.insync.replicas", "1")];
        let found = of(facts("t", 3, Contents::default(), &alone));
        assert!(matches!(&found[..], [(Code::TopicFragile, message)] if message.contains("t: min.insync.replicas is 1")), "{found:?}");
        assert!(of(facts("t", 1, Contents::default(), &alone)).is_empty(), "there is no second one");
        assert!(of(facts("t", 3, Contents::default(), &[("min.insync.replicas", "2")])).is_empty());
    }

    #[test]
    fn what_compaction_costs_depends_on_what_comes_to_the_topic() {
        let compacted = [("cleanup.policy", "compact")];
        assert!(of(facts("t", 1, Contents::default(), &compacted)).is_empty());
        let cases: [(Contents, &str); 3] = [
            (Contents { lacks_values: true, ..Contents::default() }, "REPLICA IDENTITY FULL"),
            (Contents { empties: true, ..Contents::default() }, "truncates have the key `null`"),
            (Contents { keeps_deleted: true, ..Contents::default() }, "sink.tombstones = true"),
        ];
        for (contents, words) in cases {
            assert!(of(facts("t", 1, contents.clone(), &[("cleanup.policy", "delete")])).is_empty());
            let found = of(facts("t", 1, contents, &compacted));
            assert!(matches!(&found[..], [(Code::TopicForgets, message)] if message.contains(words)), "{words}: {found:?}");
        }
    }

    #[test]
    fn what_is_deleted_by_time_or_size_is_told() {
        for (settings, expected) in [
            (&[("cleanup.policy", "delete"), ("retention.ms", "7200000")][..], Retention::Milliseconds(7_200_000)),
            (&[("cleanup.policy", "delete"), ("retention.ms", "-1")], Retention::Always),
            (&[("cleanup.policy", "compact"), ("retention.ms", "7200000")], Retention::Always),
            (&[("cleanup.policy", "compact,delete"), ("retention.ms", "7200000")], Retention::Milliseconds(7_200_000)),
            (&[("log.cleanup.policy", "delete"), ("log.retention.hours", "168")], Retention::Milliseconds(604_800_000)),
            (
                &[("log.cleanup.policy", "delete"), ("log.retention.hours", "168"), ("log.retention.minutes", "120")],
                Retention::Milliseconds(7_200_000),
            ),
            (&[("log.cleanup.policy", "delete"), ("log.retention.hours", "168"), ("log.retention.ms", "-1")], Retention::Always),
        ] {
            assert_eq!(place(settings).retention(), expected, "{settings:?}");
        }
        assert_eq!((span(90_000), span(7_300_000)), ("1 minutes".to_owned(), "2 hours".to_owned()));
        let found = of(facts("t", 1, Contents::default(), &[("cleanup.policy", "delete"), ("retention.bytes", "1000")]));
        assert!(matches!(&found[..], [(Code::TopicForgets, message)] if message.contains("retention.bytes")), "{found:?}");
    }

    #[test]
    fn what_counts_from_the_commit_is_told_where_records_carry_it() {
        let told = |settings: &[(&str, &str)], is_stamped| {
            let warnings = warnings(&[facts("t", 1, Contents::default(), settings)], is_stamped);
            warnings
                .into_iter()
                .filter(|warning| warning.message.contains("sink.timestamp"))
                .map(|warning| warning.code)
                .collect::<Vec<_>>()
        };
        let forgetting = [("cleanup.policy", "delete"), ("retention.ms", "7200000")];
        assert_eq!(told(&forgetting, true), [Code::TopicForgets]);
        assert!(told(&forgetting, false).is_empty());
        assert!(
            told(&[("cleanup.policy", "delete"), ("retention.ms", "7200000"), ("message.timestamp.type", "LogAppendTime")], true)
                .is_empty()
        );
        assert_eq!(told(&[("message.timestamp.before.max.ms", "3600000")], true), [Code::RecordRefused]);
        assert!(told(&[("message.timestamp.before.max.ms", "9223372036854775807")], true).is_empty());
    }

    #[test]
    fn a_topic_with_fewer_replicas_than_must_confirm_is_refused() {
        let found = |replicas, least| stuck(&[facts("t", replicas, Contents::default(), &[("min.insync.replicas", least)])]).len();
        assert_eq!((found(1, "2"), found(2, "2"), found(1, "1")), (1, 0, 0));
    }

    #[test]
    fn topics_that_are_alike_share_a_line() {
        let limit = [("max.message.bytes", "1048588")];
        let hidden = Facts { resource: None, ..facts("c", 1, Contents::default(), &[]) };
        let lines = written(&[facts("a", 1, Contents::default(), &limit), facts("b", 1, Contents::default(), &limit), hidden]);
        assert_eq!(
            lines,
            [
                "write to topics as they are (3 partitions, max.message.bytes 1048588): a, b",
                "write to topics as they are (3 partitions, max.message.bytes not shown): c"
            ]
        );
    }
}
