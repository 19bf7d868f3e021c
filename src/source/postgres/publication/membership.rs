//! How a table was published when it was last seen, compared with how it is published now.
//!
//! A change of the publication takes effect in the log at its own commit, and no event shows it. The server's oids and transaction ids are
//! not used twice. They show a change even if everything was put back since.

use crate::source::Reread;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a table is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    /// The publication's oid.
    pub(super) publication: u32,
    /// The table's oid.
    pub(super) table: u32,
    /// The transaction that wrote the publication's settings.
    pub(super) version: u32,
    /// The oids of the table's entry and of its schema's entry; 0 if there is none.
    pub(super) entries: (u32, u32),
    /// For a member without an entry of its own: the transaction that moved it into its schema, and the file that holds its rows.
    #[serde(rename = "place")]
    pub(super) schema_and_file: (u32, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter: Option<String>,
}

/// Why changes of a table are missing in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The table is not a member.
    Left,
    /// The table was not a member for some time.
    PutBack,
    /// The publication did not exist for some time. The slot cannot read past that part of the log.
    Remade,
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Left => "it was dropped (and perhaps created again), or removed",
            Self::PutBack => "it was removed and added again",
            Self::Remade => "the publication was dropped and created again",
        })
    }
}

impl Membership {
    /// Why changes of the table are missing in the log; `None` if no gap can be seen.
    pub(super) fn gap(&self, now: &Self) -> Option<Gap> {
        // A table that was created again is read completely anyway.
        if self.table != now.table {
            return None;
        }
        let both_exist_or_none = |a: u32, b: u32| (a == 0) == (b == 0);
        let looks_same = both_exist_or_none(self.entries.0, now.entries.0)
            && both_exist_or_none(self.entries.1, now.entries.1)
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

    /// Why the table's rows must be read again: other rows or columns are published than before, or changes may be missing. In every
    /// case rows may be gone.
    pub(crate) fn reread(&self, now: &Self) -> Option<Reread> {
        let reason = if self.publication != now.publication || self.entries != now.entries {
            match (self.filter == now.filter, self.list == now.list) {
                (false, _) => "its row filter in the publication changed",
                (true, false) => "its column list in the publication changed",
                (true, true) => "its entry in the publication changed",
            }
        } else if self.version != now.version {
            "the publication's settings were changed"
        } else if self.schema_and_file != now.schema_and_file {
            "it was moved between schemas, made unlogged for some time, or rewritten"
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
    fn a_table_that_was_removed_and_added_again_is_a_gap() {
        assert_eq!(known().gap(&known()), None);
        assert_eq!(known().gap(&Membership { entries: (4, 0), ..known() }), Some(Gap::PutBack));
        assert_eq!(known().gap(&Membership { publication: 9, ..known() }), Some(Gap::Remade));
        // Where the kind of change is visible, the rows are read again instead.
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
