//! The port to a broker that confirms.

use crate::batch::{Ack, Batch};
use crate::checkpoint::Identity;
use crate::fault::Classify;
use crate::feed::Feeds;
use crate::preflight::Findings;
use std::sync::Arc;

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod stdout;

/// One session with a broker. Any failure ends it; the next session is sent everything from the first unconfirmed batch on.
pub trait Sink: Send + 'static {
    /// Why records could not be sent.
    type Error: Classify;

    /// Takes the batch over, in order; returns when all its records are with the client, which is before they are confirmed.
    /// The sink owes one confirmation for each record; dropping the ack says that the batch is lost.
    fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Why a ack of this session was lost.
    fn failure(&mut self) -> Self::Error;

    /// Why the session ended by itself, also while nothing is sent; never returns while it goes on. Cancel safe.
    fn failed(&mut self) -> impl Future<Output = Self::Error> + Send {
        std::future::pending()
    }

    /// Whether this session, which failed, leaves the next one better off: its failure is no reason to wait longer before that.
    fn has_learnt(&self) -> bool {
        false
    }

    /// Ends the session in order. What is unconfirmed by then is lost and says so by its acks.
    fn close(self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Opens sessions with one broker.
pub trait SinkConnector: Send + 'static {
    /// The session.
    type Sink: Sink<Error = Self::Error>;
    /// Why it could not be opened.
    type Error: Classify;

    /// Which feeds' records the sessions will carry.
    fn select(&mut self, feeds: Arc<Feeds>);

    /// Who the broker was: from now on nothing is made, and nothing sent, at one that is seen to be another.
    fn expect(&mut self, _known: &Identity) {}

    /// Looks who the broker is; changes nothing, and takes nothing from a pipeline that runs.
    /// A destination that is expected and is not there has the empty text.
    fn identity(&mut self) -> impl Future<Output = Result<Identity, Self::Error>> + Send;

    /// Looks who the broker is and verifies (and where configured makes) the destinations.
    fn verify(&mut self) -> impl Future<Output = Result<Identity, Self::Error>> + Send;

    /// Looks what a start would do at the broker, and what somebody may regret. Changes nothing, and takes nothing from a
    /// pipeline that runs.
    fn preflight(&mut self) -> impl Future<Output = Result<Findings, Self::Error>> + Send;

    /// Opens a session, and looks who the broker is: another one may stand behind the address by now.
    fn connect(&mut self) -> impl Future<Output = Result<(Self::Sink, Identity), Self::Error>> + Send;
}

/// What somebody who listens to a broker hears of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// Topic, partition and offset, or routing key.
    pub place: String,
    /// The record's key.
    pub key: Option<String>,
    /// Headers and properties, as texts.
    pub headers: Vec<(String, String)>,
    /// Its bytes; `None` for a tombstone.
    pub body: Option<Vec<u8>>,
}

/// Is given each event; breaks when it has heard enough.
pub type OnConsumed<'h> = &'h mut (dyn FnMut(Consumed) -> std::ops::ControlFlow<()> + Send);
