//! Positions in the change log, and the resume tokens that hold them.

use crate::checkpoint::ResumeToken;
use crate::source::prefix::position_prefix;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::log_row::Anchor;
use crate::source::token::LogToken;

/// A position in the log of one database: every row with a number below `next` has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The second in which the log was made.
    pub(super) epoch: u32,
    /// The first number that has not been read.
    pub(super) next: i64,
    /// The newest row before it that was read: it proves that the log is still the same. `None` before the first.
    pub(super) last: Option<Anchor>,
}

impl LogPosition {
    /// Names the token's format, version 1.
    const PREFIX: &'static str = "sqlite:1:";

    pub(super) fn token(self) -> ResumeToken {
        let last = self.last.map_or_else(String::new, |last| format!(":{}:{:08x}", last.seq, last.checksum));
        ResumeToken(format!("{}{}:{}{last}", Self::PREFIX, self.epoch, self.next).into())
    }

    /// Whether going on here instead of at `stored` leaves changes out. Also `true` where `stored` cannot be parsed: then it is unknown.
    pub(super) fn skips(self, stored: &ResumeToken) -> Result<bool, Error> {
        match Self::parse(stored) {
            Ok(stored) if stored.epoch != self.epoch => {
                Err(Error::Token { token: self.token().0.to_string(), what: "is a position in another change log than the checkpoint's" })
            }
            Ok(stored) => Ok(stored.next < self.next),
            Err(_) => Ok(true),
        }
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(Self::PREFIX)?.split(':');
        let epoch = parts.next()?.parse().ok()?;
        let next = parts.next()?.parse().ok().filter(|next| *next >= 1)?;
        let last = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(seq), Some(checksum), None) => {
                let seq = seq.parse().ok().filter(|seq| *seq < next)?;
                Some(Anchor { seq, checksum: u32::from_str_radix(checksum, 16).ok()? })
            }
            _ => return None,
        };
        Some(Self { epoch, next, last })
    }
}

impl LogToken for LogPosition {
    type Error = Error;
    /// The number of a row.
    type Change = i64;

    /// Parses what `token` wrote.
    fn parse(token: &ResumeToken) -> Result<Self, Error> {
        Self::parse_text(&token.0).ok_or_else(|| Error::Token { token: token.0.to_string(), what: "is not a position in a change log" })
    }

    fn is_before(&self, other: &Self) -> bool {
        self.next < other.next
    }

    fn admits(&self, seq: i64) -> bool {
        self.next <= seq
    }

    fn position_prefix(&self) -> String {
        String::from_utf8_lossy(&position_prefix(self.epoch, self.next.cast_unsigned())).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{LogPosition, position_prefix};
    use crate::checkpoint::ResumeToken;
    use crate::source::sqlite::log_row::Anchor;
    use crate::source::token::LogToken as _;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for last in [None, Some(Anchor { seq: 40, checksum: 0x00AB_CDEF })] {
            let position = LogPosition { epoch: 1_700_000_000, next: 42, last };
            assert_eq!(LogPosition::parse(&position.token()).unwrap(), position);
        }
        let wrongs =
            ["", "sqlite:1:5", "sqlite:2:5:6", "sqlite:1:x:6", "sqlite:1:5:0", "sqlite:1:5:-1", "sqlite:1:5:6:5", "sqlite:1:5:6:6:0"];
        for wrong in wrongs {
            assert!(LogPosition::parse(&ResumeToken(wrong.into())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_later_position_skips_and_one_of_another_log_is_refused() {
        let stored = LogPosition { epoch: 5, next: 42, last: None }.token();
        let skips = |epoch, next, stored: &ResumeToken| LogPosition { epoch, next, last: None }.skips(stored);
        assert!(skips(5, 43, &stored).unwrap());
        assert!(!skips(5, 42, &stored).unwrap() && !skips(5, 1, &stored).unwrap());
        assert!(skips(6, 1, &stored).is_err() && skips(4, 99, &stored).is_err());
        assert!(skips(5, 1, &ResumeToken("garbage".into())).unwrap(), "it is unknown");
    }

    #[test]
    fn positions_sort_as_bytes_in_log_order() {
        let epoch = 0x6561_D2C0;
        let positions = [(epoch, 9), (epoch, 10), (epoch, 0x1F), (epoch + 1, 1)].map(|(epoch, seq)| position_prefix(epoch, seq));
        assert!(positions.is_sorted());
        assert_eq!(&positions[2], b"6561D2C0-000000000000001F");
        let cut = LogPosition { epoch, next: 10, last: None };
        assert_eq!(cut.position_prefix(), "6561D2C0-000000000000000A");
        assert!(cut.admits(10) && !cut.admits(9));
    }
}
