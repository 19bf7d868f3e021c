//! Checks the lock, the exchange and the dead-letter exchange.

use super::inspection::{ExchangeState, Inspection};
use super::question::{Answer, Question, current_value};
use crate::fault::Classify as _;
use crate::sink::amqp::connect::no_answer;
use crate::sink::amqp::declare;
use crate::sink::amqp::error::Error;
use crate::sink::amqp::options::Queue;
use crate::sink::amqp::permissions::Permission::Configure;
use crate::sink::amqp::permissions::Resource;
use lapin::ExchangeKind;

impl Inspection<'_> {
    /// Checks whether another instance owns the lock, and the permissions for it.
    pub(super) async fn check_lock(&mut self) -> Result<(), Error> {
        let lock = self.peer.lock.clone();
        let answer = match self.check_configuring_queue(&lock).await? {
            Some(answer) => answer,
            None => self.ask(Question::Queue(&lock)).await?,
        };
        match answer {
            Answer::Locked(_) => {
                let held = Error::LockHeld { address: self.peer.address.clone(), lock: lock.clone() };
                self.warn(held.code(), format!("{held}: a start here waits for it"));
            }
            // A queue that no connection owns.
            Answer::Unfit(reason) if reason.contains("inequivalent ") => self.refuse_taken_lock(&lock),
            Answer::Yes => self.refuse_taken_lock(&lock),
            _ => {}
        }
        self.check_reading_queue(&lock).await
    }

    fn refuse_taken_lock(&mut self, lock: &str) {
        self.refuse(&Error::LockNameTaken { address: self.peer.address.clone(), queue: lock.to_owned() });
    }

    /// Checks an exchange, and says what a start does with it: it makes it, for a purpose, or uses it.
    pub(super) async fn check_exchange(
        &mut self,
        name: &str,
        kind: &ExchangeKind,
        usage: &str,
        purpose: &str,
    ) -> Result<ExchangeState, Error> {
        let state = self.exchange_state(name, kind).await?;
        match state {
            ExchangeState::Absent => self.add_action(format!("make exchange {name:?} ({}, durable){purpose}", declare::name_of(kind))),
            ExchangeState::Present { .. } => self.add_action(format!("{usage} to exchange {name:?} as it is")),
            ExchangeState::Unfit => {}
        }
        Ok(state)
    }

    /// Checks whether an exchange exists and fits, and whether the user may declare it.
    async fn exchange_state(&mut self, name: &str, kind: &ExchangeKind) -> Result<ExchangeState, Error> {
        let declare = self.options.declare;
        let unfit = |reason: &str| Error::Exchange { exchange: name.to_owned(), kind: declare::name_of(kind), reason: reason.to_owned() };
        let exists = match self.ask(Question::Exchange(name)).await? {
            Answer::Yes => true,
            Answer::Missing(_) if declare => false,
            Answer::Timeout => return Err(no_answer(&self.peer)),
            Answer::Refused(_) => {
                self.note_no_permission(&Resource::Exchange(name.to_owned()));
                return Ok(ExchangeState::Unfit);
            }
            answer => {
                self.refuse(&unfit(answer.reason()));
                return Ok(ExchangeState::Unfit);
            }
        };
        let state = if exists { ExchangeState::Present { alternate: None } } else { ExchangeState::Absent };
        if !declare {
            return Ok(state);
        }
        let answer = if exists {
            // Declaring an existing exchange changes nothing, and the broker compares it.
            self.ask(Question::SameExchange(name, kind)).await?
        } else if self.is_rabbitmq {
            self.ask(Question::UndeclarableExchange(name, kind)).await?
        } else {
            return Ok(state);
        };
        self.note_permission((Configure, Resource::Exchange(name.to_owned())), answer.is_permitted());
        Ok(match answer {
            Answer::Unfit(reason) if reason.contains("inequivalent arg 'alternate-exchange'") => {
                ExchangeState::Present { alternate: current_value(&reason) }
            }
            Answer::Unfit(reason) if exists => {
                self.refuse(&unfit(&reason));
                ExchangeState::Unfit
            }
            _ => state,
        })
    }

    /// Checks the dead-letter exchange and its queue; `None` if dead letters are not configured.
    pub(super) async fn check_dead_letters(&mut self) -> Result<Option<ExchangeState>, Error> {
        let Some(name) = self.options.dead_letter.as_deref() else { return Ok(None) };
        let state = self.check_exchange(name, &ExchangeKind::Fanout, "send dead letters", " for dead letters").await?;
        if self.options.declare {
            self.check_queue(&Queue::of_dead_letters(name), name).await?;
        }
        Ok(Some(state))
    }
}
