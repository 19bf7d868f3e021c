//! What a start will do to the broker, what would stop it, and which events would find no queue; nothing is changed to find out.
//!
//! Without a broker, a login or the virtual host there is nothing to look at. Whatever else is wrong is collected, so that one look
//! names all of it.

use super::error::{Error, Party};
use super::link::{self, ANSWER_TIMEOUT, Connected};
use super::permissions::Permission::Configure;
use super::permissions::{Need, Resource};
use super::{Options, Queue};
use crate::fault::{Classify as _, Code};
use crate::feed::Feeds;
use crate::preflight::{Findings, Warning};
use lapin::{Connection, ExchangeKind};
use questions::{Answer, Question};
use std::collections::BTreeMap;
use tokio::time::timeout;

mod permissions;
mod questions;
mod queues;
mod routes;
mod topology;

/// A look at a broker, and what it has shown so far.
struct Look<'o> {
    options: &'o Options,
    connection: Connection,
    party: Party,
    /// Whether it may be asked what RabbitMQ refuses in any case, to see at what it refuses it.
    is_rabbitmq: bool,
    /// The permissions that were seen, and whether the user has them.
    permissions: BTreeMap<Need, bool>,
    findings: Findings,
}

/// What is there under an exchange's name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing: a start makes it.
    Absent,
    /// An exchange that is taken as it is, with the alternate exchange that it was made with, where that was seen.
    Present { alternate: Option<String> },
    /// Nothing that would do; it is said already.
    Unfit,
}

/// Looks ahead.
pub(super) async fn preflight(options: &Options, feeds: &Feeds) -> Result<Findings, Error> {
    let Connected { connection, party, place, .. } = link::connect(options).await?;
    let product = link::greeting(options, &place, &party).await?.property("product");
    let is_rabbitmq = product.as_deref() == Some("RabbitMQ");
    let mut look = Look { options, connection, party, is_rabbitmq, permissions: BTreeMap::new(), findings: Findings::default() };
    let keys = routes::keys(feeds);
    look.lock().await?;
    let exchange = look.exchange(&options.exchange, &ExchangeKind::Topic).await?;
    match exchange {
        Found::Absent => look.will(format!("make exchange {:?} (topic, durable)", options.exchange)),
        Found::Present { .. } => look.will(format!("publish to exchange {:?} as it is", options.exchange)),
        Found::Unfit => {}
    }
    for queue in &options.queues {
        look.queue(queue, &options.exchange).await?;
    }
    let letters = look.dead_letters().await?;
    // A broker that is short of memory or disk stops listening to a connection that has published: all else is asked before.
    for (name, found) in [(Some(options.exchange.as_str()), Some(&exchange)), (options.dead_letter.as_deref(), letters.as_ref())] {
        if let (Some(name), Some(found)) = (name, found) {
            look.publishing(name, found, &keys).await?;
            look.reading(name).await?;
        }
    }
    look.user();
    look.routes(&keys, &exchange, letters.as_ref()).await;
    if !look.is_blocked() {
        // What was asked is answered; a channel that the broker closed because something is missing may still be closing.
        let _closed = timeout(ANSWER_TIMEOUT, look.connection.close(200, "looked".into())).await;
    }
    Ok(look.findings)
}

impl Look<'_> {
    fn will(&mut self, action: String) {
        self.findings.actions.push(action);
    }

    fn warn(&mut self, code: Code, message: String) {
        self.findings.warnings.push(Warning { code, message });
    }

    /// Whether the broker no longer listens.
    fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// What would stop a start, in the words in which it would stop.
    fn refuse(&mut self, error: &Error) {
        self.findings.refusals.push(Warning { code: error.code(), message: error.to_string() });
    }

    /// Whether another instance publishes.
    async fn lock(&mut self) -> Result<(), Error> {
        let lock = self.party.lock.clone();
        let looked = self.ask(Question::Queue(&lock)).await?;
        if matches!(looked, Answer::Yes) {
            self.refuse(&Error::NoLock { address: self.party.address.clone(), queue: lock.clone() });
        }
        if matches!(looked, Answer::Locked(_)) {
            let held = Error::Held { address: self.party.address.clone(), lock: lock.clone() };
            self.warn(held.code(), format!("{held}: a start here waits for it"));
        }
        self.configuring_queue(&lock).await?;
        self.reading_queue(&lock).await
    }

    /// What is there under an exchange's name, and whether it would do.
    async fn exchange(&mut self, name: &str, kind: &ExchangeKind) -> Result<Found, Error> {
        let makes = self.options.declare;
        let unfit = |reason: &str| Error::Exchange { exchange: name.to_owned(), kind: link::name_of(kind), reason: reason.to_owned() };
        let is_there = match self.ask(Question::Exchange(name)).await? {
            Answer::Yes => true,
            Answer::Missing(_) if makes => false,
            Answer::Silence => return Err(link::silent(&self.party)),
            Answer::Refused(_) => {
                self.saw_none_of(&Resource::Exchange(name.to_owned()));
                return Ok(Found::Unfit);
            }
            answer => {
                self.refuse(&unfit(answer.reason()));
                return Ok(Found::Unfit);
            }
        };
        let found = if is_there { Found::Present { alternate: None } } else { Found::Absent };
        if !makes {
            return Ok(found);
        }
        let answer = if self.is_rabbitmq {
            self.ask(Question::UnmakeableExchange(name, kind)).await?
        } else if is_there {
            // The same again is no change, and the broker says whether it is the same.
            self.ask(Question::SameExchange(name, kind)).await?
        } else {
            return Ok(found);
        };
        self.saw((Configure, Resource::Exchange(name.to_owned())), answer.is_permitted());
        Ok(match answer {
            Answer::Unfit(reason) if reason.contains("inequivalent arg 'alternate-exchange'") => {
                Found::Present { alternate: questions::current(&reason) }
            }
            Answer::Unfit(reason) if is_there => {
                self.refuse(&unfit(&reason));
                Found::Unfit
            }
            _ => found,
        })
    }

    /// What becomes of dead letters, and what is there under their exchange's name; `None` where there are none.
    async fn dead_letters(&mut self) -> Result<Option<Found>, Error> {
        let Some(name) = self.options.dead_letter.as_deref() else { return Ok(None) };
        let found = self.exchange(name, &ExchangeKind::Fanout).await?;
        match found {
            Found::Absent => self.will(format!("make exchange {name:?} (fanout, durable) for dead letters")),
            Found::Present { .. } => self.will(format!("send dead letters to exchange {name:?} as it is")),
            Found::Unfit => {}
        }
        if self.options.declare {
            self.queue(&Queue::of_dead_letters(name), name).await?;
        }
        Ok(Some(found))
    }
}
