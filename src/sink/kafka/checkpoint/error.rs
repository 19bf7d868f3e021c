//! Why the checkpoint could not be read from or written to Kafka.

use super::topic::{MESSAGE_BYTES_MAX, SEGMENT_BYTES};
use crate::checkpoint::fencing::FencingError;
use crate::fault::{Classify, Code, Fault};
use crate::sink::kafka::error::{Error, replicas_for};

/// Why the checkpoint could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A request to the broker failed.
    #[error("checkpoint topic: {0}")]
    Broker(#[from] Error),
    /// The topic holds something else, or another instance has taken over.
    #[error(transparent)]
    Fencing(#[from] FencingError),
    /// The topic does not exist, and `create_topics` is not configured.
    #[error(
        "the checkpoint topic {topic} is missing; set `sink.create_topics`, or create it:\n  kafka-topics.sh --bootstrap-server {servers} --create \
         --topic {topic} --partitions 1 --replication-factor {}{} --config cleanup.policy=compact --config segment.bytes={} --config \
         max.message.bytes={}",
        replicas_for(*brokers),
        if replicas_for(*brokers) < 3 { "" } else { " --config min.insync.replicas=2" },
        SEGMENT_BYTES,
        MESSAGE_BYTES_MAX
    )]
    Missing {
        /// The configured brokers.
        servers: String,
        /// The topic.
        topic: String,
        /// How many brokers the cluster has.
        brokers: usize,
    },
    /// The topic could lose the checkpoint, or its order.
    #[error("topic {topic} cannot keep the checkpoint: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The user lacks a privilege.
    #[error(
        "the broker's user may not use topic {topic}: {reason}; grant Describe, Read and Write on it, Describe and Write on the \
         transactional id {transactional_id}"
    )]
    Privilege {
        /// The topic.
        topic: String,
        /// The id of the transactions.
        transactional_id: String,
        /// The broker's message.
        reason: String,
    },
    /// Another producer has opened the topic. The store reads the topic to find out whether it is another instance of the pipeline.
    #[error("another producer has opened topic {topic}: {reason}; feedline checks whether another instance has taken over")]
    Fenced {
        /// The topic.
        topic: String,
        /// The broker's message.
        reason: String,
    },
    /// The checkpoint holds more tables than a record of the topic can.
    #[error("the checkpoint has {bytes} bytes, topic {topic} accepts {limit_bytes}; raise its max.message.bytes, or split the pipeline")]
    TooLarge {
        /// The topic.
        topic: String,
        /// The checkpoint's size.
        bytes: usize,
        /// The topic's limit.
        limit_bytes: usize,
    },
}

impl Classify for CheckpointError {
    fn fault(&self) -> Fault {
        match self {
            Self::Broker(error) => error.fault(),
            Self::Fencing(error) => error.fault(),
            Self::Fenced { .. } => Fault::Transient,
            Self::Missing { .. } | Self::Topic { .. } | Self::Privilege { .. } | Self::TooLarge { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Broker(error) => error.code(),
            Self::Fencing(error) => error.code(),
            Self::Missing { .. } | Self::Topic { .. } => Code::CheckpointStoreUnfit,
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::Fenced { .. } => Code::RecordsUnconfirmed,
            Self::TooLarge { .. } => Code::CheckpointUnwritable,
        }
    }
}
