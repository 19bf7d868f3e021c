//! Published events in their order, and what the broker said of them.
//!
//! The client hands a returned event to whichever confirm it resolves next, from a thread of its own. So no confirm is believed
//! before all that are on their way were looked through after it: as long as no return and no refusal is among them, none of the
//! confirmed events was returned. Once there is one, nothing is believed until every confirm has come: then every return has too.

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
struct Flight {
    confirm: PublisherConfirm,
    entry: Entry,
    /// What the broker said of it.
    said: Option<Said>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ack,
    Nack,
}

/// What became of a published event.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is stored.
    Taken,
    /// A queue did not take it.
    Refused,
    /// No queue takes it.
    Returned(Error),
}

/// Published events whose confirms are to come, and those behind them.
#[derive(Default)]
pub(super) struct InFlight {
    flights: VecDeque<Flight>,
    /// Returned events by their ids.
    returned: HashMap<Vec<u8>, Error>,
    /// How many are refused.
    refused: usize,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether an event was returned or refused: then nothing more is sent until the last confirm has come.
    pub(super) fn is_troubled(&self) -> bool {
        !self.returned.is_empty() || 0 < self.refused
    }

    pub(super) fn push(&mut self, entry: Entry, confirm: PublisherConfirm) {
        self.flights.push_back(Flight { confirm, entry, said: None });
    }

    /// Waits until there is something to [`Self::take_answers`]: half of what is on its way, since each word of the broker by
    /// itself would wake a thread; all of it in trouble. Cancel safe.
    pub(super) async fn wait(&mut self) -> lapin::Result<()> {
        poll_fn(|context| {
            while let Some(place) = self.awaited() {
                std::task::ready!(self.ask(place, context))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The event whose confirm is waited for; none, when there is enough to take_answers.
    fn awaited(&self) -> Option<usize> {
        let enough = if self.is_troubled() { self.flights.len() } else { self.flights.len().min(self.flights.len() / 2 + 1) };
        self.flights.range(..enough).rposition(|flight| flight.said.is_none())
    }

    /// Asks for one event's confirm.
    fn ask(&mut self, place: usize, context: &mut Context<'_>) -> Poll<lapin::Result<()>> {
        let flight = &mut self.flights[place];
        let confirmation = std::task::ready!(Pin::new(&mut flight.confirm).poll(context))?;
        let (said, message) = match confirmation {
            Confirmation::Ack(message) => (Said::Ack, message),
            Confirmation::Nack(message) => (Said::Nack, message),
            Confirmation::NotRequested => return Poll::Ready(Err(io::Error::other("the channel does not confirm").into())),
        };
        flight.said = Some(said);
        self.refused += usize::from(said == Said::Nack);
        if let Some(message) = message {
            self.returned.insert(message_id(&message).as_bytes().to_vec(), unroutable(&message));
        }
        Poll::Ready(Ok(()))
    }

    /// Hears all that the broker has said by now, and tells how much that is.
    ///
    /// First the confirmed events at the front, whose number is what can be believed, and then all others: whichever confirm
    /// carries a return has come no later than that of an event that it could belong to.
    pub(super) fn take_answers(&mut self) -> lapin::Result<Answers> {
        let mut context = Context::from_waker(Waker::noop());
        let (mut believed, mut events) = (0, 0);
        while believed < self.flights.len() {
            if self.flights[believed].said.is_none() {
                match self.ask(believed, &mut context) {
                    Poll::Ready(asked) => asked?,
                    Poll::Pending => break,
                }
                events += 1;
            }
            believed += 1;
        }
        for place in believed..self.flights.len() {
            if self.flights[place].said.is_none()
                && let Poll::Ready(asked) = self.ask(place, &mut context)
            {
                asked?;
                events += 1;
            }
        }
        Ok(Answers { events, believed: if self.is_troubled() { 0 } else { believed } })
    }

    /// Takes confirmed events off the front, as many as may be believed.
    pub(super) fn take_confirmed(&mut self, answers: Answers) -> impl Iterator<Item = Entry> {
        self.flights.drain(..answers.believed).map(|flight| flight.entry)
    }

    /// Takes everything, in its order, once every confirm has come; `None` before that.
    ///
    /// # Errors
    /// Where an event was returned that was not on its way.
    pub(super) fn take_known(&mut self) -> Option<Result<VecDeque<(Entry, Verdict)>, Error>> {
        if self.flights.iter().any(|flight| flight.said.is_none()) {
            return None;
        }
        let mut returned = std::mem::take(&mut self.returned);
        self.refused = 0;
        let sorted = self.flights.drain(..).map(|Flight { entry, said, .. }| {
            let verdict = match (returned.remove(entry.record().id), said) {
                (Some(error), _) => Verdict::Returned(error),
                (None, Some(Said::Nack)) => Verdict::Refused,
                (None, _) => Verdict::Taken,
            };
            (entry, verdict)
        });
        let sorted: VecDeque<_> = sorted.collect();
        let unknown = returned.into_keys().next();
        Some(match unknown {
            None => Ok(sorted),
            Some(id) => {
                let id = String::from_utf8_lossy(&id).into_owned();
                Err(Error::Unconfirmed { reason: format!("the broker returned event {id:?}, which was not on its way") })
            }
        })
    }
}

/// What [`InFlight::take_answers`] found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    /// Of how many events the broker said something.
    pub(super) events: usize,
    /// How many events at the front are confirmed beyond doubt.
    believed: usize,
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
