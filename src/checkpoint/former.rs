//! Feeds that were published once and are not any more.

use crate::checkpoint::progress::FeedName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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
