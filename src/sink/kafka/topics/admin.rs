//! Administrative requests: creates topics, and reads configurations.

use crate::sink::kafka::client_config::LIMIT_BYTES_DEFAULT;
use crate::sink::kafka::error::Error;
use crate::sink::kafka::options::CreateTopics;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How long the answer to an administrative request may take.
pub(crate) const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest record of a dead-letter topic that feedline creates: a request has at most 100 MiB (Kafka's default of
/// `socket.request.max.bytes`).
const DEAD_LETTER_BYTES_MAX: &str = "100000000";

/// Creates a client for administrative requests.
pub(crate) fn admin_client(config: &ClientConfig) -> Result<AdminClient<DefaultClientContext>, Error> {
    config.create().map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })
}

/// Creates topics. With `is_dry_run` the cluster only says whether it would.
pub(crate) async fn create_topics(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&Arc<str>],
    dead_letter: Option<&str>,
    create: &CreateTopics,
    is_dry_run: bool,
) -> Result<(), Error> {
    let mut new = Vec::with_capacity(topics.len());
    for topic in topics {
        let plain = NewTopic::new(topic, create.partitions, TopicReplication::Fixed(create.replication));
        // Dead letters may be larger than other topics accept, and are kept for ever. Their timestamp is the time at which they are sent.
        let is_dead_letter = dead_letter == Some(&***topic);
        new.push(if is_dead_letter {
            plain.set("max.message.bytes", DEAD_LETTER_BYTES_MAX).set("retention.ms", "-1")
        } else {
            create.config.iter().fold(plain, |topic, (name, value)| topic.set(name, value))
        });
    }
    let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT)).validate_only(is_dry_run);
    let all = topics.iter().map(|topic| &***topic).collect::<Vec<_>>().join(", ");
    let results = admin.create_topics(&new, &options).await.map_err(|error| {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        Error::of_creation(code, &all, create.replication, error.to_string())
    })?;
    for result in results {
        match result {
            Ok(_) if is_dry_run => {}
            Ok(topic) => info!(topic, partitions = create.partitions, replication = create.replication, "topic created"),
            // Somebody else created it first.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::of_creation(code, &topic, create.replication, code.to_string())),
        }
    }
    Ok(())
}

/// The configurations of topics that a broker showed.
pub(crate) struct DescribedConfigs {
    pub(crate) found: Vec<(Arc<str>, ConfigResource)>,
    /// Why the broker does not show the others.
    pub(crate) refused: Vec<String>,
}

impl DescribedConfigs {
    /// What was found. What was refused is logged.
    pub(crate) fn found_or_logged(self) -> Vec<(Arc<str>, ConfigResource)> {
        for reason in &self.refused {
            warn!(
                reason,
                limit_bytes = LIMIT_BYTES_DEFAULT,
                "a topic's configuration is not shown (DescribeConfigs); Kafka's defaults are assumed"
            );
        }
        self.found
    }
}

/// Asks a broker for the topics' configurations. Any broker knows them. librdkafka would ask the controller, which may be away.
pub(crate) async fn describe_configs(
    admin: &AdminClient<DefaultClientContext>,
    broker: Option<i32>,
    topics: impl Iterator<Item = &Arc<str>> + Clone,
    timeout: Duration,
) -> DescribedConfigs {
    let wanted: Vec<ResourceSpecifier<'_>> = topics.clone().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let mut described = DescribedConfigs { found: Vec::new(), refused: Vec::new() };
    if wanted.is_empty() {
        return described;
    }
    let options = AdminOptions::new().request_timeout(Some(timeout)).broker_id(broker);
    match admin.describe_configs(&wanted, &options).await {
        Ok(answers) => {
            for (topic, answer) in topics.zip(answers) {
                match answer {
                    // If the user may not ask, the broker returns an error, and the client library a resource without entries.
                    Ok(config) if config.entries.is_empty() => described.refused.push(format!("{topic}: nothing is shown")),
                    Ok(config) => described.found.push((topic.clone(), config)),
                    Err(code) => described.refused.push(format!("{topic}: {code}")),
                }
            }
        }
        Err(error) => described.refused.push(error.to_string()),
    }
    described
}

/// The broker's defaults for new topics, if it shows them.
pub(crate) async fn broker_config(admin: &AdminClient<DefaultClientContext>, broker: Option<i32>) -> Option<ConfigResource> {
    let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).broker_id(broker);
    let described = admin.describe_configs(&[ResourceSpecifier::Broker(broker?)], &options).await;
    described.ok()?.into_iter().next()?.ok()
}
