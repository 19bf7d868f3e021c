//! Kafka: an idempotent producer whose delivery reports settle acks.
//!
//! One session is one librdkafka client. Any delivery error ends it: the engine goes back to the first unconfirmed record, on
//! the next session. With every broker down nothing is reported and nothing is lost: records wait, in bounded memory.

use crate::checkpoint::Identity;
use crate::feed::Feeds;
use crate::net::secret::Secret;
use crate::preflight::Findings;
use crate::sink::SinkConnector;
use crate::status::metrics::SinkMetrics;
use client::{Running, Thread};
use context::Context;
use identity::Known;
use isolation::Isolation;
use renewal::Renewal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use topics::Limits;

pub mod checkpoint;
mod client;
pub mod consume;
mod context;
mod describe;
mod error;
mod flush;
mod identity;
mod isolation;
mod preflight;
mod produce;
pub mod properties;
mod prover;
mod renewal;
mod session;
mod topics;
mod trust;

pub use error::Error;
pub use session::Session;
pub use topics::broken_rule;

/// How missing topics are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    /// Partitions of each.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
    /// Settings of each, but of the checkpoint's and of dead letters; seen by [`properties::check_topic`].
    pub config: BTreeMap<String, String>,
}

/// Which time a record carries, from which its topic's retention counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The commit's.
    Commit,
    /// That of its arrival.
    Append,
}

/// Which Kafka, and how records go there.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The pipeline's name, for the client's id.
    pub pipeline: Arc<str>,
    /// Whether records carry headers.
    pub headers: bool,
    /// How missing topics are created; `None` refuses to start without them.
    pub create_topics: Option<CreateTopics>,
    /// The topic of events that their own does not accept; `None` stops at the first.
    pub dead_letter: Option<Arc<str>>,
    /// Whether deletes are followed by tombstones, which compaction needs.
    pub tombstones: bool,
    /// Which time records carry.
    pub stamp: Stamp,
    /// Settings for librdkafka, seen by [`properties::check`].
    pub properties: BTreeMap<String, String>,
    /// Memory for the client's own queue. Bodies are not in it: they stay in their batches.
    pub queue_bytes: usize,
    /// The password that belongs to the property `sasl.username`.
    pub sasl_password: Option<Secret>,
    /// The password of the private key in the property `ssl.key.location`.
    pub ssl_key_password: Option<Secret>,
}

impl Options {
    /// Brokers that are reached in plain text, with all that may be left out.
    #[must_use]
    pub fn plain(bootstrap_servers: &str, pipeline: &str) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            pipeline: pipeline.into(),
            headers: true,
            create_topics: None,
            dead_letter: None,
            tombstones: true,
            stamp: Stamp::Commit,
            properties: BTreeMap::new(),
            queue_bytes: 32 << 20,
            sasl_password: None,
            ssl_key_password: None,
        }
    }

    /// How long a record may wait in the client for others: not at all, unless a person wants it.
    fn linger(&self) -> Duration {
        let milliseconds = self.properties.get("linger.ms").and_then(|text| text.parse().ok());
        milliseconds.and_then(|milliseconds: f64| Duration::try_from_secs_f64(milliseconds / 1000.0).ok()).unwrap_or_default()
    }

    /// Whether what the broker counts is smaller than what is sent.
    fn is_compressed(&self) -> bool {
        let codec = ["compression.type", "compression.codec"].iter().find_map(|name| self.properties.get(*name));
        codec.is_some_and(|codec| !codec.eq_ignore_ascii_case("none"))
    }
}

/// Opens sessions with one Kafka cluster.
pub struct Connector {
    options: Options,
    metrics: SinkMetrics,
    feeds: Arc<Feeds>,
    limits: Limits,
    /// The thread of the last session, which may still be ending.
    thread: Option<Thread>,
    isolation: Isolation,
    /// The cluster and the topics that are meant, as far as that is known.
    known: Identity,
}

impl Connector {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SinkMetrics) -> Self {
        Self {
            options,
            metrics,
            feeds: Arc::default(),
            limits: Limits::default(),
            thread: None,
            isolation: Isolation::default(),
            known: Identity::new(),
        }
    }

    /// Makes a client, after the last one has ended: two would overtake each other.
    async fn start(&mut self) -> Result<Running, Error> {
        Thread::join(&mut self.thread).await;
        let largest = if self.options.is_compressed() { properties::LARGEST_BYTES } else { self.limits.largest() };
        let config = properties::client(&self.options, largest, self.limits.smallest().min(self.isolation.batch_bytes()))?;
        let context = Context::new(&self.options, self.metrics.clone(), self.isolation.clone());
        let (thread, started) = Thread::start(config, context, Renewal::of(&self.options))?;
        self.thread = Some(thread);
        started.await.map_err(|_| Error::Unconfirmed { reason: "the client's thread ended".to_owned() })?
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Unconfirmed { reason: "the process is stopping".to_owned() }),
        },
    }
}

impl SinkConnector for Connector {
    type Sink = Session;
    type Error = Error;

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    fn expect(&mut self, known: &Identity) {
        self.known.clone_from(known);
    }

    async fn identity(&mut self) -> Result<Identity, Error> {
        let topics = topics::of_feeds(&self.feeds, self.options.dead_letter.as_ref());
        let expected = self.known.clone();
        let running = self.start().await?;
        let _when_cancelled = running.stop();
        blocking(move || {
            let deadline = Instant::now() + HEARSAY_TIMEOUT;
            loop {
                let seen = Known::look(&running, topics.keys())?;
                let is_last = deadline <= Instant::now() || running.is_told_to_stop();
                if is_last || seen.expect(&expected).is_err() || !seen.lacks_any_of(&expected) {
                    return Ok(seen.seen_by(&expected));
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
        })
        .await
    }

    async fn verify(&mut self) -> Result<Identity, Error> {
        let topics = topics::of_feeds(&self.feeds, self.options.dead_letter.as_ref());
        topics::check_names(&topics)?;
        let admin = topics::admin_config(&self.options)?;
        let (create, dead_letter) = (self.options.create_topics.clone(), self.options.dead_letter.clone());
        let expected = self.known.clone();
        let running = self.start().await?;
        let runtime = Handle::current();
        let _when_cancelled = running.stop();
        let (limits, known) = blocking(move || {
            // Whose topics they would be comes before any is made.
            let before = Known::look(&running, topics.keys())?;
            before.expect(&expected)?;
            let limits = topics::verify(&running, &admin, &before, &topics, dead_letter.as_deref(), create.as_ref(), &runtime)?;
            let known = Known::look(&running, topics.keys())?;
            before.expect_cluster(known.cluster())?;
            Ok((limits, known))
        })
        .await?;
        self.limits = limits;
        self.known = known.identity();
        Ok(self.known.clone())
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        let admin = topics::admin_config(&self.options)?;
        let running = self.start().await?;
        let (runtime, options, feeds) = (Handle::current(), self.options.clone(), Arc::clone(&self.feeds));
        let _when_cancelled = running.stop();
        blocking(move || preflight::preflight(&running, &admin, &options, &feeds, &runtime)).await
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        let (mut running, mut opened) = self.open().await?;
        if self.limits.renew(std::mem::take(&mut opened.limits), opened.are_shown) {
            // The client was made for other limits.
            self.isolation.forget_batch_bytes();
            drop(running);
            (running, opened) = self.open().await?;
        }
        let session = Session::new(running, &self.options, &self.feeds, &self.limits, &opened.partitions, &self.isolation, &self.metrics)?;
        Ok((session, opened.identity))
    }
}

/// What is learnt when a session is opened.
struct Opened {
    partitions: BTreeMap<Arc<str>, u32>,
    identity: Identity,
    limits: Limits,
    /// Whether the broker shows limits.
    are_shown: bool,
}

impl Connector {
    /// Makes a client, and looks with whom, and at the topics as they are now.
    async fn open(&mut self) -> Result<(Running, Opened), Error> {
        let running = self.start().await?;
        let names: Vec<Arc<str>> = topics::of_feeds(&self.feeds, self.options.dead_letter.as_ref()).into_keys().collect();
        let (expected, admin, runtime) = (self.known.clone(), topics::admin_config(&self.options)?, Handle::current());
        let mut when_cancelled = running.stop();
        let opened = blocking(move || {
            let mut known = Known::look(&running, &names)?;
            // Whose topics they would be comes before whether they are there.
            known.expect(&expected)?;
            let partitions = topics::await_partitions(&running, &names.iter(), TOPICS_PATIENCE)?;
            if !known.is_complete() {
                known = Known::look(&running, &names)?;
            }
            let (limits, are_shown) = topics::look_at_limits(&running, &admin, &names, &known, &runtime)?;
            let identity = known.identity();
            running.know(known);
            Ok((running, Opened { partitions, identity, limits, are_shown }))
        })
        .await?;
        when_cancelled.disarm();
        Ok(opened)
    }
}

/// How long a topic that was there may be unknown to a broker that has just started, before a person is asked.
const TOPICS_PATIENCE: Duration = Duration::from_secs(5);
/// The same before it counts as deleted.
const HEARSAY_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
