//! The names of a pipeline's topics, and Kafka's rules for them.

use crate::feed::Feeds;
use crate::sink::kafka::error::Error;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

/// The topics that these feeds use, each with one of its tables, and the dead-letter topic.
pub(crate) fn of_feeds(feeds: &Feeds, dead_letter: Option<&Arc<str>>) -> BTreeMap<Arc<str>, Arc<str>> {
    let of_tables = feeds.iter().flat_map(|feed| feed.destinations_used().map(|topic| (topic.clone(), feed.name.clone())));
    of_tables.chain(dead_letter.map(|topic| (topic.clone(), Arc::from("(dead letters)")))).collect()
}

/// Returns an error for the first name that breaks Kafka's rules.
pub(crate) fn check_names(topics: &BTreeMap<Arc<str>, Arc<str>>) -> Result<(), Error> {
    broken_names(topics).into_iter().next().map_or(Ok(()), Err)
}

/// An error for each name that breaks Kafka's rules (`org.apache.kafka.common.internals.Topic`).
pub(crate) fn broken_names(topics: &BTreeMap<Arc<str>, Arc<str>>) -> Vec<Error> {
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    let mut broken = Vec::new();
    for (topic, table) in topics {
        if let Some(rule) = broken_rule(topic) {
            broken.push(Error::TopicName { table: table.to_string(), topic: topic.to_string(), rule });
        } else if let Some(other) = folded.insert(topic.replace('.', "_"), topic) {
            warn!(
                %topic,
                other,
                "two topics differ only in '.' and '_': Kafka's metrics cannot tell them apart, and it may refuse to create both"
            );
        }
    }
    broken
}

/// The rule of Kafka that a topic's name breaks; `None` if the name is valid.
#[must_use]
pub fn broken_rule(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("a topic needs a name"),
        "." | ".." => Some("\".\" and \"..\" are not allowed"),
        name if 249 < name.len() => Some("it is longer than 249 characters"),
        name if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
            Some("only letters, digits, '.', '_' and '-' of ASCII are allowed")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, check_names};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn check(name: &str) -> Result<(), Error> {
        check_names(&BTreeMap::from([(Arc::from(name), Arc::from("public.orders"))]))
    }

    #[test]
    fn names_follow_kafkas_rules() {
        for name in ["shop.public.orders", "A-b_c.9", "...", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()));
        }
        for name in ["", ".", "..", "shop.public.naïve", "a b", "a/b", &"x".repeat(250)] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains("public.orders") && error.contains("`topic`"), "{error}");
        }
    }
}
