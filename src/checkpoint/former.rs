//! Feeds that were published once and no longer are.

use crate::checkpoint::progress::FeedName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The names of feeds that were published once and no longer are. Above [`Self::NAMES_MAX`] the names are dropped, and every feed
/// counts as a former one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerFeeds(BTreeSet<FeedName>);

impl FormerFeeds {
    /// The largest number of names that is kept.
    pub const NAMES_MAX: usize = 1000;
    /// Stands for every name. No feed has this name, because each name contains a schema.
    const ANY: &str = "*";

    /// Whether there are no former feeds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the feed was, or may have been, published once.
    #[must_use]
    pub fn holds(&self, feed: &str) -> bool {
        self.0.contains(feed) || self.0.contains(Self::ANY)
    }

    /// Adds a feed that is no longer published.
    pub fn add(&mut self, feed: FeedName) {
        if Self::NAMES_MAX <= self.0.len() {
            self.0 = BTreeSet::from([Self::ANY.into()]);
        }
        if !self.holds(&feed) {
            self.0.insert(feed);
        }
    }

    /// Removes a feed that is published again.
    pub fn remove(&mut self, feed: &str) {
        self.0.remove(feed);
    }
}

#[cfg(test)]
mod tests {
    use super::FormerFeeds;

    #[test]
    fn above_the_limit_every_feed_counts_as_a_former_one() {
        let mut former = FormerFeeds::default();
        for number in 0..FormerFeeds::NAMES_MAX {
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
