//! The store of a plan's checkpoint: a file, or the sink's broker.

use crate::checkpoint::file::{FileError, FileStore};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::config::Plan;
use crate::config::plan::CheckpointPlan;
use crate::fault::{Classify, Code, Fault};
use crate::preflight::Findings;
#[cfg(feature = "amqp")]
use crate::sink::amqp::checkpoint as amqp;
#[cfg(feature = "kafka")]
use crate::sink::kafka::checkpoint as kafka;
#[cfg(feature = "kafka")]
use crate::status::metrics::{Metrics, SinkMetrics};

/// A checkpoint store of any kind.
pub enum Store {
    /// A file.
    File(FileStore),
    /// A topic.
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Store>),
    /// A queue.
    #[cfg(feature = "amqp")]
    Amqp(Box<amqp::Store>),
}

/// An error of a checkpoint store of any kind.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Of a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Of a topic.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] kafka::CheckpointError),
    /// Of a queue.
    #[cfg(feature = "amqp")]
    #[error(transparent)]
    Amqp(#[from] amqp::CheckpointError),
}

impl Classify for StoreError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            #[cfg(feature = "kafka")]
            Self::Kafka(error) => error.fault(),
            #[cfg(feature = "amqp")]
            Self::Amqp(error) => error.fault(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code(),
            #[cfg(feature = "kafka")]
            Self::Kafka(error) => error.code(),
            #[cfg(feature = "amqp")]
            Self::Amqp(error) => error.code(),
        }
    }
}

impl Store {
    /// Opens the store of a plan. This locks a file; a broker is not contacted before the first load.
    ///
    /// # Errors
    /// If another process has locked the file, or it cannot be locked.
    pub fn open(plan: &Plan) -> Result<Self, StoreError> {
        match &plan.checkpoint {
            CheckpointPlan::File(path) => Ok(Self::File(FileStore::open(path)?)),
            #[cfg(feature = "kafka")]
            CheckpointPlan::Kafka(options) => Ok(Self::Kafka(Box::new(kafka::Store::new((**options).clone(), sink_metrics(plan))))),
            #[cfg(feature = "amqp")]
            CheckpointPlan::Amqp(options) => Ok(Self::Amqp(Box::new(amqp::Store::new((**options).clone())))),
        }
    }

    /// Reads the checkpoint without a lock, also while a pipeline runs on it. `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    #[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(clippy::unused_async, reason = "a build without a broker"))]
    pub async fn inspect(plan: &Plan) -> Result<Option<Checkpoint>, StoreError> {
        match &plan.checkpoint {
            CheckpointPlan::File(path) => Ok(FileStore::inspect(path)?),
            #[cfg(feature = "kafka")]
            CheckpointPlan::Kafka(options) => Ok(kafka::Store::inspect(options, sink_metrics(plan)).await?),
            #[cfg(feature = "amqp")]
            CheckpointPlan::Amqp(options) => Ok(amqp::Store::inspect(options).await?),
        }
    }

    /// Finds what a start would do in the store.
    ///
    /// # Errors
    /// If the store cannot be reached, or would not store the checkpoint.
    #[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(clippy::unused_async, reason = "a build without a broker"))]
    pub async fn preflight(plan: &Plan) -> Result<Findings, StoreError> {
        match &plan.checkpoint {
            CheckpointPlan::File(path) => Ok(FileStore::preflight(path)?),
            #[cfg(feature = "kafka")]
            CheckpointPlan::Kafka(options) => Ok(kafka::Store::preflight(options, sink_metrics(plan)).await?),
            #[cfg(feature = "amqp")]
            CheckpointPlan::Amqp(options) => Ok(amqp::Store::preflight(options).await?),
        }
    }
}

/// Metrics of a client that no registry shows.
#[cfg(feature = "kafka")]
fn sink_metrics(plan: &Plan) -> SinkMetrics {
    Metrics::new(&plan.pipeline.name).sink
}

impl CheckpointStore for Store {
    type Error = StoreError;

    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        match self {
            Self::File(store) => Ok(store.load().await?),
            #[cfg(feature = "kafka")]
            Self::Kafka(store) => Ok(store.load().await?),
            #[cfg(feature = "amqp")]
            Self::Amqp(store) => Ok(store.load().await?),
        }
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        match self {
            Self::File(store) => Ok(store.save(checkpoint).await?),
            #[cfg(feature = "kafka")]
            Self::Kafka(store) => Ok(store.save(checkpoint).await?),
            #[cfg(feature = "amqp")]
            Self::Amqp(store) => Ok(store.save(checkpoint).await?),
        }
    }

    async fn remove(&mut self) -> Result<bool, StoreError> {
        match self {
            Self::File(store) => Ok(store.remove().await?),
            #[cfg(feature = "kafka")]
            Self::Kafka(store) => Ok(store.remove().await?),
            #[cfg(feature = "amqp")]
            Self::Amqp(store) => Ok(store.remove().await?),
        }
    }
}
