//! Publishes batches on one channel, and confirms their acks as the broker confirms the events.

use super::confirm_timeout::ConfirmTimeout;
use super::error::Error;
use super::in_flight::{Collected, InFlight, Outcome};
use super::lock::Lock;
use super::message::{Message, Routes};
use super::send_order::SendOrder;
use super::send_queue::{Entry, SendQueue, Submission};
use super::send_window::SendWindow;
use super::unroutable_retries::UnroutableRetries;
use crate::fault::Classify as _;
use crate::status::metrics::{DeadLetter, SinkMetrics};
use futures_util::stream::{Stream, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Event, PublisherConfirm};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc;
use tokio_util::sync::ReusableBoxFuture;

/// How many events are given to the client together. Given one by one, each would be one write to the socket.
const GROUP_MAX: usize = 128;

/// A publish call. It completes when its frames are written, and returns the future of the confirm.
type Publish = ReusableBoxFuture<'static, lapin::Result<PublisherConfirm>>;

/// The events that were sent after an event that is being retried, with their outcomes.
struct Successors {
    entries: VecDeque<(Entry, Outcome)>,
    /// Whether the retried event is a dead letter, whose order does not matter.
    is_after_dead_letter: bool,
}

/// The task of one session.
pub(super) struct Publisher<E> {
    channel: Arc<Channel>,
    events: E,
    lock: Lock,
    routes: Routes,
    send_window: SendWindow,
    order: SendOrder,
    send_queue: SendQueue,
    in_flight: InFlight,
    /// Set while an event is being retried alone.
    successors: Option<Successors>,
    unroutable_retries: UnroutableRetries,
    confirm_timeout: ConfirmTimeout,
    /// The publish calls of a group. The next group uses their memory again.
    publishes: Vec<Publish>,
}

impl<E: Stream<Item = Event> + Unpin> Publisher<E> {
    pub(super) fn new(
        channel: Channel,
        events: E,
        lock: Lock,
        routes: Routes,
        send_window: SendWindow,
        order: SendOrder,
        confirm_timeout: ConfirmTimeout,
    ) -> Self {
        Self {
            channel: Arc::new(channel),
            events,
            lock,
            routes,
            send_window,
            order,
            send_queue: SendQueue::default(),
            in_flight: InFlight::default(),
            successors: None,
            unroutable_retries: UnroutableRetries::default(),
            confirm_timeout,
            publishes: Vec::new(),
        }
    }

    /// Publishes all submitted batches. Returns when the channel is closed and everything is confirmed, or when the session fails.
    pub(super) async fn run(mut self, mut submissions: mpsc::Receiver<Submission>) -> Result<(), Error> {
        let mut is_last = false;
        while !(is_last && self.send_queue.is_empty() && self.in_flight.is_empty()) {
            self.send().await?;
            let takes_batch = !is_last && self.send_queue.is_empty();
            tokio::select! { biased;
                waited = self.wait() => {
                    waited?;
                    self.settle()?;
                }
                submission = submissions.recv(), if takes_batch => match submission {
                    Some(submission) => self.send_queue.push_batch(submission),
                    None => is_last = true,
                },
            }
        }
        Ok(())
    }

    /// Waits for confirms, the end of a pause, an event of the connection, or a timeout. Cancel safe.
    async fn wait(&mut self) -> Result<(), Error> {
        let is_waiting = !self.in_flight.is_empty();
        tokio::select! { biased;
            event = self.events.next() => self.confirm_timeout.handle(event),
            lost = self.lock.lost() => Err(lost),
            waited = self.in_flight.wait(), if is_waiting => {
                self.confirm_timeout.confirmed();
                waited.map_err(|error| Error::of_session(&error, &self.confirm_timeout.peer))
            }
            () = self.send_window.pause_ended() => Ok(()),
            // Confirms other than the awaited one may have arrived.
            error = self.confirm_timeout.expired(), if is_waiting => if self.collect_confirms()?.answered == 0 { Err(error) } else { Ok(()) },
        }
    }

    /// Publishes all events that may be sent now, group by group.
    async fn send(&mut self) -> Result<(), Error> {
        while !self.in_flight.has_failures() {
            let available = GROUP_MAX.min(self.send_window.available(self.in_flight.len()));
            let mut group = Vec::with_capacity(available.min(GROUP_MAX));
            while group.len() < available
                && let Some(entry) = self.send_queue.pop_if(|entry| entry.dead_letter.is_some() || self.order.admits(&entry.record()))
            {
                group.push(self.prepare(entry)?);
            }
            if group.is_empty() {
                break;
            }
            self.publish(group).await?;
        }
        Ok(())
    }

    /// Builds the message for an event. An event that is too large becomes a dead letter, or fails the session if there are none.
    fn prepare(&mut self, entry: Entry) -> Result<(Entry, Message), Error> {
        let prepared = match &entry.dead_letter {
            Some(cause) => self.routes.dead_letter(&entry.record(), &cause.error),
            None => self.routes.message(&entry.record()),
        };
        match prepared {
            Ok(message) => {
                if entry.dead_letter.is_none() {
                    self.order.sent(&entry.record());
                }
                Ok((entry, message))
            }
            Err(error) if entry.dead_letter.is_none() && self.routes.has_dead_letters() => {
                self.prepare(self.to_dead_letter(entry, DeadLetter::TooLarge, error))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a group of messages to the client, and waits until they are written.
    async fn publish(&mut self, group: Vec<(Entry, Message)>) -> Result<(), Error> {
        if self.in_flight.is_empty() {
            self.confirm_timeout.restart();
        }
        let mut entries = Vec::with_capacity(group.len());
        for (index, (entry, message)) in group.into_iter().enumerate() {
            let (channel, sent) = (Arc::clone(&self.channel), entry.clone());
            let publish = async move {
                let Message { exchange, routing_key, properties, body_bytes } = message;
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let body = sent.record().body.unwrap_or_default();
                channel.basic_publish(exchange, routing_key, options, &body[..body_bytes], properties).await
            };
            match self.publishes.get_mut(index) {
                Some(used) => used.set(publish),
                None => self.publishes.push(ReusableBoxFuture::new(publish)),
            }
            entries.push(entry);
        }
        let written = write_all(&mut self.publishes[..entries.len()]);
        tokio::pin!(written);
        let confirms = loop {
            tokio::select! { biased;
                event = self.events.next() => self.confirm_timeout.handle(event)?,
                lost = self.lock.lost() => return Err(lost),
                confirms = &mut written => break confirms,
                error = self.confirm_timeout.expired() => match self.in_flight.collect_confirms() {
                    // Writing is slow, and the broker has confirmed earlier events meanwhile.
                    Ok(collected) if 0 < collected.answered => self.confirm_timeout.confirmed(),
                    _ => return Err(error),
                },
            }
        };
        for (entry, confirm) in entries.into_iter().zip(confirms) {
            let confirm = confirm.map_err(|error| Error::of_session(&error, &self.confirm_timeout.peer))?;
            self.in_flight.push(entry, confirm);
        }
        Ok(())
    }

    /// Collects the confirms that have arrived by now.
    fn collect_confirms(&mut self) -> Result<Collected, Error> {
        let collected = self.in_flight.collect_confirms().map_err(|error| Error::of_session(&error, &self.confirm_timeout.peer))?;
        if 0 < collected.answered {
            self.confirm_timeout.confirmed();
        }
        Ok(collected)
    }

    /// Confirms the acks of the events that are certainly stored.
    fn confirm_stored(&mut self) -> Result<(), Error> {
        let collected = self.collect_confirms()?;
        let mut confirmed = 0;
        let mut last = None;
        for entry in self.in_flight.take_confirmed(collected) {
            settled(&mut self.order, &entry);
            confirm(&entry, &mut self.unroutable_retries, &self.confirm_timeout.metrics);
            confirmed += 1;
            last = Some(entry);
        }
        if let Some(last) = last {
            self.confirm_timeout.metrics.publish_duration_seconds.observe(last.submission.begun.elapsed().as_secs_f64());
            self.grow_window(confirmed);
        }
        Ok(())
    }

    /// The broker stored so many events: after a refusal the send window grows again.
    fn grow_window(&mut self, events: usize) {
        if self.send_window.is_reduced() {
            self.send_window.grow(events);
            self.confirm_timeout.set_refusing(false);
        }
    }

    /// Settles the events that have an answer by now.
    fn settle(&mut self) -> Result<(), Error> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        self.confirm_stored()?;
        if self.in_flight.has_failures() {
            let outcomes = self.in_flight.take_outcomes();
            return outcomes.map_or(Ok(()), |outcomes| self.settle_outcomes(outcomes?));
        }
        if self.in_flight.is_empty()
            && let Some(successors) = self.successors.take()
        {
            return self.settle_successors(successors);
        }
        Ok(())
    }

    /// Settles events in order up to the first that is not stored. That one is retried alone, and its successors wait. An event that is
    /// unroutable after enough retries becomes a dead letter instead, and nothing waits for it.
    fn settle_outcomes(&mut self, mut outcomes: VecDeque<(Entry, Outcome)>) -> Result<(), Error> {
        outcomes.extend(self.successors.take().into_iter().flat_map(|successors| successors.entries));
        let mut resend = VecDeque::new();
        while let Some((entry, outcome)) = outcomes.pop_front() {
            settled(&mut self.order, &entry);
            match outcome {
                Outcome::Stored => self.stored(&entry),
                Outcome::Returned(error) if self.unroutable_retries.returned(&entry) => {
                    // No queue takes the dead letter either.
                    if entry.dead_letter.is_some() || !self.routes.has_dead_letters() {
                        return Err(error);
                    }
                    resend.push_back(self.to_dead_letter(entry, DeadLetter::Unroutable, error));
                }
                Outcome::Refused | Outcome::Returned(_) => {
                    self.refused(&entry, &outcome);
                    self.successors = Some(Successors { entries: outcomes, is_after_dead_letter: entry.dead_letter.is_some() });
                    resend.push_front(entry);
                    break;
                }
            }
        }
        self.send_queue.push_front(resend);
        Ok(())
    }

    /// The retried event is stored now, after its successors. They are sent again, since otherwise a later event would stand before an
    /// earlier one. With ordering per key this is not needed: no successor has the retried event's key.
    fn settle_successors(&mut self, successors: Successors) -> Result<(), Error> {
        if successors.is_after_dead_letter || !self.order.goes_back() {
            return self.settle_outcomes(successors.entries);
        }
        let mut resend = VecDeque::new();
        for (entry, outcome) in successors.entries {
            if entry.dead_letter.is_some() && matches!(outcome, Outcome::Stored) {
                self.stored(&entry);
            } else {
                resend.push_back(entry);
            }
        }
        self.send_queue.push_front(resend);
        Ok(())
    }

    /// Handles an event that is stored.
    fn stored(&mut self, entry: &Entry) {
        confirm(entry, &mut self.unroutable_retries, &self.confirm_timeout.metrics);
        self.grow_window(1);
    }

    /// Handles an event that the broker did not store: logs the first, and shrinks the send window.
    fn refused(&mut self, entry: &Entry, outcome: &Outcome) {
        if !self.send_window.is_reduced() {
            let id = String::from_utf8_lossy(entry.record().id).into_owned();
            let reason = match outcome {
                Outcome::Returned(_) => "no queue takes it for now",
                Outcome::Refused | Outcome::Stored => "a queue is full, or failed (nack)",
            };
            tracing::warn!(id, reason, "the broker refused an event; it is sent again");
        }
        self.send_window.shrink();
        self.confirm_timeout.set_refusing(true);
    }

    /// Turns an event into a dead letter.
    fn to_dead_letter(&self, entry: Entry, reason: DeadLetter, error: Error) -> Entry {
        if let Some(times) = self.confirm_timeout.metrics.due_dead_letter_line(error.code()) {
            tracing::warn!(code = %error.code(), %error, times, "an event becomes a dead letter");
        }
        entry.into_dead_letter(reason, error)
    }
}

/// Tells the send order that an event is settled. Dead letters are not part of it.
fn settled(order: &mut SendOrder, entry: &Entry) {
    if entry.dead_letter.is_none() {
        order.settled(&entry.record());
    }
}

/// Confirms the ack of a stored event.
fn confirm(entry: &Entry, unroutable_retries: &mut UnroutableRetries, metrics: &SinkMetrics) {
    unroutable_retries.stored(entry);
    if let Some(cause) = &entry.dead_letter {
        metrics.count_dead_letter(cause.reason);
    }
    entry.submission.ack.confirm(1);
}

/// Polls the publish calls in order, so that the events are written in order, and returns their results. They also complete in order,
/// so it is enough to wait for the last one.
async fn write_all(publishes: &mut [Publish]) -> Vec<lapin::Result<PublisherConfirm>> {
    let mut results: Vec<Option<lapin::Result<PublisherConfirm>>> = Vec::with_capacity(publishes.len());
    for publish in publishes.iter_mut() {
        results.push(match publish.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        });
    }
    for index in (0..publishes.len()).rev() {
        if results[index].is_none() {
            results[index] = Some(poll_fn(|context| publishes[index].poll(context)).await);
        }
    }
    results.into_iter().flatten().collect()
}
