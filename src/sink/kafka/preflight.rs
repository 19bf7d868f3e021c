//! Preflight: what a start would change in the cluster, what would stop it, and what is risky. Read-only.

use super::client::{ClientHandle, metadata};
use super::error::Error;
use super::hosts::unresolved;
use super::options::{CreateTopics, Options, Stamp};
use super::topics::{self, DescribedConfigs, TopicState};
use crate::fault::{Classify as _, Code};
use crate::feed::{Feed, Feeds};
use crate::preflight::{self, Findings, Warning};
use facts::{Contents, Retention, Settings, TopicFacts};
use rdkafka::ClientConfig;
use rdkafka::metadata::MetadataBroker;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;

mod facts;

/// Collects the findings. Blocks; `runtime` runs the administrative requests.
pub(super) fn preflight(
    client: &ClientHandle,
    admin: &ClientConfig,
    options: &Options,
    feeds: &Feeds,
    runtime: &Handle,
) -> Result<Findings, Error> {
    let topics = topics::of_feeds(feeds, options.dead_letter.as_ref());
    let mut findings = Findings::default();
    findings.refusals.extend(topics::broken_names(&topics).iter().map(refusal));
    // Asked even if there is no topic: a broker must be reachable.
    let metadata = metadata(client, topics.keys().next().map(|topic| &**topic))?;
    if let Some(name) = unresolved(metadata.brokers()) {
        findings.refusals.push(refusal(&Error::Unresolved { servers: options.bootstrap_servers.clone(), name: name.to_owned() }));
        return Ok(findings);
    }
    let broker = metadata.brokers().first().map(MetadataBroker::id);
    let (mut present, mut missing, mut denied) = (Vec::new(), Vec::new(), Vec::new());
    for (topic, state) in topics::look_up(client, topics.keys())? {
        match state {
            TopicState::Present { partitions, replicas } => present.push((topic, partitions, replicas)),
            TopicState::Missing => missing.push(topic),
            TopicState::Denied => denied.push(topic),
        }
    }
    if !denied.is_empty() {
        findings.refusals.push(refusal(&topics::denied(&named(&denied))));
    }
    let admin = topics::admin_client(admin)?;
    let spread = spread_tables(feeds);
    findings.warnings.extend((!spread.is_empty()).then(|| spread_warning(spread)));
    let contents = contents(feeds, options);
    match (&options.create_topics, missing.is_empty()) {
        (_, true) => {}
        (None, _) => findings.refusals.push(refusal(&topics::all_missing(client, &missing))),
        (Some(create), _) => {
            if let Some(topic) = missing.first()
                && usize::try_from(create.replication).is_ok_and(|replication| metadata.brokers().len() < replication)
            {
                let (topic, brokers) = (topic.to_string(), metadata.brokers().len());
                findings.refusals.push(refusal(&Error::BrokersMissing { topic, replication: create.replication, brokers }));
            } else {
                let new: Vec<_> = missing.iter().collect();
                let dry_run = runtime.block_on(topics::create_topics(&admin, &new, options.dead_letter.as_deref(), create, true));
                findings.refusals.extend(dry_run.err().as_ref().map(refusal));
            }
            let defaults = runtime.block_on(topics::broker_config(&admin, broker)).as_ref().map(Settings::of);
            judge_new_topics(&missing, create, options, defaults, &contents, &mut findings);
        }
    }
    let names: Vec<Arc<str>> = present.iter().map(|(topic, ..)| Arc::clone(topic)).collect();
    let DescribedConfigs { found, refused } =
        runtime.block_on(topics::describe_configs(&admin, broker, names.iter(), topics::ADMIN_TIMEOUT));
    if let Some(reason) = refused.first() {
        let message = format!(
            "the topics' configurations are not shown ({reason}), so limits, retention, compaction and replication were not checked; grant \
             DescribeConfigs on the topics"
        );
        findings.warnings.push(Warning { code: Code::SinkPrivilege, message });
    }
    let facts: Vec<TopicFacts> = present
        .into_iter()
        .map(|(topic, partitions, replicas)| TopicFacts {
            settings: found.iter().find(|(name, _)| *name == topic).map(|(_, config)| Settings::of(config)),
            contents: contents.get(&topic).cloned().unwrap_or_default(),
            topic,
            partitions,
            replicas,
        })
        .collect();
    findings.actions.extend(facts::write_actions(&facts));
    judge(&facts, options, &mut findings);
    Ok(findings)
}

fn refusal(error: &Error) -> Warning {
    Warning { code: error.code(), message: error.to_string() }
}

fn judge(facts: &[TopicFacts], options: &Options, findings: &mut Findings) {
    findings.refusals.extend(facts::refusals(facts));
    findings.warnings.extend(facts::warnings(facts, options.stamp == Stamp::Commit));
}

/// Says which topics are created, and judges the settings that they will have. `defaults` are the broker's.
fn judge_new_topics(
    missing: &[Arc<str>],
    create: &CreateTopics,
    options: &Options,
    defaults: Option<Settings>,
    contents: &BTreeMap<Arc<str>, Contents>,
    findings: &mut Findings,
) {
    let (count, replicas, names) = (create.partitions, create.replication, named(missing));
    let settings = [format!("{count} partitions"), format!("replication factor {replicas}")];
    let settings: Vec<_> = settings.into_iter().chain(create.config.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    findings.actions.push(format!("make topics ({}): {names}", settings.join(", ")));
    // The dead-letter topic has settings of its own, and keeps its events.
    let for_tables: Vec<_> = missing.iter().filter(|topic| Some(*topic) != options.dead_letter.as_ref()).cloned().collect();
    if for_tables.is_empty() {
        return;
    }
    if let Retention::Milliseconds(time) = defaults.unwrap_or_default().with(&create.config).retention() {
        let message = format!(
            "{}: new topics delete events older than {}, existing rows among them; set sink.create_topics.config = {{ \
             \"retention.ms\" = -1 }} or {{ \"cleanup.policy\" = \"compact\" }}",
            named(&for_tables),
            facts::duration(time)
        );
        findings.warnings.push(Warning { code: Code::TopicForgets, message });
    }
    // Only configured settings are judged: of the broker's defaults the retention matters, which is judged above.
    let configured = Settings::default().with(&create.config).without_retention();
    let facts: Vec<TopicFacts> = for_tables
        .into_iter()
        .map(|topic| TopicFacts {
            settings: Some(configured.clone()),
            contents: contents.get(&topic).cloned().unwrap_or_default(),
            topic,
            partitions: count.unsigned_abs(),
            replicas: usize::try_from(replicas).unwrap_or_default(),
        })
        .collect();
    judge(&facts, options, findings);
}

/// Tables whose events of one key are spread over several topics.
fn spread_tables(feeds: &Feeds) -> Vec<String> {
    use crate::event::Operation::{Delete, Insert, Update};
    let is_spread = |feed: &&Feed| {
        let mut topics = [Insert, Update, Delete].into_iter().filter(|operation| feed.sends(*operation)).map(|of| feed.destination(of));
        topics.next().is_some_and(|first| topics.any(|topic| topic != first))
    };
    feeds.iter().filter(is_spread).map(|feed| feed.name.to_string()).collect()
}

fn spread_warning(tables: Vec<String>) -> Warning {
    let message = format!(
        "{}: `{{operation}}` in the topic spreads a key's events over several topics, without an order between them; leave it out, and tell operations \
         by the header feedline-op",
        preflight::named(tables)
    );
    Warning { code: Code::TopicsParted, message }
}

/// Which kinds of events each topic will get.
fn contents(feeds: &Feeds, options: &Options) -> BTreeMap<Arc<str>, Contents> {
    use crate::event::Operation;
    let mut contents: BTreeMap<Arc<str>, Contents> = BTreeMap::new();
    for feed in feeds.iter() {
        for operation in Operation::ALL.into_iter().filter(|operation| feed.sends(*operation)) {
            let of_topic = contents.entry(Arc::clone(feed.destination(operation))).or_default();
            of_topic.has_partial_updates |= feed.leaves_values_out && operation == Operation::Update;
            of_topic.has_truncates |= operation == Operation::Truncate;
            of_topic.lacks_tombstones |= !options.tombstones && operation == Operation::Delete;
        }
    }
    contents
}

fn named(topics: &[Arc<str>]) -> String {
    preflight::named(topics.iter().map(ToString::to_string))
}
