//! Operations: what an event says about a row or a table, and the sets of them that feeds publish.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an event says about a row or a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// A row was added.
    Insert,
    /// A row's values changed.
    Update,
    /// A row was removed.
    Delete,
    /// A row that existed already, sent by the prefeed.
    Read,
    /// All rows of the table were removed at once.
    Truncate,
    /// The table will be read again from the start: readers must forget every row that is not sent again.
    Reset,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] = [Self::Insert, Self::Update, Self::Delete, Self::Read, Self::Truncate, Self::Reset];

    /// The name in events, headers, routes and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Read => "read",
            Self::Truncate => "truncate",
            Self::Reset => "reset",
        }
    }

    /// Whether the event comes from the prefeed and not from the log.
    #[must_use]
    pub const fn is_prefeed(self) -> bool {
        matches!(self, Self::Read | Self::Reset)
    }

    /// Whether the event concerns a whole table. Such an event has no key.
    #[must_use]
    pub const fn is_table_wide(self) -> bool {
        matches!(self, Self::Truncate | Self::Reset)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The set of live operations that a feed publishes. Bits: `insert = 1`, `delete = 2`, `update = 4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operations(u8);

impl Operations {
    /// Inserts, updates and deletes.
    pub const ALL: Self = Self(7);

    /// The set with these bits. `None` if it is empty or has an unknown bit.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits == 0 || bits > Self::ALL.0 { None } else { Some(Self(bits)) }
    }

    /// The bits, as in the configuration.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether an event is published. A truncate needs the delete bit; prefeed events are always published.
    #[must_use]
    pub const fn admits(self, operation: Operation) -> bool {
        let bit = match operation {
            Operation::Insert => 1,
            Operation::Delete | Operation::Truncate => 2,
            Operation::Update => 4,
            Operation::Read | Operation::Reset => return true,
        };
        self.0 & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, Operations};

    #[test]
    fn the_mask_applies_to_live_operations_only() {
        let insert = Operations::from_bits(1).unwrap();
        assert!(insert.admits(Operation::Insert) && !insert.admits(Operation::Update) && !insert.admits(Operation::Truncate));
        assert!(insert.admits(Operation::Read) && insert.admits(Operation::Reset));
        assert!(Operations::from_bits(2).unwrap().admits(Operation::Truncate));
    }

    #[test]
    fn a_mask_without_an_operation_is_refused() {
        assert_eq!(Operations::from_bits(0), None);
        assert_eq!(Operations::from_bits(8), None);
    }
}
