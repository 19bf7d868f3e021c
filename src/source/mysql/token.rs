//! The resume token: a place between two transactions of the log, and perhaps a row inside the next transaction.

use super::error::Error;
use super::transaction_id::{Gtids, MariaPosition, TransactionId};
use super::xa::Prepared;
use crate::checkpoint::ResumeToken;
use crate::source::{Inside as InTransaction, LogToken, position_prefix};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A file of the log: `binlog.000012`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) base: Arc<str>,
    /// Files are numbered in the order of the log. Below [`Self::NUMBERS`].
    pub(super) number: u32,
}

impl LogFile {
    /// Positions have 28 bits for the number of a file.
    const NUMBERS: u32 = 1 << 28;

    /// Whether the other file belongs to the same series.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.base == other.base
    }
}

impl fmt::Display for LogFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:06}", self.base, self.number)
    }
}

impl FromStr for LogFile {
    type Err = ();

    /// Reads a name as the server gives it. White space, `@` and `/` separate the parts of a token.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (base, digits) = text
            .rsplit_once('.')
            .filter(|(base, _)| !base.is_empty() && !base.contains(|character: char| character.is_whitespace() || "@/".contains(character)))
            .ok_or(())?;
        let number = digits.parse().ok().filter(|number| *number < Self::NUMBERS).ok_or(())?;
        let file = Self { base: base.into(), number };
        // Otherwise the name that is asked for would be another one.
        if file.to_string() == text { Ok(file) } else { Err(()) }
    }
}

/// A place in the log, in the order of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// As in [`LogId`].
    pub(super) epoch: u32,
    /// The number of the file.
    pub(super) file: u32,
    pub(super) offset: u64,
}

impl Place {
    /// 28 bits are for the file, 36 for the offset: a file ends with the transaction that makes it longer than `max_binlog_size`, which is at
    /// most 1 GiB.
    const OFFSET_BITS: u32 = 36;

    /// The prefix of the positions of events of a transaction that begins here.
    pub(super) fn position_prefix(self) -> [u8; 25] {
        let offset = self.offset & ((1 << Self::OFFSET_BITS) - 1);
        position_prefix(self.epoch, u64::from(self.file) << Self::OFFSET_BITS | offset)
    }
}

/// A log, among those that were read one after the other: after a failover another server goes on with a log of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogId {
    /// Grows from one log to the next. The first one's is the second in which its reading began.
    pub(super) epoch: u32,
    /// The fingerprint of the server that has the log's files.
    pub(super) server: u64,
}

/// How far the transaction that begins at the token's place has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) at: InTransaction,
    /// The transaction's name.
    pub(super) id: Option<TransactionId>,
}

/// The last transaction that was read. No other log has one with the same name that began in the same second, at the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) name: LastName,
    /// When it began, by its first event: seconds since 1970.
    pub(super) began_at: u32,
}

/// How the last transaction is found in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LastName {
    /// By its name; on MariaDB with the one before it in its domain. On the same server it begins at this place of a file.
    Named { id: TransactionId, previous: Option<TransactionId>, offset: u64 },
    /// By where it begins.
    Unnamed { file: LogFile, offset: u64 },
}

/// Written as `epoch/server/file:offset`, then words: `set=` or `domains=` with the transactions that have been read, `inside=` with ordinal
/// and index in the next one and its name, `xa=` with prepared transactions; behind `@` the second and the name of the last one, which prove that the log is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub(super) log: LogId,
    pub(super) file: LogFile,
    /// All transactions that begin before it have been read.
    pub(super) offset: u64,
    /// What has been read, by name.
    pub(super) gtids: Gtids,
    pub(super) inside: Option<Inside>,
    /// The XA transactions that were prepared.
    pub(super) prepared: Prepared,
    /// `None` in a cut, and where nothing was read yet.
    pub(super) last: Option<Last>,
}

impl Token {
    /// A place between two transactions.
    pub(super) fn at(log: LogId, file: &LogFile, offset: u64, gtids: Gtids) -> Self {
        Self { log, file: file.clone(), offset, gtids, inside: None, prepared: Prepared::default(), last: None }
    }

    pub(super) const fn place(&self) -> Place {
        Place { epoch: self.log.epoch, file: self.file.number, offset: self.offset }
    }

    const fn order(&self) -> (Place, u64) {
        let ordinal = match self.inside {
            Some(inside) => inside.at.ordinal,
            None => 0,
        };
        (self.place(), ordinal)
    }
}

/// One row of the log: where its transaction begins, the transaction's name, and the row's ordinal there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub(super) place: Place,
    pub(super) id: Option<TransactionId>,
    pub(super) ordinal: u64,
}

impl LogToken for Token {
    type Error = Error;
    type Change = Change;

    fn parse(token: &ResumeToken) -> Result<Self, Error> {
        Self::try_from(token)
    }

    fn is_before(&self, other: &Self) -> bool {
        self.order() < other.order()
    }

    /// Places are compared in one log. In a later one the names of transactions say what came before the token.
    fn admits(&self, Change { place, id, ordinal }: Change) -> bool {
        if place.epoch == self.log.epoch {
            return self.order() <= (place, ordinal);
        }
        let is_read = id.is_some_and(|id| self.gtids.contains(&id));
        let inside = self.inside.filter(|inside| id.is_some() && inside.id == id);
        self.log.epoch < place.epoch && !is_read && inside.is_none_or(|inside| inside.at.ordinal <= ordinal)
    }

    fn position_prefix(&self) -> String {
        String::from_utf8_lossy(&self.place().position_prefix()).into_owned()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{:016x}/{}:{}", self.log.epoch, self.log.server, self.file, self.offset)?;
        match &self.gtids {
            Gtids::Unnamed => {}
            Gtids::MySql(set) => write!(formatter, " set={set}")?,
            Gtids::Maria(position) => write!(formatter, " domains={position}")?,
        }
        if let Some(Inside { at, id }) = self.inside {
            write!(formatter, " inside={}.{}", at.ordinal, at.index)?;
            if let Some(id) = id {
                write!(formatter, ".{id}")?;
            }
        }
        if !self.prepared.is_empty() {
            write!(formatter, " xa={}", self.prepared)?;
        }
        if let Some(Last { name, began_at }) = &self.last {
            match name {
                LastName::Named { id, previous: None, offset } => write!(formatter, "@{began_at}:{offset}/{id}")?,
                LastName::Named { id, previous: Some(previous), offset } => write!(formatter, "@{began_at}:{offset}/{id}/{previous}")?,
                LastName::Unnamed { file, offset } => write!(formatter, "@{began_at}/{file}:{offset}")?,
            }
        }
        Ok(())
    }
}

impl From<&Token> for ResumeToken {
    fn from(token: &Token) -> Self {
        Self(token.to_string().into())
    }
}

impl TryFrom<&ResumeToken> for Token {
    type Error = Error;

    fn try_from(token: &ResumeToken) -> Result<Self, Error> {
        parse(&token.0).ok_or_else(|| Error::Token { token: token.0.to_string() })
    }
}

fn parse(text: &str) -> Option<Token> {
    let (text, proof) = text.split_once('@').map_or((text, None), |(text, proof)| (text, Some(proof)));
    let mut words = text.split(' ');
    let (epoch, place) = words.next()?.split_once('/')?;
    let (server, place) = place.split_once('/')?;
    let (file, offset) = in_file(place)?;
    let log = LogId { epoch: epoch.parse().ok()?, server: u64::from_str_radix(server, 16).ok()? };
    let mut token = Token::at(log, &file, offset, Gtids::Unnamed);
    for word in words {
        let (name, value) = word.split_once('=')?;
        match name {
            "set" => token.gtids = Gtids::MySql(value.parse().ok()?),
            "domains" => token.gtids = Gtids::Maria(value.parse::<MariaPosition>().ok()?),
            "inside" => token.inside = Some(inside(value)?),
            "xa" => token.prepared = value.parse().ok()?,
            _ => return None,
        }
    }
    token.last = match proof {
        Some(proof) => Some(last(proof)?),
        None => None,
    };
    Some(token)
}

fn in_file(text: &str) -> Option<(LogFile, u64)> {
    let (file, offset) = text.rsplit_once(':')?;
    Some((file.parse().ok()?, offset.parse().ok().filter(|offset| *offset < 1 << Place::OFFSET_BITS)?))
}

fn inside(text: &str) -> Option<Inside> {
    let mut parts = text.splitn(3, '.');
    let at = InTransaction { ordinal: parts.next()?.parse().ok()?, index: parts.next()?.parse().ok()? };
    Some(Inside { at, id: parts.next().map(str::parse).transpose().ok()? })
}

fn last(text: &str) -> Option<Last> {
    let mut parts = text.splitn(3, '/');
    let (beginning, name, previous) = (parts.next()?, parts.next()?, parts.next());
    let Some((began_at, offset)) = beginning.split_once(':') else {
        let (file, offset) = in_file(name).filter(|_| previous.is_none())?;
        return Some(Last { name: LastName::Unnamed { file, offset }, began_at: beginning.parse().ok()? });
    };
    let (id, offset, previous) = (name.parse().ok()?, offset.parse().ok()?, previous.map(str::parse).transpose().ok()?);
    Some(Last { name: LastName::Named { id, previous, offset }, began_at: began_at.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{Change, LogFile, Place, parse};
    use crate::source::LogToken as _;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn a_token_reads_as_it_was_written() {
        for text in [
            "1764500000/00000000000000ff/binlog.000012:4523",
            "1/00000000000000ff/my-log.x.1000000:4 set=",
            "1/00000000000000ff/binlog.000001:4 domains=0-1-17,3-2-5 inside=30.2.0-1-18 xa=00000000000000ff:3:500@1764500123:77/0-1-17/0-2-16",
            "1/00000000000000ff/binlog.000001:4 domains=@1764500123:77/0-1-17",
            &format!("1/00000000000000ff/binlog.000001:4 set={UUID}:1-5:7,{UUID}:tag:1 inside=10.0.{UUID}:tag:9@1764500123:77/{UUID}:7"),
            "1/00000000000000ff/binlog.000001:400 inside=30.2@1764500123/binlog.000001:150",
        ] {
            assert_eq!(parse(text).unwrap_or_else(|| panic!("{text}")).to_string(), text);
        }
        for text in [
            "",
            "1",
            "1/binlog.000001:4",
            "1/00000000000000ff/binlog.000001",
            "1/00000000000000ff/binlog:4",
            "x/00000000000000ff/binlog.000001:4",
            "1/00000000000000ff/binlog.1:4",
            "1/00000000000000ff/binlog.268435456:4",
            "1/00000000000000ff/binlog.000001:68719476736",
            "1/00000000000000ff/binlog.000001:4 set=x",
            "1/00000000000000ff/binlog.000001:4 domains=0-1",
            "1/00000000000000ff/binlog.000001:4 inside=1",
            "1/00000000000000ff/binlog.000001:4@1",
            "1/00000000000000ff/binlog.000001:4 nothing=1",
            "1/00000000000000ff/binlog.000001:4 domains=@5/binlog.000001:4/0-1-1",
            "1/00000000000000ff/binlog.000001:4 ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_has_the_name_that_the_server_gives_it() {
        for name in ["binlog.000001", "mysql-bin.999999", "a.b.1000000"] {
            assert_eq!(name.parse::<LogFile>().unwrap().to_string(), name);
        }
        for name in ["binlog", "binlog.", ".000001", "bin log.000001", "b@n.000001", "binlog.0000001", "binlog.+00001"] {
            assert!(name.parse::<LogFile>().is_err(), "{name}");
        }
    }

    #[test]
    fn tokens_and_positions_are_in_log_order() {
        let tokens = [
            "1/00000000000000ff/a.000009:4",
            "1/00000000000000ff/a.000009:500",
            "1/00000000000000ff/a.000009:500 inside=10.1",
            "1/00000000000000ff/a.000009:500 inside=20.2",
            "1/00000000000000ff/a.000009:5000000000",
            "1/00000000000000ff/a.000010:4",
            "2/00000000000000ff/b.000001:4",
        ]
        .map(|text| parse(text).unwrap());
        for (index, earlier) in tokens.iter().enumerate() {
            for later in &tokens[index + 1..] {
                assert!(earlier.is_before(later) && !later.is_before(earlier), "{earlier} {later}");
                assert!(earlier.position_prefix() <= later.position_prefix(), "{earlier} {later}");
            }
            assert!(!earlier.is_before(earlier));
        }
        assert_eq!(tokens[0].position_prefix(), "00000001-0000009000000004");
    }

    #[test]
    fn a_place_counts_in_its_own_log_and_a_name_in_later_ones() {
        let change = |epoch, offset, id: &str, ordinal| Change { place: Place { epoch, file: 3, offset }, id: id.parse().ok(), ordinal };
        let cut = parse("5/00000000000000ff/a.000003:500 domains=0-1-17").unwrap();
        assert!(!cut.admits(change(5, 499, "0-1-17", 0)) && cut.admits(change(5, 500, "0-1-18", 0)));
        assert!(!cut.admits(change(4, 900, "0-1-18", 0)));
        assert!(!cut.admits(change(6, 900, "0-1-16", 0)) && cut.admits(change(6, 4, "0-1-18", 0)));
        let inside = parse("5/00000000000000ff/a.000003:500 domains=0-1-17 inside=20.2.0-1-18").unwrap();
        assert!(!inside.admits(change(5, 500, "0-1-18", 10)) && inside.admits(change(5, 500, "0-1-18", 20)));
        assert!(
            !inside.admits(change(6, 4, "0-1-18", 10))
                && inside.admits(change(6, 4, "0-1-18", 20))
                && inside.admits(change(6, 40, "0-1-19", 0))
        );
    }
}
