//! Where to resume: tokens, progress, and the durable fold of all confirmed progress.

use crate::event::Timestamp;
use crate::fault::Classify;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub mod fencing;
pub mod file;

/// A place in a source's log: all before it has been read. Text, opaque to all but the source that made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResumeToken(pub Arc<str>);

/// A feed's name over restarts: `schema.table`, a part that holds a dot or a quote quoted as SQL does.
pub type FeedName = Arc<str>;

/// How far a table has been read, opaque to all but the prefeed that made it: the last key and its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPosition(pub Arc<str>);

/// Where a feed begins and how far its existing rows have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeedState {
    /// Its first cut is still to come: its live events are not published.
    Pending,
    /// The rows of its file are being sent; its live events are not published before the last of them.
    Loading {
        /// Where the log was before the first of them: there its live events begin. `None` before that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<ResumeToken>,
        /// The last row confirmed; `None` before the first.
        after: Option<ScanPosition>,
    },
    /// Its rows are being read; live events count from `start` on.
    Reading {
        /// The cut under which its first row was read.
        start: ResumeToken,
        /// The last row confirmed; `None` before the first.
        after: Option<ScanPosition>,
    },
    /// All its rows are to be read anew, because some changed without a word in the log.
    Again {
        /// From where on its live events count: they go on. `None` after a gap: then they count from the cut under which it is read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<ResumeToken>,
        /// Whether readers are to forget rows that are not repeated: some may be gone.
        reset: bool,
    },
    /// All its rows are sent, or none were asked for; live events count from `start` on.
    Live {
        /// The feed's first cut, or where the log began for a feed without a prefeed.
        start: ResumeToken,
    },
}

impl FeedState {
    /// From where on live events are published; `None` while the first cut is to come.
    #[must_use]
    pub const fn start(&self) -> Option<&ResumeToken> {
        match self {
            Self::Pending | Self::Loading { .. } => None,
            Self::Again { start, .. } => start.as_ref(),
            Self::Reading { start, .. } | Self::Live { start } => Some(start),
        }
    }

    /// From where on the log holds events of the feed that are published, now or once its file is sent.
    #[must_use]
    pub const fn since(&self) -> Option<&ResumeToken> {
        match self {
            Self::Loading { start, .. } => start.as_ref(),
            Self::Pending | Self::Again { .. } | Self::Reading { .. } | Self::Live { .. } => self.start(),
        }
    }

    /// Whether readers may hold rows of the feed.
    #[must_use]
    pub const fn may_have_sent(&self) -> bool {
        match self {
            Self::Pending | Self::Again { start: None, reset: false } | Self::Loading { after: None, .. } => false,
            Self::Loading { after: Some(_), .. } | Self::Reading { .. } | Self::Again { .. } | Self::Live { .. } => true,
        }
    }
}

/// What a source knows of a table beside its log, such as its columns and partitions: it tells whether rows changed without a
/// word there. Text, opaque to all but the source that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout(pub Arc<str>);

/// What becomes known of one feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The feed.
    pub feed: FeedName,
    /// Its state from here on.
    pub state: FeedState,
    /// How its source sees its table from here on, where that is new.
    pub layout: Option<Layout>,
}

/// What is known once a batch and all before it are confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where to resume the log.
    pub token: ResumeToken,
    /// Feeds of which this batch changes something; empty on live batches.
    pub marks: Vec<Mark>,
    /// The prefeed slice to which the batch belongs, when it opens one.
    pub slice: Option<u32>,
    /// Whether what follows waits until this is durable, so that the checkpoint is saved at once.
    pub urgent: bool,
}

impl Progress {
    /// Progress of the log alone.
    #[must_use]
    pub const fn live(token: ResumeToken) -> Self {
        Self { token, marks: Vec::new(), slice: None, urgent: false }
    }
}

/// What a source or a sink is, so that another one behind the same address is noticed: names and values that it chose.
pub type Identity = BTreeMap<String, String>;

/// How the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastExit {
    /// A run is going on, or ended without a word: a crash or a kill.
    Running,
    /// Drained and stopped, or stopped at its deadline.
    Stopped,
    /// Stopped for a fault.
    Failed,
}

/// The durable state of a pipeline. It changes by the fold over the confirmed prefix and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The pipeline's name.
    pub name: String,
    /// Made at random with the checkpoint: tells two pipelines of one name apart.
    pub instance: String,
    /// What the source was when the checkpoint was made.
    pub source: Identity,
    /// What the sink was when the checkpoint was made; empty until it was first reached.
    pub sink: Identity,
    /// Hash of the settings on which ids and bytes of events depend.
    pub configuration: String,
    /// Where to resume. `None` is an intent: the source is being prepared, nothing has been read.
    pub token: Option<ResumeToken>,
    /// Commit time of the newest live record confirmed, for the lag after a start.
    pub committed_at: Option<Timestamp>,
    /// When a look at the log's head last proved that nothing was missing, for the lag after a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<Timestamp>,
    /// The number of the newest prefeed slice; it only grows.
    pub slice: u32,
    /// State of each feed.
    pub feeds: BTreeMap<FeedName, FeedState>,
    /// How the source last saw each feed's table, where it keeps such a thing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layouts: BTreeMap<FeedName, Layout>,
    /// Key columns of each feed in table order, from the catalogue.
    pub keys: BTreeMap<FeedName, Vec<Arc<str>>>,
    /// Feeds that were published once and are not any more: readers may still hold rows of them.
    #[serde(default, skip_serializing_if = "Former::is_empty")]
    pub former: Former,
    /// Restarts so far, by reason.
    pub restarts: BTreeMap<String, u64>,
    /// How the last run ended.
    pub last_exit: LastExit,
}

impl Checkpoint {
    /// The intent: written before anything is made in the source.
    #[must_use]
    pub fn intent(name: &str, instance: String, source: Identity, configuration: String) -> Self {
        Self {
            name: name.to_owned(),
            instance,
            source,
            sink: Identity::new(),
            configuration,
            token: None,
            committed_at: None,
            caught_up_at: None,
            slice: 0,
            feeds: BTreeMap::new(),
            layouts: BTreeMap::new(),
            keys: BTreeMap::new(),
            former: Former::default(),
            restarts: BTreeMap::new(),
            last_exit: LastExit::Running,
        }
    }

    /// Forgets what is known of a feed, but that it was published, where it was.
    pub fn drop_feed(&mut self, name: &FeedName) {
        if self.feeds.remove(name).is_some_and(|state| state.may_have_sent()) {
            self.former.add(name.clone());
        }
        self.layouts.remove(name);
        self.keys.remove(name);
    }

    /// Folds the progress of the next confirmed batch in (I2: the only way in which a position advances).
    pub fn advance(&mut self, progress: &Progress, committed_at: Option<Timestamp>) {
        self.token = Some(progress.token.clone());
        self.committed_at = self.committed_at.max(committed_at);
        self.slice = self.slice.max(progress.slice.unwrap_or(0));
        for mark in &progress.marks {
            self.feeds.insert(mark.feed.clone(), mark.state.clone());
            if let Some(layout) = &mark.layout {
                self.layouts.insert(mark.feed.clone(), layout.clone());
            }
        }
    }
}

/// The names of feeds that were published once. A number of them is kept; of more it is only known that there were some, and any
/// feed may be one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former(BTreeSet<FeedName>);

impl Former {
    /// How many are kept by name.
    pub const NAMES_MAX: usize = 1000;
    /// Stands for every name. No feed is called so: each has a schema.
    const ANY: &str = "*";

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the feed was published once, as far as is known.
    #[must_use]
    pub fn holds(&self, feed: &str) -> bool {
        self.0.contains(feed) || self.0.contains(Self::ANY)
    }

    /// The feed is not published any more.
    pub fn add(&mut self, feed: FeedName) {
        if Self::NAMES_MAX <= self.0.len() {
            self.0 = BTreeSet::from([Self::ANY.into()]);
        }
        if !self.holds(&feed) {
            self.0.insert(feed);
        }
    }

    /// The feed is published again.
    pub fn remove(&mut self, feed: &str) {
        self.0.remove(feed);
    }
}

/// Keeps one pipeline's checkpoint. One holder at a time: a store is locked while it is open.
pub trait CheckpointStore: Send + 'static {
    /// Why it could not be read or written.
    type Error: Classify;

    /// The checkpoint; `None` only after a complete read has proved that there is none (I9).
    fn load(&mut self) -> impl Future<Output = Result<Option<Checkpoint>, Self::Error>> + Send;

    /// Returns when the checkpoint is durable. After a transient error it may be tried again, with the same or a later
    /// checkpoint; after any other the store must not be used again: whether the write reached the disk is unknown, and only a
    /// new start can read it (I6).
    fn save(&mut self, checkpoint: &Checkpoint) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Forgets the checkpoint, readable or not; whether there was one.
    fn remove(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

#[cfg(test)]
mod tests {
    use super::Former;

    #[test]
    fn of_more_former_feeds_than_are_named_any_feed_may_be_one() {
        let mut former = Former::default();
        for number in 0..Former::NAMES_MAX {
            former.add(format!("public.t{number}").into());
        }
        former.remove("public.t1");
        assert!(former.holds("public.t0") && !former.holds("public.t1") && !former.holds("public.other"));
        former.add("public.t1".into());
        former.add("public.one_more".into());
        assert!(former.holds("public.t0") && former.holds("public.one_more") && former.holds("public.other"));
        assert_eq!(serde_json::to_string(&former).unwrap(), "[\"*\"]");
    }
}
