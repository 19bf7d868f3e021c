//! The checkpoint itself: the fold of all confirmed progress.

use crate::checkpoint::former::Former;
use crate::checkpoint::progress::{FeedName, FeedState, Progress};
use crate::checkpoint::token::{Layout, ResumeToken};
use crate::event::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

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
