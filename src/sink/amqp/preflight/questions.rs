//! What a broker is asked, each question on a channel of its own, which a refusal closes. No question changes anything.
//!
//! Some questions ask for what RabbitMQ refuses in any case. It checks the permission first, then what is there, then the arguments
//! (`rabbit_channel:handle_method`, the same from 3.10 to 4): at what it refuses tells the rest.

use super::Look;
use crate::sink::amqp::Queue;
use crate::sink::amqp::error::{Error, is_of_topic, refusal};
use crate::sink::amqp::link::{self, ANSWER_TIMEOUT};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ErrorKind, ExchangeKind};
use tokio::time::timeout;

/// Whose name nothing else has: an argument's, a user's.
const NOBODY: &str = "feedline-check";

/// What a broker said, with its words.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Yes,
    /// The user may not.
    Refused(String),
    /// Something that was named is not there.
    Missing(String),
    /// Another connection owns it.
    Locked(String),
    /// It is there otherwise, or cannot be as it was asked for.
    Unfit(String),
    /// What no broker is known to say here.
    Odd(String),
    /// Nothing in time.
    Silence,
}

impl Answer {
    /// Its words.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Yes => "there is nothing wrong",
            Self::Refused(reason) | Self::Missing(reason) | Self::Locked(reason) | Self::Unfit(reason) | Self::Odd(reason) => reason,
            Self::Silence => "the broker does not answer",
        }
    }

    /// Whether the user may do what was asked for; `None` where the answer does not say it.
    pub(super) const fn is_permitted(&self) -> Option<bool> {
        match self {
            Self::Refused(_) => Some(false),
            Self::Yes | Self::Missing(_) | Self::Locked(_) | Self::Unfit(_) => Some(true),
            Self::Odd(_) | Self::Silence => None,
        }
    }

    /// Whether the user may do it, but not with this routing key.
    pub(super) fn is_of_a_topic(&self) -> bool {
        matches!(self, Self::Refused(reason) if is_of_topic(reason))
    }
}

impl Look<'_> {
    /// Asks on a channel of its own.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Error> {
        let asked = async {
            let channel = self.connection.create_channel().await?;
            question.put(&self.connection, &channel).await?;
            channel.close(200, "answered".into()).await
        };
        let Ok(answered) = timeout(ANSWER_TIMEOUT, asked).await else { return Ok(Answer::Silence) };
        let Err(error) = answered else { return Ok(Answer::Yes) };
        match refusal(&error) {
            Some((AMQPErrorKind::Soft(kind), reason)) => Ok(match kind {
                AMQPSoftError::ACCESSREFUSED => Answer::Refused(reason),
                AMQPSoftError::NOTFOUND => Answer::Missing(reason),
                AMQPSoftError::RESOURCELOCKED => Answer::Locked(reason),
                AMQPSoftError::PRECONDITIONFAILED => Answer::Unfit(reason),
                _ => Answer::Odd(reason),
            }),
            _ => Err(Error::of_session(&error, &self.party)),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'q> {
    /// Is there an exchange of this name?
    Exchange(&'q str),
    /// Is there a queue of this name?
    Queue(&'q str),
    /// Is the exchange that is there such a one?
    SameExchange(&'q str, &'q ExchangeKind),
    /// Is the queue that is there such a one?
    SameQueue(&'q Queue),
    /// May the user make such an exchange, and is the one that is there such a one? None is made: its alternate exchange's name is no text.
    UnmakeableExchange(&'q str, &'q ExchangeKind),
    /// May the user make a queue of this name? None is made: its dead-letter exchange's name is no text.
    UnmakeableQueue(&'q str),
    /// May the user read the queue, which is not there, or another connection's?
    Reading(&'q str),
    /// May the user publish there? Nothing is published: its time to live is no number.
    Publishing { exchange: &'q str, key: &'q str },
    /// May the user, who may publish there, do it with this key? Nothing is published: it says that somebody else sends it.
    PublishingKey { exchange: &'q str, key: &'q str },
    /// May the user bind the queue with this key? A binding with nobody's argument is not there to be taken away.
    UnbindingQueue { queue: &'q str, exchange: &'q str, key: &'q str },
    /// May the user, who may write to the exchange, also read from it?
    UnbindingExchange(&'q str),
}

impl Question<'_> {
    async fn put(self, connection: &Connection, channel: &Channel) -> lapin::Result<()> {
        match self {
            Self::Exchange(name) => {
                let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                channel.exchange_declare(name.into(), ExchangeKind::Topic, passive, FieldTable::default()).await
            }
            Self::Queue(name) => {
                let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name.into(), passive, FieldTable::default()).await.map(drop)
            }
            Self::SameExchange(name, kind) => declare(channel, name, kind, FieldTable::default()).await,
            Self::SameQueue(queue) => link::declare_queue(channel, queue).await,
            Self::UnmakeableExchange(name, kind) => declare(channel, name, kind, set("alternate-exchange")).await,
            Self::UnmakeableQueue(name) => {
                let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name.into(), durable, set("x-dead-letter-exchange")).await.map(drop)
            }
            Self::Reading(queue) => channel.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop),
            Self::Publishing { exchange, key } => {
                publish(channel, exchange, key, BasicProperties::default().with_expiration("-".into())).await
            }
            Self::PublishingKey { exchange, key } => publish_as_nobody(connection, channel, exchange, key).await,
            Self::UnbindingQueue { queue, exchange, key } => {
                channel.queue_unbind(queue.into(), exchange.into(), key.into(), set(NOBODY)).await
            }
            Self::UnbindingExchange(name) => {
                let options = ExchangeUnbindOptions::default();
                channel.exchange_unbind(name.into(), name.into(), "".into(), options, set(NOBODY)).await
            }
        }
    }
}

async fn declare(channel: &Channel, name: &str, kind: &ExchangeKind, arguments: FieldTable) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind.clone(), durable, arguments).await
}

/// Publishes what is refused for its properties. One frame and no other: what follows it might meet the channel's end.
async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"", properties).await?.await.map(drop)
}

/// Publishes in the name of another user, which RabbitMQ refuses after it has looked at the key. At the time to live 3.10 looks later
/// than at the key, and 4.0 sooner (`rabbit_channel:handle_method`).
///
/// It is done in a transaction that is taken back: who may use any name (the tag `impersonator`) publishes nothing either.
async fn publish_as_nobody(connection: &Connection, channel: &Channel, exchange: &str, key: &str) -> lapin::Result<()> {
    let foreign = BasicProperties::default().with_user_id(NOBODY.into());
    channel.tx_select().await?;
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"", foreign.clone()).await?;
    match channel.tx_rollback().await {
        // It met the channel's end: the name was refused, and the words are lost.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {
            publish(&connection.create_channel().await?, exchange, key, foreign).await
        }
        answered => answered,
    }
}

/// One argument, of a type that none of those which are set here has.
fn set(argument: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(argument.into(), AMQPValue::Boolean(true));
    arguments
}

/// The value that RabbitMQ names where one that is there differs: `... but current is the value 'x' of type 'longstr'`.
pub(super) fn current(reason: &str) -> Option<String> {
    let (_, current) = reason.split_once("but current is ")?;
    let (_, value) = current.split_once('\'')?;
    let (value, _) = value.rsplit_once("' of type").or_else(|| value.rsplit_once('\''))?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::current;

    #[test]
    fn the_value_that_is_there_is_read_from_the_brokers_words() {
        let said =
            "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': received 'true' but current is ";
        assert_eq!(current(&format!("{said}'ae'")).as_deref(), Some("ae"));
        assert_eq!(current(&format!("{said}the value 'it's' of type 'longstr'")).as_deref(), Some("it's"));
        assert_eq!(current(&format!("{said}none")), None);
        assert_eq!(current("NOT_FOUND"), None);
    }
}
