//! Positions in the log of one cluster, and the resume tokens that hold them.
//!
//! A position is a cluster time, and how many events of that time were read: the events of a transaction share one, and those of several
//! transactions may. The server's own resume token stands behind it, and is never compared.

use super::error::Error;
use crate::checkpoint::ResumeToken;
use crate::source::{Inside, LogToken, position_prefix};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

/// A place in the log, in the order of the log: in front of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Grows whenever the log goes on after a gap. The first one is the second in which its reading began.
    pub(super) epoch: u32,
    /// The cluster time: seconds since 1970 in the upper half, a counter in the lower one.
    pub(super) time: u64,
    /// How many events of this time lie before it.
    pub(super) passed: u32,
}

impl Place {
    /// The prefix of the positions of events of this time.
    pub(super) fn prefix(self) -> impl AsRef<[u8]> {
        position_prefix(self.epoch, self.time)
    }

    /// Orders the events of one time. Each takes ten numbers, as rows of other sources do.
    pub(super) fn ordinal(self) -> u64 {
        10 * u64::from(self.passed)
    }
}

/// A position in the log, written as `epoch/time:passed`, then perhaps ` inside=` with ordinal and index in the transaction that goes on there;
/// behind `@` the server's resume token, if there is one. Without one the log is opened at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// All events before it have been read.
    pub(super) place: Place,
    /// How much of the transaction that goes on here was read.
    pub(super) inside: Option<Inside>,
    /// The server's resume token, a document.
    pub(super) resume: Option<Vec<u8>>,
}

impl Token {
    /// A place before which every event has a lower time.
    pub(super) const fn at(epoch: u32, time: u64) -> Self {
        Self { place: Place { epoch, time, passed: 0 }, inside: None, resume: None }
    }
}

impl LogToken for Token {
    type Error = Error;
    type Change = Place;

    fn parse(token: &ResumeToken) -> Result<Self, Error> {
        parse(&token.0).ok_or_else(|| Error::Token { token: token.0.chars().take(60).collect() })
    }

    fn is_before(&self, other: &Self) -> bool {
        self.place < other.place
    }

    fn admits(&self, change: Place) -> bool {
        self.place <= change
    }

    fn position_prefix(&self) -> String {
        String::from_utf8_lossy(self.place.prefix().as_ref()).into_owned()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { epoch, time, passed } = self.place;
        write!(formatter, "{epoch}/{time:016x}:{passed}")?;
        if let Some(Inside { ordinal, index }) = self.inside {
            write!(formatter, " inside={ordinal}.{index}")?;
        }
        if let Some(resume) = &self.resume {
            write!(formatter, "@{}", URL_SAFE_NO_PAD.encode(resume))?;
        }
        Ok(())
    }
}

impl From<&Token> for ResumeToken {
    fn from(token: &Token) -> Self {
        Self(token.to_string().into())
    }
}

fn parse(text: &str) -> Option<Token> {
    let (text, resume) = text.split_once('@').map_or((text, None), |(text, resume)| (text, Some(resume)));
    let (text, inside) = text.split_once(" inside=").map_or((text, None), |(text, inside)| (text, Some(inside)));
    let (epoch, place) = text.split_once('/')?;
    let (time, passed) = place.split_once(':').filter(|(time, _)| time.len() == 16)?;
    let place = Place { epoch: epoch.parse().ok()?, time: u64::from_str_radix(time, 16).ok()?, passed: passed.parse().ok()? };
    let inside = match inside.map(|inside| inside.split_once('.')) {
        Some(parts) => {
            let (ordinal, index) = parts?;
            Some(Inside { ordinal: ordinal.parse().ok()?, index: index.parse().ok()? })
        }
        None => None,
    };
    let resume = match resume {
        Some(resume) => Some(URL_SAFE_NO_PAD.decode(resume).ok().filter(|bytes| super::bson::Document::new(bytes).is_ok())?),
        None => None,
    };
    Some(Token { place, inside, resume })
}

/// A cluster time as persons read it: `2026-11-30T19:58:38Z, 11`.
pub(super) fn shown(time: u64) -> String {
    let seconds = i64::try_from(time >> 32).unwrap_or_default();
    let (year, month, day) = crate::event::civil(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z, {}", time & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::bson::Writer;
    use super::{Place, Token, parse, shown};
    use crate::source::{Inside, LogToken as _};

    #[test]
    fn a_token_reads_as_it_was_written() {
        let resume = Some(Writer::new().text("_data", "82ABC").finish());
        let place = Place { epoch: 1_764_500_000, time: 0x6B0D_D56B_0000_000B, passed: 3 };
        for token in [
            Token::at(7, 1),
            Token { place, inside: None, resume: resume.clone() },
            Token { place, inside: Some(Inside { ordinal: 30, index: 2 }), resume },
        ] {
            assert_eq!(parse(&token.to_string()), Some(token));
        }
        let text = "1764500000/6b0dd56b0000000b:3";
        assert_eq!(parse(text).unwrap().to_string(), text);
        for wrong in [
            "",
            "1",
            "1/2:3",
            "1/6b0dd56b0000000b",
            "x/6b0dd56b0000000b:3",
            "1/6b0dd56b0000000b:3@?",
            "1/6b0dd56b0000000b:3@AAAA",
            "1/6b0dd56b0000000b:3 inside=1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn places_and_positions_are_in_the_order_of_the_log() {
        let place = |epoch, time, passed| Place { epoch, time, passed };
        let ordered = [place(1, 5, 0), place(1, 5, 1), place(1, 1 << 32, 0), place(2, 1, 0)];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1]);
            let text = |place: Place| (place.prefix().as_ref().to_vec(), place.ordinal());
            assert!(text(pair[0]) < text(pair[1]));
        }
        assert_eq!(Token::at(0x6553_F100, 0x6B0D_D56B_0000_000B).position_prefix(), "6553F100-6B0DD56B0000000B");
        assert!(Token::at(1, 5).admits(place(1, 5, 0)) && !Token::at(1, 6).admits(place(1, 5, 9)));
    }

    #[test]
    fn a_time_is_shown_as_a_date() {
        assert_eq!(shown(0x6B0D_D56B_0000_000B), "2026-11-30T19:58:35Z, 11");
    }
}
