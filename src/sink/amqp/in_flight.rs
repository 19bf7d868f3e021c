//! The published events that are not settled yet, in order, with the broker's confirms and returns.
//!
//! The client attaches a returned message to whichever confirm it resolves next, on a thread of its own. A confirm alone therefore
//! does not prove that its event was stored. Confirms are believed only after the confirms of all events in flight were checked once
//! more, and no return or nack was among them. After a return or a nack nothing is believed until every confirm has arrived: by then
//! every return has arrived too.

use super::error::Error;
use super::send_queue::Entry;
use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use lapin::{Confirmation, PublisherConfirm};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A published event.
struct PublishedEvent {
    confirm: PublisherConfirm,
    entry: Entry,
    /// The broker's answer, once it has arrived.
    answer: Option<ConfirmKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfirmKind {
    Ack,
    Nack,
}

/// What the broker did with a published event.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Every queue has stored it.
    Stored,
    /// A queue refused it (nack).
    Refused,
    /// It was returned: no queue takes its routing key.
    Returned(Error),
}

/// The published events that are not settled yet.
#[derive(Default)]
pub(super) struct InFlight {
    events: VecDeque<PublishedEvent>,
    /// Returned events by their ids.
    returned: HashMap<Vec<u8>, Error>,
    /// The number of nacks.
    refused: usize,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether an event was returned or refused. Then nothing more is sent until the last confirm has arrived.
    pub(super) fn has_failures(&self) -> bool {
        !self.returned.is_empty() || 0 < self.refused
    }

    pub(super) fn push(&mut self, entry: Entry, confirm: PublisherConfirm) {
        self.events.push_back(PublishedEvent { confirm, entry, answer: None });
    }

    /// Waits until it is worth calling [`Self::collect_confirms`]: half of the events have an answer, since each confirm on
    /// its own would wake a thread; or all of them, after a failure. Cancel safe.
    pub(super) async fn wait(&mut self) -> lapin::Result<()> {
        poll_fn(|context| {
            while let Some(index) = self.awaited() {
                std::task::ready!(self.poll_confirm(index, context))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The event whose confirm is waited for; `None` when enough have arrived.
    fn awaited(&self) -> Option<usize> {
        let enough = if self.has_failures() { self.events.len() } else { self.events.len().min(self.events.len() / 2 + 1) };
        self.events.range(..enough).rposition(|event| event.answer.is_none())
    }

    /// Polls the confirm of one event.
    fn poll_confirm(&mut self, index: usize, context: &mut Context<'_>) -> Poll<lapin::Result<()>> {
        let event = &mut self.events[index];
        let confirmation = std::task::ready!(Pin::new(&mut event.confirm).poll(context))?;
        let (answer, message) = match confirmation {
            Confirmation::Ack(message) => (ConfirmKind::Ack, message),
            Confirmation::Nack(message) => (ConfirmKind::Nack, message),
            Confirmation::NotRequested => return Poll::Ready(Err(io::Error::other("the channel does not confirm").into())),
        };
        event.answer = Some(answer);
        self.refused += usize::from(answer == ConfirmKind::Nack);
        if let Some(message) = message {
            self.returned.insert(message_id(&message).as_bytes().to_vec(), unroutable(&message));
        }
        Poll::Ready(Ok(()))
    }

    /// Collects all confirms that have arrived by now, without waiting.
    ///
    /// The confirmed events at the front come first: their number is what may be believed. All others follow, because the confirm
    /// that carries a return arrives no later than the confirm of the event that was returned.
    pub(super) fn collect_confirms(&mut self) -> lapin::Result<Collected> {
        let mut context = Context::from_waker(Waker::noop());
        let (mut confirmed_prefix, mut answered) = (0, 0);
        while confirmed_prefix < self.events.len() {
            if self.events[confirmed_prefix].answer.is_none() {
                match self.poll_confirm(confirmed_prefix, &mut context) {
                    Poll::Ready(polled) => polled?,
                    Poll::Pending => break,
                }
                answered += 1;
            }
            confirmed_prefix += 1;
        }
        for index in confirmed_prefix..self.events.len() {
            if self.events[index].answer.is_none()
                && let Poll::Ready(polled) = self.poll_confirm(index, &mut context)
            {
                polled?;
                answered += 1;
            }
        }
        Ok(Collected { answered, confirmed_prefix: if self.has_failures() { 0 } else { confirmed_prefix } })
    }

    /// Takes the confirmed events off the front, as many as may be believed.
    pub(super) fn take_confirmed(&mut self, collected: Collected) -> impl Iterator<Item = Entry> {
        self.events.drain(..collected.confirmed_prefix).map(|event| event.entry)
    }

    /// Takes all events with their outcomes, in order, once every confirm has arrived; `None` before that.
    ///
    /// # Errors
    /// If an event was returned that was not in flight.
    pub(super) fn take_outcomes(&mut self) -> Option<Result<VecDeque<(Entry, Outcome)>, Error>> {
        if self.events.iter().any(|event| event.answer.is_none()) {
            return None;
        }
        let mut returned = std::mem::take(&mut self.returned);
        self.refused = 0;
        let outcomes = self.events.drain(..).map(|PublishedEvent { entry, answer, .. }| {
            let outcome = match (returned.remove(entry.record().id), answer) {
                (Some(error), _) => Outcome::Returned(error),
                (None, Some(ConfirmKind::Nack)) => Outcome::Refused,
                (None, _) => Outcome::Stored,
            };
            (entry, outcome)
        });
        let outcomes: VecDeque<_> = outcomes.collect();
        let unknown = returned.into_keys().next();
        Some(match unknown {
            None => Ok(outcomes),
            Some(id) => {
                let id = String::from_utf8_lossy(&id).into_owned();
                Err(Error::Unconfirmed { reason: format!("the broker returned event {id:?}, which was not in flight") })
            }
        })
    }
}

/// The result of [`InFlight::collect_confirms`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Collected {
    /// How many confirms arrived in this call.
    pub(super) answered: usize,
    /// How many events at the front are certainly stored.
    confirmed_prefix: usize,
}

/// The event's id, which each of our messages has.
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
