//! The state of one preflight: its connection, the permissions seen so far, and the findings.

use super::question::{Answer, Question};
use crate::event::Operation;
use crate::fault::{Classify as _, Code};
use crate::feed::{Feeds, PrefeedKind};
use crate::preflight::{Findings, Warning};
use crate::sink::amqp::error::{Error, Peer};
use crate::sink::amqp::options::Options;
use crate::sink::amqp::permissions::Grant;
use lapin::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One preflight of one broker.
pub(super) struct Inspection<'o> {
    pub(super) options: &'o Options,
    pub(super) connection: Connection,
    pub(super) peer: Peer,
    /// Whether the broker is RabbitMQ. Some questions rely on the order of RabbitMQ's checks, see [`Question`].
    pub(super) is_rabbitmq: bool,
    /// The routing keys of the pipeline's events.
    pub(super) keys: BTreeSet<Arc<str>>,
    /// The permissions that were seen, and whether the user has them.
    pub(super) permissions: BTreeMap<Grant, bool>,
    pub(super) findings: Findings,
}

/// What exists under the name of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExchangeState {
    /// Nothing: a start declares it.
    Absent,
    /// An exchange that fits, with the alternate exchange of its arguments if that was seen.
    Present { alternate: Option<String> },
    /// Something that does not fit; the finding is reported already.
    Unfit,
}

impl<'o> Inspection<'o> {
    pub(super) fn new(options: &'o Options, feeds: &Feeds, connection: Connection, peer: Peer, is_rabbitmq: bool) -> Self {
        Self {
            options,
            connection,
            peer,
            is_rabbitmq,
            keys: routing_keys(feeds),
            permissions: BTreeMap::new(),
            findings: Findings::default(),
        }
    }

    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Error> {
        question.ask(&self.connection, &self.peer).await
    }

    /// Adds something that a start would do.
    pub(super) fn add_action(&mut self, action: String) {
        self.findings.actions.push(action);
    }

    pub(super) fn warn(&mut self, code: Code, message: String) {
        self.findings.warnings.push(Warning { code, message });
    }

    /// Adds an error that would stop a start, with the same message.
    pub(super) fn refuse(&mut self, error: &Error) {
        self.findings.refusals.push(Warning { code: error.code(), message: error.to_string() });
    }

    /// Whether the broker has blocked this connection, and no longer reads from it.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }
}

/// The routing keys that the pipeline's events will have.
fn routing_keys(feeds: &Feeds) -> BTreeSet<Arc<str>> {
    let mut keys = BTreeSet::new();
    for feed in feeds.iter() {
        for operation in Operation::ALL {
            if feed.operations.admits(operation) && !(operation.is_prefeed() && feed.prefeed == PrefeedKind::None) {
                keys.insert(feed.destination(operation).clone());
            }
        }
    }
    keys
}
