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
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
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
    let spread = spread_tables(feeds);
    findings.warnings.extend((!spread.is_empty()).then(|| spread_warning(spread)));
    let mut preflight = Preflight {
        options,
        admin: topics::admin_client(admin)?,
        runtime,
        broker: metadata.brokers().first().map(MetadataBroker::id),
        contents: contents(feeds, options),
        findings,
    };
    match (&options.create_topics, missing.is_empty()) {
        (_, true) => {}
        (None, _) => preflight.findings.refusals.push(refusal(&topics::all_missing(client, &missing))),
        (Some(create), _) => {
            preflight.check_creation(&missing, create, metadata.brokers().len());
            preflight.check_new_topics(&missing, create);
        }
    }
    preflight.check_existing_topics(present);
    Ok(preflight.findings)
}

fn refusal(error: &Error) -> Warning {
    Warning { code: error.code(), message: error.to_string() }
}

/// Judges topics, and collects the findings.
struct Preflight<'p> {
    options: &'p Options,
    admin: AdminClient<DefaultClientContext>,
    runtime: &'p Handle,
    /// The broker to ask.
    broker: Option<i32>,
    contents: BTreeMap<Arc<str>, Contents>,
    findings: Findings,
}

impl Preflight<'_> {
    /// Checks whether the cluster would create the topics.
    fn check_creation(&mut self, missing: &[Arc<str>], create: &CreateTopics, brokers: usize) {
        if let Some(topic) = missing.first()
            && usize::try_from(create.replication).is_ok_and(|replication| brokers < replication)
        {
            let error = Error::BrokersMissing { topic: topic.to_string(), replication: create.replication, brokers };
            self.findings.refusals.push(refusal(&error));
            return;
        }
        let new: Vec<_> = missing.iter().collect();
        let dead_letter = self.options.dead_letter.as_deref();
        let dry_run = self.runtime.block_on(topics::create_topics(&self.admin, &new, dead_letter, create, true));
        self.findings.refusals.extend(dry_run.err().as_ref().map(refusal));
    }

    /// Says which topics are created, and judges the settings that they will have.
    fn check_new_topics(&mut self, missing: &[Arc<str>], create: &CreateTopics) {
        let broker_config = self.runtime.block_on(topics::broker_config(&self.admin, self.broker));
        let broker_settings = broker_config.as_ref().map(Settings::of).unwrap_or_default();
        let (count, replicas) = (create.partitions, create.replication);
        let settings = [format!("{count} partitions"), format!("replication factor {replicas}")];
        let settings: Vec<_> = settings.into_iter().chain(create.config.iter().map(|(name, value)| format!("{name}={value}"))).collect();
        self.findings.actions.push(format!("make topics ({}): {}", settings.join(", "), named(missing)));
        // The dead-letter topic has settings of its own, and keeps its events.
        let for_tables: Vec<_> = missing.iter().filter(|topic| Some(*topic) != self.options.dead_letter.as_ref()).cloned().collect();
        if for_tables.is_empty() {
            return;
        }
        if let Retention::Milliseconds(time) = broker_settings.with(&create.config).retention() {
            let message = format!(
                "{}: new topics delete events older than {}, existing rows among them; set sink.create_topics.config = {{ \
                 \"retention.ms\" = -1 }} or {{ \"cleanup.policy\" = \"compact\" }}",
                named(&for_tables),
                facts::duration(time)
            );
            self.findings.warnings.push(Warning { code: Code::TopicForgets, message });
        }
        // Only configured settings are judged: of the broker's defaults the retention matters, which is judged above.
        let configured = Settings::default().with(&create.config).without_retention();
        let facts = for_tables.into_iter().map(|topic| TopicFacts {
            settings: Some(configured.clone()),
            contents: self.contents.get(&topic).cloned().unwrap_or_default(),
            topic,
            partitions: count.unsigned_abs(),
            replicas: usize::try_from(replicas).unwrap_or_default(),
        });
        let facts: Vec<TopicFacts> = facts.collect();
        self.judge(&facts);
    }

    /// Says which existing topics are written to, and judges their settings. `present` holds partitions and replicas of each.
    fn check_existing_topics(&mut self, present: Vec<(Arc<str>, u32, usize)>) {
        let names = present.iter().map(|(topic, ..)| topic);
        let configs = topics::describe_configs(&self.admin, self.broker, names, topics::ADMIN_TIMEOUT);
        let DescribedConfigs { found, refused } = self.runtime.block_on(configs);
        if let Some(reason) = refused.first() {
            let message = format!(
                "the topics' configurations are not shown ({reason}), so limits, retention, compaction and replication were not checked; grant \
                 DescribeConfigs on the topics"
            );
            self.findings.warnings.push(Warning { code: Code::SinkPrivilege, message });
        }
        let facts = present.into_iter().map(|(topic, partitions, replicas)| TopicFacts {
            settings: found.iter().find(|(name, _)| *name == topic).map(|(_, config)| Settings::of(config)),
            contents: self.contents.get(&topic).cloned().unwrap_or_default(),
            topic,
            partitions,
            replicas,
        });
        let facts: Vec<TopicFacts> = facts.collect();
        self.findings.actions.extend(facts::write_actions(&facts));
        self.judge(&facts);
    }

    fn judge(&mut self, facts: &[TopicFacts]) {
        self.findings.refusals.extend(facts::refusals(facts));
        self.findings.warnings.extend(facts::warnings(facts, self.options.stamp == Stamp::Commit));
    }
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
        "{}: `{{operation}}` in the topic spreads a key's events over several topics, without an order between them; leave it out, and \
         use the header feedline-op",
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
