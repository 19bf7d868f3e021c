//! What a start will do to the cluster, and what somebody may regret; nothing is changed to find out.

use super::client::{Running, metadata};
use super::error::Error;
use super::identity::unresolved;
use super::topics::{self, Described, Seen};
use super::{CreateTopics, Options, Stamp};
use crate::fault::{Classify as _, Code};
use crate::feed::{Feed, Feeds};
use crate::preflight::{self, Findings, Warning};
use facts::{Contents, Facts, Retention, Values};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataBroker;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;

mod facts;

/// Looks ahead. Blocks; `runtime` drives the administrative requests.
pub(super) fn preflight(
    running: &Running,
    admin: &ClientConfig,
    options: &Options,
    feeds: &Feeds,
    runtime: &Handle,
) -> Result<Findings, Error> {
    let topics = topics::of_feeds(feeds, options.dead_letter.as_ref());
    let mut findings = Findings::default();
    findings.refusals.extend(topics::broken_names(&topics).iter().map(refusal));
    // Also where there is no topic to ask for, somebody must answer.
    let seen = metadata(running, topics.keys().next().map(|topic| &**topic))?;
    if let Some(name) = unresolved(seen.brokers()) {
        findings.refusals.push(refusal(&Error::Unresolved { servers: options.bootstrap_servers.clone(), name: name.to_owned() }));
        return Ok(findings);
    }
    let broker = seen.brokers().first().map(MetadataBroker::id);
    let (mut there, mut missing, mut denied) = (Vec::new(), Vec::new(), Vec::new());
    for (topic, seen) in topics::look(running, topics.keys())? {
        match seen {
            Seen::There { partitions, replicas } => there.push((topic, partitions, replicas)),
            Seen::Missing => missing.push(topic),
            Seen::Denied => denied.push(topic),
        }
    }
    if !denied.is_empty() {
        findings.refusals.push(refusal(&topics::denied(&named(&denied))));
    }
    let admin: AdminClient<DefaultClientContext> =
        admin.create().map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?;
    let parted = parted(feeds);
    findings.warnings.extend((!parted.is_empty()).then(|| split(parted)));
    let contents = contents(feeds, options);
    match (&options.create_topics, missing.is_empty()) {
        (_, true) => {}
        (None, _) => findings.refusals.push(refusal(&topics::all_missing(running, &missing))),
        (Some(create), _) => {
            if let Some(topic) = missing.first()
                && usize::try_from(create.replication).is_ok_and(|replication| seen.brokers().len() < replication)
            {
                let (topic, brokers) = (topic.to_string(), seen.brokers().len());
                findings.refusals.push(refusal(&Error::BrokersMissing { topic, replication: create.replication, brokers }));
            } else if let Err(error) =
                runtime.block_on(topics::make(&admin, &missing.iter().collect::<Vec<_>>(), options.dead_letter.as_deref(), create, true))
            {
                findings.refusals.push(refusal(&error));
            }
            let of_broker = runtime.block_on(topics::broker_settings(&admin, broker)).as_ref().map(Values::of);
            made(&missing, create, options, of_broker, &contents, &mut findings);
        }
    }
    let names: Vec<Arc<str>> = there.iter().map(|(topic, ..)| Arc::clone(topic)).collect();
    let Described { found, refused } = runtime.block_on(topics::describe(&admin, broker, names.iter(), topics::ADMIN));
    if let Some(reason) = refused.first() {
        let message = format!(
            "the broker does not show the topics' configurations ({reason}): size limits, retention, compaction and replication were not looked at, and \
             Kafka's default size limit is assumed; grant DescribeConfigs on the topics"
        );
        findings.warnings.push(Warning { code: Code::SinkPrivilege, message });
    }
    let facts: Vec<Facts> = there
        .into_iter()
        .map(|(topic, partitions, replicas)| Facts {
            resource: found.iter().find(|(name, _)| *name == topic).map(|(_, resource)| Values::of(resource)),
            contents: contents.get(&topic).cloned().unwrap_or_default(),
            topic,
            partitions,
            replicas,
        })
        .collect();
    findings.actions.extend(facts::written(&facts));
    findings.refusals.extend(facts::stuck(&facts));
    findings.warnings.extend(facts::warnings(&facts, options.stamp == Stamp::Commit));
    Ok(findings)
}

fn refusal(error: &Error) -> Warning {
    Warning { code: error.code(), message: error.to_string() }
}

/// Which topics are made, and how long they keep what is written to them.
fn made(
    missing: &[Arc<str>],
    create: &CreateTopics,
    options: &Options,
    of_broker: Option<Values>,
    contents: &BTreeMap<Arc<str>, Contents>,
    findings: &mut Findings,
) {
    let (count, replicas, names) = (create.partitions, create.replication, named(missing));
    let settings = [format!("{count} partitions"), format!("replication factor {replicas}")];
    let settings: Vec<_> = settings.into_iter().chain(create.config.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    findings.actions.push(format!("make topics ({}): {names}", settings.join(", ")));
    // Dead letters are made to be kept.
    let plain: Vec<_> = missing.iter().filter(|topic| Some(*topic) != options.dead_letter.as_ref()).cloned().collect();
    if plain.is_empty() {
        return;
    }
    let place = of_broker.unwrap_or_default().with(&create.config);
    if let Retention::Milliseconds(time) = place.retention() {
        let message = format!(
            "{}: topics that are made delete events older than {}, existing rows among them; set sink.create_topics.config = {{ \
             \"retention.ms\" = -1 }} or {{ \"cleanup.policy\" = \"compact\" }}",
            named(&plain),
            facts::span(time)
        );
        findings.warnings.push(Warning { code: Code::TopicForgets, message });
    }
    // What was not chosen is the broker's, of which the line above tells what matters.
    let chosen = Values::default().with(&create.config).without_retention();
    let facts: Vec<Facts> = plain
        .into_iter()
        .map(|topic| Facts {
            resource: Some(chosen.clone()),
            contents: contents.get(&topic).cloned().unwrap_or_default(),
            topic,
            partitions: count.unsigned_abs(),
            replicas: usize::try_from(replicas).unwrap_or_default(),
        })
        .collect();
    findings.refusals.extend(facts::stuck(&facts));
    findings.warnings.extend(facts::warnings(&facts, options.stamp == Stamp::Commit));
}

/// Tables whose events of one key go to several topics.
fn parted(feeds: &Feeds) -> Vec<String> {
    use crate::event::Operation::{Delete, Insert, Update};
    let is_parted = |feed: &&Feed| {
        let mut topics = [Insert, Update, Delete].into_iter().filter(|operation| feed.sends(*operation)).map(|of| feed.destination(of));
        topics.next().is_some_and(|first| topics.any(|topic| topic != first))
    };
    feeds.iter().filter(is_parted).map(|feed| feed.name.to_string()).collect()
}

fn split(tables: Vec<String>) -> Warning {
    let message = format!(
        "{}: `{{operation}}` in the topic spreads the events of a key over several: no reader sees their order, and tombstones go where the rows are not; leave it \
         out, and tell operations by the header feedline-op",
        preflight::named(tables)
    );
    Warning { code: Code::TopicsParted, message }
}

/// What will come to each topic.
fn contents(feeds: &Feeds, options: &Options) -> BTreeMap<Arc<str>, Contents> {
    use crate::event::Operation;
    let mut contents: BTreeMap<Arc<str>, Contents> = BTreeMap::new();
    for feed in feeds.iter() {
        for operation in Operation::ALL.into_iter().filter(|operation| feed.sends(*operation)) {
            let of_topic = contents.entry(Arc::clone(feed.destination(operation))).or_default();
            of_topic.lacks_values |= feed.leaves_values_out && operation == Operation::Update;
            of_topic.empties |= operation == Operation::Truncate;
            of_topic.keeps_deleted |= !options.tombstones && operation == Operation::Delete;
        }
    }
    contents
}

fn named(topics: &[Arc<str>]) -> String {
    preflight::named(topics.iter().map(ToString::to_string))
}
