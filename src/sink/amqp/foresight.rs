//! What a start will do to the broker, and which events would find no queue; nothing is changed to find out.

use super::error::{Error, Party};
use super::management::{Binding, Management, QueueFacts, ask};
use super::{Options, Queue, link};
use crate::change::Operation;
use crate::fault::{Classify as _, Code};
use crate::feed::{Feeds, PrefeedKind};
use crate::foresight::{Foresight, Warning, named};
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ExchangeKind};
use std::collections::BTreeSet;

/// As many exchanges that are bound to each other are followed.
const EXCHANGES_MAX: usize = 100;

/// Looks ahead.
pub(super) async fn foresee(options: &Options, feeds: &Feeds) -> Result<Foresight, Error> {
    let (connection, party, _) = link::connect(options).await?;
    let mut foresight = Foresight::default();
    lock(&connection, &party, &mut foresight).await?;
    let is_there = exchange(&connection, options, &party, &mut foresight).await?;
    for queue in &options.queues {
        declared(&connection, queue, &party, &mut foresight).await?;
    }
    // What was asked is answered; a channel that the broker closed because something is missing may still be closing.
    let _closed = connection.close(200, "looked".into()).await;
    routes(options, feeds, is_there, &mut foresight).await;
    Ok(foresight)
}

/// Whether another instance publishes.
async fn lock(connection: &Connection, party: &Party, foresight: &mut Foresight) -> Result<(), Error> {
    let channel = connection.create_channel().await.map_err(|error| Error::of_session(&error, party))?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    if let Err(error) = channel.queue_declare(party.lock.as_str().into(), passive, FieldTable::default()).await
        && let held @ Error::Held { .. } = Error::of_session(&error, party)
    {
        foresight.warnings.push(Warning { code: held.code(), message: format!("{held}: a start here waits for it") });
    }
    Ok(())
}

/// Whether the exchange is there; what cannot be made is an error.
async fn exchange(connection: &Connection, options: &Options, party: &Party, foresight: &mut Foresight) -> Result<bool, Error> {
    let channel = connection.create_channel().await.map_err(|error| Error::of_session(&error, party))?;
    let name = party.exchange.as_str();
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let looked = channel.exchange_declare(name.into(), ExchangeKind::Topic, passive, FieldTable::default()).await;
    let missing = looked.err().map(|error| Error::of_exchange(&error, name, "topic", party));
    match missing {
        None => {}
        Some(Error::Exchange { .. }) if options.declare => {
            foresight.actions.push(format!("make exchange {name:?} (topic, durable)"));
            return Ok(false);
        }
        Some(error) => return Err(error),
    }
    if options.declare {
        // The same again is no change, and the broker says whether it is the same, and whether the user may.
        let same = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(name.into(), ExchangeKind::Topic, same, FieldTable::default()).await;
        declared.map_err(|error| Error::of_exchange(&error, name, "topic", party))?;
    }
    foresight.actions.push(format!("publish to exchange {name:?} as it is"));
    Ok(true)
}

/// Whether a configured queue is there.
async fn declared(connection: &Connection, queue: &Queue, party: &Party, foresight: &mut Foresight) -> Result<(), Error> {
    let channel = connection.create_channel().await.map_err(|error| Error::of_session(&error, party))?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let made = match channel.queue_declare(queue.name.as_str().into(), passive, FieldTable::default()).await {
        Ok(_) => "bind queue",
        Err(_) => "make and bind queue",
    };
    foresight.actions.push(format!("{made} {:?} ({}) with {}", queue.name, queue.kind.name(), queue.keys.join(", ")));
    Ok(())
}

/// Which events no queue would take, and which queues lose what they took.
async fn routes(options: &Options, feeds: &Feeds, is_there: bool, foresight: &mut Foresight) {
    let Some(management) = &options.management else {
        let message = "bindings are not shown by AMQP: set sink.management_url to see which events no queue would take".to_owned();
        return foresight.warnings.push(Warning { code: Code::BindingsUnseen, message });
    };
    let mut takers: Vec<String> = options.queues.iter().flat_map(|queue| queue.keys.clone()).collect();
    let mut queues = BTreeSet::new();
    if is_there {
        match bindings(options, management).await {
            Ok(found) => {
                for binding in found {
                    takers.push(binding.routing_key);
                    if binding.destination_type == "queue" {
                        queues.insert(binding.destination);
                    }
                }
            }
            Err(reason) => {
                let (host, port) = (&management.place.host, management.place.port);
                let message = format!("the management API at {host}:{port} did not show the bindings: {reason}");
                return foresight.warnings.push(Warning { code: Code::BindingsUnseen, message });
            }
        }
    }
    let finding = unroutable(feeds, &takers, &options.exchange);
    // Where there are dead letters nothing stops.
    let grave = if options.dead_letter.is_some() { &mut foresight.warnings } else { &mut foresight.refusals };
    grave.extend(finding);
    for queue in queues {
        if let Ok(facts) = ask::<QueueFacts>(options, management, &["queues", &options.vhost, &queue]).await {
            foresight.warnings.extend(doubts(&queue, &facts));
        }
    }
}

/// The bindings of the exchange; those of exchanges that are bound to it stand for it too.
async fn bindings(options: &Options, management: &Management) -> Result<Vec<Binding>, String> {
    let path = ["exchanges", &options.vhost, &options.exchange, "bindings", "source"];
    let mut found: Vec<Binding> = ask(options, management, &path).await?;
    let of_exchanges = found.iter().filter(|binding| binding.destination_type == "exchange").map(|binding| binding.destination.clone());
    for exchange in of_exchanges.collect::<BTreeSet<_>>().into_iter().take(EXCHANGES_MAX) {
        let behind: Vec<Binding> = ask(options, management, &["exchanges", &options.vhost, &exchange, "bindings", "source"]).await?;
        if behind.is_empty() {
            // What goes there goes nowhere.
            found.retain(|binding| binding.destination != exchange);
        }
    }
    Ok(found)
}

/// The routing keys that events will have and no binding matches.
fn unroutable(feeds: &Feeds, takers: &[String], exchange: &str) -> Option<Warning> {
    let mut keys = BTreeSet::new();
    for feed in feeds.iter() {
        for operation in Operation::ALL {
            let is_coming = feed.operations.admits(operation) && !(operation.is_prefeed() && feed.prefeed == PrefeedKind::None);
            if is_coming && !takers.iter().any(|pattern| matches(pattern, feed.destination(operation))) {
                keys.insert(feed.destination(operation).to_string());
            }
        }
    }
    let count = keys.len();
    (0 < count).then(|| Warning {
        code: Code::EventUnroutable,
        message: format!(
            "exchange {exchange:?} has no binding for {count} routing keys of this pipeline's events: {}; bind a queue (for example with the key \"#\"), \
             or leave operations out with feeds.operations",
            named(keys)
        ),
    })
}

/// Whether a topic exchange's binding key takes a routing key (AMQP 0-9-1, 3.1.3.3): `*` is one word, `#` any number.
fn matches(pattern: &str, key: &str) -> bool {
    fn words(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => (0..=key.len()).any(|taken| words(rest, &key[taken..])),
            (Some((&"*", pattern)), Some((_, key))) => words(pattern, key),
            (Some((word, pattern)), Some((first, key))) => word == first && words(pattern, key),
            _ => false,
        }
    }
    words(&pattern.split('.').collect::<Vec<_>>(), &key.split('.').collect::<Vec<_>>())
}

/// What a bound queue leaves to be regretted.
fn doubts(queue: &str, facts: &QueueFacts) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |message| found.push(Warning { code: Code::QueueDoubtful, message });
    if !facts.durable {
        warn(format!("queue {queue:?} is not durable: its messages are lost when the broker restarts; make a durable one"));
    }
    let is_limited = ["x-max-length", "x-max-length-bytes"].iter().any(|limit| facts.holds(limit).is_some());
    let refuses =
        facts.holds("x-overflow").and_then(|overflow| overflow.as_str()).is_some_and(|overflow| overflow.starts_with("reject-publish"));
    if is_limited && !refuses {
        warn(format!(
            "queue {queue:?} has a length limit and drops its oldest messages, which no publisher can see; set x-overflow to reject-publish, or take the limit away"
        ));
    }
    if facts.holds("x-message-ttl").is_some() {
        warn(format!("queue {queue:?} drops messages after a time (x-message-ttl), read or not"));
    }
    if facts.consumers == 0 {
        let messages = facts.messages;
        warn(format!("queue {queue:?} has no consumer, and {messages} messages: it fills the broker's disk until publishers are blocked"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn binding_keys_match_as_the_broker_matches_them() {
        for (pattern, key, expected) in [
            ("#", "", true),
            ("#", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("#.c", "a.b.c", true),
            ("*", "", true),
            ("*.b", "a.b", true),
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("#.#.x", "x", true),
            ("a.#.b", "a.c.d", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
