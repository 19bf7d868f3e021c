//! The bindings of an exchange, as the management API shows them, and whether one of them takes an event.
//!
//! What lies behind a binding is not looked at: another exchange may route by headers or a plugin, and may change at any time.

use crate::sink::amqp::management::{Binding, DestinationType, ExchangeFacts, Policy, get_if_present};
use crate::sink::amqp::options::{Management, Options, Queue};

/// What takes an event. A later variant is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taker {
    /// Nothing: the broker returns it.
    Nobody,
    /// No binding. The exchange has a policy that the API did not show, which may name an alternate exchange.
    Unknown,
    /// No binding, but the alternate exchange.
    Alternate,
    /// A binding.
    Binding,
}

/// The bindings of one topic exchange.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    list: Vec<Binding>,
    pub(super) alternate: Option<String>,
    /// The name of a policy that the user may not read.
    pub(super) hidden_policy: Option<String>,
}

impl Bindings {
    /// Reads the bindings of an exchange; none if it does not exist.
    pub(super) async fn read(options: &Options, management: &Management, exchange: &str) -> Result<Self, String> {
        let vhost = options.vhost.as_str();
        let Some(facts) = get_if_present::<ExchangeFacts>(options, management, &["exchanges", vhost, exchange]).await? else {
            return Ok(Self::default());
        };
        let path = ["exchanges", vhost, exchange, "bindings", "source"];
        let list = get_if_present(options, management, &path).await?.unwrap_or_default();
        let (mut alternate, mut hidden_policy) = (string_field(&facts.arguments, "alternate-exchange"), None);
        // An argument takes precedence over a policy.
        if let (None, Some(policy)) = (&alternate, facts.policy.filter(|policy| !policy.is_empty())) {
            match get_if_present::<Policy>(options, management, &["policies", vhost, &policy]).await {
                Ok(Some(found)) => alternate = string_field(&found.definition, "alternate-exchange"),
                Ok(None) | Err(_) => hidden_policy = Some(policy),
            }
        }
        Ok(Self { list, alternate, hidden_policy })
    }

    /// The bindings after a start has bound these queues.
    pub(super) fn with(mut self, queues: &[Queue]) -> Self {
        self.list.extend(queues.iter().flat_map(|queue| {
            queue.keys.iter().map(|key| Binding {
                destination: queue.name.clone(),
                destination_type: DestinationType::Queue,
                routing_key: key.clone(),
            })
        }));
        self
    }

    /// What takes an event with this routing key.
    pub(super) fn taker(&self, key: &str) -> Taker {
        if self.list.iter().any(|bound| topic_matches(&bound.routing_key, key)) {
            return Taker::Binding;
        }
        match (&self.alternate, &self.hidden_policy) {
            (Some(_), _) => Taker::Alternate,
            (None, Some(_)) => Taker::Unknown,
            (None, None) => Taker::Nobody,
        }
    }

    /// Whether nothing is bound to the exchange.
    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty() && self.alternate.is_none() && self.hidden_policy.is_none()
    }

    /// The queues that are bound to the exchange; one with several bindings comes several times.
    pub(super) fn into_queues(self) -> impl Iterator<Item = String> {
        self.list.into_iter().filter(|bound| bound.destination_type == DestinationType::Queue).map(|bound| bound.destination)
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
    use super::{Bindings, Taker, topic_matches};
    use crate::sink::amqp::options::{Queue, QueueType};

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

    #[test]
    fn an_alternate_exchange_takes_events_that_no_binding_matches() {
        let queue = Queue { name: "billing".to_owned(), keys: vec!["a.#".to_owned()], kind: QueueType::Quorum };
        for (alternate, hidden_policy, expected) in
            [(None, None, Taker::Nobody), (Some("rest"), None, Taker::Alternate), (None, Some("p"), Taker::Unknown)]
        {
            let [alternate, hidden_policy] = [alternate, hidden_policy].map(|name| name.map(str::to_owned));
            let bindings = Bindings { alternate, hidden_policy, ..Bindings::default() }.with(std::slice::from_ref(&queue));
            assert_eq!((bindings.taker("a.insert"), bindings.taker("b.insert")), (Taker::Binding, expected));
        }
    }
}
