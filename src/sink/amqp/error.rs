//! Errors of the RabbitMQ sink, and how the client's errors map to them.

use super::dial::NOT_AMQP;
use super::options::{Address, Options};
use super::permissions::{Permissions, grant_every_key, shell_word};
use crate::checkpoint::Identity;
use crate::fault::{Classify, Code, Fault};
use crate::net::Failure;
use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// Why events could not be published.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection could not be opened.
    #[error("RabbitMQ at {address} cannot be reached: {reason}; check sink.host and sink.port, and that the broker runs")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The reason from the system or the client.
        reason: String,
    },
    /// The broker refused the user or the password.
    #[error("RabbitMQ at {address} refused user {user:?}; check sink.user and sink.password_file")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
    },
    /// The virtual host does not exist, or is closed to the user.
    #[error("virtual host {vhost:?} of RabbitMQ at {address} cannot be opened: {reason}; check sink.vhost, or run: {remedy}")]
    VirtualHost {
        /// Host and port.
        address: String,
        /// Its name.
        vhost: String,
        /// The broker's message.
        reason: String,
        /// The command that makes the virtual host usable.
        remedy: String,
    },
    /// The user lacks a permission.
    #[error("RabbitMQ refused: {reason}; run: {grant} (it replaces the user's permissions: add any others that it needs)")]
    Privilege {
        /// The command that grants what is needed.
        grant: String,
        /// The broker's message.
        reason: String,
    },
    /// Another connection owns the lock.
    #[error("another instance holds the queue {lock} on RabbitMQ at {address}; stop it, or wait until the broker notices that it is gone")]
    LockHeld {
        /// Host and port.
        address: String,
        /// The queue that is the lock.
        lock: String,
    },
    /// An ordinary queue has the name of the lock.
    #[error(
        "queue {queue:?} on RabbitMQ at {address} is not feedline's lock: somebody else made it; delete it with its messages, or rename the pipeline"
    )]
    LockNameTaken {
        /// Host and port.
        address: String,
        /// The queue.
        queue: String,
    },
    /// The broker is not the one that the checkpoint was made with.
    #[error("another RabbitMQ answers: {now:?}, not {known:?}; point the pipeline back, or run `feedline checkpoint accept-sink`")]
    Foreign {
        /// The expected broker.
        known: Identity,
        /// The broker that answered.
        now: Identity,
    },
    /// The exchange cannot be used.
    #[error("exchange {exchange:?}: {reason}; name another one, or make it durable, of type {kind}, neither auto-delete nor internal")]
    Exchange {
        /// Its name.
        exchange: String,
        /// The required type.
        kind: &'static str,
        /// The broker's message.
        reason: String,
    },
    /// A queue cannot be declared or bound as configured.
    #[error("queue {queue:?}: {reason}; make [[sink.queues]] match it, or delete it with its messages")]
    Queue {
        /// Its name.
        queue: String,
        /// The broker's message.
        reason: String,
    },
    /// A table's routing key is longer than the protocol allows.
    #[error("routing key {key:.40}... of table {table} has {} bytes, AMQP allows 255; set a shorter feeds.routing_key", key.len())]
    RoutingKey {
        /// `schema.table`.
        table: String,
        /// The key.
        key: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with RabbitMQ at {address}: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// The cause and the remedy.
        reason: String,
    },
    /// No queue takes an event: the broker returned it, and it is not delivered.
    #[error(
        "exchange {exchange:?} has no binding for routing key {key:?}: event {id} is not delivered; bind a queue, for example with the key \"#\""
    )]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        key: String,
        /// The event's id.
        id: String,
    },
    /// An event is larger than the broker accepts.
    #[error("event {id} of table {table}: {reason}; raise that limit of the broker, or leave the table out")]
    TooLarge {
        /// The event's id.
        id: String,
        /// `schema.table`.
        table: String,
        /// What is too large, and the limit.
        reason: String,
    },
    /// The broker refused an event for its size without naming it. The next session knows the limit and names the event.
    #[error("the broker accepts at most {limit_bytes} bytes per message ({reason}); the next session finds the event that is larger")]
    MessageLimit {
        /// Its `max_message_size`.
        limit_bytes: usize,
        /// The broker's message.
        reason: String,
    },
    /// Events were not confirmed. The next session sends them again.
    #[error("events were not confirmed: {reason}; they are sent again")]
    Unconfirmed {
        /// The first cause.
        reason: String,
    },
}

/// The broker and login that error messages name.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) exchange: String,
    pub(super) lock: String,
    /// The command that grants the user all permissions that it needs.
    pub(super) grant: String,
}

impl Peer {
    pub(super) fn new(options: &Options, address: &Address) -> Self {
        Self {
            address: address.to_string(),
            user: options.user.clone(),
            vhost: options.vhost.clone(),
            exchange: options.exchange.clone(),
            lock: options.lock(),
            grant: Permissions::of(options).command(),
        }
    }
}

impl Error {
    /// Maps an error of the client while a connection is opened.
    pub(super) fn of_opening(error: &lapin::Error, peer: &Peer) -> Self {
        let Some((kind, reason)) = refusal(error) else {
            let reason = if matches!(error.kind(), ErrorKind::ParsingError(_)) { NOT_AMQP.to_owned() } else { error.to_string() };
            return Self::Unreachable { address: peer.address.clone(), reason };
        };
        let (address, user) = (peer.address.clone(), peer.user.clone());
        match kind {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if reason.contains("Login was refused") => {
                Self::Authentication { address, user }
            }
            // A limit of connections: it passes when others close.
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if reason.contains("is reached") => Self::Unreachable { address, reason },
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
                let vhost = peer.vhost.clone();
                // The virtual host exists, but the user has no permissions there, or an authorisation service refuses.
                let is_closed = reason.contains("refused for user");
                let remedy = if is_closed { peer.grant.clone() } else { format!("rabbitmqctl add_vhost {}", shell_word(&vhost)) };
                Self::VirtualHost { address, vhost, reason, remedy }
            }
            _ => Self::of_session(error, peer),
        }
    }

    /// Maps an error of the client on an open connection or channel.
    pub(super) fn of_session(error: &lapin::Error, peer: &Peer) -> Self {
        let Some((kind, reason)) = refusal(error) else { return Self::Unconfirmed { reason: error.to_string() } };
        match kind {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                let grant = if is_of_routing_key(&reason) {
                    grant_every_key(&peer.vhost, &peer.user, exchange_of(&reason))
                } else {
                    peer.grant.clone()
                };
                Self::Privilege { grant, reason }
            }
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Self::LockHeld { address: peer.address.clone(), lock: peer.lock.clone() },
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) if let Some(limit_bytes) = message_limit(&reason) => {
                Self::MessageLimit { limit_bytes, reason }
            }
            _ => Self::Unconfirmed { reason },
        }
    }

    /// Maps a failed TCP or TLS connection.
    pub(super) fn of_dialling(failure: Failure, peer: &Peer) -> Self {
        let address = peer.address.clone();
        match failure {
            Failure::Connection(error) => Self::Unreachable { address, reason: error.to_string() },
            Failure::Tls(reason) => Self::Tls { address, reason },
        }
    }

    /// Maps an error of declaring, binding or reading a queue.
    pub(super) fn of_queue(error: &lapin::Error, queue: &str, peer: &Peer) -> Self {
        match refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND), reason)) if is_temporary(&reason) => {
                Self::Unreachable { address: peer.address.clone(), reason }
            }
            Some((
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED),
                reason,
            )) => Self::Queue { queue: queue.to_owned(), reason },
            Some((AMQPErrorKind::Hard(kind), reason)) if is_unsupported(&kind) => Self::Queue { queue: queue.to_owned(), reason },
            _ => Self::of_session(error, peer),
        }
    }

    /// Maps an error of declaring or verifying an exchange.
    pub(super) fn of_exchange(error: &lapin::Error, exchange: &str, kind: &'static str, peer: &Peer) -> Self {
        match refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED), reason)) => {
                Self::Exchange { exchange: exchange.to_owned(), kind, reason }
            }
            Some((AMQPErrorKind::Hard(hard), reason)) if is_unsupported(&hard) => {
                Self::Exchange { exchange: exchange.to_owned(), kind, reason }
            }
            _ => Self::of_session(error, peer),
        }
    }
}

/// Whether the user may use the exchange, but not with this routing key: "write access to topic 'public.orders.read' in exchange 'shop' in vhost '/'
/// refused for user 'feedline'".
pub(super) fn is_of_routing_key(reason: &str) -> bool {
    reason.contains("access to topic")
}

/// The exchange that such a message names.
fn exchange_of(reason: &str) -> &str {
    reason.split_once("in exchange '").and_then(|(_, rest)| rest.split_once("' in vhost")).map_or("", |(exchange, _)| exchange)
}

/// Whether the broker does not support what was asked for, such as a queue type whose feature is disabled. Trying again does not help.
const fn is_unsupported(kind: &AMQPHardError) -> bool {
    matches!(kind, AMQPHardError::NOTIMPLEMENTED | AMQPHardError::COMMANDINVALID)
}

/// Whether a queue is only temporarily unavailable: "home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible", "queue 'q'
/// in vhost '/' process is stopped by supervisor".
pub(super) fn is_temporary(reason: &str) -> bool {
    ["down or inaccessible", "timeout", "timed out", "stopped by supervisor"].iter().any(|text| reason.contains(text))
}

/// The limit in "message size 20000 is larger than configured max size 1000".
fn message_limit(reason: &str) -> Option<usize> {
    let (_, limit) = reason.split_once("larger than")?;
    let digits: String = limit.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The error that the broker itself sent, if it did.
pub(super) fn refusal(error: &lapin::Error) -> Option<(AMQPErrorKind, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => Some((refusal.kind().clone(), refusal.get_message().to_string())),
        _ => None,
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::LockHeld { .. } | Self::MessageLimit { .. } | Self::Unconfirmed { .. } => Fault::Transient,
            Self::Foreign { .. } => Fault::Gap,
            Self::Authentication { .. }
            | Self::VirtualHost { .. }
            | Self::Privilege { .. }
            | Self::LockNameTaken { .. }
            | Self::Exchange { .. }
            | Self::Queue { .. }
            | Self::RoutingKey { .. }
            | Self::Tls { .. }
            | Self::Unroutable { .. }
            | Self::TooLarge { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } => Code::SinkUnreachable,
            Self::Authentication { .. } => Code::SinkAuthentication,
            Self::VirtualHost { .. } => Code::VirtualHostMissing,
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::LockHeld { .. } => Code::SinkBusy,
            Self::Foreign { .. } => Code::SinkForeign,
            Self::Exchange { .. } => Code::ExchangeUnfit,
            Self::Queue { .. } | Self::LockNameTaken { .. } => Code::QueueUnfit,
            Self::RoutingKey { .. } => Code::DestinationInvalid,
            Self::Tls { .. } => Code::SinkTls,
            Self::Unroutable { .. } => Code::EventUnroutable,
            Self::TooLarge { .. } => Code::RecordTooLarge,
            Self::MessageLimit { .. } | Self::Unconfirmed { .. } => Code::RecordsUnconfirmed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Peer, is_temporary, message_limit};
    use crate::fault::{Classify as _, Code};
    use lapin::ErrorKind;
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

    fn peer() -> Peer {
        let owned = |text: &str| text.to_owned();
        Peer {
            address: owned("rabbit:5672"),
            user: owned("feedline"),
            vhost: owned("/"),
            exchange: owned("shop"),
            lock: owned("shop.lock"),
            grant: owned("rabbitmqctl set_permissions -p / feedline a b c"),
        }
    }

    fn sent(kind: AMQPErrorKind, reason: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::new(kind, reason.into())).into()
    }

    #[test]
    fn a_refused_routing_key_is_told_from_a_missing_permission() {
        let refused = |reason| Error::of_session(&sent(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), reason), &peer());
        let error = refused("write access to topic 'public.orders.read' in exchange 'shop' in vhost '/' refused for user 'feedline'");
        assert_eq!(error.code(), Code::SinkPrivilege);
        assert!(error.to_string().contains("rabbitmqctl set_topic_permissions -p / feedline shop '.*' '.*'"), "{error}");
        let error = refused("write access to exchange 'shop' in vhost '/' refused for user 'feedline'");
        assert!(error.to_string().contains("rabbitmqctl set_permissions"), "{error}");
    }

    #[test]
    fn a_closed_virtual_host_is_told_from_a_missing_one() {
        let opened = |reason| Error::of_opening(&sent(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), reason), &peer()).to_string();
        assert!(opened("vhost shop not found").contains("rabbitmqctl add_vhost"));
        let closed = opened("access to vhost '/' refused for user 'feedline'");
        assert!(closed.contains("set_permissions") && !closed.contains("add_vhost"), "{closed}");
    }

    #[test]
    fn the_message_limit_is_read_from_the_brokers_message() {
        assert_eq!(message_limit("PRECONDITION_FAILED - message size 20000 is larger than configured max size 1000"), Some(1_000));
        assert_eq!(message_limit("PRECONDITION_FAILED - message size 20000 larger than max size 134217728"), Some(134_217_728));
        assert_eq!(message_limit("PRECONDITION_FAILED - invalid expiration"), None);
    }

    #[test]
    fn a_queue_whose_node_is_down_is_temporarily_unavailable() {
        assert!(is_temporary("NOT_FOUND - home node 'rabbit@b' of durable queue 'billing' in vhost '/' is down or inaccessible"));
        assert!(!is_temporary("NOT_FOUND - no queue 'billing' in vhost '/'"));
    }
}
