//! The checkpoint: the durable fold of all confirmed progress.

use crate::checkpoint::former::FormerFeeds;
use crate::checkpoint::progress::{FeedName, FeedState, Progress};
use crate::checkpoint::token::{Layout, ResumeToken};
use crate::event::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Identifies a source or a sink, so that another server behind the same address is noticed. The adapter chooses names and values.
pub type Identity = BTreeMap<String, String>;

/// How the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastExit {
    /// A run is in progress, or it ended by a crash or a kill.
    Running,
    /// The run was stopped: drained, or at its deadline.
    Stopped,
    /// The run stopped because of a fault.
    Failed,
}

/// The durable state of a pipeline: the fold of all confirmed progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The pipeline's name.
    pub name: String,
    /// A random string, made with the checkpoint. It distinguishes two pipelines with the same name.
    pub instance: String,
    /// The source's identity when the checkpoint was made.
    pub source: Identity,
    /// The sink's identity when the checkpoint was made; empty until the sink was first reached.
    pub sink: Identity,
    /// Hash of the settings that determine the ids and bytes of events.
    pub configuration: String,
    /// Where to resume. `None` is an intent: the source is being prepared, and nothing has been read.
    pub token: Option<ResumeToken>,
    /// Commit time of the newest confirmed live record, for the lag after a start.
    pub committed_at: Option<Timestamp>,
    /// When the log's head last showed that no event was missing, for the lag after a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<Timestamp>,
    /// The number of the newest prefeed slice. It never decreases.
    pub slice: u32,
    /// The state of each feed.
    pub feeds: BTreeMap<FeedName, FeedState>,
    /// The last known layout of each feed's table, if the source uses layouts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layouts: BTreeMap<FeedName, Layout>,
    /// The key columns of each feed in table order, from the catalogue.
    pub keys: BTreeMap<FeedName, Vec<Arc<str>>>,
    /// Feeds that were published once and no longer are. Readers may still have rows of them.
    #[serde(default, skip_serializing_if = "FormerFeeds::is_empty")]
    pub former: FormerFeeds,
    /// The number of restarts so far, by reason.
    pub restarts: BTreeMap<String, u64>,
    /// How the last run ended.
    pub last_exit: LastExit,
}

impl Checkpoint {
    /// A checkpoint without a token, saved before anything is created in the source.
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
            former: FormerFeeds::default(),
            restarts: BTreeMap::new(),
            last_exit: LastExit::Running,
        }
    }

    /// Removes a feed. If readers may have rows of it, it is kept as a former feed.
    pub fn drop_feed(&mut self, name: &FeedName) {
        if self.feeds.remove(name).is_some_and(|state| state.may_have_sent()) {
            self.former.add(name.clone());
        }
        self.layouts.remove(name);
        self.keys.remove(name);
    }

    /// Adds the progress of the next confirmed batch. A position advances in no other way (I2).
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
