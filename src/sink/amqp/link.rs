//! A connection to the broker with its one channel, the pipeline's lock, and what is declared there.

use super::dial::{self, Greeting, Hold};
use super::error::{Error, Party};
use super::guard::Guarded;
use super::lock::Lock;
use super::socket::{self, CountingRuntime, Kit, Traffic};
use super::{Address, Options, Queue};
use crate::checkpoint::Identity;
use crate::net::Failure;
use crate::net::secret::Secret;
use async_rs::Runtime;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPAuthority, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long opening a connection, or one question on it, may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How large a frame may be, whatever the broker would take: the client keeps buffers of many times this size. It is RabbitMQ's own
/// default.
pub(super) const FRAME_BYTES_MAX: u32 = 128 << 10;
/// As many channels are open at once, at most; a look has one for each question, which a refusal may still be closing.
const CHANNELS_MAX: u16 = 256;
/// How often both sides show that they are there, in seconds.
const HEARTBEAT_SECONDS: u16 = 10;

/// An open connection to the broker.
pub(super) struct Connected {
    pub(super) connection: Connection,
    /// Whom it leads to.
    pub(super) party: Party,
    pub(super) place: Address,
    /// What went over it.
    pub(super) traffic: Traffic,
}

/// An open connection with its channel.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    /// Whom it leads to.
    pub(super) party: Party,
    /// What went over it.
    pub(super) traffic: Traffic,
}

impl Link {
    /// Connects to the first broker that answers, takes the lock, and verifies the exchange or makes it, and the queues.
    ///
    /// The lock is an exclusive queue: the broker gives it to one connection, and lets go of it when that connection is gone and
    /// all that it had sent is dealt with. Who owns it publishes alone.
    ///
    /// At another broker than the one that is known nothing is made.
    pub(super) async fn open(options: &Options, known: &Identity) -> Result<(Self, Lock, Identity), Error> {
        let Connected { connection, party, place, traffic } = connect(options).await?;
        let prepared = async {
            let identity = identity(options, &place, &party).await?;
            expect(&identity, known)?;
            match timeout(ANSWER_TIMEOUT, prepare(&connection, options, &party)).await {
                Ok(prepared) => prepared.map(|(channel, lock)| (channel, lock, identity)),
                Err(_) => Err(silent(&party)),
            }
        };
        match prepared.await {
            Ok((channel, lock, identity)) => Ok((Self { connection, channel, party, traffic }, lock, identity)),
            Err(error) => {
                // Or the next to open one, perhaps at once, would find its own lock held. What this says is known already.
                let _closed = timeout(ANSWER_TIMEOUT, connection.close(200, "refused".into())).await;
                Err(error)
            }
        }
    }

    /// Ends in order; the lock is free when this returns.
    pub(super) async fn close(self) -> Result<(), Error> {
        match timeout(ANSWER_TIMEOUT, self.connection.close(200, "drained".into())).await {
            Ok(closed) => closed.map_err(|error| Error::of_session(&error, &self.party)),
            Err(_) => Err(Error::Unconfirmed { reason: "the broker does not answer".to_owned() }),
        }
    }
}

/// Who the broker at this place is: by the name of its cluster.
pub(super) async fn identity(options: &Options, place: &Address, party: &Party) -> Result<Identity, Error> {
    let unnamed = || io::Error::other("it does not tell the name of its cluster, as RabbitMQ does");
    let cluster = greeting(options, place, party).await?.property("cluster_name");
    let cluster = cluster.ok_or_else(|| Error::of_dialling(Failure::Connection(unnamed()), party))?;
    Ok(Identity::from([("rabbitmq_cluster".to_owned(), cluster), ("vhost".to_owned(), options.vhost.clone())]))
}

/// Refuses another broker than the one that is known.
fn expect(now: &Identity, known: &Identity) -> Result<(), Error> {
    if known.is_empty() || known == now { Ok(()) } else { Err(Error::Foreign { known: known.clone(), now: now.clone() }) }
}

/// A connection to the first broker that answers.
pub(super) async fn connect(options: &Options) -> Result<Connected, Error> {
    let (mut addresses, mut reasons) = (Vec::new(), Vec::new());
    for place in &options.places {
        let party = options.party(place);
        let connected = timeout(ANSWER_TIMEOUT, connect_to(options, place, &party)).await;
        match connected.unwrap_or_else(|_| Err(silent(&party))) {
            Ok((connection, traffic)) => return Ok(Connected { connection, party, place: place.clone(), traffic }),
            Err(Error::Unreachable { address, reason }) => {
                addresses.push(address);
                reasons.push(reason);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unreachable { address: addresses.join(", "), reason: reasons.join("; ") })
}

/// What the broker says of itself.
pub(super) async fn greeting(options: &Options, place: &Address, party: &Party) -> Result<Greeting, Error> {
    let runtime = socket::runtime();
    match timeout(ANSWER_TIMEOUT, dial::greeting(&runtime, place, &options.trust)).await {
        Ok(greeted) => greeted.map_err(|failure| Error::of_dialling(failure, party)),
        Err(_) => Err(silent(party)),
    }
}

async fn connect_to(options: &Options, place: &Address, party: &Party) -> Result<(Connection, Traffic), Error> {
    let runtime: CountingRuntime = socket::runtime();
    let of_dialling = |failure| Error::of_dialling(failure, party);
    let socket = dial::socket(&runtime, place).await.map_err(of_dialling)?;
    let hold = Hold::on(&socket).map_err(of_dialling)?;
    let traffic = socket.traffic.clone();
    let stream = dial::encrypt(socket, place, &options.trust).await.map_err(of_dialling)?;
    // The client asks for a socket again when this one breaks in the middle: there is none, since a new session is ours to open.
    let handed = Mutex::new(Some(Guarded::new(stream)));
    let hand = async move |_: AMQPUri, _: Runtime<Kit<Guarded>>| {
        let stream = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map(AsyncTcpStream::Plain).ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected)))
    };
    let properties = ConnectionProperties::default().with_connection_name(format!("feedline/{}", options.pipeline).into());
    let connection = Connection::connector(uri(options, place), socket::runtime(), hand, properties).await;
    let connection = connection.map_err(|error| Error::of_opening(&error, party))?;
    hold.let_go();
    Ok((connection, traffic))
}

/// The broker did not answer in time.
pub(super) fn silent(party: &Party) -> Error {
    Error::Unreachable { address: party.address.clone(), reason: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()) }
}

fn uri(options: &Options, place: &Address) -> AMQPUri {
    let password = options.password.as_ref().map(Secret::reveal).unwrap_or_default();
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
    uri.query.frame_max = Some(FRAME_BYTES_MAX);
    uri.query.channel_max = Some(CHANNELS_MAX);
    uri.query.auth_mechanism = Some(if options.external { SASLMechanism::External } else { SASLMechanism::Plain });
    uri
}

/// The channel and the lock, once it is owned and all that was asked for is declared.
async fn prepare(connection: &Connection, options: &Options, party: &Party) -> Result<(Channel, Lock), Error> {
    let of_session = |error: lapin::Error| Error::of_session(&error, party);
    let mut channel = connection.create_channel().await.map_err(of_session)?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    if let Err(error) = channel.queue_declare(party.lock.as_str().into(), exclusive, FieldTable::default()).await {
        assert_lock(connection, &party.lock, party).await?;
        return Err(of_session(error));
    }
    channel = exchange(connection, channel, (&party.exchange, ExchangeKind::Topic), options.declare, party).await?;
    for queue in &options.queues {
        declare(&channel, queue, &party.exchange, party).await?;
    }
    if let Some(name) = options.dead_letter.as_deref() {
        channel = dead_letters(connection, channel, name, options.declare, party).await?;
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(of_session)?;
    let lock = Lock::watch(&channel, &party.lock).await.map_err(of_session)?;
    Ok((channel, lock))
}

/// Asks what is there under a lock's name, which could not be taken: what anybody may use is a queue of somebody's, and no lock.
pub(super) async fn assert_lock(connection: &Connection, lock: &str, party: &Party) -> Result<(), Error> {
    let channel = connection.create_channel().await.map_err(|error| Error::of_session(&error, party))?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(lock.into(), passive, FieldTable::default()).await {
        Ok(_) => Err(Error::NoLock { address: party.address.clone(), queue: lock.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Makes the exchange of dead letters with its queue, a stream, from which nothing goes by being read; or verifies it.
async fn dead_letters(connection: &Connection, channel: Channel, name: &str, makes: bool, party: &Party) -> Result<Channel, Error> {
    let channel = exchange(connection, channel, (name, ExchangeKind::Fanout), makes, party).await?;
    if makes {
        declare(&channel, &Queue::of_dead_letters(name), name, party).await?;
    }
    Ok(channel)
}

/// Makes an exchange, takes one that is there and fits, or verifies that there is one; and the channel to go on with.
async fn exchange(
    connection: &Connection,
    channel: Channel,
    (name, kind): (&str, ExchangeKind),
    makes: bool,
    party: &Party,
) -> Result<Channel, Error> {
    let declared = ExchangeDeclareOptions { durable: true, passive: !makes, ..ExchangeDeclareOptions::default() };
    match channel.exchange_declare(name.into(), kind.clone(), declared, FieldTable::default()).await {
        Ok(()) => Ok(channel),
        // The broker closed the channel over it.
        Err(error) if is_alternate_alone(&error) => connection.create_channel().await.map_err(|error| Error::of_session(&error, party)),
        Err(error) => Err(Error::of_exchange(&error, name, name_of(&kind), party)),
    }
}

/// Whether an exchange that is there differs from what was asked for by its alternate exchange alone, which is its owner's choice.
///
/// RabbitMQ names the first difference, and looks at type, durability, auto-delete and internal before the arguments, of which it
/// compares this one (`rabbit_exchange:assert_equivalence`).
pub(super) fn is_alternate_alone(error: &lapin::Error) -> bool {
    let said = super::error::refusal(error);
    said.is_some_and(|(_, reason)| reason.contains("inequivalent arg 'alternate-exchange'"))
}

/// As errors say it.
pub(super) const fn name_of(kind: &ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Fanout => "fanout",
        _ => "topic",
    }
}

/// Makes a queue, or has the broker compare it with the one that is there.
pub(super) async fn declare_queue(channel: &Channel, queue: &Queue) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue.kind.name().into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.name.as_str().into(), durable, arguments).await.map(drop)
}

/// Makes a queue and binds it to an exchange.
async fn declare(channel: &Channel, queue: &Queue, exchange: &str, party: &Party) -> Result<(), Error> {
    let of_queue = |error: lapin::Error| Error::of_queue(&error, &queue.name, party);
    declare_queue(channel, queue).await.map_err(of_queue)?;
    for key in &queue.keys {
        let name = queue.name.as_str().into();
        channel
            .queue_bind(name, exchange.into(), key.as_str().into(), QueueBindOptions::default(), FieldTable::default())
            .await
            .map_err(of_queue)?;
    }
    Ok(())
}
