//! Recognizes the broker, makes what the sink needs there, and opens sessions.

use super::confirm_timeout::{ConfirmTimeout, TimedOutSessions};
use super::connect::{self, ANSWER_TIMEOUT, BrokerConnection};
use super::error::Error;
use super::link::Link;
use super::message::{self, BrokerLimits, Routes};
use super::options::Options;
use super::preflight;
use super::publisher::Publisher;
use super::send_order::SendOrder;
use super::send_window::SendWindow;
use super::session::{ClosingConnection, Session};
use crate::checkpoint::Identity;
use crate::feed::Feeds;
use crate::preflight::Findings;
use crate::sink::SinkConnector;
use crate::status::metrics::SinkMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Opens sessions with one broker.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    metrics: SinkMetrics,
    feeds: Arc<Feeds>,
    closing: ClosingConnection,
    /// The broker's `max_message_size`, once it has refused an event for its size.
    body_bytes_max: Arc<AtomicUsize>,
    timed_out: TimedOutSessions,
    /// The broker that the checkpoint was made with; empty while that is unknown.
    known: Identity,
}

impl Connector {
    /// Creates a connector. Opens no connection.
    #[must_use]
    pub fn new(options: Options, metrics: SinkMetrics) -> Self {
        let body_bytes_max = Arc::new(AtomicUsize::new(BrokerLimits::NONE.body_bytes));
        Self {
            options,
            metrics,
            feeds: Arc::default(),
            closing: ClosingConnection::default(),
            body_bytes_max,
            timed_out: TimedOutSessions::default(),
            known: Identity::new(),
        }
    }
}

impl SinkConnector for Connector {
    type Sink = Session;
    type Error = Error;

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    async fn recognize(&mut self, known: &Identity) -> Result<Identity, Error> {
        self.known.clone_from(known);
        let BrokerConnection { connection, peer, address, .. } = connect::connect(&self.options).await?;
        let identity = connect::identity(&self.options, &address, &peer).await;
        // The identity is known by now: an error here changes nothing.
        let _closed = timeout(ANSWER_TIMEOUT, connection.close(200, "looked".into())).await;
        identity
    }

    async fn establish(&mut self) -> Result<Identity, Error> {
        Routes::new(&self.options, &self.feeds, BrokerLimits::NONE)?;
        let (link, _lock, identity) = Link::open(&self.options, &self.known).await?;
        link.close().await?;
        self.known.clone_from(&identity);
        Ok(identity)
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        let too_long = message::too_long(&self.feeds);
        if !too_long.is_empty() {
            let mut findings = Findings::default();
            findings.refuse(too_long)?;
            return Ok(findings);
        }
        preflight::preflight(&self.options, &self.feeds).await
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        self.closing.join().await;
        let (link, lock, identity) = Link::open(&self.options, &self.known).await?;
        let frame_bytes = link.connection.configuration().frame_max() as usize;
        let limits = BrokerLimits { frame_bytes, body_bytes: self.body_bytes_max.load(Ordering::Relaxed) };
        let routes = Routes::new(&self.options, &self.feeds, limits)?;
        let events = Box::pin(link.connection.events_listener());
        let (send_window, order) = (SendWindow::new(self.options.window), SendOrder::new(self.options.ordering));
        let confirm_timeout = ConfirmTimeout::new(self.metrics.clone(), link.peer.clone(), link.traffic.clone(), self.timed_out.clone());
        let publisher = Publisher::new(link.channel.clone(), events, lock, routes, send_window, order, confirm_timeout);
        let (submissions, receiver) = mpsc::channel(1);
        let body_bytes_max = Arc::clone(&self.body_bytes_max);
        let task = tokio::spawn(async move {
            let ended = publisher.run(receiver).await;
            if let Err(Error::MessageLimit { limit_bytes, .. }) = &ended {
                body_bytes_max.store(*limit_bytes, Ordering::Relaxed);
            }
            ended
        });
        Ok((Session::new(submissions, task, link, self.closing.clone()), identity))
    }
}
