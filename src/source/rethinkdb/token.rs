//! Positions in the log of the store, and the resume tokens that hold them.

use super::error::Error;
use crate::checkpoint::ResumeToken;
use crate::source::{LogToken, position_prefix};

/// A position in the log of one store: every row with a number below `next` has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The second in which the store was made.
    pub(super) epoch: u32,
    /// The first number that has not been read.
    pub(super) next: i64,
}

impl LogPosition {
    /// Names the token's format, version 1.
    const PREFIX: &'static str = "rethinkdb:1:";

    pub(super) fn token(self) -> ResumeToken {
        ResumeToken(format!("{}{}:{}", Self::PREFIX, self.epoch, self.next).into())
    }

    /// The position as the positions of events begin with it.
    pub(super) fn prefix(self) -> impl AsRef<[u8]> {
        position_prefix(self.epoch, self.next.cast_unsigned())
    }

    fn parse_text(text: &str) -> Option<Self> {
        let (epoch, next) = text.strip_prefix(Self::PREFIX)?.split_once(':')?;
        Some(Self { epoch: epoch.parse().ok()?, next: next.parse().ok().filter(|next| 1 <= *next)? })
    }
}

impl LogToken for LogPosition {
    type Error = Error;
    /// The number of a row.
    type Change = i64;

    /// Parses what `token` wrote.
    fn parse(token: &ResumeToken) -> Result<Self, Error> {
        Self::parse_text(&token.0).ok_or_else(|| Error::Token { token: token.0.to_string() })
    }

    fn is_before(&self, other: &Self) -> bool {
        (self.epoch, self.next) < (other.epoch, other.next)
    }

    fn admits(&self, seq: i64) -> bool {
        self.next <= seq
    }

    fn position_prefix(&self) -> String {
        String::from_utf8_lossy(self.prefix().as_ref()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::LogPosition;
    use crate::checkpoint::ResumeToken;
    use crate::source::LogToken as _;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let position = LogPosition { epoch: 1_700_000_000, next: 42 };
        assert_eq!(LogPosition::parse(&position.token()).unwrap(), position);
        assert_eq!(position.position_prefix(), "6553F100-000000000000002A");
        for wrong in ["", "rethinkdb:1:5", "rethinkdb:2:5:6", "rethinkdb:1:x:6", "rethinkdb:1:5:0", "rethinkdb:1:5:-1", "rethinkdb:1:5:6:7"]
        {
            assert!(LogPosition::parse(&ResumeToken(wrong.into())).is_err(), "{wrong}");
        }
    }
}
