//! The checkpoint in Kafka: the last record of a compacted topic with one partition.
//!
//! Each checkpoint is a transaction of its own under one transactional id, so that the broker keeps a predecessor out from the
//! moment at which its successor opens the topic (KIP-98, "Transactional Guarantees"). It is read with `read_committed` up to the
//! end of the partition; a broker that does not answer is an error, never an empty topic.

use super::error::{Error, replicas_for};
use super::{Options, blocking};
use crate::checkpoint::fencing::{CheckpointWriter, FencingError, StampedCheckpoint};
use crate::checkpoint::{Checkpoint, CheckpointStore, Identity};
use crate::fault::{Classify, Code, Fault};
use crate::preflight::Findings;
use crate::status::metrics::SinkMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use topic::{Reader, Topic};

mod topic;

/// Why the checkpoint could not be read or kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The broker's side failed.
    #[error("the checkpoint's topic: {0}")]
    Broker(#[from] Error),
    /// What is there is not the checkpoint, or no longer ours.
    #[error(transparent)]
    Fencing(#[from] FencingError),
    /// The topic is not there and is not made.
    #[error(
        "topic {topic} for the checkpoint is missing; set `sink.create_topics`, or make it:\n  kafka-topics.sh --bootstrap-server {servers} --create \
         --topic {topic} --partitions 1 --replication-factor {}{} --config cleanup.policy=compact --config segment.bytes={} --config \
         max.message.bytes={}",
        replicas_for(*brokers),
        if replicas_for(*brokers) < 3 { "" } else { " --config min.insync.replicas=2" },
        topic::SEGMENT_BYTES,
        topic::MESSAGE_BYTES_MAX
    )]
    Missing {
        /// The configured brokers.
        servers: String,
        /// The topic.
        topic: String,
        /// The brokers that are there.
        brokers: usize,
    },
    /// The topic would lose the checkpoint, or its order.
    #[error("topic {topic} cannot keep the checkpoint: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The user lacks a privilege.
    #[error(
        "the broker's user may not keep the checkpoint: {reason}; grant Describe, Read and Write on topic {topic}, Describe and Write on the \
         transactional id {transactional_id}"
    )]
    Privilege {
        /// The topic.
        topic: String,
        /// The id of its transactions.
        transactional_id: String,
        /// The broker's words.
        reason: String,
    },
    /// Somebody else opened the topic for writing.
    #[error("another producer has opened topic {topic} for the checkpoint: {reason}; it is looked for whether another instance goes on")]
    Fenced {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// More tables than a record of the topic can hold.
    #[error(
        "the checkpoint would have {bytes} bytes, topic {topic} takes {limit_bytes}: raise its max.message.bytes, or split the pipeline"
    )]
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
            Self::Missing { .. } | Self::Topic { .. } => Code::CheckpointPlaceUnfit,
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::Fenced { .. } => Code::RecordsUnconfirmed,
            Self::TooLarge { .. } => Code::CheckpointUnwritable,
        }
    }
}

/// How long the end of a transaction may take until readers see it.
const SEEN: Duration = Duration::from_secs(10);

/// The name of a pipeline's topic.
fn topic_of(options: &Options) -> String {
    format!("{}.checkpoint", options.pipeline)
}

/// A checkpoint in a topic of its own.
pub struct Store {
    options: Options,
    metrics: SinkMetrics,
    writer: CheckpointWriter,
    topic: Option<Topic>,
    /// The cluster in which it lies, from the first look on.
    cluster: Identity,
    /// How many connections the topic had when it was last proven where they lead.
    proven: u64,
    /// Told when the store goes, for a thread that waits for a broker.
    gone: Gone,
}

/// Dropped, it says so to whoever has the other hold.
#[derive(Clone, Debug, Default)]
struct Gone(Arc<AtomicBool>);

impl Gone {
    fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.gone.0.store(true, Ordering::Release);
    }
}

impl Store {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SinkMetrics) -> Self {
        Self {
            writer: CheckpointWriter::new(topic_of(&options)),
            options,
            metrics,
            topic: None,
            cluster: Identity::new(),
            proven: 0,
            gone: Gone::default(),
        }
    }

    /// The checkpoint, for a look while a pipeline runs on it; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn inspect(options: &Options, metrics: SinkMetrics) -> Result<Option<Checkpoint>, CheckpointError> {
        let options = options.clone();
        let found = of_broker(move || {
            let reader = Reader::open(&options, topic_of(&options), &Identity::new(), metrics, &Gone::default())?;
            if reader.partitions()?.is_none() { Ok(None) } else { reader.last() }
        })
        .await?;
        Ok(found.map(|found| found.checkpoint))
    }

    /// Looks what a start would make.
    ///
    /// # Errors
    /// Where the broker cannot be asked, or the topic cannot keep the checkpoint.
    pub async fn preflight(options: &Options, metrics: SinkMetrics) -> Result<Findings, CheckpointError> {
        let (options, runtime) = (options.clone(), Handle::current());
        let action = of_broker(move || {
            let name = topic_of(&options);
            let reader = Reader::open(&options, name.clone(), &Identity::new(), metrics, &Gone::default())?;
            match (reader.partitions()?, &options.create_topics) {
                (Some(_), _) => {
                    topic::verify(&reader, &options, &runtime)?;
                    Ok(format!("go on from the checkpoint in topic {name}, if there is one"))
                }
                (None, Some(create)) => {
                    Ok(format!("make topic {name} (one partition, compacted, replication factor {})", create.replication))
                }
                (None, None) => {
                    let brokers = reader.metadata()?.brokers().len();
                    Err(CheckpointError::Missing { servers: options.bootstrap_servers.clone(), topic: name, brokers })
                }
            }
        })
        .await?;
        Ok(Findings { actions: vec![action], ..Findings::default() })
    }

    /// A reader of the topic, which is made where it is missing.
    async fn reader(&self) -> Result<Reader, CheckpointError> {
        let (options, metrics, gone, runtime) = (self.options.clone(), self.metrics.clone(), self.gone.clone(), Handle::current());
        let (name, cluster) = (self.writer.location().to_owned(), self.cluster.clone());
        of_broker(move || {
            let reader = Reader::open(&options, name, &cluster, metrics, &gone)?;
            topic::ensure(&reader, &options, &runtime)?;
            Ok(reader)
        })
        .await
    }

    /// Keeps a predecessor out: what it had begun is decided then.
    async fn take_over(&mut self, reader: Reader) -> Result<Reader, CheckpointError> {
        let (options, runtime) = (self.options.clone(), Handle::current());
        let (topic, reader) = of_broker(move || {
            let limit_bytes = topic::verify(&reader, &options, &runtime)?;
            Ok((Topic::open(&reader, &options, limit_bytes)?, reader))
        })
        .await?;
        self.topic = Some(topic);
        self.proven = 0;
        Ok(reader)
    }

    /// Opens the topic: looks what is there, keeps a predecessor out, and looks again.
    async fn open(&mut self) -> Result<Option<StampedCheckpoint>, CheckpointError> {
        let (reader, found) = last(self.reader().await?).await?;
        self.cluster = reader.cluster();
        // Who was succeeded must not keep its successor out. The end of a transaction is seen a moment late: what is not there
        // yet is there when the topic is taken over.
        self.writer.check(found?.as_ref())?;
        let (_, found) = last(self.take_over(reader).await?).await?;
        let found = found?;
        self.writer.take_over(found.as_ref())?;
        Ok(found)
    }

    /// Proves that what was confirmed is in the known cluster, and the last: a client connects again by itself, to whoever stands
    /// behind the address by then. Nothing is to be proven while no connection was made.
    async fn prove(&mut self, generation: u64) -> Result<(), CheckpointError> {
        let connections = self.topic.as_ref().map_or(0, Topic::connections);
        if connections == self.proven {
            return Ok(());
        }
        let proof = async {
            let deadline = Instant::now() + SEEN;
            let mut reader = self.reader().await?;
            loop {
                let found;
                (reader, found) = last(reader).await?;
                let found = found?;
                self.writer.check(found.as_ref())?;
                if found.is_some_and(|found| found.generation == generation) {
                    return Ok(());
                }
                if deadline <= Instant::now() {
                    return Err(Error::Unconfirmed { reason: "the checkpoint is not where it was written".to_owned() }.into());
                }
                // The end of a transaction is seen a moment late.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match proof.await {
            Ok(()) => {
                self.proven = connections;
                Ok(())
            }
            Err(error) => {
                self.topic = None;
                Err(error)
            }
        }
    }

    /// Writes the next record. What fails leaves the topic closed: the next try opens it again.
    async fn write(&mut self, bytes: Option<Vec<u8>>) -> Result<(), CheckpointError> {
        let Some(topic) = self.topic.take() else {
            return Err(Error::Unconfirmed { reason: "the checkpoint's topic is not open".to_owned() }.into());
        };
        self.topic = Some(
            of_broker(move || {
                topic.write(bytes.as_deref())?;
                Ok(topic)
            })
            .await?,
        );
        Ok(())
    }
}

/// Runs what blocks on a thread that may.
async fn of_broker<T: Send + 'static>(work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static) -> Result<T, CheckpointError> {
    blocking(move || Ok(work())).await?
}

/// What the topic says last, which may be nothing fit, and its reader.
async fn last(reader: Reader) -> Result<(Reader, Result<Option<StampedCheckpoint>, CheckpointError>), CheckpointError> {
    of_broker(move || {
        let found = reader.last();
        Ok((reader, found))
    })
    .await
}

impl CheckpointStore for Store {
    type Error = CheckpointError;

    async fn load(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        Ok(self.open().await?.map(|found| found.checkpoint))
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        if self.topic.is_none() {
            self.open().await?;
        }
        let (generation, bytes) = self.writer.stamp(checkpoint);
        if let Err(error) = self.write(Some(bytes)).await {
            // Kept out: by whom is looked for at once, so that who was succeeded stops.
            return match error {
                CheckpointError::Fenced { .. } => self.open().await.and(Err(error)),
                error => Err(error),
            };
        }
        self.prove(generation).await?;
        self.writer.confirmed();
        Ok(())
    }

    async fn remove(&mut self) -> Result<bool, CheckpointError> {
        let reader = self.reader().await?;
        let was_there = match last(self.take_over(reader).await?).await?.1 {
            Ok(found) => found.is_some(),
            // Readable or not.
            Err(CheckpointError::Fencing(_)) => true,
            Err(error) => return Err(error),
        };
        if was_there {
            self.write(None).await?;
        }
        self.writer.removed();
        Ok(was_there)
    }
}
