//! Exchanges and what they are bound to, as the management API shows them, and which way an event goes.

use crate::sink::amqp::management::{Binding, Destination, ExchangeFacts, Management, Policy, ask, find};
use crate::sink::amqp::{Options, Queue};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// As many exchanges that are bound to each other are looked at.
const EXCHANGES_MAX: usize = 100;

/// Where an event ends; a later one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// No queue takes it.
    Nowhere,
    /// No binding takes it; an exchange on its way has a policy that was not shown, which may name an alternate exchange.
    Unseen,
    /// No binding takes it, and an alternate exchange does.
    Alternate,
    /// A queue takes it, or an exchange of a type or place that cannot be judged.
    Queue,
}

/// What is bound to what.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// `None` under a name that is no exchange's.
    exchanges: BTreeMap<String, Option<Exchange>>,
}

/// An exchange.
#[derive(Debug)]
struct Exchange {
    kind: Kind,
    bindings: Vec<Binding>,
    alternate: Option<String>,
    /// A policy that the user may not look at.
    hidden_policy: Option<String>,
}

/// How an exchange chooses among its bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Topic,
    Direct,
    Fanout,
    /// By headers, or in a way of its own: what it takes is not told by a key.
    Other,
}

impl Kind {
    fn takes(self, pattern: &str, key: &str) -> bool {
        match self {
            Self::Topic => matches(pattern, key),
            Self::Direct => pattern == key,
            Self::Fanout | Self::Other => true,
        }
    }
}

impl Topology {
    /// Looks at these exchanges and all that lies behind them.
    pub(super) async fn look(options: &Options, management: &Management, from: impl Iterator<Item = &str>) -> Result<Self, String> {
        let mut topology = Self::default();
        let mut coming: VecDeque<String> = from.map(str::to_owned).collect();
        while let Some(name) = coming.pop_front() {
            if topology.exchanges.len() == EXCHANGES_MAX {
                break;
            }
            if topology.exchanges.contains_key(&name) {
                continue;
            }
            let exchange = Exchange::look(options, management, &name).await?;
            let bindings = exchange.iter().flat_map(|exchange| &exchange.bindings);
            coming.extend(bindings.filter(|bound| bound.destination_type == Destination::Exchange).map(|bound| bound.destination.clone()));
            coming.extend(exchange.iter().filter_map(|exchange| exchange.alternate.clone()));
            topology.exchanges.insert(name, exchange);
        }
        Ok(topology)
    }

    /// The same when a topic exchange has these queues too; it is made where there is none.
    pub(super) fn with(mut self, exchange: &str, queues: &[Queue]) -> Self {
        let made = Exchange { kind: Kind::Topic, bindings: Vec::new(), alternate: None, hidden_policy: None };
        let exchange = self.exchanges.entry(exchange.to_owned()).or_default().get_or_insert(made);
        for queue in queues {
            exchange.bindings.extend(queue.keys.iter().map(|key| Binding {
                destination: queue.name.clone(),
                destination_type: Destination::Queue,
                routing_key: key.clone(),
            }));
        }
        self
    }

    /// Where an event with this key ends.
    pub(super) fn way(&self, exchange: &str, key: &str) -> Way {
        self.walk(exchange, key, &mut BTreeSet::new())
    }

    fn walk<'t>(&'t self, name: &'t str, key: &str, passed: &mut BTreeSet<&'t str>) -> Way {
        if !passed.insert(name) {
            return Way::Nowhere;
        }
        // Of one that was not looked at nobody may say that it takes nothing.
        let Some(found) = self.exchanges.get(name) else { return Way::Queue };
        let Some(exchange) = found else { return Way::Nowhere };
        let taking = exchange.bindings.iter().filter(|bound| exchange.kind.takes(&bound.routing_key, key));
        let best = taking.map(|bound| match bound.destination_type {
            Destination::Queue => Way::Queue,
            Destination::Exchange => self.walk(&bound.destination, key, passed),
        });
        // The alternate exchange is asked where no binding matches, not where one leads nowhere.
        match (best.max(), &exchange.alternate, &exchange.hidden_policy) {
            (Some(best), _, _) => best,
            (None, Some(alternate), _) => self.walk(alternate, key, passed).min(Way::Alternate),
            (None, None, Some(_)) => Way::Unseen,
            (None, None, None) => Way::Nowhere,
        }
    }

    /// Every queue that is bound to one of the exchanges.
    pub(super) fn queues(&self) -> BTreeSet<&str> {
        let bindings = self.exchanges.values().flatten().flat_map(|exchange| &exchange.bindings);
        bindings.filter(|bound| bound.destination_type == Destination::Queue).map(|bound| bound.destination.as_str()).collect()
    }

    /// The alternate exchanges.
    pub(super) fn alternates(&self) -> BTreeSet<&str> {
        self.exchanges.values().flatten().filter_map(|exchange| exchange.alternate.as_deref()).collect()
    }

    /// The policies that were not shown.
    pub(super) fn hidden_policies(&self) -> BTreeSet<&str> {
        self.exchanges.values().flatten().filter_map(|exchange| exchange.hidden_policy.as_deref()).collect()
    }
}

impl Exchange {
    /// `None` where there is none of this name.
    async fn look(options: &Options, management: &Management, name: &str) -> Result<Option<Self>, String> {
        let vhost = options.vhost.as_str();
        let Some(facts) = find::<ExchangeFacts>(options, management, &["exchanges", vhost, name]).await? else { return Ok(None) };
        let bindings = ask(options, management, &["exchanges", vhost, name, "bindings", "source"]).await?;
        let kind = match facts.kind.as_str() {
            "topic" => Kind::Topic,
            "direct" => Kind::Direct,
            "fanout" => Kind::Fanout,
            _ => Kind::Other,
        };
        let (mut alternate, mut hidden_policy) = (text(&facts.arguments, "alternate-exchange"), None);
        // An argument comes before a policy.
        if let (None, Some(policy)) = (&alternate, facts.policy.filter(|policy| !policy.is_empty())) {
            match find::<Policy>(options, management, &["policies", vhost, &policy]).await {
                Ok(Some(found)) => alternate = text(&found.definition, "alternate-exchange"),
                Ok(None) | Err(_) => hidden_policy = Some(policy),
            }
        }
        Ok(Some(Self { kind, bindings, alternate, hidden_policy }))
    }
}

fn text(table: &serde_json::Map<String, serde_json::Value>, name: &str) -> Option<String> {
    table.get(name).and_then(|value| value.as_str()).map(str::to_owned)
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

#[cfg(test)]
mod tests {
    use super::{Exchange, Kind, Topology, Way, matches};
    use crate::sink::amqp::management::{Binding, Destination};

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

    fn exchange(kind: Kind, bindings: &[(&str, Destination, &str)]) -> Exchange {
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
    fn an_event_is_followed_through_exchanges_by_their_type() {
        use Destination::{Exchange as ToExchange, Queue as ToQueue};
        let topology = topology(vec![
            (
                "shop",
                exchange(
                    Kind::Topic,
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
            ("topic", exchange(Kind::Topic, &[("*.insert", ToQueue, "queue")])),
            ("direct", exchange(Kind::Direct, &[("b.insert", ToQueue, "queue")])),
            ("fanout", exchange(Kind::Fanout, &[("x", ToExchange, "topic"), ("y", ToExchange, "empty")])),
            ("headers", exchange(Kind::Other, &[("", ToQueue, "queue")])),
            ("empty", exchange(Kind::Other, &[])),
        ]);
        for (key, expected) in [
            ("a.insert", Way::Queue),
            ("a.update", Way::Nowhere),
            ("b.insert", Way::Queue),
            ("b.update", Way::Nowhere),
            ("c.insert", Way::Queue),
            ("c.update", Way::Nowhere),
            ("d.update", Way::Queue),
            ("e.insert", Way::Nowhere),
            ("f.insert", Way::Nowhere),
            ("g.insert", Way::Queue),
            ("h.insert", Way::Queue),
            ("i.insert", Way::Nowhere),
        ] {
            assert_eq!(topology.way("shop", key), expected, "{key}");
        }
    }

    #[test]
    fn an_alternate_exchange_takes_what_no_binding_matches() {
        use Destination::{Exchange as ToExchange, Queue as ToQueue};
        let shop = |alternate: &str| Exchange {
            alternate: Some(alternate.to_owned()),
            ..exchange(Kind::Topic, &[("a", ToQueue, "queue"), ("b", ToExchange, "empty")])
        };
        let with = |alternate| {
            topology(vec![
                ("shop", shop(alternate)),
                ("rest", exchange(Kind::Fanout, &[("", ToQueue, "rest")])),
                ("empty", exchange(Kind::Fanout, &[])),
            ])
        };
        assert_eq!(with("rest").way("shop", "a"), Way::Queue);
        assert_eq!(with("rest").way("shop", "c"), Way::Alternate);
        assert_eq!(with("rest").way("shop", "b"), Way::Nowhere, "what matched a binding is not asked about again");
        assert_eq!(with("empty").way("shop", "c"), Way::Nowhere);
        let mut gone = with("gone");
        gone.exchanges.insert("gone".to_owned(), None);
        assert_eq!(gone.way("shop", "c"), Way::Nowhere);
        let hidden = Exchange { hidden_policy: Some("p".to_owned()), ..exchange(Kind::Topic, &[]) };
        assert_eq!(topology(vec![("shop", hidden)]).way("shop", "c"), Way::Unseen);
    }
}
