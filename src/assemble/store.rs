//! Where checkpoints are kept: in a file, or in the broker to which events go.

use crate::checkpoint::file::{FileError, FileStore};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::config::Plan;
use crate::config::plan::CheckpointPlan;
#[cfg(any(feature = "kafka", feature = "amqp"))]
use crate::config::plan::SinkPlan;
use crate::fault::{Classify, Code, Fault};
use crate::preflight::Findings;
#[cfg(feature = "amqp")]
use crate::sink::amqp::checkpoint as amqp;
#[cfg(feature = "kafka")]
use crate::sink::kafka::checkpoint as kafka;
#[cfg(feature = "kafka")]
use crate::status::metrics::Metrics;

/// A pipeline's checkpoint, wherever it is kept.
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

/// Why a checkpoint could not be read or kept, wherever that is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// In a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// In a topic.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] kafka::CheckpointError),
    /// In a queue.
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
    /// The store that a plan names. A file is locked by this; a broker is reached by the first load.
    ///
    /// # Errors
    /// Where the file is held, or cannot be.
    pub fn open(plan: &Plan) -> Result<Self, StoreError> {
        match (&plan.checkpoint, &plan.sink) {
            (CheckpointPlan::File { path }, _) => Ok(Self::File(FileStore::open(path)?)),
            #[cfg(feature = "kafka")]
            (CheckpointPlan::Broker { .. }, SinkPlan::Kafka(kafka)) => {
                let options = super::kafka_options(plan, kafka);
                Ok(Self::Kafka(Box::new(kafka::Store::new(options, Metrics::new(&plan.name).sink))))
            }
            #[cfg(feature = "amqp")]
            (CheckpointPlan::Broker { .. }, SinkPlan::Amqp(amqp)) => {
                Ok(Self::Amqp(Box::new(amqp::Store::new(super::amqp_options(plan, amqp)))))
            }
            (CheckpointPlan::Broker { .. }, _) => unreachable!("the configuration refuses what is not in this build, or no broker"),
        }
    }

    /// The checkpoint without a lock, for a look while a pipeline runs on it; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    #[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(clippy::unused_async, reason = "a build without a broker"))]
    pub async fn inspect(plan: &Plan) -> Result<Option<Checkpoint>, StoreError> {
        match (&plan.checkpoint, &plan.sink) {
            (CheckpointPlan::File { path }, _) => Ok(FileStore::inspect(path)?),
            #[cfg(feature = "kafka")]
            (CheckpointPlan::Broker { .. }, SinkPlan::Kafka(kafka)) => {
                let metrics = Metrics::new(&plan.name).sink;
                Ok(kafka::Store::inspect(&super::kafka_options(plan, kafka), metrics).await?)
            }
            #[cfg(feature = "amqp")]
            (CheckpointPlan::Broker { .. }, SinkPlan::Amqp(amqp)) => Ok(amqp::Store::inspect(&super::amqp_options(plan, amqp)).await?),
            (CheckpointPlan::Broker { .. }, _) => unreachable!("the configuration refuses what is not in this build, or no broker"),
        }
    }

    /// Looks what a start would do where the checkpoint is kept.
    ///
    /// # Errors
    /// Where the place cannot be looked at, or would not keep it.
    #[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(clippy::unused_async, reason = "a build without a broker"))]
    pub async fn preflight(plan: &Plan) -> Result<Findings, StoreError> {
        match (&plan.checkpoint, &plan.sink) {
            (CheckpointPlan::File { path }, _) => Ok(FileStore::preflight(path)?),
            #[cfg(feature = "kafka")]
            (CheckpointPlan::Broker { .. }, SinkPlan::Kafka(kafka)) => {
                let metrics = Metrics::new(&plan.name).sink;
                Ok(kafka::Store::preflight(&super::kafka_options(plan, kafka), metrics).await?)
            }
            #[cfg(feature = "amqp")]
            (CheckpointPlan::Broker { .. }, SinkPlan::Amqp(amqp)) => Ok(amqp::Store::preflight(&super::amqp_options(plan, amqp)).await?),
            (CheckpointPlan::Broker { .. }, _) => unreachable!("the configuration refuses what is not in this build, or no broker"),
        }
    }
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
