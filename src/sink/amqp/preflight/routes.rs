//! Checks whether a queue takes each routing key.

use super::inspection::{ExchangeState, Inspection};
use super::topology::{RouteEnd, Topology};
use crate::fault::Code;
use crate::preflight::{Warning, named};
use std::collections::{BTreeMap, BTreeSet};

/// Up to so many routing keys are listed one by one.
const KEYS_LISTED: usize = 6;

impl Inspection<'_> {
    /// Checks where each routing key leads, as far as the broker shows it.
    pub(super) async fn check_routes(&mut self, exchange: &ExchangeState, dead_letters: Option<&ExchangeState>) {
        let options = self.options;
        let (name, dead_letters_name) = (options.exchange.as_str(), options.dead_letter.as_deref().unwrap_or_default());
        // A new exchange has the configured bindings. Those of an existing one are shown only by the management API.
        let exists = matches!(exchange, ExchangeState::Present { .. });
        let checks_dead_letters = matches!(dead_letters, Some(ExchangeState::Present { .. })) && !options.declare;
        let configured = || Topology::default().with(name, &options.queues);
        let shown = match &options.management {
            _ if !exists && !checks_dead_letters => Ok(configured()),
            None => Err("AMQP does not show bindings: set sink.management_url".to_owned()),
            Some(management) => {
                let from = [(exists, name), (checks_dead_letters, dead_letters_name)];
                let read = Topology::read(options, management, from.into_iter().filter_map(|(is_read, name)| is_read.then_some(name)));
                let unshown = |reason| format!("the management API at {} did not show the bindings: {reason}", management.address);
                read.await.map(|topology| topology.with(name, &options.queues)).map_err(unshown)
            }
        };
        match shown {
            Ok(topology) => {
                if *exchange != ExchangeState::Unfit {
                    self.report_unrouted(&topology, *exchange == ExchangeState::Absent);
                }
                if checks_dead_letters {
                    self.report_unrouted_dead_letters(&topology, dead_letters_name);
                }
                self.check_bound_queues(&topology).await;
            }
            Err(reason) => self.report_unseen(&configured(), exchange, &reason),
        }
    }

    /// Reports the routing keys that no binding takes.
    fn report_unrouted(&mut self, topology: &Topology, is_new: bool) {
        let (exchange, all_keys) = (&self.options.exchange, self.keys.clone());
        let mut by_end: BTreeMap<RouteEnd, BTreeSet<&str>> = BTreeMap::new();
        for key in &all_keys {
            by_end.entry(topology.route(exchange, key)).or_default().insert(key);
        }
        let with_end = |end| by_end.get(&end).map(|keys| (keys.len(), list_keys(keys)));
        let unbound = |count| format!("exchange {exchange:?} has no binding for {count} routing keys of this pipeline");
        if let Some((count, keys)) = with_end(RouteEnd::Nowhere) {
            let problem = if is_new && self.options.queues.is_empty() {
                format!("exchange {exchange:?} will be made without a queue; configure one in [[sink.queues]]")
            } else {
                format!("{}; bind a queue, for example with the key \"#\"", unbound(count))
            };
            // With dead letters the pipeline does not stop.
            let (severity, consequence) = match self.options.dead_letter {
                Some(_) => (&mut self.findings.warnings, "; until then these events become dead letters"),
                None => (&mut self.findings.refusals, ""),
            };
            severity.push(Warning { code: Code::EventUnroutable, message: format!("{problem}{consequence}; the keys: {keys}") });
        }
        if let Some((count, keys)) = with_end(RouteEnd::Unknown) {
            let policies = named(topology.hidden_policies().into_iter().map(str::to_owned));
            let message = format!(
                "{}; an alternate exchange may take them, but user {:?} may not read the policy {policies}: give it the tag policymaker; \
                 the keys: {keys}",
                unbound(count),
                self.options.user
            );
            self.warn(Code::BindingsUnseen, message);
        }
        if let Some((count, keys)) = with_end(RouteEnd::Alternate) {
            let alternates = named(topology.alternates().into_iter().map(str::to_owned));
            let message = format!(
                "{}; they go to the alternate exchange {alternates} and count as delivered; bind a queue if readers need them; the keys: {keys}",
                unbound(count)
            );
            self.warn(Code::EventUnroutable, message);
        }
    }

    /// Reports the routing keys whose dead letters no queue takes. A dead letter keeps its routing key.
    fn report_unrouted_dead_letters(&mut self, topology: &Topology, exchange: &str) {
        let is_lost = |key: &&str| topology.route(exchange, key) == RouteEnd::Nowhere;
        let lost: BTreeSet<&str> = self.keys.iter().map(|key| &**key).filter(is_lost).collect();
        if !lost.is_empty() {
            let message = format!(
                "exchange {exchange:?} of the dead letters has no queue: the first dead letter stops the pipeline; bind a queue, or set \
                 sink.declare; the keys: {}",
                list_keys(&lost)
            );
            self.warn(Code::EventUnroutable, message);
        }
    }

    /// Reports the routing keys that the configured bindings do not take, when the existing bindings are not shown.
    fn report_unseen(&mut self, configured: &Topology, exchange: &ExchangeState, reason: &str) {
        let is_unbound = |key: &&str| configured.route(&self.options.exchange, key) == RouteEnd::Nowhere;
        let unbound: BTreeSet<&str> = self.keys.iter().map(|key| &**key).filter(is_unbound).collect();
        if unbound.is_empty() && self.options.declare {
            return;
        }
        let or_alternate = match exchange {
            ExchangeState::Present { alternate: Some(alternate) } => format!(", or one of the alternate exchange {alternate:?}"),
            _ => String::new(),
        };
        let message = format!("{reason}; it is unknown whether a queue takes each event{or_alternate}; the keys: {}", list_keys(&unbound));
        self.warn(Code::BindingsUnseen, message);
    }
}

/// Lists routing keys; many of them in short form: `public.{orders,people}.{delete,update}`.
fn list_keys(keys: &BTreeSet<&str>) -> String {
    if keys.len() <= KEYS_LISTED {
        return keys.iter().copied().collect::<Vec<_>>().join(", ");
    }
    // Tables of the same schema with the same operations share an entry.
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
        format!("{schema}{}.{}", alternatives(&names), alternatives(&operations))
    }));
    whole.join(", ")
}

fn alternatives(words: &BTreeSet<&str>) -> String {
    let list = words.iter().copied().collect::<Vec<_>>().join(",");
    if words.len() == 1 { list } else { format!("{{{list}}}") }
}

#[cfg(test)]
mod tests {
    use super::list_keys;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_is_listed() {
        assert_eq!(list_keys(&BTreeSet::from(["a.b.c", "a.b.d"])), "a.b.c, a.b.d");
        let many = BTreeSet::from(["a.b.u", "a.b.d", "a.c.u", "a.c.d", "a.x.i", "z", "y.u", "b.b.u"]);
        assert_eq!(list_keys(&many), "z, y.u, a.{b,c}.{d,u}, a.x.i, b.b.u");
    }
}
