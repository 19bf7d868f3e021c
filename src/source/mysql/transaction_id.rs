//! The names of transactions, and what has been read of them.
//!
//! Source: MySQL documentation, "GTID Format and Storage"; MariaDB documentation, "Global Transaction ID".

use super::binlog::{MariaId, MySqlId};
use super::gtid_set::{GtidSet, write_uuid};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The name of a transaction (GTID).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionId {
    Maria(MariaId),
    MySql { source: [u8; 16], tag: Tag, number: u64 },
}

/// A tag of MySQL: at most 32 ASCII characters, and zeros behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tag([u8; 32]);

impl Tag {
    fn new(text: &str) -> Self {
        let mut tag = Self::default();
        for (byte, character) in tag.0.iter_mut().zip(text.bytes()) {
            *byte = character;
        }
        tag
    }

    fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..length]).unwrap_or_default()
    }
}

impl TransactionId {
    /// Takes a transaction of MySQL out of a set.
    pub(super) fn take_out_of(&self, set: &mut GtidSet) {
        if let Self::MySql { source, tag, number } = self {
            set.remove(&MySqlId { source: *source, tag: tag.as_str(), number: *number });
        }
    }
}

impl From<MySqlId<'_>> for TransactionId {
    fn from(id: MySqlId<'_>) -> Self {
        Self::MySql { source: id.source, tag: Tag::new(id.tag), number: id.number }
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maria(id) => id.fmt(formatter),
            Self::MySql { source, tag, number } => {
                write_uuid(source, formatter)?;
                let tag = tag.as_str();
                if tag.is_empty() { write!(formatter, ":{number}") } else { write!(formatter, ":{tag}:{number}") }
            }
        }
    }
}

impl FromStr for TransactionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(id) = maria(text) {
            return Ok(Self::Maria(id));
        }
        text.parse::<GtidSet>().map_err(drop)?.only().map(Self::from).ok_or(())
    }
}

/// Reads `domain-server-sequence`.
pub(super) fn maria(text: &str) -> Option<MariaId> {
    let mut parts = text.split('-');
    let (domain, server, sequence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(MariaId { domain, server, sequence })
}

/// The transactions that have been read, by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gtids {
    /// They have no names (MySQL with `gtid_mode` other than `ON`).
    Unnamed,
    MySql(GtidSet),
    Maria(MariaPosition),
}

impl Gtids {
    /// Adds a transaction.
    pub(super) fn add(&mut self, id: &TransactionId) {
        match (self, id) {
            (Self::MySql(set), TransactionId::MySql { source, tag, number }) => {
                set.add(&MySqlId { source: *source, tag: tag.as_str(), number: *number });
            }
            (Self::Maria(position), TransactionId::Maria(id)) => position.add(*id),
            _ => {}
        }
    }

    /// Whether this transaction has been read.
    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        match (self, id) {
            (Self::MySql(set), TransactionId::MySql { source, tag, number }) => {
                set.contains(&MySqlId { source: *source, tag: tag.as_str(), number: *number })
            }
            (Self::Maria(position), TransactionId::Maria(id)) => position.contains(*id),
            _ => false,
        }
    }

    /// On MariaDB the last transaction in the domain of this one, which comes next.
    pub(super) fn previous(&self, id: &TransactionId) -> Option<TransactionId> {
        match (self, id) {
            (Self::Maria(position), TransactionId::Maria(id)) => position.of(id.domain).map(TransactionId::Maria),
            _ => None,
        }
    }

    /// Whether there is no transaction.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Unnamed => true,
            Self::MySql(set) => *set == GtidSet::default(),
            Self::Maria(position) => *position == MariaPosition::default(),
        }
    }
}

/// The last transaction of each domain of MariaDB: `0-1-17,3-2-5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MariaPosition(BTreeMap<u32, MariaId>);

impl MariaPosition {
    /// Goes on to this transaction.
    pub(super) fn add(&mut self, id: MariaId) {
        self.0.insert(id.domain, id);
    }

    /// Goes back behind this transaction, or to the beginning of the domain.
    pub(super) fn set(&mut self, domain: u32, last: Option<MariaId>) {
        match last {
            Some(last) => self.add(last),
            None => drop(self.0.remove(&domain)),
        }
    }

    /// The last transaction of this domain.
    pub(super) fn of(&self, domain: u32) -> Option<MariaId> {
        self.0.get(&domain).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = MariaId> {
        self.0.values().copied()
    }

    pub(super) fn contains(&self, id: MariaId) -> bool {
        self.of(id.domain).is_some_and(|last| id.sequence <= last.sequence)
    }

    /// Whether `other` has reached all of it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|id| other.contains(id))
    }
}

impl fmt::Display for MariaPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, id) in self.iter().enumerate() {
            write!(formatter, "{}{id}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for MariaPosition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut position = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            position.add(maria(part).ok_or(())?);
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::{Gtids, MariaPosition, TransactionId};

    #[test]
    fn the_name_of_a_transaction_reads_as_it_was_written() {
        for text in ["0-1-17", "3e11fa47-71ca-11e1-9e33-c80aa9429562:23", "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:23"] {
            assert_eq!(text.parse::<TransactionId>().unwrap().to_string(), text);
        }
        for bad in ["", "0-1", "0-1-2-3", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2", "3e11fa47-71ca-11e1-9e33-c80aa9429562"] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_position_holds_the_last_transaction_of_each_domain() {
        let position = |text: &str| text.parse::<MariaPosition>().unwrap();
        let id = |text: &str| text.parse::<TransactionId>().unwrap();
        let mut gtids = Gtids::Maria(position("0-1-17, 3-2-5"));
        assert!(
            gtids.contains(&id("0-9-17"))
                && gtids.contains(&id("3-2-1"))
                && !gtids.contains(&id("0-1-18"))
                && !gtids.contains(&id("1-1-1"))
        );
        gtids.add(&id("0-2-18"));
        assert_eq!(gtids, Gtids::Maria(position("0-2-18,3-2-5")));
        assert!(position("0-1-5").is_within(&position("0-2-5")) && !position("0-1-5,1-1-1").is_within(&position("0-1-9")));
        assert_eq!(position("").to_string(), "");
        assert!("0-1".parse::<MariaPosition>().is_err());
    }

    #[test]
    fn transactions_of_mysql_are_a_set() {
        let id = |text: &str| text.parse::<TransactionId>().unwrap();
        let mut gtids = Gtids::MySql("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap());
        gtids.add(&id("3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:1"));
        assert!(
            gtids.contains(&id("3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:1"))
                && gtids.contains(&id("3e11fa47-71ca-11e1-9e33-c80aa9429562:5"))
        );
        assert!(!gtids.contains(&id("3e11fa47-71ca-11e1-9e33-c80aa9429562:6")));
        assert!(Gtids::Unnamed.is_empty() && !gtids.is_empty() && Gtids::MySql(super::GtidSet::default()).is_empty());
    }
}
