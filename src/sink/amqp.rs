//! RabbitMQ by AMQP 0-9-1: persistent, mandatory events on a durable topic exchange, confirmed in a window.
//!
//! One session is one connection that owns the pipeline's lock, and one channel. Any failure ends it, and the engine goes back to
//! the first unconfirmed event on the next session: what an earlier one still had on its way is finished before the lock is
//! free. An event that no queue takes is returned by the broker, and never counts as delivered.

use crate::batch::{Ack, Batch};
use crate::checkpoint::Identity;
use crate::feed::Feeds;
use crate::net::Trust;
use crate::net::secret::Secret;
use crate::preflight::Findings;
use crate::sink::{Sink, SinkConnector};
use crate::status::metrics::SinkMetrics;
use confirm_timeout::{ConfirmTimeout, GivenUp};
use error::Party;
use link::{ANSWER_TIMEOUT, Connected, Link};
use message::{Limits, Routes};
use order::Order;
use permissions::Permissions;
use publisher::Publisher;
use send_queue::Submission;
use send_window::SendWindow;
use std::sync::atomic::{self, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub mod checkpoint;
mod confirm_timeout;
pub mod consume;
mod dial;
mod error;
mod guard;
mod in_flight;
mod link;
mod lock;
mod management;
mod message;
mod order;
mod permissions;
mod preflight;
mod publisher;
mod send_queue;
mod send_window;
mod socket;
mod unroutable;

pub use error::Error;
pub use management::Management;

/// A broker's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A queue that is made and bound to the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its binding keys.
    pub keys: Vec<String>,
    /// Its type.
    pub kind: QueueType,
}

impl Queue {
    /// The queue of dead letters, from which nothing goes by being read.
    fn of_dead_letters(name: &str) -> Self {
        Self { name: name.to_owned(), keys: vec![String::new()], kind: QueueType::Stream }
    }
}

/// The type of a queue (RabbitMQ's `x-queue-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// On one node.
    Classic,
    /// A log that is read and not consumed.
    Stream,
}

impl QueueType {
    /// As `x-queue-type` says it.
    const fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

/// What is kept of the order when an event is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// All from the refused event on are sent again; those after it may have been stored before.
    #[default]
    GoBack,
    /// No event is sent while an earlier one of its key is unconfirmed.
    PerKey,
}

/// Which RabbitMQ, and how events go there.
#[derive(Clone, Debug)]
pub struct Options {
    /// The brokers of one cluster, in the order in which they are tried.
    pub places: Vec<Address>,
    /// Encryption.
    pub trust: Trust,
    /// Whether the broker knows the user by the client's certificate.
    pub external: bool,
    /// User.
    pub user: String,
    /// The user's password.
    pub password: Option<Secret>,
    /// Virtual host.
    pub vhost: String,
    /// The topic exchange.
    pub exchange: String,
    /// Whether the exchange is made where it is missing; else it is only verified.
    pub declare: bool,
    /// The exchange, and its queue, of events that no queue takes; `None` stops at the first.
    pub dead_letter: Option<Arc<str>>,
    /// Queues that are made and bound.
    pub queues: Vec<Queue>,
    /// What is kept of the order when an event is refused.
    pub ordering: Ordering,
    /// How many events may wait for their confirms.
    pub window: usize,
    /// The management API, for a look ahead.
    pub management: Option<Management>,
    /// The pipeline's name, for its lock.
    pub pipeline: Arc<str>,
    /// Whether the checkpoint is kept here too, which needs permissions of its own.
    pub keeps_checkpoint: bool,
}

impl Options {
    fn party(&self, place: &Address) -> Party {
        Party {
            address: format!("{}:{}", place.host, place.port),
            user: self.user.clone(),
            vhost: self.vhost.clone(),
            exchange: self.exchange.clone(),
            lock: self.lock(),
            grant: Permissions::of(self).command(),
        }
    }

    /// The exclusive queue that is the pipeline's lock.
    fn lock(&self) -> String {
        format!("{}.lock", self.pipeline)
    }
}

/// Opens sessions with one broker.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    metrics: SinkMetrics,
    feeds: Arc<Feeds>,
    last: Last,
    /// What a broker that refused an event for its size takes at most.
    body_bytes_max: Arc<AtomicUsize>,
    given_up: GivenUp,
    /// Whose exchange and queues are meant; empty while that is not known.
    known: Identity,
}

/// The end of the session before: its connection may still be closing, and holds the lock until it has.
#[derive(Clone, Debug, Default)]
struct Last(Arc<Mutex<Option<JoinHandle<()>>>>);

impl Last {
    fn set(&self, closing: JoinHandle<()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(closing);
    }

    /// Waits until it is over.
    async fn join(&self) {
        let closing = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(closing) = closing
            && let Err(error) = closing.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Connector {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SinkMetrics) -> Self {
        let body_bytes_max = Arc::new(AtomicUsize::new(Limits::NONE.body_bytes));
        Self {
            options,
            metrics,
            feeds: Arc::default(),
            last: Last::default(),
            body_bytes_max,
            given_up: GivenUp::default(),
            known: Identity::new(),
        }
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
        let Connected { connection, party, place, .. } = link::connect(&self.options).await?;
        let identity = link::identity(&self.options, &place, &party).await;
        // What was asked is answered.
        let _closed = timeout(ANSWER_TIMEOUT, connection.close(200, "looked".into())).await;
        identity
    }

    async fn verify(&mut self) -> Result<Identity, Error> {
        Routes::new(&self.options, &self.feeds, Limits::NONE)?;
        let (link, _lock, identity) = Link::open(&self.options, &self.known).await?;
        link.close().await?;
        self.known.clone_from(&identity);
        Ok(identity)
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        Routes::new(&self.options, &self.feeds, Limits::NONE)?;
        preflight::preflight(&self.options, &self.feeds).await
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        self.last.join().await;
        let (link, lock, identity) = Link::open(&self.options, &self.known).await?;
        let frame_bytes = link.connection.configuration().frame_max() as usize;
        let limits = Limits { frame_bytes, body_bytes: self.body_bytes_max.load(atomic::Ordering::Relaxed) };
        let routes = Routes::new(&self.options, &self.feeds, limits)?;
        let events = Box::pin(link.connection.events_listener());
        let (send_window, order) = (SendWindow::new(self.options.window), Order::new(self.options.ordering));
        let confirm_timeout = ConfirmTimeout::new(self.metrics.clone(), link.party.clone(), link.traffic.clone(), self.given_up.clone());
        let publisher = Publisher::new(link.channel.clone(), events, lock, routes, send_window, order, confirm_timeout);
        let (submissions, inlet) = mpsc::channel(1);
        let body_bytes_max = Arc::clone(&self.body_bytes_max);
        let task = tokio::spawn(async move {
            let ended = publisher.run(inlet).await;
            if let Err(Error::MessageLimit { limit_bytes, .. }) = &ended {
                body_bytes_max.store(*limit_bytes, atomic::Ordering::Relaxed);
            }
            ended
        });
        let last = self.last.clone();
        Ok((Session { submissions: Some(submissions), task: Some(task), link: Some(link), failure: None, last }, identity))
    }
}

/// One session with RabbitMQ.
#[derive(Debug)]
pub struct Session {
    /// `None` once nothing more will come.
    submissions: Option<mpsc::Sender<Submission>>,
    /// `None` once its end was seen.
    task: Option<JoinHandle<Result<(), Error>>>,
    link: Option<Link>,
    failure: Option<Error>,
    last: Last,
}

impl Session {
    /// How the publisher ended.
    async fn ended(&mut self) -> Result<(), Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Some(task) = self.task.as_mut() else { return Ok(()) };
        let ended = match task.await {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Unconfirmed { reason: "the session was given up".to_owned() }),
            },
        };
        self.task = None;
        self.failure = ended.as_ref().err().cloned();
        ended
    }
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Error> {
        let submission = Submission { batch, ack, begun: Instant::now() };
        let taken = match &self.submissions {
            Some(submissions) => submissions.send(submission).await.is_ok(),
            None => false,
        };
        if taken {
            return Ok(());
        }
        self.ended().await?;
        Err(self.failure())
    }

    fn failure(&mut self) -> Error {
        use futures_util::FutureExt as _;
        if let Some(Err(error)) = self.ended().now_or_never() {
            return error;
        }
        Error::Unconfirmed { reason: "the session ended first".to_owned() }
    }

    async fn failed(&mut self) -> Error {
        match self.ended().await {
            Err(error) => error,
            // It was closed.
            Ok(()) => std::future::pending().await,
        }
    }

    async fn close(mut self) -> Result<(), Error> {
        self.submissions = None;
        self.ended().await?;
        match self.link.take() {
            Some(link) => link.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A session that is given up ends with all that it carries: the acks say that it is lost.
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(link) = self.link.take() {
            self.last.set(tokio::spawn(async move {
                if let Err(error) = link.close().await {
                    tracing::debug!(%error, "a connection that was given up did not end in order");
                }
            }));
        }
    }
}
