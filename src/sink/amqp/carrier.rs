//! Publishes batches on one channel and settles their receipts by the broker's confirms.
//!
//! An event that no queue takes is returned before it is confirmed. The client hands a returned event to whichever confirm comes
//! next, so confirms are counted only when all that have come were looked through for returned ids, and only while no
//! publish is under way: then the confirm that carries an event's return has come no later than the event's own.

use super::error::{Error, Party};
use super::message::{Message, Routes};
use super::order::Order;
use super::patience::Patience;
use crate::batch::{Batch, Record};
use crate::fault::Classify as _;
use crate::metrics::{DeadLetter, SinkMetrics};
use crate::receipt::Receipt;
use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Event, PublisherConfirm};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

/// How many events are given to the client at once: each call of its own would be a write to the socket of its own.
const GROUP: usize = 128;

/// A batch and what is owed for it.
pub(super) struct Submission {
    pub(super) batch: Arc<Batch>,
    pub(super) receipt: Receipt,
    pub(super) begun: Instant,
}

/// An event of a batch. While one is left that is not confirmed, the batch is not; dropped before, it is lost.
#[derive(Clone)]
struct Entry {
    submission: Arc<Submission>,
    record: usize,
    /// Why it is a dead letter, if it is one.
    letter: Option<DeadLetter>,
}

impl Entry {
    fn record(&self) -> Record<'_> {
        self.submission.batch.record(self.record)
    }
}

/// A published event whose confirm is to come.
struct Pending {
    confirm: PublisherConfirm,
    entry: Entry,
}

/// A published event and what the broker said of it.
struct Outcome {
    confirmation: lapin::Result<Confirmation>,
    entry: Entry,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let confirmation = std::task::ready!(Pin::new(&mut self.confirm).poll(context));
        Poll::Ready(Outcome { confirmation, entry: self.entry.clone() })
    }
}

/// The event's number in its batch, and where its confirm will come.
type Published = (usize, lapin::Result<PublisherConfirm>);

/// One session's task.
pub(super) struct Carrier<E> {
    channel: Arc<Channel>,
    events: E,
    routes: Routes,
    /// How many events may wait for their confirms, and which of them together.
    window: usize,
    order: Order,
    pending: FuturesUnordered<Pending>,
    /// Publishes of one group; their memory serves the next.
    publishes: Vec<ReusableBoxFuture<'static, Published>>,
    /// Ids of returned events whose confirms are to come.
    returned: HashMap<Vec<u8>, Error>,
    /// Events that their destination does not take, on their way to the dead letters, and why it does not.
    letters: VecDeque<(Entry, Error)>,
    patience: Patience,
}

impl<E: Stream<Item = Event> + Unpin> Carrier<E> {
    pub(super) fn new(
        channel: Channel,
        events: E,
        routes: Routes,
        party: Party,
        window: usize,
        order: Order,
        metrics: SinkMetrics,
    ) -> Self {
        let patience = Patience::new(metrics, party);
        Self {
            channel: Arc::new(channel),
            events,
            routes,
            window,
            order,
            pending: FuturesUnordered::new(),
            publishes: Vec::new(),
            returned: HashMap::new(),
            letters: VecDeque::new(),
            patience,
        }
    }

    /// Carries what is submitted until there will be no more and all of it is confirmed, or until the session fails.
    pub(super) async fn run(mut self, mut submissions: mpsc::Receiver<Submission>) -> Result<(), Error> {
        loop {
            let has_room = self.pending.len() < self.window;
            let submission = tokio::select! { biased;
                happened = self.wait() => {
                    happened?;
                    self.bury().await?;
                    continue;
                }
                submission = submissions.recv(), if has_room => submission,
            };
            let Some(submission) = submission else { break };
            self.publish(Arc::new(submission)).await?;
        }
        while !self.pending.is_empty() {
            self.step().await?;
        }
        Ok(())
    }

    /// Waits for something to happen, and does what follows from it.
    async fn step(&mut self) -> Result<(), Error> {
        self.wait().await?;
        self.bury().await
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
        let exchange = self.routes.exchange.clone();
        let mut records = batch.records().enumerate().peekable();
        while let Some((_, next)) = records.peek() {
            while self.window <= self.pending.len() || !self.order.admits(next) {
                self.step().await?;
            }
            let room = GROUP.min(self.window - self.pending.len());
            let mut group = Vec::with_capacity(room);
            while group.len() < room
                && let Some((record, event)) = records.next_if(|(_, event)| self.order.admits(event))
            {
                match self.routes.message(&event) {
                    Ok(message) => {
                        self.order.hold(&event);
                        group.push((record, message));
                    }
                    Err(error) => {
                        let entry = Entry { submission: Arc::clone(&submission), record, letter: Some(DeadLetter::TooLarge) };
                        self.letters.push_back((entry, error));
                    }
                }
            }
            self.give(&exchange, &submission, group, None).await?;
            if let Some(Some(outcome)) = self.pending.next().now_or_never() {
                self.settle(outcome)?;
            }
            self.bury().await?;
        }
        Ok(())
    }

    /// Gives a group of a batch's events to the client.
    async fn give(
        &mut self,
        exchange: &ShortString,
        submission: &Arc<Submission>,
        group: Vec<(usize, Message)>,
        letter: Option<DeadLetter>,
    ) -> Result<(), Error> {
        if self.pending.is_empty() {
            self.patience.begin();
        }
        let count = group.len();
        for (place, (record, message)) in group.into_iter().enumerate() {
            let (channel, exchange, submission) = (Arc::clone(&self.channel), exchange.clone(), Arc::clone(submission));
            let publish = async move {
                let body = submission.batch.record(record).body.unwrap_or_default();
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                (record, channel.basic_publish(exchange, message.routing_key, options, body, message.properties).await)
            };
            match self.publishes.get_mut(place) {
                Some(used) => used.set(publish),
                None => self.publishes.push(ReusableBoxFuture::new(publish)),
            }
        }
        let given = all(&mut self.publishes[..count]);
        tokio::pin!(given);
        let confirms = loop {
            tokio::select! { biased;
                event = self.events.next() => self.patience.note(event)?,
                confirms = &mut given => break confirms,
                error = self.patience.end() => return Err(error),
            }
        };
        for (record, confirm) in confirms {
            let confirm = confirm.map_err(|error| Error::of_session(&error, &self.patience.party))?;
            self.pending.push(Pending { confirm, entry: Entry { submission: Arc::clone(submission), record, letter } });
        }
        Ok(())
    }

    /// Sends what its destination does not take to the dead letters; where there are none, the first is the end.
    async fn bury(&mut self) -> Result<(), Error> {
        while let Some((entry, error)) = self.letters.pop_front() {
            let Some(exchange) = self.routes.dead_letters.clone() else { return Err(error) };
            tracing::warn!(code = %error.code(), %error, dead_letter = exchange.as_str(), "an event goes to the dead letters");
            let message = self.routes.letter(&entry.record(), &error);
            self.give(&exchange, &entry.submission, vec![(entry.record, message)], entry.letter).await?;
        }
        Ok(())
    }

    /// Counts what is confirmed by now. Called only while no publish is under way.
    fn settle(&mut self, first: Outcome) -> Result<(), Error> {
        let mut outcomes = vec![first];
        while let Some(Some(outcome)) = self.pending.next().now_or_never() {
            outcomes.push(outcome);
        }
        for message in outcomes.iter().filter_map(Outcome::returned) {
            self.returned.insert(message_id(message).as_bytes().to_vec(), unroutable(message));
        }
        self.patience.begin();
        if let Some(last) = outcomes.last() {
            self.patience.metrics.publish_duration_seconds.observe(last.entry.submission.begun.elapsed().as_secs_f64());
        }
        outcomes.into_iter().try_for_each(|outcome| self.count(outcome))
    }

    /// Counts one event, whose return would have come by now.
    fn count(&mut self, outcome: Outcome) -> Result<(), Error> {
        let Outcome { confirmation, mut entry } = outcome;
        if entry.letter.is_none() {
            self.order.release(&entry.record());
        }
        match confirmation {
            Ok(Confirmation::Ack(_)) => {}
            Ok(Confirmation::Nack(_)) => {
                let id = String::from_utf8_lossy(entry.record().id).into_owned();
                return Err(Error::Unconfirmed { reason: format!("the broker refused event {id} (nack): a queue is full, or failed") });
            }
            Ok(Confirmation::NotRequested) => {
                return Err(Error::Unconfirmed { reason: "the channel does not confirm".to_owned() });
            }
            Err(error) => return Err(Error::of_session(&error, &self.patience.party)),
        }
        let returned = if self.returned.is_empty() { None } else { self.returned.remove(entry.record().id) };
        match (returned, entry.letter) {
            (None, letter) => {
                if let Some(reason) = letter {
                    self.patience.metrics.count_dead_letter(reason);
                }
                entry.submission.receipt.confirm(1);
            }
            (Some(error), None) => {
                entry.letter = Some(DeadLetter::Unroutable);
                self.letters.push_back((entry, error));
            }
            // Nobody keeps the dead letters either.
            (Some(error), Some(_)) => return Err(error),
        }
        Ok(())
    }
}

impl Outcome {
    fn returned(&self) -> Option<&BasicReturnMessage> {
        match &self.confirmation {
            Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) => returned.as_ref(),
            _ => None,
        }
    }
}

/// Polls all in their order, so that events are written in theirs, and returns their outputs.
fn all<T>(futures: &mut [ReusableBoxFuture<'static, T>]) -> impl Future<Output = Vec<T>> {
    let mut outputs = Vec::with_capacity(futures.len());
    // The first time each is begun; from then on the client finishes them in their order.
    let mut begun: Vec<Option<T>> = Vec::with_capacity(futures.len());
    poll_fn(move |context| {
        while begun.len() < futures.len() {
            let ready = futures[begun.len()].poll(context);
            begun.push(if let Poll::Ready(output) = ready { Some(output) } else { None });
        }
        while outputs.len() < futures.len() {
            let place = outputs.len();
            match begun[place].take() {
                Some(output) => outputs.push(output),
                None => outputs.push(std::task::ready!(futures[place].poll(context))),
            }
        }
        Poll::Ready(std::mem::take(&mut outputs))
    })
}

/// Each event has one.
fn message_id(message: &BasicReturnMessage) -> &str {
    message.delivery.properties.message_id().as_ref().map_or("", ShortString::as_str)
}

fn unroutable(message: &BasicReturnMessage) -> Error {
    Error::Unroutable {
        exchange: message.delivery.exchange.to_string(),
        key: message.delivery.routing_key.to_string(),
        id: message_id(message).to_owned(),
    }
}
