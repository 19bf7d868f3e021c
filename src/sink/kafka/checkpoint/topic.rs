//! What the checkpoint topic must be like: its name, its configuration, who may use it.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// The only partition.
pub(super) const PARTITION: i32 = 0;
/// The segment size of a topic that feedline creates. It bounds what is read or compacted at once: only the newest record counts.
pub(super) const SEGMENT_BYTES: usize = 32 << 20;
/// The largest record of a topic that feedline creates: enough for tens of thousands of tables.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The name of a pipeline's checkpoint topic.
pub(super) fn topic_name(pipeline: &str) -> String {
    format!("{pipeline}.checkpoint")
}

/// The transactional id under which the topic is written.
pub(super) fn transactional_id(topic: &str) -> String {
    format!("feedline.{topic}")
}

/// Whether the user lacks a privilege.
pub(super) fn is_denied(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
        )
    )
}
