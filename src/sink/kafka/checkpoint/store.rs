//! The checkpoint store in a Kafka topic.

use super::error::CheckpointError;
use super::reader::TopicReader;
use super::setup;
use super::stop::StopFlag;
use super::topic::topic_name;
use super::writer::TopicWriter;
use crate::checkpoint::fencing::{CheckpointWriter, StampedCheckpoint};
use crate::checkpoint::{Checkpoint, CheckpointStore, Identity};
use crate::preflight::Findings;
use crate::sink::kafka::blocking::blocking;
use crate::sink::kafka::error::Error;
use crate::sink::kafka::options::Options;
use crate::status::metrics::SinkMetrics;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long it may take until readers see the end of a transaction.
const COMMIT_VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The checkpoint store in a topic of its own.
pub struct Store {
    options: Options,
    metrics: SinkMetrics,
    fencing: CheckpointWriter,
    /// `None` until the topic is opened, and after each failed write.
    topic: Option<TopicWriter>,
    /// The cluster that the topic was first opened in.
    cluster: Identity,
    /// How many connections the writer had when its last write was verified.
    verified_connections: u64,
    /// Set when the store is dropped, for threads that wait for a broker.
    stop: StopFlag,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.set();
    }
}

impl Store {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SinkMetrics) -> Self {
        Self {
            fencing: CheckpointWriter::new(topic_name(&options.pipeline)),
            options,
            metrics,
            topic: None,
            cluster: Identity::new(),
            verified_connections: 0,
            stop: StopFlag::default(),
        }
    }

    /// Reads the checkpoint without disturbing a pipeline that is running; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn inspect(options: &Options, metrics: SinkMetrics) -> Result<Option<Checkpoint>, CheckpointError> {
        let options = options.clone();
        let found = run_blocking(move || {
            let name = topic_name(&options.pipeline);
            let reader = TopicReader::open(&options, name, &Identity::new(), metrics, &StopFlag::default())?;
            if reader.partitions()?.is_none() { Ok(None) } else { reader.last() }
        })
        .await?;
        Ok(found.map(|found| found.checkpoint))
    }

    /// Finds out what a start would do with the topic. Read-only.
    ///
    /// # Errors
    /// If the broker cannot be asked, or the topic cannot keep the checkpoint.
    pub async fn preflight(options: &Options, metrics: SinkMetrics) -> Result<Findings, CheckpointError> {
        let (options, runtime) = (options.clone(), Handle::current());
        let action = run_blocking(move || {
            let name = topic_name(&options.pipeline);
            let reader = TopicReader::open(&options, name.clone(), &Identity::new(), metrics, &StopFlag::default())?;
            match (reader.partitions()?, &options.create_topics) {
                (Some(_), _) => {
                    setup::verify(&reader, &options, &runtime)?;
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

    /// Opens a reader. Creates the topic if it is missing.
    async fn reader(&self) -> Result<TopicReader, CheckpointError> {
        let (options, metrics, stop, runtime) = (self.options.clone(), self.metrics.clone(), self.stop.clone(), Handle::current());
        let (name, cluster) = (topic_name(&self.options.pipeline), self.cluster.clone());
        run_blocking(move || {
            let reader = TopicReader::open(&options, name, &cluster, metrics, &stop)?;
            setup::ensure_exists(&reader, &options, &runtime)?;
            Ok(reader)
        })
        .await
    }

    /// Opens the topic for writing, which fences a predecessor. A transaction that the predecessor had begun is then committed or aborted.
    async fn take_over(&mut self, reader: TopicReader) -> Result<TopicReader, CheckpointError> {
        let (options, runtime) = (self.options.clone(), Handle::current());
        let (topic, reader) = run_blocking(move || {
            let limit_bytes = setup::verify(&reader, &options, &runtime)?;
            Ok((TopicWriter::open(&reader, &options, limit_bytes)?, reader))
        })
        .await?;
        self.topic = Some(topic);
        self.verified_connections = 0;
        Ok(reader)
    }

    /// Opens the topic: reads it, takes over, and reads it again.
    async fn open(&mut self) -> Result<Option<StampedCheckpoint>, CheckpointError> {
        let (reader, found) = read_last(self.reader().await?).await?;
        self.cluster = reader.cluster();
        // Checked before taking over: an instance that was itself taken over must not fence its successor. Readers see the end of a
        // transaction with a delay; a checkpoint that is missed here is seen after taking over.
        self.fencing.check(found?.as_ref())?;
        let (_, found) = read_last(self.take_over(reader).await?).await?;
        let found = found?;
        self.fencing.take_over(found.as_ref())?;
        Ok(found)
    }

    /// Verifies that the checkpoint just written is the last one in the known cluster. The client reconnects by itself, to whatever
    /// answers at the address by then. Skipped if no connection was made since the last verification.
    async fn verify_written(&mut self, generation: u64) -> Result<(), CheckpointError> {
        let connections = self.topic.as_ref().map_or(0, TopicWriter::connection_count);
        if connections == self.verified_connections {
            return Ok(());
        }
        let verification = async {
            let deadline = Instant::now() + COMMIT_VISIBLE_TIMEOUT;
            let mut reader = self.reader().await?;
            loop {
                let found;
                (reader, found) = read_last(reader).await?;
                let found = found?;
                self.fencing.check(found.as_ref())?;
                if found.is_some_and(|found| found.generation == generation) {
                    return Ok(());
                }
                if deadline <= Instant::now() {
                    return Err(
                        Error::Unconfirmed { reason: "the checkpoint is not in the topic that it was written to".to_owned() }.into()
                    );
                }
                // Readers see the end of a transaction with a delay.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match verification.await {
            Ok(()) => {
                self.verified_connections = connections;
                Ok(())
            }
            Err(error) => {
                self.topic = None;
                Err(error)
            }
        }
    }

    /// Writes the next record. A failure leaves the topic closed: the next attempt opens it again.
    async fn write(&mut self, bytes: Option<Vec<u8>>) -> Result<(), CheckpointError> {
        let Some(topic) = self.topic.take() else {
            return Err(Error::Unconfirmed { reason: "the checkpoint topic is not open".to_owned() }.into());
        };
        self.topic = Some(
            run_blocking(move || {
                topic.write(bytes.as_deref())?;
                Ok(topic)
            })
            .await?,
        );
        Ok(())
    }
}

/// Runs `work` on a thread that may block.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static) -> Result<T, CheckpointError> {
    blocking(move || Ok(work())).await?
}

/// Reads the last checkpoint. The inner result is an error if the record is not fit.
async fn read_last(reader: TopicReader) -> Result<(TopicReader, Result<Option<StampedCheckpoint>, CheckpointError>), CheckpointError> {
    run_blocking(move || {
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
        let (generation, bytes) = self.fencing.stamp(checkpoint);
        if let Err(error) = self.write(Some(bytes)).await {
            // When fenced, the topic is read at once: an instance that was taken over must stop.
            return match error {
                CheckpointError::Fenced { .. } => self.open().await.and(Err(error)),
                error => Err(error),
            };
        }
        self.verify_written(generation).await?;
        self.fencing.confirmed();
        Ok(())
    }

    async fn remove(&mut self) -> Result<bool, CheckpointError> {
        let reader = self.reader().await?;
        let existed = match read_last(self.take_over(reader).await?).await?.1 {
            Ok(found) => found.is_some(),
            // A record that cannot be read is removed too.
            Err(CheckpointError::Fencing(_)) => true,
            Err(error) => return Err(error),
        };
        if existed {
            self.write(None).await?;
        }
        self.fencing.removed();
        Ok(existed)
    }
}
