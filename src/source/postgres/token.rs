//! The resume token: a position between two transactions of the log, and perhaps a row inside the next transaction.

use super::error::Error;
use crate::checkpoint::ResumeToken;
use crate::source::{LogToken, position_prefix};
use std::fmt;
use std::str::FromStr;

/// A log sequence number: the position of a byte in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lsn(pub(super) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let part = |digits: &str| u32::from_str_radix(digits, 16).map(u64::from).map_err(|_| ());
        Ok(Self(part(high)? << 32 | part(low)?))
    }
}

/// How far an unfinished transaction has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    /// Where the transaction's commit record begins. It identifies the transaction.
    pub(super) commit: Lsn,
    /// Ordinal of the next event. Ordinals count all rows, before any filter.
    pub(super) ordinal: u64,
    /// How many events of the transaction were published before it.
    pub(super) index: u64,
}

/// A commit that was read. No other log has the same commit at the same position.
///
/// At 0/0 it means that no commit was read yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Commit {
    /// Where its record begins.
    pub(super) at: Lsn,
    /// Where it ends. While its end is not known yet: the position after its first byte.
    pub(super) end: Lsn,
    pub(super) xid: u32,
    /// Microseconds since 2000-01-01.
    pub(super) committed_at: i64,
}

impl Commit {
    /// Whether no commit was read yet.
    pub(super) fn is_none(&self) -> bool {
        self.at == Lsn::default()
    }
}

/// Written as `timeline:boundary`, inside a transaction followed by `:commit:ordinal:index`, then `@commit.end.xid.time` of the last commit that
/// was read; inside a transaction, of its own commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The timeline on which the boundary lies.
    pub(super) timeline: u32,
    /// All transactions whose commit record begins before it have been read.
    pub(super) boundary: Lsn,
    /// How far the transaction after the boundary has been read.
    pub(super) inside: Option<Inside>,
    /// The last commit that was read; `None` if the token was set by hand.
    pub(super) last: Option<Commit>,
}

impl Token {
    /// The start of a log of which nothing was read yet.
    pub(super) const fn beginning(timeline: u32, boundary: Lsn) -> Self {
        Self { timeline, boundary, inside: None, last: Some(Commit { at: Lsn(0), end: Lsn(0), xid: 0, committed_at: 0 }) }
    }

    /// The position up to which the log must exist for the token to be valid.
    pub(super) fn reach(&self) -> Lsn {
        self.inside.map_or(self.boundary, |inside| inside.commit.max(self.boundary))
    }
}

/// One row of the log: the commit of its transaction, and its ordinal there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRow {
    pub(super) commit: Lsn,
    pub(super) ordinal: u64,
}

impl LogToken for Token {
    type Error = Error;
    type Change = LogRow;

    fn parse(token: &ResumeToken) -> Result<Self, Error> {
        Self::try_from(token)
    }

    /// The server sends nothing before the boundary, and nothing before the row inside is published: the later of the two counts. On a later
    /// timeline the same number may be a different position.
    fn is_before(&self, other: &Self) -> bool {
        let begins =
            |token: &Self| token.inside.map_or((token.boundary, 0), |inside| (inside.commit, inside.ordinal)).max((token.boundary, 0));
        self.timeline < other.timeline || begins(self) < begins(other)
    }

    /// Commit and ordinal are compared as a pair, and never for equality: a commit record may begin exactly at the boundary.
    fn admits(&self, LogRow { commit, ordinal }: LogRow) -> bool {
        match self.inside {
            Some(inside) => (inside.commit, inside.ordinal) <= (commit, ordinal),
            None => self.boundary <= commit,
        }
    }

    fn position_prefix(&self) -> String {
        String::from_utf8_lossy(&position_prefix(self.timeline, self.boundary.0)).into_owned()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.timeline, self.boundary)?;
        if let Some(Inside { commit, ordinal, index }) = self.inside {
            write!(formatter, ":{commit}:{ordinal}:{index}")?;
        }
        match self.last {
            Some(Commit { at, end, xid, committed_at }) => write!(formatter, "@{at}.{end}.{xid}.{committed_at}"),
            None => Ok(()),
        }
    }
}

impl From<Token> for ResumeToken {
    fn from(token: Token) -> Self {
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
    let (text, last) = match text.split_once('@') {
        Some((text, last)) => {
            let mut parts = last.split('.');
            let (at, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let (xid, committed_at) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            (text, Some(parts.next().is_none().then_some(Commit { at, end, xid, committed_at })?))
        }
        None => (text, None),
    };
    let mut parts = text.split(':');
    let timeline = parts.next()?.parse().ok()?;
    let boundary = parts.next()?.parse().ok()?;
    let inside = match parts.next() {
        None => None,
        Some(commit) => {
            Some(Inside { commit: commit.parse().ok()?, ordinal: parts.next()?.parse().ok()?, index: parts.next()?.parse().ok()? })
        }
    };
    parts.next().is_none().then_some(Token { timeline, boundary, inside, last })
}

#[cfg(test)]
mod tests {
    use super::{Inside, LogRow, Lsn, Token, parse};
    use crate::source::LogToken as _;

    #[test]
    fn a_token_reads_as_it_was_written() {
        for text in [
            "1:0/16B3748",
            "2:1A/0",
            "1:0/16B3748:0/16B4000:30:2",
            "1:0/64@0/60.0/64.733.849000000123456",
            "1:0/64:0/70:30:1@0/70.0/71.733.-5",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "1",
            "1:16B3748",
            "1:0/1:0/2",
            "1:0/1:0/2:3",
            "1:0/1:0/2:3:4:5",
            "1:0/1FFFFFFFF",
            "x:0/1",
            "1:0/1@",
            "1:0/1@0/1.0/2.2",
            "1:0/1@0/1.0/2.3.4.5",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_token_skips_changes() {
        let skips = |token: &str, other: &str| parse(other).unwrap().is_before(&parse(token).unwrap());
        for (later, earlier) in [
            ("1:0/65", "1:0/64"),
            ("1:0/65", "1:0/64:0/64:30:1"),
            ("1:0/64:0/70:30:1", "1:0/64"),
            ("1:0/64:0/70:30:1", "1:0/64:0/70:20:1"),
            ("1:0/71", "1:0/64:0/70:30:1"),
            ("1:0/80:0/70:30:1", "1:0/71"),
            ("2:0/64", "1:0/64"),
        ] {
            assert!(skips(later, earlier), "{later} {earlier}");
            assert!(!skips(later, later) && !skips(earlier, earlier), "{later} {earlier}");
        }
        assert!(!skips("1:0/64", "1:0/65") && !skips("1:0/64", "1:0/64:0/70:30:1") && !skips("1:0/64", "2:0/64"));
    }

    #[test]
    fn a_commit_exactly_at_the_boundary_is_still_to_come() {
        let token = Token { timeline: 1, boundary: Lsn(100), inside: None, last: None };
        let row = |commit, ordinal| LogRow { commit: Lsn(commit), ordinal };
        assert!(token.admits(row(100, 0)) && !token.admits(row(99, 70)));
        let inside = Token { inside: Some(Inside { commit: Lsn(120), ordinal: 30, index: 1 }), ..token };
        assert!(!inside.admits(row(110, 70)) && !inside.admits(row(120, 20)));
        assert!(inside.admits(row(120, 30)) && inside.admits(row(121, 0)));
    }
}
