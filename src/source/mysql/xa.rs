//! XA transactions that were prepared: their rows are in the log, and count only if a later transaction commits them.
//!
//! Source: MySQL documentation, "XA Transactions"; MariaDB documentation, "XA Transactions".

use super::binlog::XaPrepare;
use super::hex::unhex;
use openssl::sha::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A short form of the identifier of an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct XaId(u64);

impl XaId {
    fn new(format: u32, global: &[u8], branch: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(&format.to_le_bytes());
        hash.update(&(global.len() as u64).to_le_bytes());
        hash.update(global);
        hash.update(branch);
        Self(hash.finish().first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }

    pub(super) fn of(prepare: &XaPrepare<'_>) -> Self {
        Self::new(prepare.format, prepare.global, prepare.branch)
    }

    /// Reads it as statements in the log have it: `X'6162',X'63',1`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.trim().trim_end_matches(';').split(',');
        let (global, branch) = (part(parts.next()?)?, part(parts.next()?)?);
        let format = parts.next()?.trim().parse().ok()?;
        parts.next().is_none().then(|| Self::new(format, &global, &branch))
    }
}

/// Reads `X'6162'`.
fn part(text: &str) -> Option<Vec<u8>> {
    unhex(text.trim().strip_prefix(['X', 'x'])?.strip_prefix('\'')?.strip_suffix('\'')?)
}

/// Where the rows of a prepared transaction begin: number of the file, and offset. `None` if they are in another server's log.
pub(super) type Rows = Option<(u32, u64)>;

/// The transactions that were prepared, and neither committed nor rolled back. Written as `id:file:offset`, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prepared(BTreeMap<XaId, Rows>);

impl Prepared {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, id: XaId, file: u32, offset: u64) {
        self.0.insert(id, Some((file, offset)));
    }

    pub(super) fn remove(&mut self, id: XaId) {
        self.0.remove(&id);
    }

    /// The rows of this transaction; `None` if its preparation was not read.
    pub(super) fn get(&self, id: XaId) -> Option<Rows> {
        self.0.get(&id).copied()
    }

    /// Another server's log goes on: its places are others.
    pub(super) fn elsewhere(self) -> Self {
        Self(self.0.into_keys().map(|id| (id, None)).collect())
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (id, rows)) in self.0.iter().enumerate() {
            write!(formatter, "{}{:016x}", if index == 0 { "" } else { "," }, id.0)?;
            if let Some((file, offset)) = rows {
                write!(formatter, ":{file}:{offset}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Prepared {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut prepared = BTreeMap::new();
        for part in text.split(',') {
            let mut fields = part.split(':');
            let id = fields.next().and_then(|id| u64::from_str_radix(id, 16).ok()).ok_or(())?;
            let rows = match (fields.next(), fields.next(), fields.next()) {
                (None, ..) => None,
                (Some(file), Some(offset), None) => Some((file.parse().map_err(drop)?, offset.parse().map_err(drop)?)),
                _ => return Err(()),
            };
            prepared.insert(XaId(id), rows);
        }
        Ok(Self(prepared))
    }
}

#[cfg(test)]
mod tests {
    use super::{Prepared, XaId};
    use crate::source::mysql::binlog::XaPrepare;

    #[test]
    fn statements_name_a_transaction_as_its_preparation_does() {
        let prepare = XaPrepare { is_one_phase: false, format: 7, global: b"xa", branch: b"branch" };
        assert_eq!(XaId::read("X'7861',X'6272616e6368',7"), Some(XaId::of(&prepare)));
        assert_ne!(XaId::read("X'786162',X'72616e6368',7"), Some(XaId::of(&prepare)));
        assert!(["", "'a','b',1", "X'7',X'',1", "X'61',X''", "X'61',X'',1,2"].iter().all(|text| XaId::read(text).is_none()));
        assert!(XaId::read("X'61',X'',1;").is_some());
    }

    #[test]
    fn prepared_transactions_are_read_as_they_were_written() {
        for text in ["00000000000000ff:3:500", "00000000000000ff:3:500,0100000000000000"] {
            assert_eq!(text.parse::<Prepared>().unwrap().to_string(), text);
        }
        assert!(["", "x", "ff:1", "ff:1:2:3"].iter().all(|text| text.parse::<Prepared>().is_err()));
        assert_eq!("ff:3:500".parse::<Prepared>().unwrap().elsewhere().to_string(), "00000000000000ff");
    }
}
