//! Questions to a broker. Each uses a channel of its own, which a refusal closes. No question changes anything.
//!
//! A refusal is an error line in the broker's log, and AMQP answers no question about what is missing in another way. So of what exists only
//! questions are asked that the broker answers with yes if all is well. Of what is missing (the lock always is, while no instance runs), they
//! are requests that RabbitMQ always refuses. It checks the permission first, then what
//! exists, then the arguments (`rabbit_channel:handle_method`, the same from 3.10 to 4). So the error tells how far the request got.

use crate::sink::amqp::connect::ANSWER_TIMEOUT;
use crate::sink::amqp::declare;
use crate::sink::amqp::error::{Error, Peer, is_of_routing_key, refusal};
use crate::sink::amqp::options::Queue;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ErrorKind, ExchangeKind};
use tokio::time::timeout;

/// A name that no argument and no user has.
const UNUSED_NAME: &str = "feedline-check";

/// A broker's answer, with its message.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Yes,
    /// The user lacks the permission.
    Refused(String),
    /// A named resource does not exist.
    Missing(String),
    /// Another connection owns the queue.
    Locked(String),
    /// The resource differs from the request, or the arguments are invalid.
    Unfit(String),
    /// An unexpected error.
    Unexpected(String),
    /// No answer in time.
    Timeout,
}

impl Answer {
    /// The broker's message.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Yes => "no error",
            Self::Refused(reason) | Self::Missing(reason) | Self::Locked(reason) | Self::Unfit(reason) | Self::Unexpected(reason) => reason,
            Self::Timeout => "the broker does not answer",
        }
    }

    /// Whether the user has the permission that the question needs; `None` if the answer does not tell.
    pub(super) const fn is_permitted(&self) -> Option<bool> {
        match self {
            Self::Refused(_) => Some(false),
            Self::Yes | Self::Missing(_) | Self::Locked(_) | Self::Unfit(_) => Some(true),
            Self::Unexpected(_) | Self::Timeout => None,
        }
    }

    /// Whether the user has the permission, but not for this routing key.
    pub(super) fn is_of_routing_key(&self) -> bool {
        matches!(self, Self::Refused(reason) if is_of_routing_key(reason))
    }
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'q> {
    /// Does this exchange exist?
    Exchange(&'q str),
    /// Does this queue exist?
    Queue(&'q str),
    /// Is the existing exchange of this type?
    SameExchange(&'q str, &'q ExchangeKind),
    /// Is the existing queue like this one?
    SameQueue(&'q Queue),
    /// May the user declare this exchange, and is an existing one of this type? Nothing is declared: the alternate exchange is not a
    /// string.
    UndeclarableExchange(&'q str, &'q ExchangeKind),
    /// May the user declare this queue? Nothing is declared: the dead-letter exchange is not a string.
    UndeclarableQueue(&'q str),
    /// May the user read this queue? It does not exist, or another connection owns it.
    Reading(&'q str),
    /// May the user publish to this exchange, which does not exist? Should it exist by now, nothing is published: the time to live is not a
    /// number.
    PublishingToMissing { exchange: &'q str, key: &'q str },
    /// May the user publish to this exchange with this routing key? Nothing is published: the transaction is rolled back.
    Publishing { exchange: &'q str, key: &'q str },
    /// May the user bind this queue with this key? Nothing is unbound: no binding has the unused argument.
    UnbindingQueue { queue: &'q str, exchange: &'q str, key: &'q str },
    /// May the user read from this exchange, to which it may write?
    UnbindingExchange(&'q str),
}

impl Question<'_> {
    /// Asks on a channel of its own.
    pub(super) async fn ask(self, connection: &Connection, peer: &Peer) -> Result<Answer, Error> {
        let asked = async {
            let channel = connection.create_channel().await?;
            self.send(connection, &channel).await?;
            channel.close(200, "answered".into()).await
        };
        let Ok(answered) = timeout(ANSWER_TIMEOUT, asked).await else { return Ok(Answer::Timeout) };
        let Err(error) = answered else { return Ok(Answer::Yes) };
        match refusal(&error) {
            Some((AMQPErrorKind::Soft(kind), reason)) => Ok(match kind {
                AMQPSoftError::ACCESSREFUSED => Answer::Refused(reason),
                AMQPSoftError::NOTFOUND => Answer::Missing(reason),
                AMQPSoftError::RESOURCELOCKED => Answer::Locked(reason),
                AMQPSoftError::PRECONDITIONFAILED => Answer::Unfit(reason),
                _ => Answer::Unexpected(reason),
            }),
            _ => Err(Error::of_session(&error, peer)),
        }
    }

    async fn send(self, connection: &Connection, channel: &Channel) -> lapin::Result<()> {
        match self {
            Self::Exchange(name) => {
                let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                channel.exchange_declare(name.into(), ExchangeKind::Topic, passive, FieldTable::default()).await
            }
            Self::Queue(name) => {
                let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name.into(), passive, FieldTable::default()).await.map(drop)
            }
            Self::SameExchange(name, kind) => declare_exchange(channel, name, kind, FieldTable::default()).await,
            Self::SameQueue(queue) => declare::declare_queue(channel, queue).await,
            Self::UndeclarableExchange(name, kind) => declare_exchange(channel, name, kind, boolean_argument("alternate-exchange")).await,
            Self::UndeclarableQueue(name) => {
                let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name.into(), durable, boolean_argument("x-dead-letter-exchange")).await.map(drop)
            }
            Self::Reading(queue) => channel.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop),
            Self::PublishingToMissing { exchange, key } => {
                publish(channel, exchange, key, BasicProperties::default().with_expiration("-".into())).await
            }
            Self::Publishing { exchange, key } => publish_and_roll_back(connection, channel, exchange, key).await,
            Self::UnbindingQueue { queue, exchange, key } => {
                channel.queue_unbind(queue.into(), exchange.into(), key.into(), boolean_argument(UNUSED_NAME)).await
            }
            Self::UnbindingExchange(name) => {
                let options = ExchangeUnbindOptions::default();
                channel.exchange_unbind(name.into(), name.into(), "".into(), options, boolean_argument(UNUSED_NAME)).await
            }
        }
    }
}

async fn declare_exchange(channel: &Channel, name: &str, kind: &ExchangeKind, arguments: FieldTable) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind.clone(), durable, arguments).await
}

/// Publishes a message that is refused for its properties. The body is empty, so that no frame follows on a closed channel.
async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"", properties).await?.await.map(drop)
}

/// Publishes in a transaction that is rolled back. RabbitMQ checks the routing key at once, and keeps the message until the commit.
async fn publish_and_roll_back(connection: &Connection, channel: &Channel, exchange: &str, key: &str) -> lapin::Result<()> {
    channel.tx_select().await?;
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"", BasicProperties::default()).await?;
    match channel.tx_rollback().await {
        // The channel was closed for the routing key, and the broker's message is lost: ask again. In the name of another user nothing is
        // published, should the key be allowed by now. An invalid time to live would not do: 4.0 checks it before the routing key.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {
            let foreign = BasicProperties::default().with_user_id(UNUSED_NAME.into());
            publish(&connection.create_channel().await?, exchange, key, foreign).await
        }
        answered => answered,
    }
}

/// An argument of type boolean, which is invalid for all arguments used here.
fn boolean_argument(argument: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(argument.into(), AMQPValue::Boolean(true));
    arguments
}

/// The value of the existing resource in RabbitMQ's message about a difference: `... but current is the value 'x' of type 'longstr'`.
pub(super) fn current_value(reason: &str) -> Option<String> {
    let (_, current) = reason.split_once("but current is ")?;
    let (_, value) = current.split_once('\'')?;
    let (value, _) = value.rsplit_once("' of type").or_else(|| value.rsplit_once('\''))?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::current_value;

    #[test]
    fn the_current_value_is_read_from_the_brokers_message() {
        let message =
            "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': received 'true' but current is ";
        assert_eq!(current_value(&format!("{message}'ae'")).as_deref(), Some("ae"));
        assert_eq!(current_value(&format!("{message}the value 'it's' of type 'longstr'")).as_deref(), Some("it's"));
        assert_eq!(current_value(&format!("{message}none")), None);
        assert_eq!(current_value("NOT_FOUND"), None);
    }
}
