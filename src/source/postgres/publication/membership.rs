//! How a table was published when it was last seen, and what follows where that is not as it is now.
//!
//! A change of the publication takes effect in the log at its own commit, and no event tells of it. Numbers that the server never
//! uses twice show it even where everything was put back meanwhile.

use super::names::name_of;
use crate::feed::Feed;
use crate::source::Reread;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How a table is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    /// The publication's number.
    pub(super) publication: u32,
    /// The table's.
    pub(super) table: u32,
    /// The transaction that wrote its settings.
    pub(super) version: u32,
    /// The table's entry, and its schema's.
    pub(super) entries: (u32, u32),
    /// Where it is a member by its schema: the transaction that moved it there, and the file that holds its rows.
    pub(super) place: (u32, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter: Option<String>,
}

/// Why changes of a table are missing in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The table is no member.
    Left,
    /// It was none for a while.
    PutBack,
    /// The publication did not exist for a while: the log cannot be read where it says so.
    Remade,
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Left => "it was dropped and perhaps made anew, or taken out",
            Self::PutBack => "it was taken out and put back",
            Self::Remade => "the publication was dropped and made anew",
        })
    }
}

/// How each table of the publication is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memberships(pub(super) BTreeMap<(String, String), Membership>);

impl Memberships {
    /// How the feed's table is published; `None` where it is not.
    pub(crate) fn of(&self, feed: &Feed) -> Option<&Membership> {
        self.0.get(&name_of(feed))
    }
}

impl Membership {
    /// Why changes of the table are missing in the log; `None` where none are, as far as can be seen.
    pub(super) fn gap(&self, now: &Self) -> Option<Gap> {
        // One that was made anew is read again as a whole.
        if self.table != now.table {
            return None;
        }
        let is_same_way = |a: u32, b: u32| (a == 0) == (b == 0);
        let looks_same = is_same_way(self.entries.0, now.entries.0)
            && is_same_way(self.entries.1, now.entries.1)
            && self.list == now.list
            && self.filter == now.filter;
        if self.publication != now.publication {
            Some(Gap::Remade)
        } else if self.entries != now.entries && looks_same {
            Some(Gap::PutBack)
        } else {
            None
        }
    }

    /// Why the table's rows are to be read again: others are published than before, or changes may have passed unseen. Rows may be
    /// gone in each case.
    pub(crate) fn reread(&self, now: &Self) -> Option<Reread> {
        let reason = if self.publication != now.publication || self.entries != now.entries {
            match (self.filter == now.filter, self.list == now.list) {
                (false, _) => "its row filter in the publication changed",
                (true, false) => "its column list in the publication changed",
                (true, true) => "its entry in the publication changed",
            }
        } else if self.version != now.version {
            "the publication's settings were changed"
        } else if self.place != now.place {
            "it was moved between schemas, made unlogged for a while, or written anew"
        } else {
            return None;
        };
        Some(Reread { reset: true, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Gap, Membership};

    fn known() -> Membership {
        Membership { publication: 1, version: 2, entries: (3, 0), ..Membership::default() }
    }

    #[test]
    fn what_left_and_came_back_is_a_gap() {
        assert_eq!(known().gap(&known()), None);
        assert_eq!(known().gap(&Membership { entries: (4, 0), ..known() }), Some(Gap::PutBack));
        assert_eq!(known().gap(&Membership { publication: 9, ..known() }), Some(Gap::Remade));
        // It is seen what was changed: the rows are read again.
        for now in [
            Membership { table: 9, entries: (4, 0), ..known() },
            Membership { entries: (4, 0), filter: Some("(id > 1)".to_owned()), ..known() },
            Membership { entries: (0, 5), ..known() },
            Membership { version: 7, ..known() },
        ] {
            assert_eq!(known().gap(&now), None);
            assert!(known().reread(&now).is_some_and(|reread| reread.reset), "{now:?}");
        }
        assert_eq!(known().reread(&known()), None);
    }
}
