//! Which events no queue would take, and which queues lose what they took.

use super::queues::warnings;
use super::topology::{Topology, Way};
use super::{Found, Look};
use crate::event::Operation;
use crate::fault::Code;
use crate::feed::{Feeds, PrefeedKind};
use crate::preflight::{Warning, named};
use crate::sink::amqp::management::{QueueFacts, find};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The routing keys of a pipeline's events.
pub(super) type Keys = BTreeSet<Arc<str>>;

/// As many routing keys are listed one by one.
const KEYS_LISTED: usize = 6;
/// As many bound queues are looked at.
const QUEUES_MAX: usize = 100;

/// The routing keys that events will have.
pub(super) fn keys(feeds: &Feeds) -> Keys {
    let mut keys = Keys::new();
    for feed in feeds.iter() {
        for operation in Operation::ALL {
            if feed.operations.admits(operation) && !(operation.is_prefeed() && feed.prefeed == PrefeedKind::None) {
                keys.insert(feed.destination(operation).clone());
            }
        }
    }
    keys
}

impl Look<'_> {
    /// Follows every routing key as far as it can be seen.
    pub(super) async fn routes(&mut self, keys: &Keys, exchange: &Found, letters: Option<&Found>) {
        let options = self.options;
        let (name, letters_name) = (options.exchange.as_str(), options.dead_letter.as_deref().unwrap_or_default());
        // What a start makes is bound as it is configured, and what is there is shown by the management API alone.
        let is_there = matches!(exchange, Found::Present { .. });
        let are_letters_there = matches!(letters, Some(Found::Present { .. })) && !options.declare;
        let configured = || Topology::default().with(name, &options.queues);
        let shown = match &options.management {
            _ if !is_there && !are_letters_there => Ok(configured()),
            None => Err("bindings are not shown by AMQP: set sink.management_url".to_owned()),
            Some(management) => {
                let from = [(is_there, name), (are_letters_there, letters_name)];
                let looked = Topology::look(options, management, from.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)));
                let (host, port) = (&management.place.host, management.place.port);
                let unshown = |reason| format!("the management API at {host}:{port} did not show the bindings: {reason}");
                looked.await.map(|topology| topology.with(name, &options.queues)).map_err(unshown)
            }
        };
        match shown {
            Ok(topology) => {
                if *exchange != Found::Unfit {
                    self.ends(&topology, keys, *exchange == Found::Absent);
                }
                if are_letters_there {
                    self.ends_of_letters(&topology, letters_name, keys);
                }
                self.takers(&topology).await;
            }
            Err(reason) => self.unseen(&configured(), keys, exchange, &reason),
        }
    }

    /// Where events end.
    fn ends(&mut self, topology: &Topology, keys: &Keys, is_new: bool) {
        let exchange = &self.options.exchange;
        let mut by_way: BTreeMap<Way, BTreeSet<&str>> = BTreeMap::new();
        for key in keys {
            by_way.entry(topology.way(exchange, key)).or_default().insert(key);
        }
        let mut of = |way| by_way.remove(&way).filter(|keys| !keys.is_empty()).map(|keys| (keys.len(), spelled(&keys)));
        let without = |count| format!("exchange {exchange:?} has no binding for {count} routing keys of this pipeline's events");
        if let Some((count, keys)) = of(Way::Nowhere) {
            let what = if is_new && self.options.queues.is_empty() {
                format!(
                    "exchange {exchange:?} will be made without a queue, and no event finds one: configure one in [[sink.queues]], or make the \
                     exchange and bind a queue to it before the start"
                )
            } else {
                format!("{}: bind a queue (for example with the key \"#\"), or leave operations out with feeds.operations", without(count))
            };
            // Where there are dead letters nothing stops.
            let (grave, so) = match self.options.dead_letter {
                Some(_) => (&mut self.findings.warnings, "; until then these events become dead letters"),
                None => (&mut self.findings.refusals, ""),
            };
            grave.push(Warning { code: Code::EventUnroutable, message: format!("{what}{so}; the keys: {keys}") });
        }
        if let Some((count, keys)) = of(Way::Unseen) {
            let policies = named(topology.hidden_policies().into_iter().map(str::to_owned));
            let message = format!(
                "{}, and whether an alternate exchange takes them stands in the policy {policies}, which user {:?} may not look at: give it the tag \
                 policymaker, or bind a queue; the keys: {keys}",
                without(count),
                self.options.user
            );
            self.warn(Code::BindingsUnseen, message);
        }
        if let Some((count, keys)) = of(Way::Alternate) {
            let alternates = named(topology.alternates().into_iter().map(str::to_owned));
            let message = format!(
                "{}: they go to the alternate exchange {alternates} and count as delivered; bind a queue where readers should see them; the keys: {keys}",
                without(count)
            );
            self.warn(Code::EventUnroutable, message);
        }
    }

    /// Where dead letters end, which keep their routing key.
    fn ends_of_letters(&mut self, topology: &Topology, letters: &str, keys: &Keys) {
        let lost: BTreeSet<&str> = keys.iter().map(|key| &**key).filter(|key| topology.way(letters, key) == Way::Nowhere).collect();
        if !lost.is_empty() {
            let message = format!(
                "exchange {letters:?} of the dead letters has no queue for those with the routing keys {}: the first would stop the pipeline; bind a \
                 queue to it, or let sink.declare make one",
                spelled(&lost)
            );
            self.warn(Code::EventUnroutable, message);
        }
    }

    /// What can be said where bindings were not shown.
    fn unseen(&mut self, configured: &Topology, keys: &Keys, exchange: &Found, reason: &str) {
        let open: BTreeSet<&str> =
            keys.iter().map(|key| &**key).filter(|key| configured.way(&self.options.exchange, key) == Way::Nowhere).collect();
        if open.is_empty() && self.options.declare {
            return;
        }
        let or_else = match exchange {
            Found::Present { alternate: Some(alternate) } => format!(", or else one of the alternate exchange {alternate:?}"),
            _ => String::new(),
        };
        let message = format!("{reason}; it was not seen whether a queue takes each event{or_else}; the keys: {}", spelled(&open));
        self.warn(Code::BindingsUnseen, message);
    }

    /// The queues that take them.
    async fn takers(&mut self, topology: &Topology) {
        let options = self.options;
        let Some(management) = &options.management else { return };
        let mut queues = topology.queues();
        queues.extend(options.queues.iter().map(|queue| queue.name.as_str()));
        for queue in queues.iter().take(QUEUES_MAX) {
            match find::<QueueFacts>(options, management, &["queues", &options.vhost, queue]).await {
                Ok(facts) => self.findings.warnings.extend(facts.iter().flat_map(|facts| warnings(queue, facts))),
                // What does not answer for one does not for a hundred.
                Err(_) => break,
            }
        }
        if let Some(more) = queues.len().checked_sub(QUEUES_MAX).filter(|more| 0 < *more) {
            let message =
                format!("{more} more queues are bound than are looked at: see the management page for those that lose or hoard events");
            self.warn(Code::QueueDoubtful, message);
        }
    }
}

/// Every key, those of many tables together: `public.{orders,people}.{delete,update}`.
fn spelled(keys: &BTreeSet<&str>) -> String {
    if keys.len() <= KEYS_LISTED {
        return keys.iter().copied().collect::<Vec<_>>().join(", ");
    }
    // Tables with the same operations stand together.
    let mut ends: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut whole = Vec::new();
    for key in keys {
        match key.rsplit_once('.') {
            Some((table, operation)) => {
                ends.entry(table).or_default().insert(operation);
            }
            None => whole.push((*key).to_owned()),
        }
    }
    let mut tables: BTreeMap<(&str, BTreeSet<&str>), BTreeSet<&str>> = BTreeMap::new();
    for (table, operations) in ends {
        let (schema, name) = table.rsplit_once('.').unwrap_or(("", table));
        tables.entry((schema, operations)).or_default().insert(name);
    }
    whole.extend(tables.into_iter().map(|((schema, operations), names)| {
        let schema = if schema.is_empty() { String::new() } else { format!("{schema}.") };
        format!("{schema}{}.{}", one_of(&names), one_of(&operations))
    }));
    whole.join(", ")
}

fn one_of(words: &BTreeSet<&str>) -> String {
    let list = words.iter().copied().collect::<Vec<_>>().join(",");
    if words.len() == 1 { list } else { format!("{{{list}}}") }
}

#[cfg(test)]
mod tests {
    use super::spelled;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_is_spelled() {
        assert_eq!(spelled(&BTreeSet::from(["a.b.c", "a.b.d"])), "a.b.c, a.b.d");
        let many = BTreeSet::from(["a.b.u", "a.b.d", "a.c.u", "a.c.d", "a.x.i", "z", "y.u", "b.b.u"]);
        assert_eq!(spelled(&many), "z, y.u, a.{b,c}.{d,u}, a.x.i, b.b.u");
    }
}
