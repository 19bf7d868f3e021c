//! Creates and verifies the checkpoint topic. Everything here blocks.

use super::error::CheckpointError;
use super::reader::TopicReader;
use super::topic::{MESSAGE_BYTES_MAX, SEGMENT_BYTES};
use crate::sink::kafka::client_config::{self, LIMIT_BYTES_DEFAULT};
use crate::sink::kafka::error::Error;
use crate::sink::kafka::options::Options;
use crate::sink::kafka::topics;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long the creation may take, and then the time until brokers know the topic.
const CREATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Creates the topic if it is missing and `create_topics` is configured.
pub(super) fn ensure_exists(reader: &TopicReader, options: &Options, runtime: &Handle) -> Result<(), CheckpointError> {
    if reader.partitions()?.is_some() {
        return Ok(());
    }
    let Some(create) = &options.create_topics else {
        let brokers = reader.metadata()?.brokers().len();
        return Err(CheckpointError::Missing { servers: options.bootstrap_servers.clone(), topic: reader.name().to_owned(), brokers });
    };
    let (segment_bytes, message_bytes) = (SEGMENT_BYTES.to_string(), MESSAGE_BYTES_MAX.to_string());
    let mut topic = NewTopic::new(reader.name(), 1, TopicReplication::Fixed(create.replication))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", &segment_bytes)
        .set("max.message.bytes", &message_bytes)
        .set("min.cleanable.dirty.ratio", "0.1");
    if 3 <= create.replication {
        topic = topic.set("min.insync.replicas", "2");
    }
    let admin_options = AdminOptions::new().request_timeout(Some(CREATION_TIMEOUT)).operation_timeout(Some(CREATION_TIMEOUT));
    let admin = admin(options)?;
    let results = runtime.block_on(admin.create_topics([&topic], &admin_options));
    let metadata = reader.metadata()?;
    let not_created = |code, reason| {
        Error::of_creation(code, reader.name(), create.replication, reason).with_metadata(&options.bootstrap_servers, &metadata)
    };
    for result in results.map_err(|error| not_created(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), error.to_string()))? {
        match result {
            Ok(topic) => tracing::info!(topic, "topic created for the checkpoint"),
            // Somebody else created it first.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
                return Err(reader.denied(&format!("create the topic: {code}")));
            }
            Err((_, code)) => return Err(not_created(code, code.to_string()).into()),
        }
    }
    let deadline = Instant::now() + CREATION_TIMEOUT;
    while reader.partitions()?.is_none() {
        reader.check_retry(deadline, &KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Verifies that the topic keeps the checkpoint. Returns how large a record may be.
pub(super) fn verify(reader: &TopicReader, options: &Options, runtime: &Handle) -> Result<usize, CheckpointError> {
    let unfit = |reason: String| CheckpointError::Topic { topic: reader.name().to_owned(), reason };
    match reader.partitions()? {
        Some(1) => {}
        Some(count) => return Err(unfit(format!("it has {count} partitions, and must have one; delete it and create it again"))),
        None => return Err(reader.context().unreachable("the topic does not exist any more").into()),
    }
    let name = Arc::from(reader.name());
    let admin = admin(options)?;
    // If the broker does not show the configuration, this is logged, and the topic is assumed to be like one that feedline creates.
    let described =
        runtime.block_on(topics::describe_configs(&admin, None, std::iter::once(&name), topics::ADMIN_TIMEOUT)).found_or_logged();
    let Some((_, config)) = described.first() else { return Ok(LIMIT_BYTES_DEFAULT) };
    if let Some(policy) = topics::config_value(config, "cleanup.policy")
        && policy != "compact"
    {
        return Err(unfit(format!("its cleanup.policy is {policy}, which deletes the checkpoint after a quiet time; set it to compact")));
    }
    let limit = topics::config_value(config, "max.message.bytes").and_then(|value| value.parse().ok());
    Ok(limit.unwrap_or(LIMIT_BYTES_DEFAULT))
}

fn admin(options: &Options) -> Result<AdminClient<DefaultClientContext>, CheckpointError> {
    Ok(topics::admin_client(&client_config::admin(options)?)?)
}
