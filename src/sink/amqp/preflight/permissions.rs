//! Checks the permissions of the broker's user.

use super::inspection::{ExchangeState, Inspection};
use super::question::{Answer, Question};
use crate::fault::Code;
use crate::preflight::Warning;
use crate::sink::amqp::error::Error;
use crate::sink::amqp::permissions::Permission::{Configure, Read, Write};
use crate::sink::amqp::permissions::{Grant, Permissions, Resource, grant_every_key, list, shell_word};
use std::sync::Arc;

/// How many routing keys are checked. Permissions by routing key are rare.
const KEYS_CHECKED: usize = 5;

impl Inspection<'_> {
    /// Notes whether the user has a permission, if that was seen.
    pub(super) fn note_permission(&mut self, grant: Grant, is_permitted: Option<bool>) {
        if let Some(is_permitted) = is_permitted {
            self.permissions.insert(grant, is_permitted);
        }
    }

    /// Notes that the user has no permission at all on a resource. RabbitMQ 4.3 hides from such a user whether the resource exists
    /// (`rabbit_channel:check_any_resource_access_permitted`); 4.0 tells every user.
    pub(super) fn note_no_permission(&mut self, resource: &Resource) {
        for permission in [Configure, Write, Read] {
            self.note_permission((permission, resource.clone()), Some(false));
        }
    }

    /// Checks whether the user may declare a queue. Returns the answer to the declaration, which is always refused; `None` if the broker is not
    /// RabbitMQ.
    pub(super) async fn check_configuring_queue(&mut self, name: &str) -> Result<Option<Answer>, Error> {
        if !self.is_rabbitmq {
            return Ok(None);
        }
        let answer = self.ask(Question::UndeclarableQueue(name)).await?;
        self.note_permission((Configure, Resource::Queue(name.to_owned())), answer.is_permitted());
        // For example, the virtual host has reached its limit of queues.
        if let Answer::Unfit(reason) = &answer
            && !["invalid ", "inequivalent "].iter().any(|expected| reason.contains(expected))
        {
            self.refuse(&Error::Queue { queue: name.to_owned(), reason: reason.clone() });
        }
        Ok(Some(answer))
    }

    /// Checks whether the user may consume a queue.
    pub(super) async fn check_reading_queue(&mut self, name: &str) -> Result<(), Error> {
        if self.is_rabbitmq {
            let answer = self.ask(Question::Reading(name)).await?;
            self.note_permission((Read, Resource::Queue(name.to_owned())), answer.is_permitted());
        }
        Ok(())
    }

    /// Checks whether the user may publish to an exchange.
    pub(super) async fn check_publishing(&mut self, exchange: &str, state: &ExchangeState) -> Result<(), Error> {
        if !self.is_rabbitmq || self.is_blocked() || *state == ExchangeState::Unfit {
            return Ok(());
        }
        let write = (Write, Resource::Exchange(exchange.to_owned()));
        if *state == ExchangeState::Absent {
            let Some(key) = self.keys.first().cloned() else { return Ok(()) };
            let answer = self.ask(Question::PublishingToMissing { exchange, key: &key }).await?;
            self.note_permission(write, answer.is_permitted());
            return Ok(());
        }
        let keys: Vec<Arc<str>> = self.keys.iter().step_by(self.keys.len().div_ceil(KEYS_CHECKED).max(1)).cloned().collect();
        for key in &keys {
            if self.is_blocked() {
                return Ok(());
            }
            match self.ask(Question::Publishing { exchange, key }).await? {
                answer if answer.is_of_routing_key() => {
                    self.note_permission(write, Some(true));
                    self.refuse_routing_key(exchange, answer.reason());
                    return Ok(());
                }
                Answer::Refused(reason) if reason.contains("internal exchange") => {
                    self.refuse(&Error::Exchange { exchange: exchange.to_owned(), kind: "topic", reason });
                    return Ok(());
                }
                answer => self.note_permission(write.clone(), answer.is_permitted()),
            }
        }
        Ok(())
    }

    /// Checks whether the user may bind a queue to an exchange with these keys.
    pub(super) async fn check_binding(&mut self, queue: &str, exchange: &str, keys: &[String]) -> Result<(), Error> {
        if !self.is_rabbitmq {
            return Ok(());
        }
        let write = (Write, Resource::Queue(queue.to_owned()));
        let read = (Read, Resource::Exchange(exchange.to_owned()));
        for key in keys {
            match self.ask(Question::UnbindingQueue { queue, exchange, key }).await? {
                answer if answer.is_of_routing_key() => {
                    self.note_permission(write, Some(true));
                    self.note_permission(read, Some(true));
                    self.refuse_routing_key(exchange, answer.reason());
                    return Ok(());
                }
                // The queue is checked first: this says nothing about the exchange.
                Answer::Refused(reason) if reason.contains("access to queue") => {
                    self.note_permission(write, Some(false));
                    return Ok(());
                }
                Answer::Refused(_) => {
                    self.note_permission(write, Some(true));
                    self.note_permission(read, Some(false));
                    return Ok(());
                }
                answer => {
                    self.note_permission(write.clone(), answer.is_permitted());
                    self.note_permission(read.clone(), answer.is_permitted());
                }
            }
        }
        Ok(())
    }

    /// Checks whether the user may read from an exchange, if that is needed and no binding has shown it.
    pub(super) async fn check_reading_exchange(&mut self, exchange: &str) -> Result<(), Error> {
        let of_exchange = |permission| (permission, Resource::Exchange(exchange.to_owned()));
        let is_needed = Permissions::of_events(self.options).needs().contains(&of_exchange(Read));
        let is_open = is_needed && !self.permissions.contains_key(&of_exchange(Read));
        if is_open && !self.is_blocked() && self.permissions.get(&of_exchange(Write)) == Some(&true) {
            let answer = self.ask(Question::UnbindingExchange(exchange)).await?;
            self.note_permission(of_exchange(Read), answer.is_permitted());
        }
        Ok(())
    }

    /// Reports a routing key that the user may not use.
    fn refuse_routing_key(&mut self, exchange: &str, reason: &str) {
        let grant = grant_every_key(&self.options.vhost, &self.options.user, exchange);
        let message = format!("RabbitMQ refused: {reason}; allow every routing key: {grant}");
        self.findings.refusals.push(Warning { code: Code::SinkPrivilege, message });
    }

    /// Reports all missing permissions in one finding, and all that were not seen in another.
    pub(super) fn report_permissions(&mut self) {
        let user = &self.options.user;
        if !self.is_rabbitmq {
            let message = format!("this broker is not RabbitMQ: the permissions of user {user:?} are checked only by a start");
            return self.warn(Code::SinkPrivilege, message);
        }
        let needs = Permissions::of_events(self.options);
        let with =
            |seen: Option<bool>| -> Vec<_> { needs.needs().iter().filter(|grant| self.permissions.get(grant).copied() == seen).collect() };
        let (missing, unseen) = (list(&with(Some(false))), list(&with(None)));
        let grant = &self.peer.grant;
        if !missing.is_empty() {
            let message = format!(
                "user {user:?} lacks permissions: {missing}; run: {grant} (it replaces the user's permissions: add any others that it needs)"
            );
            self.findings.refusals.push(Warning { code: Code::SinkPrivilege, message });
        }
        if !unseen.is_empty() {
            let cause = if self.is_blocked() { "is short of memory or disk and blocks publishers: it " } else { "" };
            let message = format!(
                "the broker {cause}did not show whether user {user:?} may {unseen}; compare rabbitmqctl list_user_permissions {} with: {grant}",
                shell_word(user)
            );
            self.warn(Code::SinkPrivilege, message);
        }
    }
}
