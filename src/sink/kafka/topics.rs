//! The topics of a pipeline: their names, whether they exist, how many partitions they have, what they accept, and how they are created.

mod admin;
mod establish;
mod limits;
mod lookup;
mod names;

pub(super) use admin::{ADMIN_TIMEOUT, DescribedConfigs, admin_client, broker_config, create_topics, describe_configs};
pub(super) use establish::{establish, read_limits};
pub(super) use limits::{Limits, TopicLimits, config_value};
pub(super) use lookup::{TopicState, all_missing, denied, look_up, partitions, wait_for_partitions};
pub use names::broken_rule;
pub(super) use names::{broken_names, check_names, of_feeds};
