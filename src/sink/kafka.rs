//! Kafka: an idempotent producer whose delivery reports settle receipts.
//!
//! One session is one librdkafka client. Any delivery error ends it: the engine goes back to the first unconfirmed record, on
//! the next session. With every broker down nothing is reported and nothing is lost: records wait, in bounded memory.

use crate::batch::{Batch, Record};
use crate::change::Operation;
use crate::checkpoint::Identity;
use crate::fault::{Classify as _, Fault};
use crate::feed::Feeds;
use crate::foresight::Foresight;
use crate::metrics::{DeadLetter, SinkMetrics};
use crate::receipt::Receipt;
use crate::secret::Secret;
use crate::sink::{Sink, SinkConnector};
use care::{Advice, Care};
use client::{Running, Thread};
use context::Context;
use produce::{BY_KEY, Held, Label, Refusal, Submission, Topic};
use rdkafka::producer::Producer as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use topics::Limits;

mod care;
pub mod checkpoint;
mod client;
mod context;
mod error;
mod foresight;
pub mod listen;
mod produce;
pub mod properties;
mod topics;

pub use error::Error;
pub use topics::broken_rule;

/// How missing topics are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    /// Partitions of each.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
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
    /// Settings for librdkafka, seen by [`properties::check`].
    pub properties: BTreeMap<String, String>,
    /// Memory for the client's own queue. Bodies are not in it: they stay in their batches.
    pub queue_bytes: usize,
    /// The password that belongs to the property `sasl.username`.
    pub sasl_password: Option<Secret>,
    /// The password of the private key in the property `ssl.key.location`.
    pub ssl_key_password: Option<Secret>,
}

/// Opens sessions with one Kafka cluster.
pub struct Connector {
    options: Options,
    metrics: SinkMetrics,
    feeds: Arc<Feeds>,
    limits: Limits,
    /// The thread of the last session, which may still be ending.
    thread: Option<Thread>,
    care: Care,
}

impl Connector {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SinkMetrics) -> Self {
        Self { options, metrics, feeds: Arc::default(), limits: Limits::default(), thread: None, care: Care::default() }
    }

    /// Makes a client, after the last one has ended: two would overtake each other.
    async fn start(&mut self) -> Result<Running, Error> {
        Thread::join(&mut self.thread).await;
        let config = properties::client(&self.options, self.limits.largest(), self.limits.smallest())?;
        let context = Context::new(self.options.bootstrap_servers.as_str().into(), self.metrics.clone(), self.care.clone());
        let (thread, started) = Thread::start(config, context)?;
        self.thread = Some(thread);
        started.await.map_err(|_| Error::Unconfirmed { reason: "the client's thread ended".to_owned() })?
    }

    fn session(&self, running: Running, partitions: &BTreeMap<Arc<str>, u32>) -> Result<Session, Error> {
        let (options, feeds) = (&self.options, Arc::clone(&self.feeds));
        let topics = topics::of_feeds(&feeds, options.dead_letter.as_ref());
        if partitions.len() < topics.len() {
            return Err(topics::all_missing(&running, topics.keys().filter(|name| !partitions.contains_key(*name))));
        }
        let mut destinations = Vec::new();
        let mut places = BTreeMap::new();
        for (name, table) in topics {
            let topic = Topic::open(running.client(), &name).ok_or_else(|| Error::TopicName {
                table: table.to_string(),
                topic: name.to_string(),
                rule: "the client refuses it",
            })?;
            places.insert(name.clone(), destinations.len());
            destinations.push(Destination { topic, limit_bytes: self.limits.of(&name), name });
        }
        let routes = feeds.iter().map(|feed| Operation::ALL.map(|operation| places[feed.destination(operation)])).collect();
        Ok(Session {
            destinations,
            routes,
            dead_letters: options.dead_letter.as_ref().map(|name| places[name]),
            feeds,
            headers: options.headers,
            partitions: HashMap::new(),
            metrics: self.metrics.clone(),
            care: self.care.clone(),
            has_learnt: false,
            running: Arc::new(running),
        })
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

    async fn identity(&mut self) -> Result<Identity, Error> {
        let running = self.start().await?;
        let _when_cancelled = running.stop();
        blocking(move || identity(&running)).await
    }

    async fn verify(&mut self) -> Result<Identity, Error> {
        let topics = topics::of_feeds(&self.feeds, self.options.dead_letter.as_ref());
        topics::check_names(&topics)?;
        let admin = topics::admin_config(&self.options)?;
        let (create, dead_letter) = (self.options.create_topics, self.options.dead_letter.clone());
        let running = self.start().await?;
        let runtime = Handle::current();
        let _when_cancelled = running.stop();
        let (limits, identity) = blocking(move || {
            let limits = topics::verify(&running, &admin, &topics, dead_letter.as_deref(), create.as_ref(), &runtime)?;
            Ok((limits, identity(&running)?))
        })
        .await?;
        self.limits = limits;
        Ok(identity)
    }

    async fn foresee(&mut self) -> Result<Foresight, Error> {
        let admin = topics::admin_config(&self.options)?;
        let running = self.start().await?;
        let (runtime, options, feeds) = (Handle::current(), self.options.clone(), Arc::clone(&self.feeds));
        let _when_cancelled = running.stop();
        blocking(move || foresight::foresee(&running, &admin, &options, &feeds, &runtime)).await
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        let running = self.start().await?;
        let names: Vec<Arc<str>> = topics::of_feeds(&self.feeds, self.options.dead_letter.as_ref()).into_keys().collect();
        let mut when_cancelled = running.stop();
        let (running, partitions, identity) = blocking(move || {
            let partitions = topics::await_partitions(&running, &names.iter(), TOPICS_PATIENCE)?;
            let identity = identity(&running)?;
            Ok((running, partitions, identity))
        })
        .await?;
        when_cancelled.disarm();
        Ok((self.session(running, &partitions)?, identity))
    }
}

/// Who the cluster is: any metadata of it names it. Blocks.
fn identity(running: &Running) -> Result<Identity, Error> {
    let cluster = running.client().client().fetch_cluster_id(Duration::from_secs(10));
    let cluster = cluster.ok_or_else(|| running.context().unreachable("the cluster did not tell its id"))?;
    Ok(Identity::from([("kafka_cluster".to_owned(), cluster)]))
}

/// How long a topic that was there may be unknown to a broker that has just started, before a person is asked.
const TOPICS_PATIENCE: Duration = Duration::from_secs(5);

/// Where records of one topic go.
struct Destination {
    topic: Topic,
    name: Arc<str>,
    limit_bytes: usize,
}

/// How old a count of partitions may be when copies are made for each of them.
const PARTITIONS_AGE_MAX: Duration = Duration::from_secs(30);

/// One session with Kafka.
pub struct Session {
    destinations: Vec<Destination>,
    /// For each feed and operation a place in `destinations`.
    routes: Vec<[usize; Operation::ALL.len()]>,
    /// The place of what its own destination does not accept.
    dead_letters: Option<usize>,
    feeds: Arc<Feeds>,
    headers: bool,
    partitions: HashMap<usize, (u32, Instant)>,
    metrics: SinkMetrics,
    care: Care,
    /// Whether it met a refusal of which the next session makes something.
    has_learnt: bool,
    /// Dropped last: the topics are its handles.
    running: Arc<Running>,
}

impl Session {
    fn failure_or(&self, otherwise: impl FnOnce() -> Error) -> Error {
        let failure = self.running.context().failure().cloned().unwrap_or_else(otherwise);
        // Where the idempotent producer gave up, records are reported before the cause is, and say less than it.
        match self.running.client().client().fatal_error() {
            Some((code, reason)) if failure.fault() == Fault::Transient => Error::of_giving_up(code, reason),
            _ => failure,
        }
    }

    /// The record's place among the destinations.
    fn place(&self, record: &Record<'_>) -> usize {
        self.routes[record.head.feed.index()][record.head.operation as usize]
    }

    /// Whether the record fits into a place, beside so many more bytes.
    fn fit(&self, record: &Record<'_>, place: usize, more_bytes: usize) -> Result<(), Error> {
        let destination = &self.destinations[place];
        let table = &self.feeds.get(record.head.feed).name;
        let size_bytes = size(record, table) + more_bytes;
        if size_bytes <= destination.limit_bytes {
            return Ok(());
        }
        Err(Error::TooLarge {
            topic: destination.name.to_string(),
            table: table.to_string(),
            id: String::from_utf8_lossy(record.id).into_owned(),
            size_bytes,
            limit_bytes: destination.limit_bytes,
        })
    }

    /// Sends a record that its own topic does not accept where such records are kept.
    async fn bury(&self, held: &Held<'_>, place: usize, unfit: Error, reason: DeadLetter) -> Result<(), Error> {
        const NAMES_BYTES: usize = 64;
        let Some(grave) = self.dead_letters else { return Err(unfit) };
        let error = format!("{} {unfit}", unfit.code());
        let topic = &*self.destinations[place].name;
        self.fit(&held.record, grave, NAMES_BYTES + topic.len() + error.len())?;
        let table = &*self.feeds.get(held.record.head.feed).name;
        self.hand_over(held, grave, BY_KEY, &Label::DeadLetter { table, topic, error: &error }).await?;
        // It counts, and need not be sent again, when it is there.
        self.settled().await?;
        self.care.arrived(held.spot());
        self.metrics.count_dead_letter(reason);
        tracing::warn!(error, dead_letter = &*self.destinations[grave].name, "an event went to the dead letters");
        Ok(())
    }

    async fn hand_over(&self, held: &Held<'_>, place: usize, partition: i32, label: &Label<'_>) -> Result<(), Error> {
        let destination = &self.destinations[place];
        let mut pause = Pause::new(&self.metrics);
        loop {
            match destination.topic.produce(held, label, partition) {
                Ok(()) => return Ok(()),
                Err(Refusal::Full) => {}
                Err(Refusal::Failed(code)) => {
                    let error = Error::of_delivery(code, &destination.name, self.running.context().servers());
                    if matches!(error, Error::Refused { .. }) {
                        self.care.refused(&error);
                    }
                    return Err(self.failure_or(|| error));
                }
            }
            if let Some(failure) = self.running.context().failure() {
                return Err(failure.clone());
            }
            pause.wait().await;
        }
    }

    /// How many partitions the destination has now.
    async fn partitions(&mut self, place: usize) -> Result<u32, Error> {
        if let Some((count, seen)) = self.partitions.get(&place)
            && seen.elapsed() < PARTITIONS_AGE_MAX
        {
            return Ok(*count);
        }
        let (running, name) = (Arc::clone(&self.running), self.destinations[place].name.clone());
        let found = blocking(move || topics::partitions(&running, std::iter::once(&name))).await?;
        let count = found.into_values().next().filter(|count| *count != 0);
        let count = count.ok_or_else(|| topics::all_missing(&self.running, [&self.destinations[place].name]))?;
        self.partitions.insert(place, (count, Instant::now()));
        Ok(count)
    }
}

/// What a record needs on the wire and in the log at most: a batch of its own (61 bytes, KIP-98), its fields with their
/// lengths as variable integers, and its headers.
fn size(record: &Record<'_>, table: &str) -> usize {
    const BATCH: usize = 61;
    const FIELDS: usize = 40;
    // Four names of headers, the longest operation, and their lengths.
    const HEADERS: usize = 120;
    let related = record.related_key.map_or(0, <[u8]>::len);
    BATCH + FIELDS + HEADERS + table.len() + record.id.len() + record.key.len() + related + record.body.map_or(0, <[u8]>::len)
}

/// Waits while the client's queue is full, a little longer each time: with every broker down it stays full.
struct Pause<'m> {
    metrics: &'m SinkMetrics,
    next: Duration,
}

impl<'m> Pause<'m> {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(32);

    const fn new(metrics: &'m SinkMetrics) -> Self {
        Self { metrics, next: Self::FIRST }
    }

    async fn wait(&mut self) {
        self.metrics.blocked.set(1);
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Self::LONGEST);
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if self.next != Self::FIRST {
            self.metrics.blocked.set(0);
        }
    }
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, receipt: Receipt) -> Result<(), Error> {
        if let Some(failure) = self.running.context().failure().cloned() {
            return Err(self.explain(failure));
        }
        let sent = self.send(&Submission::new(batch, receipt)).await;
        sent.map_err(|error| self.explain(error))
    }

    fn failure(&mut self) -> Error {
        let failure = self.failure_or(|| Error::Unconfirmed { reason: "the session ended first".to_owned() });
        self.explain(failure)
    }

    fn has_learnt(&self) -> bool {
        self.has_learnt
    }

    async fn close(self) -> Result<(), Error> {
        self.settled().await
    }
}

impl Session {
    /// Hands all records of a batch over.
    async fn send(&mut self, submission: &Submission) -> Result<(), Error> {
        let care = self.care.advise(submission.seq());
        for held in submission.records() {
            let place = self.place(&held.record);
            let advice = care(held.index);
            let unfit = match &advice {
                Advice::Pass => {
                    held.pass();
                    continue;
                }
                Advice::Bury(refusal) => Some((refusal.clone(), DeadLetter::Refused)),
                Advice::Send | Advice::SendAlone => self.fit(&held.record, place, 0).err().map(|unfit| (unfit, DeadLetter::TooLarge)),
            };
            if let Some((unfit, reason)) = unfit {
                self.bury(&held, place, unfit, reason).await?;
            } else if advice == Advice::SendAlone {
                self.settled().await?;
                self.care.sends_alone(held.spot());
                self.send_one(&held, place).await?;
                self.settled().await?;
                self.care.arrived(held.spot());
            } else {
                self.send_one(&held, place).await?;
            }
        }
        Ok(())
    }

    /// Hands a record over to its own topic; one that is of a whole table to each partition.
    async fn send_one(&mut self, held: &Held<'_>, place: usize) -> Result<(), Error> {
        let copies = if held.record.head.operation.is_table_wide() { Some(self.partitions(place).await?) } else { None };
        let table = &*self.feeds.get(held.record.head.feed).name;
        let label = if self.headers { Label::Event { table } } else { Label::Bare };
        let Some(copies) = copies else { return self.hand_over(held, place, BY_KEY, &label).await };
        held.expect_copies(copies);
        for partition in 0..copies {
            self.hand_over(held, place, partition.cast_signed(), &label).await?;
        }
        Ok(())
    }

    /// Where refused records may go to the dead letters a refusal is no end: the next session knows what to do about it.
    fn explain(&mut self, error: Error) -> Error {
        let Error::Refused { topic, reason } = &error else { return error };
        let Some(grave) = self.dead_letters else { return error };
        if *topic == *self.destinations[grave].name {
            return error;
        }
        self.has_learnt = true;
        Error::Unconfirmed { reason: format!("topic {topic} refused a record ({reason}), which goes to the dead letters") }
    }

    /// Waits until nothing is on its way.
    async fn settled(&self) -> Result<(), Error> {
        let mut wait = Duration::from_millis(1);
        loop {
            // Looked for first: what fails says so before it is no longer on its way.
            let is_idle = self.running.client().in_flight_count() == 0;
            if let Some(failure) = self.running.context().failure() {
                return Err(failure.clone());
            }
            if is_idle {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(16));
        }
    }
}
