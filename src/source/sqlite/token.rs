//! Positions in the change log: as resume tokens, and as positions of events.

use crate::checkpoint::ResumeToken;
use crate::event::Position;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::log_row::Anchor;
use std::io::Write as _;

/// A position in the log of one database: every row with a number below `next` has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogPosition {
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

    /// Parses what [`Self::token`] wrote.
    pub(super) fn parse(token: &ResumeToken) -> Result<Self, Error> {
        Self::parse_text(&token.0).ok_or_else(|| Error::Token { token: token.0.to_string(), what: "is not a position in a change log" })
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

/// The position of a live event. `index` is 0, or 1 for the second event of a row that becomes two.
pub(super) fn live(epoch: u32, seq: i64, index: u8) -> Position {
    position(format_args!("{epoch:08X}-{seq:016X}-1-{index:016}"))
}

/// The beginning of the positions of prefeed rows at a cut.
pub(super) fn prefix(cut: LogPosition) -> String {
    format!("{:08X}-{:016X}", cut.epoch, cut.next)
}

fn position(text: std::fmt::Arguments<'_>) -> Position {
    let mut bytes = [0; Position::LENGTH_MAX];
    let mut rest = &mut bytes[..];
    rest.write_fmt(text).expect("8 + 16 + 1 + 20 digits and three dashes fit");
    let length = Position::LENGTH_MAX - rest.len();
    Position::new(&bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::{LogPosition, live, prefix};
    use crate::checkpoint::ResumeToken;
    use crate::source::slice::Slice;
    use crate::source::sqlite::log_row::Anchor;

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
        let cut = LogPosition { epoch: 0x6561_D2C0, next: 10, last: None };
        let existing = |slice: Slice| slice.positions(&prefix(cut)).of(slice.next_row);
        let order = [
            live(cut.epoch, 9, 0),
            live(cut.epoch, 9, 1),
            existing(Slice { number: 1, next_row: 0 }),
            existing(Slice { number: 1, next_row: 999_999_999 }),
            existing(Slice { number: 2, next_row: 0 }),
            live(cut.epoch, 10, 0),
            live(cut.epoch + 1, 1, 0),
        ];
        assert!(order.windows(2).all(|pair| pair[0].as_bytes() < pair[1].as_bytes()));
        assert_eq!(live(cut.epoch, 0x1F, 1).as_bytes(), b"6561D2C0-000000000000001F-1-0000000000000001");
        assert_eq!(order[2].as_bytes(), b"6561D2C0-000000000000000A-0-0000010000000000");
    }
}
