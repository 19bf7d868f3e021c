//! Publishes batches on one channel and settles their receipts by the broker's confirms.
//!
//! An event that no queue takes is returned before it is confirmed. The client hands a returned event to whichever confirm comes
//! next, so confirms are counted only when all that have come were looked through for returned ids, and only while no
//! publish is under way: then the confirm that carries an event's return has come no later than the event's own.

use super::Ordering;
use super::error::{Error, Party};
use super::message::{Message, Routes};
use super::order::Order;
use crate::batch::Batch;
use crate::metrics::SinkMetrics;
use crate::receipt::Receipt;
use futures_util::future::{FutureExt as _, join_all};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Event, PublisherConfirm};
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How many events are given to the client at once: each call of its own would be a write to the socket of its own.
const GROUP: usize = 128;
/// How long the broker may leave everything unconfirmed, unless it said that it takes no more for now.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(1);

/// A batch and what is owed for it.
pub(super) struct Submission {
    pub(super) batch: Arc<Batch>,
    pub(super) receipt: Receipt,
    pub(super) begun: Instant,
}

/// A published event whose confirm is to come. Dropped before, its batch is lost.
struct Pending {
    confirm: PublisherConfirm,
    submission: Arc<Submission>,
    record: usize,
}

/// A published event and what the broker said of it.
struct Outcome {
    confirmation: lapin::Result<Confirmation>,
    submission: Arc<Submission>,
    record: usize,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let confirmation = std::task::ready!(Pin::new(&mut self.confirm).poll(context));
        Poll::Ready(Outcome { confirmation, submission: Arc::clone(&self.submission), record: self.record })
    }
}

/// How long the broker may still be silent.
struct Patience {
    /// Whether it said that it takes nothing for now: then it may be silent for ever.
    is_blocked: bool,
    /// When it last confirmed or said anything, or had nothing to confirm.
    since: Instant,
    metrics: SinkMetrics,
    party: Party,
}

impl Patience {
    fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// What the broker says of the connection. Whatever it is, patience begins anew.
    fn note(&mut self, event: Option<Event>) -> Result<(), Error> {
        self.begin();
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker takes nothing for now; waiting until it does");
                self.set_blocked(true);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker takes events again");
                self.set_blocked(false);
            }
            Some(Event::Error(error)) => return Err(Error::of_session(&error, &self.party)),
            None => return Err(Error::Unconfirmed { reason: "the connection ended".to_owned() }),
            Some(_) => {}
        }
        Ok(())
    }

    fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
        self.metrics.blocked.set(is_blocked.into());
    }

    /// Returns when it is over.
    async fn end(&self) -> Error {
        if self.is_blocked {
            return std::future::pending().await;
        }
        sleep_until(self.since + CONFIRM_TIMEOUT).await;
        Error::Unconfirmed { reason: format!("the broker confirmed nothing for {} s", CONFIRM_TIMEOUT.as_secs()) }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.metrics.blocked.set(0);
    }
}

/// How much may be on its way at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Events that wait for their confirms.
    pub(super) events: usize,
    /// Which of them may be together.
    pub(super) ordering: Ordering,
}

/// One session's task.
pub(super) struct Carrier<E> {
    channel: Channel,
    events: E,
    routes: Routes,
    window: usize,
    order: Order,
    pending: FuturesUnordered<Pending>,
    patience: Patience,
}

impl<E: Stream<Item = Event> + Unpin> Carrier<E> {
    pub(super) fn new(channel: Channel, events: E, routes: Routes, party: Party, window: Window, metrics: SinkMetrics) -> Self {
        let patience = Patience { is_blocked: false, since: Instant::now(), metrics, party };
        let Window { events: window, ordering } = window;
        Self { channel, events, routes, window, order: Order::new(ordering), pending: FuturesUnordered::new(), patience }
    }

    /// Carries what is submitted until there will be no more and all of it is confirmed, or until the session fails.
    pub(super) async fn run(mut self, mut submissions: mpsc::Receiver<Submission>) -> Result<(), Error> {
        loop {
            let has_room = self.pending.len() < self.window;
            let submission = tokio::select! { biased;
                happened = self.wait() => {
                    happened?;
                    continue;
                }
                submission = submissions.recv(), if has_room => submission,
            };
            let Some(submission) = submission else { break };
            self.publish(Arc::new(submission)).await?;
        }
        while !self.pending.is_empty() {
            self.wait().await?;
        }
        Ok(())
    }

    /// Waits for something to happen to what is published, or to the connection. Cancel safe.
    async fn wait(&mut self) -> Result<(), Error> {
        let is_waiting = !self.pending.is_empty();
        tokio::select! { biased;
            event = self.events.next() => self.patience.note(event),
            Some(outcome) = self.pending.next() => self.settle(outcome),
            error = self.patience.end(), if is_waiting => Err(error),
        }
    }

    /// Gives a batch to the client, group by group, as the window has room.
    async fn publish(&mut self, submission: Arc<Submission>) -> Result<(), Error> {
        let batch = Arc::clone(&submission.batch);
        let mut records = batch.records().enumerate().peekable();
        while let Some((_, next)) = records.peek() {
            while self.window <= self.pending.len() || !self.order.admits(next) {
                self.wait().await?;
            }
            if self.pending.is_empty() {
                self.patience.begin();
            }
            let room = GROUP.min(self.window - self.pending.len());
            let mut group = Vec::with_capacity(room);
            while group.len() < room
                && let Some((number, record)) = records.next_if(|(_, record)| self.order.admits(record))
            {
                self.order.hold(&record);
                group.push((number, self.routes.message(&record)?));
            }
            let published = {
                let (channel, exchange) = (&self.channel, &self.routes.exchange);
                let publishes = join_all(group.into_iter().map(|(number, message)| async move {
                    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                    let Message { routing_key, properties, body } = message;
                    (number, channel.basic_publish(exchange.clone(), routing_key, options, body, properties).await)
                }));
                tokio::pin!(publishes);
                loop {
                    tokio::select! { biased;
                        event = self.events.next() => self.patience.note(event)?,
                        given = &mut publishes => break given,
                        error = self.patience.end() => return Err(error),
                    }
                }
            };
            for (record, confirm) in published {
                let confirm = confirm.map_err(|error| Error::of_session(&error, &self.patience.party))?;
                self.pending.push(Pending { confirm, submission: Arc::clone(&submission), record });
            }
            if let Some(Some(outcome)) = self.pending.next().now_or_never() {
                self.settle(outcome)?;
            }
        }
        Ok(())
    }

    /// Counts what is confirmed by now. Called only while no publish is under way.
    fn settle(&mut self, first: Outcome) -> Result<(), Error> {
        let mut outcomes = vec![first];
        while let Some(Some(outcome)) = self.pending.next().now_or_never() {
            outcomes.push(outcome);
        }
        let returned: Vec<&BasicReturnMessage> = outcomes.iter().filter_map(|outcome| outcome.returned()).collect();
        let ids: HashSet<&[u8]> = returned.iter().filter_map(|message| message_id(message)).map(str::as_bytes).collect();
        let mut failure = returned.first().map(|message| unroutable(message));
        for outcome in &outcomes {
            self.order.release(&outcome.submission.batch.record(outcome.record));
            match &outcome.confirmation {
                Ok(Confirmation::Ack(_)) if ids.contains(outcome.id()) => {}
                Ok(Confirmation::Ack(_)) => outcome.submission.receipt.confirm(1),
                Ok(Confirmation::NotRequested) => {
                    failure.get_or_insert(Error::Unconfirmed { reason: "the channel does not confirm".to_owned() });
                }
                Ok(Confirmation::Nack(_)) => {
                    let reason =
                        format!("the broker refused event {} (nack): a queue is full, or failed", String::from_utf8_lossy(outcome.id()));
                    failure.get_or_insert(Error::Unconfirmed { reason });
                }
                Err(error) => {
                    failure.get_or_insert(Error::of_session(error, &self.patience.party));
                }
            }
        }
        self.patience.begin();
        if let Some(last) = outcomes.last() {
            self.patience.metrics.publish_duration_seconds.observe(last.submission.begun.elapsed().as_secs_f64());
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Outcome {
    fn returned(&self) -> Option<&BasicReturnMessage> {
        match &self.confirmation {
            Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) => returned.as_ref(),
            _ => None,
        }
    }

    fn id(&self) -> &[u8] {
        self.submission.batch.record(self.record).id
    }
}

fn message_id(message: &BasicReturnMessage) -> Option<&str> {
    message.delivery.properties.message_id().as_ref().map(lapin::types::ShortString::as_str)
}

fn unroutable(message: &BasicReturnMessage) -> Error {
    Error::Unroutable {
        exchange: message.delivery.exchange.to_string(),
        key: message.delivery.routing_key.to_string(),
        id: message_id(message).unwrap_or("without an id").to_owned(),
    }
}
