//! Errors of the checkpoint's queue.

use crate::checkpoint::fencing::FencingError;
use crate::fault::{Classify, Code, Fault};
use crate::sink::amqp::error::{Error, Peer, is_temporary, refusal};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

/// Why the checkpoint could not be read or saved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The broker failed.
    #[error("the checkpoint's queue: {0}")]
    Broker(#[from] Error),
    /// The message found is not this pipeline's checkpoint, or is no longer ours.
    #[error(transparent)]
    Fencing(#[from] FencingError),
    /// The user lacks a permission.
    #[error(
        "RabbitMQ refused: {reason}; the checkpoint in queue {queue} needs more permissions than events do; run: {grant} \
         (it replaces the user's permissions: add any others that it needs)"
    )]
    Privilege {
        /// The checkpoint's queue.
        queue: String,
        /// The command that grants what is needed.
        grant: String,
        /// The broker's message.
        reason: String,
    },
    /// The queue is missing and not declared, or is of another kind.
    #[error(
        "queue {queue:?} cannot keep the checkpoint: {reason}; let sink.declare make it, or make a durable one without limits (quorum: x-delivery-limit=-1)"
    )]
    Queue {
        /// Its name.
        queue: String,
        /// The broker's message.
        reason: String,
    },
    /// Other clients consume the queue.
    #[error(
        "queue {queue:?} has {consumers} clients that consume it or hold its messages; close them: rabbitmqctl list_consumers, \
         list_queues name messages_unacknowledged"
    )]
    Consumed {
        /// The queue.
        queue: String,
        /// How many.
        consumers: u32,
    },
    /// A checkpoint was written, but the queue does not show it.
    #[error(
        "queue {queue:?} does not show its checkpoint; close the client that holds it (messages_unacknowledged), or, if it is gone, run \
         `feedline checkpoint reset` and `feedline detach`"
    )]
    Hidden {
        /// The queue.
        queue: String,
    },
}

impl CheckpointError {
    /// Maps an error of the client.
    pub(super) fn of(error: &lapin::Error, queue: &str, peer: &Peer) -> Self {
        match refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), reason)) if reason.contains("exclusive use") => {
                Self::Queue { queue: queue.to_owned(), reason }
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED), reason)) if reason.contains("single active consumer") => {
                Self::Queue { queue: queue.to_owned(), reason }
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), reason)) => {
                Self::Privilege { queue: queue.to_owned(), grant: peer.grant.clone(), reason }
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND), reason)) if is_temporary(&reason) => {
                Self::Broker(Error::Unreachable { address: peer.address.clone(), reason })
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED), reason)) => {
                Self::Queue { queue: queue.to_owned(), reason }
            }
            _ => Self::Broker(Error::of_session(error, peer)),
        }
    }

    /// The same error of a request about a lock. A lock is a queue that ends with the connection of another instance: if that happens between two
    /// steps of the broker, the lock is not found, and the next attempt finds it free.
    pub(super) fn of_lock(self) -> Self {
        match self {
            Self::Queue { reason, .. } if reason.starts_with("NOT_FOUND") => Self::Broker(Error::Unconfirmed { reason }),
            other => other,
        }
    }
}

impl Classify for CheckpointError {
    fn fault(&self) -> Fault {
        match self {
            Self::Broker(error) => error.fault(),
            Self::Fencing(error) => error.fault(),
            Self::Privilege { .. } | Self::Queue { .. } | Self::Consumed { .. } | Self::Hidden { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Broker(error) => error.code(),
            Self::Fencing(error) => error.code(),
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::Queue { .. } | Self::Consumed { .. } => Code::CheckpointStoreUnfit,
            Self::Hidden { .. } => Code::CheckpointUnreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckpointError, Classify as _, Fault};

    #[test]
    fn a_lock_that_ends_in_this_moment_is_waited_for() {
        let error = |reason: &str| CheckpointError::Queue { queue: "shop.checkpoint".to_owned(), reason: reason.to_owned() };
        let not_found = || error("NOT_FOUND - no queue 'shop.checkpoint.lock' in vhost '/'");
        assert_eq!((not_found().fault(), not_found().of_lock().fault()), (Fault::Fatal, Fault::Transient));
        assert_eq!(error("PRECONDITION_FAILED - inequivalent arg 'exclusive'").of_lock().fault(), Fault::Fatal);
    }
}
