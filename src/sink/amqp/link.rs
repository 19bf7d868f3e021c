//! A connection that is ready to publish: it owns the lock, its exchange and queues are declared, and its channel confirms.

use super::connect::{self, ANSWER_TIMEOUT, BrokerConnection, no_answer};
use super::declare::{assert_lock, declare_and_bind, declare_dead_letters, declare_exchange};
use super::error::{Error, Peer};
use super::lock::Lock;
use super::options::Options;
use super::socket::Traffic;
use crate::checkpoint::Identity;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};
use tokio::time::timeout;

/// An open connection and its channel.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    pub(super) peer: Peer,
    /// Counts the bytes that the connection moved.
    pub(super) traffic: Traffic,
}

impl Link {
    /// Connects to the first broker that answers, takes the lock, and declares or verifies the exchange and the queues.
    ///
    /// The lock is an exclusive queue. The broker gives it to one connection, and releases it when that connection is closed and
    /// everything that it sent is processed. Only the owner publishes.
    ///
    /// A broker other than the known one is refused before anything is declared.
    pub(super) async fn open(options: &Options, known: &Identity) -> Result<(Self, Lock, Identity), Error> {
        let BrokerConnection { connection, peer, address, traffic } = connect::connect(options).await?;
        let prepared = async {
            let identity = connect::identity(options, &address, &peer).await?;
            assert_known(&identity, known)?;
            match timeout(ANSWER_TIMEOUT, prepare(&connection, options, &peer)).await {
                Ok(prepared) => prepared.map(|(channel, lock)| (channel, lock, identity)),
                Err(_) => Err(no_answer(&peer)),
            }
        };
        match prepared.await {
            Ok((channel, lock, identity)) => Ok((Self { connection, channel, peer, traffic }, lock, identity)),
            Err(error) => {
                // A connection left open would hold the lock against the next try. The first error is the one to report.
                let _closed = timeout(ANSWER_TIMEOUT, connection.close(200, "refused".into())).await;
                Err(error)
            }
        }
    }

    /// Closes the connection. The lock is free when this returns.
    pub(super) async fn close(self) -> Result<(), Error> {
        match timeout(ANSWER_TIMEOUT, self.connection.close(200, "drained".into())).await {
            Ok(closed) => closed.map_err(|error| Error::of_session(&error, &self.peer)),
            Err(_) => Err(Error::Unconfirmed { reason: "the broker does not answer".to_owned() }),
        }
    }
}

/// Refuses a broker other than the known one.
fn assert_known(now: &Identity, known: &Identity) -> Result<(), Error> {
    if known.is_empty() || known == now { Ok(()) } else { Err(Error::Foreign { known: known.clone(), now: now.clone() }) }
}

/// Takes the lock, declares what is configured, and switches the channel to publisher confirms.
async fn prepare(connection: &Connection, options: &Options, peer: &Peer) -> Result<(Channel, Lock), Error> {
    let of_session = |error: lapin::Error| Error::of_session(&error, peer);
    let mut channel = connection.create_channel().await.map_err(of_session)?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    if let Err(error) = channel.queue_declare(peer.lock.as_str().into(), exclusive, FieldTable::default()).await {
        assert_lock(connection, &peer.lock, peer).await?;
        return Err(of_session(error));
    }
    channel = declare_exchange(connection, channel, (&peer.exchange, ExchangeKind::Topic), options.declare, peer).await?;
    for queue in &options.queues {
        declare_and_bind(&channel, queue, &peer.exchange, peer).await?;
    }
    if let Some(name) = options.dead_letter.as_deref() {
        channel = declare_dead_letters(connection, channel, name, options.declare, peer).await?;
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(of_session)?;
    let lock = Lock::watch(&channel, &peer.lock).await.map_err(of_session)?;
    Ok((channel, lock))
}
