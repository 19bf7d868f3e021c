//! Opens a connection to the broker and reads the broker's identity.

use super::dial::{self, Greeting, ShutdownOnDrop};
use super::error::{Error, Peer};
use super::frame_check::{CheckedStream, FRAME_BYTES_MAX};
use super::options::{Address, Options};
use super::socket::{self, CountingRuntime, SocketRuntime, Traffic};
use crate::checkpoint::Identity;
use crate::net::Failure;
use crate::net::secret::Secret;
use async_rs::Runtime;
use lapin::uri::{AMQPAuthority, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Timeout for opening a connection, and for one request on it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The most channels that are open at once. The preflight opens one for each question; after a refusal a channel may still be closing.
const CHANNELS_MAX: u16 = 256;
/// Heartbeat interval in seconds, in both directions.
const HEARTBEAT_SECONDS: u16 = 10;

/// An open connection to the broker.
pub(super) struct BrokerConnection {
    pub(super) connection: Connection,
    pub(super) peer: Peer,
    pub(super) address: Address,
    /// Counts the bytes that the connection moved.
    pub(super) traffic: Traffic,
}

/// Connects to the first broker that answers.
pub(super) async fn connect(options: &Options) -> Result<BrokerConnection, Error> {
    let (mut addresses, mut reasons) = (Vec::new(), Vec::new());
    for address in &options.addresses {
        let peer = Peer::new(options, address);
        let connected = timeout(ANSWER_TIMEOUT, connect_to(options, address, &peer)).await;
        match connected.unwrap_or_else(|_| Err(no_answer(&peer))) {
            Ok((connection, traffic)) => return Ok(BrokerConnection { connection, peer, address: address.clone(), traffic }),
            Err(Error::Unreachable { address, reason }) => {
                addresses.push(address);
                reasons.push(reason);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unreachable { address: addresses.join(", "), reason: reasons.join("; ") })
}

async fn connect_to(options: &Options, address: &Address, peer: &Peer) -> Result<(Connection, Traffic), Error> {
    let runtime: CountingRuntime = socket::runtime();
    let of_dialling = |failure| Error::of_dialling(failure, peer);
    let socket = dial::socket(&runtime, address).await.map_err(of_dialling)?;
    let shutdown = ShutdownOnDrop::new(&socket).map_err(of_dialling)?;
    let traffic = socket.traffic.clone();
    let stream = dial::encrypt(socket, address, &options.trust).await.map_err(of_dialling)?;
    // When the connection breaks, the client asks for a new socket and gets none: reconnecting is a new session's work.
    let opened = Mutex::new(Some(CheckedStream::new(stream)));
    let give_stream = async move |_: AMQPUri, _: Runtime<SocketRuntime<CheckedStream>>| {
        let stream = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map(AsyncTcpStream::Plain).ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected)))
    };
    let properties = ConnectionProperties::default().with_connection_name(format!("feedline/{}", options.pipeline).into());
    let connection = Connection::connector(uri(options, address), socket::runtime(), give_stream, properties).await;
    let connection = connection.map_err(|error| Error::of_opening(&error, peer))?;
    shutdown.disarm();
    Ok((connection, traffic))
}

fn uri(options: &Options, address: &Address) -> AMQPUri {
    let password = options.password.as_ref().map(Secret::reveal).unwrap_or_default();
    let mut uri = AMQPUri {
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: options.user.clone(), password },
            host: address.host.clone(),
            port: address.port,
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

/// The broker's identity: the name of its cluster, and the virtual host.
pub(super) async fn identity(options: &Options, address: &Address, peer: &Peer) -> Result<Identity, Error> {
    let unnamed = || io::Error::other("it does not send its cluster name, as RabbitMQ does");
    let cluster = greeting(options, address, peer).await?.property("cluster_name");
    let cluster = cluster.ok_or_else(|| Error::of_dialling(Failure::Connection(unnamed()), peer))?;
    Ok(Identity::from([("rabbitmq_cluster".to_owned(), cluster), ("vhost".to_owned(), options.vhost.clone())]))
}

/// Reads the broker's greeting, on a connection of its own.
pub(super) async fn greeting(options: &Options, address: &Address, peer: &Peer) -> Result<Greeting, Error> {
    let runtime = socket::runtime();
    match timeout(ANSWER_TIMEOUT, dial::greeting(&runtime, address, &options.trust)).await {
        Ok(greeted) => greeted.map_err(|failure| Error::of_dialling(failure, peer)),
        Err(_) => Err(no_answer(peer)),
    }
}

/// The error for a broker that did not answer in time.
pub(super) fn no_answer(peer: &Peer) -> Error {
    Error::Unreachable { address: peer.address.clone(), reason: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()) }
}
