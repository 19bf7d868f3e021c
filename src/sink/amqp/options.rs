//! Options of the RabbitMQ sink: brokers, login, exchange, queues.

use crate::format::Format;
use crate::net::Trust;
use crate::net::secret::Secret;
use std::fmt;
use std::sync::Arc;

/// The network address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The address of the management API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    /// Host and port.
    pub address: Address,
    /// Whether it uses TLS, with the trust settings of the broker.
    pub is_encrypted: bool,
}

/// A queue that feedline declares and binds to the exchange.
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
    /// The queue of dead letters: a stream, which keeps its messages when they are read.
    pub(super) fn of_dead_letters(name: &str) -> Self {
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
    /// A log: reading does not remove messages.
    Stream,
}

impl QueueType {
    /// The value of `x-queue-type`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

/// The order that holds after a queue refuses an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// The refused event and all events after it are sent again. Later events may have been stored before it.
    #[default]
    GoBack,
    /// No event is sent while an earlier event of the same key is unconfirmed.
    PerKey,
}

/// Options of the RabbitMQ sink.
#[derive(Clone, Debug)]
pub struct Options {
    /// The nodes of one cluster, in the order in which they are tried.
    pub addresses: Vec<Address>,
    /// TLS.
    pub trust: Trust,
    /// Whether the client certificate is the login (SASL `EXTERNAL`).
    pub external: bool,
    /// User.
    pub user: String,
    /// Password.
    pub password: Option<Secret>,
    /// Virtual host.
    pub vhost: String,
    /// The topic exchange.
    pub exchange: String,
    /// Whether a missing exchange is declared. If false, it is only verified.
    pub declare: bool,
    /// The name of the dead-letter exchange and of its queue. `None`: the first unpublishable event stops the pipeline.
    pub dead_letter: Option<Arc<str>>,
    /// Queues to declare and bind.
    pub queues: Vec<Queue>,
    /// The format of the events, which names their headers.
    pub format: Format,
    /// The order that holds after a queue refuses an event.
    pub ordering: Ordering,
    /// How many events may be unconfirmed.
    pub window: usize,
    /// The management API, which only the preflight uses.
    pub management: Option<Management>,
    /// The pipeline's name; the names of the lock and of the checkpoint's queue begin with it.
    pub pipeline: Arc<str>,
    /// Whether the checkpoint is stored in this broker, which needs more permissions.
    pub keeps_checkpoint: bool,
}

impl Options {
    /// The name of the exclusive queue that is the pipeline's lock.
    pub(super) fn lock(&self) -> String {
        format!("{}.lock", self.pipeline)
    }
}
