//! Checks whether a checkpoint fits the pipeline: name, configuration, sink. A start and `feedline check` use the same checks.

use crate::checkpoint::{Checkpoint, FeedState, Identity, ResumeToken};
use crate::fault::{Classify, Code, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::preflight;
use crate::source::Resume;

/// Why a pipeline cannot go on from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The checkpoint belongs to another pipeline.
    #[error(
        "the checkpoint belongs to the pipeline {known:?}, this one is {ours:?}: set `name` back, or give this pipeline a checkpoint of its own"
    )]
    Name {
        /// The name in the checkpoint.
        known: String,
        /// The name of this pipeline.
        ours: String,
    },
    /// Events would have other keys or bytes than those that are published already.
    #[error(
        "{changed} differs from the checkpoint: repeated events would have other bytes, and keys may move; set it back, or start once with \
         --accept-config-change"
    )]
    Configuration {
        /// Which settings, or the keys of which tables.
        changed: String,
    },
    /// The broker is another one, and lacks what was sent before the checkpoint.
    #[error(
        "the sink is {now:?}, not the checkpoint's {known:?}, and lacks what was sent there: point the pipeline back, or run \
         `feedline checkpoint accept-sink` if it was renamed"
    )]
    Sink {
        /// The sink in the checkpoint.
        known: Identity,
        /// The sink that was found.
        now: Identity,
    },
    /// The broker is the same, but one of its destinations was recreated.
    #[error(
        "{} recreated or deleted since the checkpoint, and what was sent there is gone: to go on without it, run `feedline checkpoint accept-sink`",
        were(parts)
    )]
    Destination {
        /// Which destinations, with their kind and name.
        parts: Vec<String>,
    },
}

fn were(parts: &[String]) -> String {
    let verb = if parts.len() == 1 { "was" } else { "were" };
    format!("{} {verb}", preflight::named(parts.iter().cloned()))
}

impl Classify for Disagreement {
    fn fault(&self) -> Fault {
        match self {
            Self::Name { .. } | Self::Configuration { .. } => Fault::Fatal,
            Self::Sink { .. } | Self::Destination { .. } => Fault::Gap,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Name { .. } => Code::CheckpointForeign,
            Self::Configuration { .. } => Code::CheckpointConfiguration,
            Self::Sink { .. } => Code::SinkForeign,
            Self::Destination { .. } => Code::DestinationAnew,
        }
    }
}

/// Refuses another pipeline's checkpoint.
///
/// # Errors
/// [`Disagreement::Name`].
pub fn check_name(known: &Checkpoint, ours: &str) -> Result<(), Disagreement> {
    if known.name == ours { Ok(()) } else { Err(Disagreement::Name { known: known.name.clone(), ours: ours.to_owned() }) }
}

/// Refuses settings and keys that would change what is published again.
///
/// # Errors
/// [`Disagreement::Configuration`].
pub fn check_configuration(known: &Checkpoint, configuration: &str, feeds: &Feeds) -> Result<(), Disagreement> {
    let keys: Vec<_> = rekeyed(known, feeds).map(|feed| &*feed.name).collect();
    let changed = match (known.configuration == configuration, keys.as_slice()) {
        (true, []) => return Ok(()),
        (false, []) => "`format` or `sink.tombstones`".to_owned(),
        (_, keys) => format!("the key of {}", keys.join(", ")),
    };
    Err(Disagreement::Configuration { changed })
}

/// Feeds whose key has changed.
fn rekeyed<'f>(known: &'f Checkpoint, feeds: &'f Feeds) -> impl Iterator<Item = &'f Feed> {
    feeds.iter().filter(|feed| known.keys.get(&feed.name).is_some_and(|key| *key != feed.key))
}

/// Accepts what [`check_configuration`] refused. Readers know a feed's rows by their former keys. So a feed whose key changed is reset and read
/// again, and its live events count from there: earlier ones may lack the new key.
pub fn accept_configuration(known: &mut Checkpoint, configuration: &str, feeds: &Feeds) {
    let rekeyed: Vec<_> = rekeyed(known, feeds).map(|feed| feed.name.clone()).collect();
    for name in rekeyed {
        if let Some(state) = known.feeds.get_mut(&name).filter(|state| state.may_have_sent()) {
            *state = FeedState::Again { start: None, reset: true };
        }
    }
    configuration.clone_into(&mut known.configuration);
}

/// Refuses another broker: it lacks what was sent before the checkpoint.
///
/// # Errors
/// As [`check_same_sink`].
pub fn check_sink(known: &Checkpoint, now: &Identity) -> Result<(), Disagreement> {
    // The identity is empty until the sink was first reached.
    if known.sink.is_empty() { Ok(()) } else { check_same_sink(&known.sink, now) }
}

/// Refuses another broker, and recreated destinations. Destinations are the parts of an identity whose names contain a colon, as in
/// `kafka_topic:shop.public.orders`. A destination that only one of both identities has is new, or no longer used.
///
/// # Errors
/// [`Disagreement::Sink`] and [`Disagreement::Destination`].
pub fn check_same_sink(known: &Identity, now: &Identity) -> Result<(), Disagreement> {
    let broker = |identity: &Identity| {
        identity.iter().filter(|(name, _)| !name.contains(':')).map(|(name, id)| (name.clone(), id.clone())).collect()
    };
    let (known_broker, now_broker): (Identity, Identity) = (broker(known), broker(now));
    if known_broker != now_broker {
        return Err(Disagreement::Sink { known: known_broker, now: now_broker });
    }
    let is_recreated = |(name, id): &(&String, &String)| name.contains(':') && now.get(*name).is_some_and(|now| now != *id);
    let parts: Vec<String> = known.iter().filter(is_recreated).map(|(name, _)| name.replacen("kafka_topic:", "topic ", 1)).collect();
    if parts.is_empty() { Ok(()) } else { Err(Disagreement::Destination { parts }) }
}

/// How a pipeline goes on from `token`: known feeds in the state that the checkpoint holds, new feeds from their beginning. A feed that was
/// published at an earlier time begins with a reset: readers may hold rows that are gone by now.
#[must_use]
pub fn resume(checkpoint: &Checkpoint, feeds: &Feeds, token: ResumeToken) -> Resume {
    let first = |feed: &Feed| match feed.prefeed {
        _ if checkpoint.former.holds(&feed.name) => FeedState::Again { start: None, reset: true },
        PrefeedKind::Snapshot | PrefeedKind::Query(_) => FeedState::Pending,
        PrefeedKind::File(_) => FeedState::Loading { start: None, after: None },
        PrefeedKind::None => FeedState::Live { start: token.clone() },
    };
    let state = |feed: &Feed| match checkpoint.feeds.get(&feed.name) {
        // Its rows no longer come from a file.
        Some(known @ FeedState::Loading { .. }) if !matches!(feed.prefeed, PrefeedKind::File(_)) => {
            if known.may_have_sent() {
                FeedState::Again { start: None, reset: true }
            } else {
                first(feed)
            }
        }
        Some(known) => known.clone(),
        None => first(feed),
    };
    let states = feeds.iter().map(state).collect();
    let layouts = feeds.iter().map(|feed| checkpoint.layouts.get(&feed.name).cloned()).collect();
    Resume { token, feeds: states, layouts }
}

#[cfg(test)]
mod tests {
    use super::{Disagreement, Identity, check_same_sink};

    fn identity(parts: &[(&str, &str)]) -> Identity {
        parts.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
    }

    #[test]
    fn destinations_may_be_added_and_removed_but_not_recreated() {
        let known = identity(&[("kafka_cluster", "c"), ("kafka_topic:a", "1"), ("kafka_topic:b", "2")]);
        let check = |now: &[(&str, &str)]| check_same_sink(&known, &identity(now));
        assert_eq!(check(&[("kafka_cluster", "c"), ("kafka_topic:a", "1"), ("kafka_topic:z", "9")]), Ok(()));
        assert_eq!(check_same_sink(&identity(&[("kafka_cluster", "c")]), &known), Ok(()), "new ids are accepted");
        let recreated = check(&[("kafka_cluster", "c"), ("kafka_topic:a", "1"), ("kafka_topic:b", "7")]).unwrap_err();
        assert_eq!(recreated, Disagreement::Destination { parts: vec!["topic b".to_owned()] });
        assert!(recreated.to_string().starts_with("topic b was recreated"), "{recreated}");
        for other in [&[("kafka_cluster", "d"), ("kafka_topic:a", "1")][..], &[("path", "/out")]] {
            assert!(matches!(check(other), Err(Disagreement::Sink { .. })));
        }
    }
}
