//! Opens sessions with one Kafka cluster.

use super::blocking::blocking;
use super::client::{ClientHandle, ClientThread};
use super::context::Context;
use super::credentials::CredentialWatch;
use super::error::Error;
use super::identify::identify;
use super::isolation::Isolation;
use super::options::Options;
use super::routes::Routes;
use super::session::Session;
use super::topics::{self, Limits};
use super::{client_config, preflight};
use crate::checkpoint::Identity;
use crate::feed::Feeds;
use crate::preflight::Findings;
use crate::sink::SinkConnector;
use crate::status::metrics::SinkMetrics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long a known topic may be unknown to a broker that has just started, before a session is refused.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may be unknown before it counts as deleted.
const DELETED_AFTER: Duration = Duration::from_secs(15);
/// How often the broker is asked again meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Opens sessions with one Kafka cluster.
pub struct Connector {
    options: Options,
    metrics: SinkMetrics,
    feeds: Arc<Feeds>,
    limits: Limits,
    /// The thread of the last client, which may still be running.
    thread: Option<ClientThread>,
    isolation: Isolation,
    /// The expected cluster and topics, as far as they are known.
    expected: Identity,
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
            expected: Identity::new(),
        }
    }

    /// The topics to send to, each with one of its tables.
    fn topics(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        topics::of_feeds(&self.feeds, self.options.dead_letter.as_ref())
    }

    /// Creates a client after the last one has ended: records of two clients could overtake each other.
    async fn start_client(&mut self) -> Result<ClientHandle, Error> {
        ClientThread::join(&mut self.thread).await;
        // The largest compressed size is unknown.
        let largest = if self.options.is_compressed() { client_config::LARGEST_BYTES } else { self.limits.largest() };
        let config = client_config::client(&self.options, largest, self.limits.smallest().min(self.isolation.batch_bytes()))?;
        let context = Context::new(&self.options, self.metrics.clone(), self.isolation.clone());
        let (thread, client) = ClientThread::start(config, context, CredentialWatch::new(&self.options))?;
        self.thread = Some(thread);
        client.await.map_err(|_| Error::Unconfirmed { reason: "the client's thread ended".to_owned() })?
    }

    /// Creates a client, and finds out which cluster it leads to and what the topics are now.
    async fn open(&mut self) -> Result<(ClientHandle, Opened), Error> {
        let client = self.start_client().await?;
        let names: Vec<Arc<str>> = self.topics().into_keys().collect();
        let (expected, admin, runtime) = (self.expected.clone(), client_config::admin(&self.options)?, Handle::current());
        let mut stop_if_cancelled = client.stop_on_drop();
        let opened = blocking(move || {
            let mut known = identify(&client, &names)?;
            // The cluster is checked first: it matters more than a missing topic.
            known.check_expected(&expected)?;
            let partitions = topics::wait_for_partitions(&client, &names.iter(), TOPICS_TIMEOUT)?;
            if !known.is_complete() {
                known = identify(&client, &names)?;
            }
            let limits = topics::read_limits(&client, &admin, &names, &known, &runtime)?;
            let identity = known.identity();
            client.set_known(known);
            Ok((client, Opened { partitions, identity, limits }))
        })
        .await?;
        stop_if_cancelled.disarm();
        Ok(opened)
    }
}

/// What is known when a client is open.
struct Opened {
    /// The number of partitions of each topic that exists.
    partitions: BTreeMap<Arc<str>, u32>,
    identity: Identity,
    /// The topics' limits, if the broker shows them.
    limits: Option<Limits>,
}

impl SinkConnector for Connector {
    type Sink = Session;
    type Error = Error;

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    async fn recognize(&mut self, known: &Identity) -> Result<Identity, Error> {
        self.expected.clone_from(known);
        let (topics, expected) = (self.topics(), known.clone());
        let client = self.start_client().await?;
        let _stop_if_cancelled = client.stop_on_drop();
        blocking(move || {
            let deadline = Instant::now() + DELETED_AFTER;
            loop {
                let found = identify(&client, topics.keys())?;
                let is_last = deadline <= Instant::now() || client.is_stopping();
                if is_last || found.check_expected(&expected).is_err() || !found.lacks_any_of(&expected) {
                    return Ok(found.identity_with_missing(&expected));
                }
                std::thread::sleep(RETRY_INTERVAL);
            }
        })
        .await
    }

    async fn establish(&mut self) -> Result<Identity, Error> {
        let topics = self.topics();
        topics::check_names(&topics)?;
        let admin = client_config::admin(&self.options)?;
        let (create, dead_letter) = (self.options.create_topics.clone(), self.options.dead_letter.clone());
        let expected = self.expected.clone();
        let client = self.start_client().await?;
        let runtime = Handle::current();
        let _stop_if_cancelled = client.stop_on_drop();
        let (limits, known) = blocking(move || {
            // The cluster is checked before any topic is created there.
            let before = identify(&client, topics.keys())?;
            before.check_expected(&expected)?;
            let limits = topics::establish(&client, &admin, &before, &topics, dead_letter.as_deref(), create.as_ref(), &runtime)?;
            let known = identify(&client, topics.keys())?;
            before.check_cluster(known.cluster())?;
            Ok((limits, known))
        })
        .await?;
        self.limits = limits;
        self.expected = known.identity();
        Ok(self.expected.clone())
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        let admin = client_config::admin(&self.options)?;
        let client = self.start_client().await?;
        let (runtime, options, feeds) = (Handle::current(), self.options.clone(), Arc::clone(&self.feeds));
        let _stop_if_cancelled = client.stop_on_drop();
        blocking(move || preflight::preflight(&client, &admin, &options, &feeds, &runtime)).await
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        let (mut client, mut opened) = self.open().await?;
        if let Some(limits) = opened.limits.take()
            && self.limits.update(limits)
        {
            // The client was created with other limits.
            self.isolation.reset_batch_bytes();
            drop(client);
            (client, opened) = self.open().await?;
        }
        let routes = Routes::new(&client, &self.options, &self.feeds, &self.limits, &opened.partitions)?;
        let session = Session::new(client, routes, &self.options, &self.isolation, &self.metrics);
        Ok((session, opened.identity))
    }
}
