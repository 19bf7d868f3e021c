//! Publishes batches on one channel and settles their acks by the broker's confirms.

use super::confirm_timeout::ConfirmTimeout;
use super::error::Error;
use super::in_flight::{Answers, InFlight, Verdict};
use super::lock::Lock;
use super::message::{Message, Routes};
use super::order::Order;
use super::send_queue::{Entry, SendQueue, Submission};
use super::send_window::SendWindow;
use super::unroutable::UnroutableEvents;
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

/// How many events are given to the client at once: each call of its own would be a write to the socket of its own.
const GROUP: usize = 128;

/// A publish: done when its frames are written, it tells where the confirm will come.
type Publish = ReusableBoxFuture<'static, lapin::Result<PublisherConfirm>>;

/// What was sent after an event that was not taken, and what became of it.
struct Behind {
    entries: VecDeque<(Entry, Verdict)>,
    /// Whether that event is a dead letter, in no order with the others.
    is_of_letter: bool,
}

/// One session's task.
pub(super) struct Publisher<E> {
    channel: Arc<Channel>,
    events: E,
    lock: Lock,
    routes: Routes,
    send_window: SendWindow,
    order: Order,
    send_queue: SendQueue,
    in_flight: InFlight,
    /// What is behind the event that is tried, while one is.
    behind: Option<Behind>,
    unroutable: UnroutableEvents,
    confirm_timeout: ConfirmTimeout,
    /// Publishes of one group; their memory serves the next.
    publishes: Vec<Publish>,
}

impl<E: Stream<Item = Event> + Unpin> Publisher<E> {
    pub(super) fn new(
        channel: Channel,
        events: E,
        lock: Lock,
        routes: Routes,
        send_window: SendWindow,
        order: Order,
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
            behind: None,
            unroutable: UnroutableEvents::default(),
            confirm_timeout,
            publishes: Vec::new(),
        }
    }

    /// Carries what is submitted until there will be no more and all of it is confirmed, or until the session fails.
    pub(super) async fn run(mut self, mut submissions: mpsc::Receiver<Submission>) -> Result<(), Error> {
        let mut is_last = false;
        while !(is_last && self.send_queue.is_empty() && self.in_flight.is_empty()) {
            self.send().await?;
            let is_wanting = !is_last && self.send_queue.is_empty();
            tokio::select! { biased;
                happened = self.wait() => {
                    happened?;
                    self.settle()?;
                }
                submission = submissions.recv(), if is_wanting => match submission {
                    Some(submission) => self.send_queue.take(submission),
                    None => is_last = true,
                },
            }
        }
        Ok(())
    }

    /// Waits for something to happen to what is published, or to the connection. Cancel safe.
    async fn wait(&mut self) -> Result<(), Error> {
        let is_waiting = !self.in_flight.is_empty();
        tokio::select! { biased;
            event = self.events.next() => self.confirm_timeout.note(event),
            lost = self.lock.lost() => Err(lost),
            answers = self.in_flight.wait(), if is_waiting => {
                self.confirm_timeout.confirmed();
                answers.map_err(|error| Error::of_session(&error, &self.confirm_timeout.party))
            }
            () = self.send_window.go_on() => Ok(()),
            // What was not waited for may have come.
            error = self.confirm_timeout.end(), if is_waiting => if self.listen()?.events == 0 { Err(error) } else { Ok(()) },
        }
    }

    /// Gives the client what may be sent now, group by group.
    async fn send(&mut self) -> Result<(), Error> {
        while !self.in_flight.is_troubled() {
            let room = GROUP.min(self.send_window.room(self.in_flight.len()));
            let mut group = Vec::with_capacity(room.min(GROUP));
            while group.len() < room
                && let Some(entry) = self.send_queue.next_if(|entry| entry.letter.is_some() || self.order.admits(&entry.record()))
            {
                group.push(self.prepare(entry)?);
            }
            if group.is_empty() {
                break;
            }
            self.give(group).await?;
        }
        Ok(())
    }

    /// What the broker gets for an event. One that is too large for it is a dead letter; where there are none, it is the end.
    fn prepare(&mut self, entry: Entry) -> Result<(Entry, Message), Error> {
        let prepared = match &entry.letter {
            Some(letter) => self.routes.letter(&entry.record(), &letter.error),
            None => self.routes.message(&entry.record()),
        };
        match prepared {
            Ok(message) => {
                if entry.letter.is_none() {
                    self.order.hold(&entry.record());
                }
                Ok((entry, message))
            }
            Err(error) if entry.letter.is_none() && self.routes.has_dead_letters() => {
                self.prepare(bury(entry, DeadLetter::TooLarge, error))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a group to the client, and waits until it is written.
    async fn give(&mut self, group: Vec<(Entry, Message)>) -> Result<(), Error> {
        if self.in_flight.is_empty() {
            self.confirm_timeout.begin();
        }
        let mut entries = Vec::with_capacity(group.len());
        for (place, (entry, message)) in group.into_iter().enumerate() {
            let (channel, sent) = (Arc::clone(&self.channel), entry.clone());
            let publish = async move {
                let Message { exchange, routing_key, properties, body_bytes } = message;
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let body = sent.record().body.unwrap_or_default();
                channel.basic_publish(exchange, routing_key, options, &body[..body_bytes], properties).await
            };
            match self.publishes.get_mut(place) {
                Some(used) => used.set(publish),
                None => self.publishes.push(ReusableBoxFuture::new(publish)),
            }
            entries.push(entry);
        }
        let written = all(&mut self.publishes[..entries.len()]);
        tokio::pin!(written);
        let confirms = loop {
            tokio::select! { biased;
                event = self.events.next() => self.confirm_timeout.note(event)?,
                lost = self.lock.lost() => return Err(lost),
                confirms = &mut written => break confirms,
                error = self.confirm_timeout.end() => match self.in_flight.take_answers() {
                    // What is written takes its time, and the broker goes on meanwhile.
                    Ok(answers) if 0 < answers.events => self.confirm_timeout.confirmed(),
                    _ => return Err(error),
                },
            }
        };
        for (entry, confirm) in entries.into_iter().zip(confirms) {
            let confirm = confirm.map_err(|error| Error::of_session(&error, &self.confirm_timeout.party))?;
            self.in_flight.push(entry, confirm);
        }
        Ok(())
    }

    /// Listens to what the broker has said by now.
    fn listen(&mut self) -> Result<Answers, Error> {
        let answers = self.in_flight.take_answers().map_err(|error| Error::of_session(&error, &self.confirm_timeout.party))?;
        if 0 < answers.events {
            self.confirm_timeout.confirmed();
        }
        Ok(answers)
    }

    /// Counts what is confirmed beyond doubt.
    fn take_answers(&mut self) -> Result<(), Error> {
        let answers = self.listen()?;
        let mut confirmed = 0;
        let mut last = None;
        for entry in self.in_flight.take_confirmed(answers) {
            release(&mut self.order, &entry);
            confirm(&entry, &mut self.unroutable, &self.confirm_timeout.metrics);
            confirmed += 1;
            last = Some(entry);
        }
        if let Some(last) = last {
            self.confirm_timeout.metrics.publish_duration_seconds.observe(last.submission.begun.elapsed().as_secs_f64());
            self.gain(confirmed);
        }
        Ok(())
    }

    /// The broker took so many events.
    fn gain(&mut self, events: usize) {
        if self.send_window.is_slow() {
            self.send_window.speed_up(events);
            self.confirm_timeout.set_refusing(false);
        }
    }

    /// Counts what is confirmed by now, and sorts it where something is not taken.
    fn settle(&mut self) -> Result<(), Error> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        self.take_answers()?;
        if self.in_flight.is_troubled() {
            let known = self.in_flight.take_known();
            return known.map_or(Ok(()), |known| self.sort(known?));
        }
        if self.in_flight.is_empty()
            && let Some(behind) = self.behind.take()
        {
            return self.go_on_behind(behind);
        }
        Ok(())
    }

    /// Sorts what was published by what became of it, up to an event that was not taken. That one is tried alone, and what is behind
    /// it waits; unless enough tries have proven that no queue takes it: then it is a dead letter, and nothing waits.
    fn sort(&mut self, mut known: VecDeque<(Entry, Verdict)>) -> Result<(), Error> {
        known.extend(self.behind.take().into_iter().flat_map(|behind| behind.entries));
        let mut again = VecDeque::new();
        while let Some((entry, verdict)) = known.pop_front() {
            release(&mut self.order, &entry);
            match verdict {
                Verdict::Taken => self.take(&entry),
                Verdict::Returned(error) if self.unroutable.returned(&entry) => {
                    // Nobody keeps the dead letters either.
                    if entry.letter.is_some() || !self.routes.has_dead_letters() {
                        return Err(error);
                    }
                    again.push_back(bury(entry, DeadLetter::Unroutable, error));
                }
                Verdict::Refused | Verdict::Returned(_) => {
                    self.refuse(&entry, &verdict);
                    self.behind = Some(Behind { entries: known, is_of_letter: entry.letter.is_some() });
                    again.push_front(entry);
                    break;
                }
            }
        }
        self.send_queue.take_back(again);
        Ok(())
    }

    /// The event that was tried is stored now, later than those behind it. They go again, or an event would stay before an earlier
    /// one; where order is kept for each key none of them is of its key.
    fn go_on_behind(&mut self, behind: Behind) -> Result<(), Error> {
        if behind.is_of_letter || !self.order.goes_back() {
            return self.sort(behind.entries);
        }
        let mut again = VecDeque::new();
        for (entry, verdict) in behind.entries {
            if entry.letter.is_some() && matches!(verdict, Verdict::Taken) {
                self.take(&entry);
            } else {
                again.push_back(entry);
            }
        }
        self.send_queue.take_back(again);
        Ok(())
    }

    /// The event is stored.
    fn take(&mut self, entry: &Entry) {
        confirm(entry, &mut self.unroutable, &self.confirm_timeout.metrics);
        self.gain(1);
    }

    /// The broker did not take an event.
    fn refuse(&mut self, entry: &Entry, verdict: &Verdict) {
        if !self.send_window.is_slow() {
            let id = String::from_utf8_lossy(entry.record().id).into_owned();
            let reason = match verdict {
                Verdict::Returned(_) => "no queue takes it for now",
                Verdict::Refused | Verdict::Taken => "a queue is full, or failed (nack)",
            };
            tracing::warn!(id, reason, "the broker does not take an event; it is sent again");
        }
        self.send_window.slow_down();
        self.confirm_timeout.set_refusing(true);
    }
}

/// An event as a dead letter.
fn bury(entry: Entry, reason: DeadLetter, error: Error) -> Entry {
    tracing::warn!(code = %error.code(), %error, "an event goes to the dead letters");
    entry.into_letter(reason, error)
}

/// The event is settled; a dead letter is not held.
fn release(order: &mut Order, entry: &Entry) {
    if entry.letter.is_none() {
        order.release(&entry.record());
    }
}

/// The event is stored.
fn confirm(entry: &Entry, unroutable: &mut UnroutableEvents, metrics: &SinkMetrics) {
    unroutable.taken(entry);
    if let Some(letter) = &entry.letter {
        metrics.count_dead_letter(letter.reason);
    }
    entry.submission.ack.confirm(1);
}

/// Polls all in their order, so that events are written in theirs, and returns their outputs. They finish in that order too, so
/// that only the last is waited for.
async fn all(publishes: &mut [Publish]) -> Vec<lapin::Result<PublisherConfirm>> {
    let mut begun: Vec<Option<lapin::Result<PublisherConfirm>>> = Vec::with_capacity(publishes.len());
    for publish in publishes.iter_mut() {
        begun.push(match publish.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        });
    }
    for place in (0..publishes.len()).rev() {
        if begun[place].is_none() {
            begun[place] = Some(poll_fn(|context| publishes[place].poll(context)).await);
        }
    }
    begun.into_iter().flatten().collect()
}
