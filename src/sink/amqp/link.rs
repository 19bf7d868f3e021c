//! A connection to the broker with its one channel, the pipeline's lock, and what is declared there.

use super::dial::{self, dial};
use super::error::{Error, Party};
use super::{Options, Place, Queue, QueueType};
use async_rs::TokioRuntime;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPAuthority, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long opening a connection, or one question on it, may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often both sides show that they are there, in seconds.
const HEARTBEAT_SECONDS: u16 = 10;

/// An open connection that owns the pipeline's lock.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    /// Whom it leads to.
    pub(super) party: Party,
    place: Place,
}

impl Link {
    /// Connects to the first broker that answers, takes the lock, and verifies the exchange or makes it, and the queues.
    ///
    /// The lock is an exclusive queue: the broker gives it to one connection, and lets go of it when that connection is gone and
    /// all that it had sent is dealt with. Who owns it publishes alone.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let (connection, party, place) = connect(options).await?;
        let prepared = timeout(ANSWER_TIMEOUT, prepare(&connection, options, &party)).await;
        let channel = prepared.unwrap_or_else(|_| Err(silent(&party)))?;
        Ok(Self { connection, channel, party, place })
    }

    /// The name of the cluster that it leads to.
    pub(super) async fn cluster_name(&self, options: &Options) -> Result<String, Error> {
        cluster_name(options, &self.place, &self.party).await
    }

    /// Ends in order; the lock is free when this returns.
    pub(super) async fn close(self) -> Result<(), Error> {
        match timeout(ANSWER_TIMEOUT, self.connection.close(200, "drained".into())).await {
            Ok(closed) => closed.map_err(|error| Error::of_session(&error, &self.party)),
            Err(_) => Err(Error::Unconfirmed { reason: "the broker does not answer".to_owned() }),
        }
    }
}

/// The name of the cluster at this place.
pub(super) async fn cluster_name(options: &Options, place: &Place, party: &Party) -> Result<String, Error> {
    let runtime = TokioRuntime::tokio_current();
    match timeout(ANSWER_TIMEOUT, dial::cluster_name(&runtime, place, &options.trust)).await {
        Ok(named) => named.map_err(|failure| Error::of_dialling(failure, party)),
        Err(_) => Err(silent(party)),
    }
}

/// A connection to the first broker that answers, whom it leads to, and where.
pub(super) async fn connect(options: &Options) -> Result<(Connection, Party, Place), Error> {
    let (mut addresses, mut reasons) = (Vec::new(), Vec::new());
    for place in &options.places {
        let party = options.party(place);
        let connected = timeout(ANSWER_TIMEOUT, connect_to(options, place, &party)).await;
        match connected.unwrap_or_else(|_| Err(silent(&party))) {
            Ok(connection) => return Ok((connection, party, place.clone())),
            Err(Error::Unreachable { address, reason }) => {
                addresses.push(address);
                reasons.push(reason);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unreachable { address: addresses.join(", "), reason: reasons.join("; ") })
}

async fn connect_to(options: &Options, place: &Place, party: &Party) -> Result<Connection, Error> {
    let runtime = TokioRuntime::tokio_current();
    let stream = dial(&runtime, place, &options.trust).await.map_err(|failure| Error::of_dialling(failure, party))?;
    // The client asks for a socket again when this one breaks in the middle: there is none, since a new session is ours to open.
    let handed = Mutex::new(Some(stream));
    let hand = async move |_: AMQPUri, _: TokioRuntime| {
        let stream = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected)))
    };
    let properties = ConnectionProperties::default().with_connection_name(format!("feedline/{}", options.pipeline).into());
    let connected = Connection::connector(uri(options, place), runtime, hand, properties).await;
    connected.map_err(|error| Error::of_opening(&error, party))
}

/// The broker did not answer in time.
pub(super) fn silent(party: &Party) -> Error {
    Error::Unreachable { address: party.address.clone(), reason: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()) }
}

fn uri(options: &Options, place: &Place) -> AMQPUri {
    let password = options.password.as_ref().map(|password| password.reveal().to_owned()).unwrap_or_default();
    let mut uri = AMQPUri {
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: options.user.clone(), password },
            host: place.host.clone(),
            port: place.port,
        },
        vhost: options.vhost.clone(),
        ..AMQPUri::default()
    };
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    uri.query.auth_mechanism = Some(if options.external { SASLMechanism::External } else { SASLMechanism::Plain });
    uri
}

/// The channel, once the lock is owned and all that was asked for is declared.
async fn prepare(connection: &Connection, options: &Options, party: &Party) -> Result<Channel, Error> {
    let of_session = |error: lapin::Error| Error::of_session(&error, party);
    let channel = connection.create_channel().await.map_err(of_session)?;
    let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(party.lock.as_str().into(), exclusive, FieldTable::default()).await.map_err(of_session)?;
    let declared = ExchangeDeclareOptions { durable: true, passive: !options.declare, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(party.exchange.as_str().into(), ExchangeKind::Topic, declared, FieldTable::default())
        .await
        .map_err(|error| Error::of_exchange(&error, &party.exchange, "topic", party))?;
    for queue in &options.queues {
        declare(&channel, queue, &party.exchange, party).await?;
    }
    if let Some(name) = options.dead_letter.as_deref() {
        dead_letters(&channel, name, options.declare, party).await?;
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(of_session)?;
    Ok(channel)
}

/// Makes the exchange of dead letters with its queue, a stream, from which nothing goes by being read; or verifies it.
async fn dead_letters(channel: &Channel, name: &str, makes: bool, party: &Party) -> Result<(), Error> {
    let declared = ExchangeDeclareOptions { durable: true, passive: !makes, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(name.into(), ExchangeKind::Fanout, declared, FieldTable::default())
        .await
        .map_err(|error| Error::of_exchange(&error, name, "fanout", party))?;
    if !makes {
        return Ok(());
    }
    let queue = Queue { name: name.to_owned(), keys: vec![String::new()], kind: QueueType::Stream };
    declare(channel, &queue, name, party).await
}

/// Makes a queue and binds it to an exchange.
async fn declare(channel: &Channel, queue: &Queue, exchange: &str, party: &Party) -> Result<(), Error> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue.kind.name().into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let of_queue = |error: lapin::Error| Error::of_queue(&error, &queue.name, party);
    channel.queue_declare(queue.name.as_str().into(), durable, arguments).await.map_err(of_queue)?;
    for key in &queue.keys {
        let name = queue.name.as_str().into();
        channel
            .queue_bind(name, exchange.into(), key.as_str().into(), QueueBindOptions::default(), FieldTable::default())
            .await
            .map_err(of_queue)?;
    }
    Ok(())
}
