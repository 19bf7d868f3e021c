//! Settings of a pipeline.

use super::gap::OnGap;
use super::restart::RestartPolicy;
use crate::feed::resolve::FeedRule;
use crate::feed::route::Template;
use crate::format::Format;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a pipeline.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: Arc<str>,
    /// Hash of the settings on which ids and bytes of events depend.
    pub configuration: String,
    /// Which tables are published, and how.
    pub rules: Vec<FeedRule>,
    /// The route of feeds whose rule has none.
    pub route: Template,
    /// How events are written down.
    pub format: Format,
    /// The schema of table patterns without one.
    pub default_schema: Arc<str>,
    /// The memory budget, in bytes, from the socket to the confirmation.
    pub memory_bytes: usize,
    /// How often the checkpoint is saved while it changes.
    pub checkpoint_interval: Duration,
    /// How long a stop may take.
    pub shutdown_deadline: Duration,
    /// The longest prefeed slice while no feed is live.
    pub prefeed_slice: Duration,
    /// How many bytes of events the prefeed may read per second; `None` is without a limit.
    pub prefeed_bytes_per_second: Option<NonZeroU64>,
    /// How long to wait for another instance that holds the source, the sink or the checkpoint.
    pub takeover_timeout: Duration,
    /// What to do when the log no longer holds what comes next.
    pub on_gap: OnGap,
    /// Go on although keys or the format differ from those of the checkpoint.
    pub accept_config_change: bool,
    /// When a side starts again after a failure.
    pub restart: RestartPolicy,
}

impl Settings {
    /// The size of a batch: large enough that handing it over costs nothing, small enough that the budget holds at least 16.
    pub(super) fn batch_bytes(&self) -> usize {
        (self.memory_bytes / 16).clamp(16 << 10, 256 << 10)
    }
}
