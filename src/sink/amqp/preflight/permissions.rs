//! Whether the user may do what a start and its events will ask for.

use super::questions::{Answer, Question};
use super::routes::Keys;
use super::{Found, Look};
use crate::fault::Code;
use crate::preflight::Warning;
use crate::sink::amqp::error::Error;
use crate::sink::amqp::permissions::Permission::{Configure, Read, Write};
use crate::sink::amqp::permissions::{Need, Permissions, Resource, every_key, listed, plain};

/// As many routing keys are asked about: each leaves a line in the broker's log, and permissions by key are rare.
const KEYS_ASKED: usize = 5;

impl Look<'_> {
    /// Keeps what was seen of a permission, if anything was.
    pub(super) fn saw(&mut self, need: Need, is_permitted: Option<bool>) {
        if let Some(is_permitted) = is_permitted {
            self.permissions.insert(need, is_permitted);
        }
    }

    /// Keeps that the user has no permission at all on what was looked for: RabbitMQ 4.3 tells nobody else whether it is there
    /// (`rabbit_channel:check_any_resource_access_permitted`), 4.0 tells everybody.
    pub(super) fn saw_none_of(&mut self, resource: &Resource) {
        for permission in [Configure, Write, Read] {
            self.saw((permission, resource.clone()), Some(false));
        }
    }

    /// Whether a queue of this name may be made; what the broker says, where it was asked.
    pub(super) async fn configuring_queue(&mut self, name: &str) -> Result<(), Error> {
        if self.is_rabbitmq {
            let answer = self.ask(Question::UnmakeableQueue(name)).await?;
            self.saw((Configure, Resource::Queue(name.to_owned())), answer.is_permitted());
            // Among others, that the virtual host has all the queues that it may have.
            if let Answer::Unfit(reason) = answer
                && !["invalid ", "inequivalent "].iter().any(|expected| reason.contains(expected))
            {
                self.refuse(&Error::Queue { queue: name.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// Whether a queue may be consumed.
    pub(super) async fn reading_queue(&mut self, name: &str) -> Result<(), Error> {
        if self.is_rabbitmq {
            let answer = self.ask(Question::Reading(name)).await?;
            self.saw((Read, Resource::Queue(name.to_owned())), answer.is_permitted());
        }
        Ok(())
    }

    /// Whether events may be published to an exchange.
    pub(super) async fn publishing(&mut self, exchange: &str, found: &Found, keys: &Keys) -> Result<(), Error> {
        if !self.is_rabbitmq || self.is_blocked() || *found == Found::Unfit {
            return Ok(());
        }
        let Some(key) = keys.iter().next() else { return Ok(()) };
        match self.ask(Question::Publishing { exchange, key }).await? {
            Answer::Refused(reason) if reason.contains("internal exchange") => {
                self.refuse(&Error::Exchange { exchange: exchange.to_owned(), kind: "topic", reason });
                return Ok(());
            }
            answer => {
                let is_permitted = answer.is_permitted().map(|is_permitted| is_permitted || answer.is_of_a_topic());
                self.saw((Write, Resource::Exchange(exchange.to_owned())), is_permitted);
                // Keys are compared with the permissions of an exchange that is there.
                if is_permitted != Some(true) || *found == Found::Absent {
                    return Ok(());
                }
            }
        }
        for key in keys.iter().step_by(keys.len().div_ceil(KEYS_ASKED)) {
            if self.is_blocked() {
                return Ok(());
            }
            let answer = self.ask(Question::PublishingKey { exchange, key }).await?;
            if answer.is_of_a_topic() {
                self.topic(exchange, answer.reason());
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a queue may be bound to an exchange with these keys.
    pub(super) async fn binding(&mut self, queue: &str, exchange: &str, keys: &[String]) -> Result<(), Error> {
        if !self.is_rabbitmq {
            return Ok(());
        }
        let write = (Write, Resource::Queue(queue.to_owned()));
        let read = (Read, Resource::Exchange(exchange.to_owned()));
        for key in keys {
            match self.ask(Question::UnbindingQueue { queue, exchange, key }).await? {
                answer if answer.is_of_a_topic() => {
                    self.saw(write, Some(true));
                    self.saw(read, Some(true));
                    self.topic(exchange, answer.reason());
                    return Ok(());
                }
                // The queue comes first: of the exchange this says nothing.
                Answer::Refused(reason) if reason.contains("access to queue") => {
                    self.saw(write, Some(false));
                    return Ok(());
                }
                Answer::Refused(_) => {
                    self.saw(write, Some(true));
                    self.saw(read, Some(false));
                    return Ok(());
                }
                answer => {
                    self.saw(write.clone(), answer.is_permitted());
                    self.saw(read.clone(), answer.is_permitted());
                }
            }
        }
        Ok(())
    }

    /// Whether an exchange may be read from, where it is needed and no queue showed it.
    pub(super) async fn reading(&mut self, exchange: &str) -> Result<(), Error> {
        let of_exchange = |permission| (permission, Resource::Exchange(exchange.to_owned()));
        let is_needed = Permissions::of_events(self.options).needs().contains(&of_exchange(Read));
        let is_open = is_needed && !self.permissions.contains_key(&of_exchange(Read));
        if is_open && !self.is_blocked() && self.permissions.get(&of_exchange(Write)) == Some(&true) {
            let answer = self.ask(Question::UnbindingExchange(exchange)).await?;
            self.saw(of_exchange(Read), answer.is_permitted());
        }
        Ok(())
    }

    fn topic(&mut self, exchange: &str, reason: &str) {
        let grant = every_key(&self.options.vhost, &self.options.user, exchange);
        let message = format!("RabbitMQ refused: {reason}; let the user write and read every key there: {grant}");
        self.findings.refusals.push(Warning { code: Code::SinkPrivilege, message });
    }

    /// What the user lacks, all in one.
    pub(super) fn user(&mut self) {
        let user = &self.options.user;
        if !self.is_rabbitmq {
            let message = format!("this broker is not RabbitMQ: what user {user:?} may do is seen at the start");
            return self.warn(Code::SinkPrivilege, message);
        }
        let needs = Permissions::of_events(self.options);
        let those =
            |seen: Option<bool>| -> Vec<_> { needs.needs().iter().filter(|need| self.permissions.get(need).copied() == seen).collect() };
        let (lacking, unseen) = (listed(&those(Some(false))), listed(&those(None)));
        let grant = &self.party.grant;
        if !lacking.is_empty() {
            let message = format!(
                "user {user:?} lacks permissions: {lacking}; grant all that is needed: {grant} (it replaces what the user has: add what else it needs)"
            );
            self.findings.refusals.push(Warning { code: Code::SinkPrivilege, message });
        }
        if !unseen.is_empty() {
            let why = if self.is_blocked() { "is short of memory or disk and blocks publishers: it " } else { "" };
            let message = format!(
                "the broker {why}did not show whether user {user:?} may {unseen}; compare rabbitmqctl list_user_permissions {} with: {grant}",
                plain(user)
            );
            self.warn(Code::SinkPrivilege, message);
        }
    }
}
