//! What a checkpoint and a pipeline must agree on before the one goes on from the other. A start refuses what does not fit, and
//! `feedline check` tells of it by the same judgement.

use crate::checkpoint::{Checkpoint, FeedState, Identity, ResumeToken};
use crate::fault::{Classify, Code, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::preflight;
use crate::source::Resume;

/// Why a pipeline does not go on from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// It is another pipeline's.
    #[error(
        "the checkpoint belongs to the pipeline {known:?}, this one is {ours:?}: set `name` back, or give this pipeline a checkpoint of its own"
    )]
    Name {
        /// Whose it is.
        known: String,
        /// Who asks.
        ours: String,
    },
    /// Events would have other keys or bytes than those that were published.
    #[error(
        "{what} differs from what the checkpoint was made with: events would no longer repeat byte by byte, and keys may move; set it back, or \
         start once with --accept-config-change"
    )]
    Configuration {
        /// Which settings, or which tables' keys.
        what: String,
    },
    /// Another broker, which lacks all that was sent before the checkpoint.
    #[error(
        "the sink is {now:?}, but the checkpoint was made with {known:?}: what was sent there is missing here; point the pipeline back, or begin \
         anew here after `feedline checkpoint reset` and `feedline detach` (every row is sent again, and readers begin with empty tables); where \
         it is the same one by another name, say so with `feedline checkpoint accept-sink`"
    )]
    Sink {
        /// With whom it was made.
        known: Identity,
        /// Who is there.
        now: Identity,
    },
    /// The same broker, and a destination there is not the one that it was.
    #[error(
        "{} made anew or deleted since the checkpoint: what was sent before is gone from there; go on without it after `feedline checkpoint \
         accept-sink`, or have the rows sent again: `feedline checkpoint reset` and `feedline detach`",
        are(parts)
    )]
    Destination {
        /// Which of them, by what they are and their names.
        parts: Vec<String>,
    },
}

fn are(parts: &[String]) -> String {
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
    let what = match (known.configuration == configuration, keys.as_slice()) {
        (true, []) => return Ok(()),
        (false, []) => "`format` or `sink.tombstones`".to_owned(),
        (_, keys) => format!("the key of {}", keys.join(", ")),
    };
    Err(Disagreement::Configuration { what })
}

/// Feeds whose key is another one now.
fn rekeyed<'f>(known: &'f Checkpoint, feeds: &'f Feeds) -> impl Iterator<Item = &'f Feed> {
    feeds.iter().filter(|feed| known.keys.get(&feed.name).is_some_and(|key| *key != feed.key))
}

/// Accepts what [`check_configuration`] refused. Readers know a feed's rows by their former keys: where its key changed they are to
/// forget them, and the rows are read again. Its live events count from there: those before may lack the new key.
pub fn accept_configuration(known: &mut Checkpoint, configuration: &str, feeds: &Feeds) {
    let rekeyed: Vec<_> = rekeyed(known, feeds).map(|feed| feed.name.clone()).collect();
    for name in rekeyed {
        if let Some(state) = known.feeds.get_mut(&name).filter(|state| state.may_have_sent()) {
            *state = FeedState::Again { start: None, reset: true };
        }
    }
    configuration.clone_into(&mut known.configuration);
}

/// Refuses another broker: it would have a hole before the checkpoint.
///
/// # Errors
/// As [`check_same_sink`].
pub fn check_sink(known: &Checkpoint, now: &Identity) -> Result<(), Disagreement> {
    // It is empty until the sink was first reached.
    if known.sink.is_empty() { Ok(()) } else { check_same_sink(&known.sink, now) }
}

/// Refuses a broker that is not the one which it was, and destinations that are not. Destinations are those parts of an identity
/// whose names hold a colon, as `kafka_topic:shop.public.orders`: one that only one of both names is new, or no longer used.
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
    let is_anew = |(name, id): &(&String, &String)| name.contains(':') && now.get(*name).is_some_and(|now| now != *id);
    let parts: Vec<String> = known.iter().filter(is_anew).map(|(name, _)| name.replacen("kafka_topic:", "topic ", 1)).collect();
    if parts.is_empty() { Ok(()) } else { Err(Disagreement::Destination { parts }) }
}

/// How a pipeline goes on from `token`: with what the checkpoint knows of its feeds, and with new ones from their beginning. Of a
/// feed that was there before readers may hold rows that are gone by now: it begins with a reset.
#[must_use]
pub fn resume(checkpoint: &Checkpoint, feeds: &Feeds, token: ResumeToken) -> Resume {
    let first = |feed: &Feed| match feed.prefeed {
        _ if checkpoint.former.holds(&feed.name) => FeedState::Again { start: None, reset: true },
        PrefeedKind::Snapshot | PrefeedKind::Query(_) => FeedState::Pending,
        PrefeedKind::File(_) => FeedState::Loading { start: None, after: None },
        PrefeedKind::None => FeedState::Live { start: token.clone() },
    };
    let state = |feed: &Feed| match checkpoint.feeds.get(&feed.name) {
        // Its rows come from elsewhere now.
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
    fn destinations_may_come_and_go_and_not_be_replaced() {
        let known = identity(&[("kafka_cluster", "c"), ("kafka_topic:a", "1"), ("kafka_topic:b", "2")]);
        let judged = |now: &[(&str, &str)]| check_same_sink(&known, &identity(now));
        assert_eq!(judged(&[("kafka_cluster", "c"), ("kafka_topic:a", "1"), ("kafka_topic:z", "9")]), Ok(()));
        assert_eq!(check_same_sink(&identity(&[("kafka_cluster", "c")]), &known), Ok(()), "ids are learnt");
        let anew = judged(&[("kafka_cluster", "c"), ("kafka_topic:a", "1"), ("kafka_topic:b", "7")]).unwrap_err();
        assert_eq!(anew, Disagreement::Destination { parts: vec!["topic b".to_owned()] });
        assert!(anew.to_string().starts_with("topic b was made anew"), "{anew}");
        for other in [&[("kafka_cluster", "d"), ("kafka_topic:a", "1")][..], &[("path", "/out")]] {
            assert!(matches!(judged(other), Err(Disagreement::Sink { .. })));
        }
    }
}
