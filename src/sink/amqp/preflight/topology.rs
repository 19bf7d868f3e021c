//! The exchanges and bindings that the management API shows, and where they route an event.

use crate::sink::amqp::management::{Binding, DestinationType, ExchangeFacts, ExchangeType, Policy, get_if_present};
use crate::sink::amqp::options::{Management, Options, Queue};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many exchanges are read.
const EXCHANGES_MAX: usize = 100;

/// Where an event ends. A later variant is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteEnd {
    /// No queue takes it.
    Nowhere,
    /// No binding takes it. An exchange on its route has a policy that the API did not show, which may name an alternate exchange.
    Unknown,
    /// No binding takes it, but an alternate exchange does.
    Alternate,
    /// A queue takes it, or an exchange whose routing is unknown.
    Queue,
}

/// Exchanges and their bindings.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// By name; `None` if no such exchange exists.
    exchanges: BTreeMap<String, Option<Exchange>>,
}

/// An exchange.
#[derive(Debug)]
struct Exchange {
    kind: ExchangeType,
    bindings: Vec<Binding>,
    alternate: Option<String>,
    /// The name of a policy that the user may not read.
    hidden_policy: Option<String>,
}

impl Topology {
    /// Reads these exchanges, and all exchanges that they route to.
    pub(super) async fn read(options: &Options, management: &Management, from: impl Iterator<Item = &str>) -> Result<Self, String> {
        let mut topology = Self::default();
        let mut pending: VecDeque<String> = from.map(str::to_owned).collect();
        while let Some(name) = pending.pop_front() {
            if topology.exchanges.len() == EXCHANGES_MAX {
                break;
            }
            if topology.exchanges.contains_key(&name) {
                continue;
            }
            let exchange = Exchange::read(options, management, &name).await?;
            let bindings = exchange.iter().flat_map(|exchange| &exchange.bindings);
            pending.extend(
                bindings.filter(|bound| bound.destination_type == DestinationType::Exchange).map(|bound| bound.destination.clone()),
            );
            pending.extend(exchange.iter().filter_map(|exchange| exchange.alternate.clone()));
            topology.exchanges.insert(name, exchange);
        }
        Ok(topology)
    }

    /// The topology after a start has bound these queues to a topic exchange. A missing exchange is added.
    pub(super) fn with(mut self, exchange: &str, queues: &[Queue]) -> Self {
        let declared = Exchange { kind: ExchangeType::Topic, bindings: Vec::new(), alternate: None, hidden_policy: None };
        let exchange = self.exchanges.entry(exchange.to_owned()).or_default().get_or_insert(declared);
        for queue in queues {
            exchange.bindings.extend(queue.keys.iter().map(|key| Binding {
                destination: queue.name.clone(),
                destination_type: DestinationType::Queue,
                routing_key: key.clone(),
            }));
        }
        self
    }

    /// Where an event with this routing key ends.
    pub(super) fn route(&self, exchange: &str, key: &str) -> RouteEnd {
        self.walk(exchange, key, &mut BTreeSet::new())
    }

    /// `visited` holds the exchanges that the event has passed, since exchanges may be bound in a circle.
    fn walk<'t>(&'t self, name: &'t str, key: &str, visited: &mut BTreeSet<&'t str>) -> RouteEnd {
        if !visited.insert(name) {
            return RouteEnd::Nowhere;
        }
        // An exchange that was not read may route to a queue.
        let Some(found) = self.exchanges.get(name) else { return RouteEnd::Queue };
        let Some(exchange) = found else { return RouteEnd::Nowhere };
        let matching = exchange.bindings.iter().filter(|bound| exchange.takes(&bound.routing_key, key));
        let best = matching.map(|bound| match bound.destination_type {
            DestinationType::Queue => RouteEnd::Queue,
            DestinationType::Exchange => self.walk(&bound.destination, key, visited),
        });
        // The alternate exchange is used only if no binding matches, not if a matching one leads nowhere.
        match (best.max(), &exchange.alternate, &exchange.hidden_policy) {
            (Some(best), _, _) => best,
            (None, Some(alternate), _) => self.walk(alternate, key, visited).min(RouteEnd::Alternate),
            (None, None, Some(_)) => RouteEnd::Unknown,
            (None, None, None) => RouteEnd::Nowhere,
        }
    }

    /// All queues that are bound to the exchanges.
    pub(super) fn queues(&self) -> BTreeSet<&str> {
        let bindings = self.exchanges.values().flatten().flat_map(|exchange| &exchange.bindings);
        bindings.filter(|bound| bound.destination_type == DestinationType::Queue).map(|bound| bound.destination.as_str()).collect()
    }

    /// All alternate exchanges.
    pub(super) fn alternates(&self) -> BTreeSet<&str> {
        self.exchanges.values().flatten().filter_map(|exchange| exchange.alternate.as_deref()).collect()
    }

    /// The policies that the user may not read.
    pub(super) fn hidden_policies(&self) -> BTreeSet<&str> {
        self.exchanges.values().flatten().filter_map(|exchange| exchange.hidden_policy.as_deref()).collect()
    }
}

impl Exchange {
    /// Reads an exchange; `None` if it does not exist.
    async fn read(options: &Options, management: &Management, name: &str) -> Result<Option<Self>, String> {
        let vhost = options.vhost.as_str();
        let Some(facts) = get_if_present::<ExchangeFacts>(options, management, &["exchanges", vhost, name]).await? else { return Ok(None) };
        let path = ["exchanges", vhost, name, "bindings", "source"];
        // It may have been deleted meanwhile.
        let Some(bindings) = get_if_present(options, management, &path).await? else { return Ok(None) };
        let (mut alternate, mut hidden_policy) = (string_field(&facts.arguments, "alternate-exchange"), None);
        // An argument takes precedence over a policy.
        if let (None, Some(policy)) = (&alternate, facts.policy.filter(|policy| !policy.is_empty())) {
            match get_if_present::<Policy>(options, management, &["policies", vhost, &policy]).await {
                Ok(Some(found)) => alternate = string_field(&found.definition, "alternate-exchange"),
                Ok(None) | Err(_) => hidden_policy = Some(policy),
            }
        }
        Ok(Some(Self { kind: facts.kind, bindings, alternate, hidden_policy }))
    }

    /// Whether its binding with this key takes an event.
    fn takes(&self, pattern: &str, key: &str) -> bool {
        match self.kind {
            ExchangeType::Topic => topic_matches(pattern, key),
            ExchangeType::Direct => pattern == key,
            ExchangeType::Fanout | ExchangeType::Other => true,
        }
    }
}

fn string_field(table: &serde_json::Map<String, serde_json::Value>, name: &str) -> Option<String> {
    table.get(name).and_then(|value| value.as_str()).map(str::to_owned)
}

/// Whether a topic exchange's binding key matches a routing key (AMQP 0-9-1, 3.1.3.3): `*` is one word, `#` any number.
fn topic_matches(pattern: &str, key: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::{Exchange, RouteEnd, Topology, topic_matches};
    use crate::sink::amqp::management::{Binding, DestinationType, ExchangeType};

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
            assert_eq!(topic_matches(pattern, key), expected, "{pattern} {key}");
        }
    }

    fn exchange(kind: ExchangeType, bindings: &[(&str, DestinationType, &str)]) -> Exchange {
        let bindings = bindings.iter().map(|&(routing_key, destination_type, destination)| Binding {
            destination: destination.to_owned(),
            destination_type,
            routing_key: routing_key.to_owned(),
        });
        Exchange { kind, bindings: bindings.collect(), alternate: None, hidden_policy: None }
    }

    fn topology(exchanges: Vec<(&str, Exchange)>) -> Topology {
        Topology { exchanges: exchanges.into_iter().map(|(name, exchange)| (name.to_owned(), Some(exchange))).collect() }
    }

    #[test]
    fn an_event_is_routed_through_exchanges_by_their_type() {
        use DestinationType::{Exchange as ToExchange, Queue as ToQueue};
        let topology = topology(vec![
            (
                "shop",
                exchange(
                    ExchangeType::Topic,
                    &[
                        ("a.#", ToExchange, "topic"),
                        ("b.#", ToExchange, "direct"),
                        ("c.#", ToExchange, "fanout"),
                        ("d.#", ToExchange, "headers"),
                        ("e.#", ToExchange, "empty"),
                        ("f.#", ToExchange, "shop"),
                        ("g.#", ToExchange, "far"),
                        ("h.#", ToQueue, "queue"),
                    ],
                ),
            ),
            ("topic", exchange(ExchangeType::Topic, &[("*.insert", ToQueue, "queue")])),
            ("direct", exchange(ExchangeType::Direct, &[("b.insert", ToQueue, "queue")])),
            ("fanout", exchange(ExchangeType::Fanout, &[("x", ToExchange, "topic"), ("y", ToExchange, "empty")])),
            ("headers", exchange(ExchangeType::Other, &[("", ToQueue, "queue")])),
            ("empty", exchange(ExchangeType::Other, &[])),
        ]);
        for (key, expected) in [
            ("a.insert", RouteEnd::Queue),
            ("a.update", RouteEnd::Nowhere),
            ("b.insert", RouteEnd::Queue),
            ("b.update", RouteEnd::Nowhere),
            ("c.insert", RouteEnd::Queue),
            ("c.update", RouteEnd::Nowhere),
            ("d.update", RouteEnd::Queue),
            ("e.insert", RouteEnd::Nowhere),
            ("f.insert", RouteEnd::Nowhere),
            ("g.insert", RouteEnd::Queue),
            ("h.insert", RouteEnd::Queue),
            ("i.insert", RouteEnd::Nowhere),
        ] {
            assert_eq!(topology.route("shop", key), expected, "{key}");
        }
    }

    #[test]
    fn an_alternate_exchange_takes_events_that_no_binding_matches() {
        use DestinationType::{Exchange as ToExchange, Queue as ToQueue};
        let shop = |alternate: &str| Exchange {
            alternate: Some(alternate.to_owned()),
            ..exchange(ExchangeType::Topic, &[("a", ToQueue, "queue"), ("b", ToExchange, "empty")])
        };
        let with = |alternate| {
            topology(vec![
                ("shop", shop(alternate)),
                ("rest", exchange(ExchangeType::Fanout, &[("", ToQueue, "rest")])),
                ("empty", exchange(ExchangeType::Fanout, &[])),
            ])
        };
        assert_eq!(with("rest").route("shop", "a"), RouteEnd::Queue);
        assert_eq!(with("rest").route("shop", "c"), RouteEnd::Alternate);
        assert_eq!(with("rest").route("shop", "b"), RouteEnd::Nowhere, "the alternate exchange is not used where a binding matches");
        assert_eq!(with("empty").route("shop", "c"), RouteEnd::Nowhere);
        let mut gone = with("gone");
        gone.exchanges.insert("gone".to_owned(), None);
        assert_eq!(gone.route("shop", "c"), RouteEnd::Nowhere);
        let hidden = Exchange { hidden_policy: Some("p".to_owned()), ..exchange(ExchangeType::Topic, &[]) };
        assert_eq!(topology(vec![("shop", hidden)]).route("shop", "c"), RouteEnd::Unknown);
    }
}
