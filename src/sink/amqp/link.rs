//! A connection to the broker with its one channel, the pipeline's lock, and the exchange.

use super::Options;
use super::error::{Error, Party};
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPAuthority, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long opening a connection, or one question on it, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often both sides show that they are there, in seconds.
const HEARTBEAT_SECONDS: u16 = 10;

/// An open connection that owns the pipeline's lock.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
}

impl Link {
    /// Connects, takes the lock, and verifies the exchange or makes it.
    ///
    /// The lock is an exclusive queue: the broker gives it to one connection, and lets go of it when that connection is gone and
    /// all that it had sent is dealt with. Who owns it publishes alone.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let party = options.party();
        match timeout(ANSWER_TIMEOUT, Self::open_unbounded(options, &party)).await {
            Ok(opened) => opened,
            Err(_) => {
                Err(Error::Unreachable { address: party.address, reason: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()) })
            }
        }
    }

    async fn open_unbounded(options: &Options, party: &Party) -> Result<Self, Error> {
        let name = format!("feedline/{}", options.pipeline);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect_uri(uri(options), properties).await.map_err(|error| Error::of_opening(&error, party))?;
        let of_session = |error: lapin::Error| Error::of_session(&error, party);
        let channel = connection.create_channel().await.map_err(of_session)?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(party.lock.as_str().into(), exclusive, FieldTable::default()).await.map_err(of_session)?;
        let declared = ExchangeDeclareOptions { durable: true, passive: !options.declare, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(party.exchange.as_str().into(), ExchangeKind::Topic, declared, FieldTable::default())
            .await
            .map_err(|error| Error::of_exchange(&error, party))?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(of_session)?;
        Ok(Self { connection, channel })
    }

    /// Ends in order; the lock is free when this returns.
    pub(super) async fn close(self, party: &Party) -> Result<(), Error> {
        match timeout(ANSWER_TIMEOUT, self.connection.close(200, "drained".into())).await {
            Ok(closed) => closed.map_err(|error| Error::of_session(&error, party)),
            Err(_) => Err(Error::Unconfirmed { reason: "the broker does not answer".to_owned() }),
        }
    }
}

fn uri(options: &Options) -> AMQPUri {
    let password = options.password.as_ref().map(|password| password.reveal().to_owned()).unwrap_or_default();
    let mut uri = AMQPUri {
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: options.user.clone(), password },
            host: options.host.clone(),
            port: options.port,
        },
        vhost: options.vhost.clone(),
        ..AMQPUri::default()
    };
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    uri
}

/// The name of the broker's cluster, from its greeting (AMQP 0-9-1, `connection.start`): the client keeps it to itself.
pub(super) async fn cluster_name(options: &Options) -> Result<String, Error> {
    const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
    const FRAME_HEAD: usize = 7;
    let party = options.party();
    let unreachable = |reason: String| Error::Unreachable { address: party.address.clone(), reason };
    let greeted = async {
        let mut stream = TcpStream::connect((options.host.as_str(), options.port)).await?;
        stream.write_all(HEADER).await?;
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(1 << 16);
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        std::io::Result::Ok(frame)
    };
    let frame = match timeout(ANSWER_TIMEOUT, greeted).await {
        Ok(frame) => frame.map_err(|error| unreachable(error.to_string()))?,
        Err(_) => return Err(unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    };
    property(&frame, "cluster_name").ok_or_else(|| unreachable("it does not tell the name of its cluster, as RabbitMQ does".to_owned()))
}

/// A long string of the server's properties: its name, `S`, its length and its bytes.
fn property(frame: &[u8], name: &str) -> Option<String> {
    let mut label = vec![u8::try_from(name.len()).ok()?];
    label.extend_from_slice(name.as_bytes());
    label.push(b'S');
    let at = memchr::memmem::find(frame, &label)? + label.len();
    let (length, rest) = frame.get(at..)?.split_first_chunk::<4>()?;
    let value = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::property;

    #[test]
    fn a_property_of_the_greeting_is_found() {
        let frame = b"....\x0ccluster_nameS\0\0\0\x08rabbit@a\x07productS\0\0\0\x08RabbitMQ";
        assert_eq!(property(frame, "cluster_name").as_deref(), Some("rabbit@a"));
        assert_eq!(property(frame, "product").as_deref(), Some("RabbitMQ"));
        assert_eq!(property(frame, "version"), None);
        assert_eq!(property(b"\x0ccluster_nameS\0\0\xff\xff", "cluster_name"), None);
    }
}
