//! What can go wrong with a RabbitMQ broker, sorted by what can be done about it.

use super::dial::NOT_AMQP;
use super::permissions::{every_key, plain};
use crate::checkpoint::Identity;
use crate::fault::{Classify, Code, Fault};
use crate::net::Failure;
use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// Why events could not be published.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection, or it broke.
    #[error("RabbitMQ at {address} cannot be reached: {reason}; check sink.host and sink.port, and that the broker runs")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system or the client said.
        reason: String,
    },
    /// The broker refused user or password.
    #[error("RabbitMQ at {address} refused user {user:?}; check sink.user and sink.password_file")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
    },
    /// The virtual host is not there.
    #[error("virtual host {vhost:?} of RabbitMQ at {address} cannot be opened: {reason}; check sink.vhost, or run: {remedy}")]
    VirtualHost {
        /// Host and port.
        address: String,
        /// Its name.
        vhost: String,
        /// The broker's words.
        reason: String,
        /// The command after which it can be.
        remedy: String,
    },
    /// The user lacks a permission.
    #[error("RabbitMQ refused: {reason}; grant all that is needed: {grant} (it replaces what the user has: add what else it needs)")]
    Privilege {
        /// The command that grants what is needed.
        grant: String,
        /// The broker's words.
        reason: String,
    },
    /// Another connection holds the pipeline's lock.
    #[error(
        "another instance of this pipeline holds the queue {lock} on RabbitMQ at {address}; stop it, or wait until the broker has noticed that it is gone \
         (pipeline.takeover_timeout)"
    )]
    Held {
        /// Host and port.
        address: String,
        /// The queue.
        lock: String,
    },
    /// What has the name of the pipeline's lock is a queue of somebody else.
    #[error(
        "queue {queue:?} on RabbitMQ at {address} is no lock of feedline: somebody else made it; delete it (its messages are lost with it), or give the \
         pipeline another name"
    )]
    NoLock {
        /// Host and port.
        address: String,
        /// The queue.
        queue: String,
    },
    /// Another broker than the one whose exchange and queues are meant.
    #[error(
        "another RabbitMQ stands behind the address: {now:?}, and not {known:?}: what was sent there is missing here; point the pipeline back, or, \
         where it is the same one by another name, say so with `feedline checkpoint accept-sink`"
    )]
    Foreign {
        /// The one that is meant.
        known: Identity,
        /// The one that answers.
        now: Identity,
    },
    /// The exchange cannot be used.
    #[error(
        "exchange {exchange:?}: {reason}; a durable exchange of type {kind} is needed, neither auto-delete nor internal: name another one, or make it so"
    )]
    Exchange {
        /// Its name.
        exchange: String,
        /// The type that it should have.
        kind: &'static str,
        /// The broker's words.
        reason: String,
    },
    /// A queue cannot be made or bound as it is configured.
    #[error("queue {queue:?}: {reason}; make [[sink.queues]] say what it is, or delete it (its messages are lost with it)")]
    Queue {
        /// Its name.
        queue: String,
        /// The broker's words.
        reason: String,
    },
    /// A table's routing key is longer than the protocol allows.
    #[error("routing key {key:?} of table {table} has {} bytes, AMQP takes at most 255; set a shorter feeds.routing_key", key.len())]
    RoutingKey {
        /// `schema.table`.
        table: String,
        /// The key.
        key: String,
    },
    /// TLS could not be agreed on.
    #[error("TLS with RabbitMQ at {address}: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// No queue takes an event: it was returned, and is not delivered.
    #[error(
        "exchange {exchange:?} has no binding for routing key {key:?}: event {id} was returned and is not delivered; bind a queue to it (for example with \
         the key \"#\"), leave the operation out with feeds.operations, or let such events go to the dead letters (sink.on_unpublishable = \"dead_letter\")"
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
    #[error(
        "event {id} of table {table}: {reason}; raise the broker's limit, leave the table out, or let such events go to the dead letters \
         (sink.on_unpublishable = \"dead_letter\")"
    )]
    TooLarge {
        /// The event's id.
        id: String,
        /// `schema.table`.
        table: String,
        /// What is too large, and the limit.
        reason: String,
    },
    /// The broker refused an event for its size, and did not say which; the next session knows the limit and finds it.
    #[error("the broker takes messages of {limit_bytes} bytes at most ({reason}); the event that is larger is looked for")]
    MessageLimit {
        /// Its `max_message_size`.
        limit_bytes: usize,
        /// The broker's words.
        reason: String,
    },
    /// Events were not confirmed; the next session sends them again.
    #[error("events were not confirmed: {reason}; they are sent again")]
    Unconfirmed {
        /// What happened first.
        reason: String,
    },
}

/// Whom an error speaks of.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) exchange: String,
    pub(super) lock: String,
    /// The command that grants its user all that is needed.
    pub(super) grant: String,
}

impl Error {
    /// Sorts what the client reports while a connection is opened.
    pub(super) fn of_opening(error: &lapin::Error, party: &Party) -> Self {
        let Some((kind, reason)) = refusal(error) else {
            let reason = if matches!(error.kind(), ErrorKind::ParsingError(_)) { NOT_AMQP.to_owned() } else { error.to_string() };
            return Self::Unreachable { address: party.address.clone(), reason };
        };
        let (address, user) = (party.address.clone(), party.user.clone());
        match kind {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if reason.contains("Login was refused") => {
                Self::Authentication { address, user }
            }
            // Connections go, and then there is room for this one.
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if reason.contains("is reached") => Self::Unreachable { address, reason },
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
                let vhost = party.vhost.clone();
                // It is there, and closed to the user: without permissions, or for a service that is asked.
                let is_closed = reason.contains("refused for user");
                let remedy = if is_closed { party.grant.clone() } else { format!("rabbitmqctl add_vhost {}", plain(&vhost)) };
                Self::VirtualHost { address, vhost, reason, remedy }
            }
            _ => Self::of_session(error, party),
        }
    }

    /// Sorts what the client reports of an open connection or channel.
    pub(super) fn of_session(error: &lapin::Error, party: &Party) -> Self {
        let Some((kind, reason)) = refusal(error) else { return Self::Unconfirmed { reason: error.to_string() } };
        match kind {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                let grant =
                    if is_of_topic(&reason) { every_key(&party.vhost, &party.user, exchange_of(&reason)) } else { party.grant.clone() };
                Self::Privilege { grant, reason }
            }
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Self::Held { address: party.address.clone(), lock: party.lock.clone() },
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) if let Some(limit_bytes) = message_limit(&reason) => {
                Self::MessageLimit { limit_bytes, reason }
            }
            _ => Self::Unconfirmed { reason },
        }
    }

    /// Why there is no socket.
    pub(super) fn of_dialling(failure: Failure, party: &Party) -> Self {
        let address = party.address.clone();
        match failure {
            Failure::Connection(error) => Self::Unreachable { address, reason: error.to_string() },
            Failure::Tls(reason) => Self::Tls { address, reason },
        }
    }

    /// What the broker says when a queue is declared or bound.
    pub(super) fn of_queue(error: &lapin::Error, queue: &str, party: &Party) -> Self {
        match refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND), reason)) if is_passing(&reason) => {
                Self::Unreachable { address: party.address.clone(), reason }
            }
            Some((
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED),
                reason,
            )) => Self::Queue { queue: queue.to_owned(), reason },
            Some((AMQPErrorKind::Hard(kind), reason)) if is_unknown(&kind) => Self::Queue { queue: queue.to_owned(), reason },
            _ => Self::of_session(error, party),
        }
    }

    /// What the broker says when the exchange is declared or looked for.
    pub(super) fn of_exchange(error: &lapin::Error, exchange: &str, kind: &'static str, party: &Party) -> Self {
        match refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED), reason)) => {
                Self::Exchange { exchange: exchange.to_owned(), kind, reason }
            }
            Some((AMQPErrorKind::Hard(hard), reason)) if is_unknown(&hard) => {
                Self::Exchange { exchange: exchange.to_owned(), kind, reason }
            }
            _ => Self::of_session(error, party),
        }
    }
}

/// Whether the user may use an exchange, but not with this key: "write access to topic 'public.orders.read' in exchange 'shop' in vhost '/'
/// refused for user 'feedline'".
pub(super) fn is_of_topic(reason: &str) -> bool {
    reason.contains("access to topic")
}

/// The exchange that such a refusal names.
fn exchange_of(reason: &str) -> &str {
    reason.split_once("in exchange '").and_then(|(_, rest)| rest.split_once("' in vhost")).map_or("", |(exchange, _)| exchange)
}

/// Whether the broker does not know what it is asked for, as a kind of queue of a feature that is not enabled: it says so each time.
const fn is_unknown(kind: &AMQPHardError) -> bool {
    matches!(kind, AMQPHardError::NOTIMPLEMENTED | AMQPHardError::COMMANDINVALID)
}

/// Whether a queue is only out of reach: "home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible", "queue 'q'
/// in vhost '/' process is stopped by supervisor".
pub(super) fn is_passing(reason: &str) -> bool {
    ["down or inaccessible", "timeout", "timed out", "stopped by supervisor"].iter().any(|words| reason.contains(words))
}

/// The limit in "message size 20000 is larger than configured max size 1000".
fn message_limit(reason: &str) -> Option<usize> {
    let (_, limit) = reason.split_once("larger than")?;
    let digits: String = limit.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// What the broker itself said.
pub(super) fn refusal(error: &lapin::Error) -> Option<(AMQPErrorKind, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => Some((refusal.kind().clone(), refusal.get_message().to_string())),
        _ => None,
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Held { .. } | Self::MessageLimit { .. } | Self::Unconfirmed { .. } => Fault::Transient,
            Self::Foreign { .. } => Fault::Gap,
            Self::Authentication { .. }
            | Self::VirtualHost { .. }
            | Self::Privilege { .. }
            | Self::NoLock { .. }
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
            Self::Held { .. } => Code::SinkBusy,
            Self::Foreign { .. } => Code::SinkForeign,
            Self::Exchange { .. } => Code::ExchangeUnfit,
            Self::Queue { .. } | Self::NoLock { .. } => Code::QueueUnfit,
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
    use super::{Error, Party, is_passing, message_limit};
    use crate::fault::{Classify as _, Code};
    use lapin::ErrorKind;
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

    fn party() -> Party {
        let text = |text: &str| text.to_owned();
        Party {
            address: text("rabbit:5672"),
            user: text("feedline"),
            vhost: text("/"),
            exchange: text("shop"),
            lock: text("shop.lock"),
            grant: text("rabbitmqctl set_permissions -p / feedline a b c"),
        }
    }

    fn said(kind: AMQPErrorKind, reason: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::new(kind, reason.into())).into()
    }

    #[test]
    fn a_key_that_the_user_may_not_use_is_no_lack_of_permissions() {
        let refused = |reason| Error::of_session(&said(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), reason), &party());
        let error = refused("write access to topic 'public.orders.read' in exchange 'shop' in vhost '/' refused for user 'feedline'");
        assert_eq!(error.code(), Code::SinkPrivilege);
        assert!(error.to_string().contains("rabbitmqctl set_topic_permissions -p / feedline shop '.*' '.*'"), "{error}");
        let error = refused("write access to exchange 'shop' in vhost '/' refused for user 'feedline'");
        assert!(error.to_string().contains("rabbitmqctl set_permissions"), "{error}");
    }

    #[test]
    fn a_virtual_host_that_is_closed_is_told_from_one_that_is_missing() {
        let opened = |reason| Error::of_opening(&said(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), reason), &party()).to_string();
        assert!(opened("vhost shop not found").contains("rabbitmqctl add_vhost"));
        let closed = opened("access to vhost '/' refused for user 'feedline'");
        assert!(closed.contains("set_permissions") && !closed.contains("add_vhost"), "{closed}");
    }

    #[test]
    fn the_limit_of_a_message_is_read_from_the_refusal() {
        assert_eq!(message_limit("PRECONDITION_FAILED - message size 20000 is larger than configured max size 1000"), Some(1_000));
        assert_eq!(message_limit("PRECONDITION_FAILED - message size 20000 larger than max size 134217728"), Some(134_217_728));
        assert_eq!(message_limit("PRECONDITION_FAILED - invalid expiration"), None);
    }

    #[test]
    fn a_queue_whose_node_is_down_is_waited_for() {
        assert!(is_passing("NOT_FOUND - home node 'rabbit@b' of durable queue 'billing' in vhost '/' is down or inaccessible"));
        assert!(!is_passing("NOT_FOUND - no queue 'billing' in vhost '/'"));
    }
}
