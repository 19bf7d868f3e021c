//! The identity of the server: its system identifier, its database, and its timelines.

use super::error::Error;
use super::session::Session;
use super::token::{Lsn, Token};
use crate::checkpoint::Identity;

const SYSTEM: &str = "system_identifier";
const TIMELINE: &str = "timeline";
const DATABASE: &str = "database";
const DATABASE_OID: &str = "database_oid";

/// What `IDENTIFY_SYSTEM` returns.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) identifier: String,
    pub(super) timeline: u32,
    /// The end of its log.
    pub(super) head: Lsn,
    pub(super) database: String,
    pub(super) database_oid: String,
}

impl System {
    /// Reads it over a replication connection.
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        let system = session.query_one("IDENTIFY_SYSTEM").await?;
        Ok(Self {
            identifier: system.text(0).to_owned(),
            timeline: system.text(1).parse().map_err(|_| Error::Protocol { what: "a timeline" })?,
            head: system.text(2).parse().map_err(|()| Error::Protocol { what: "a log position" })?,
            database: system.text(3).to_owned(),
            database_oid: session.instance().database_oid.clone(),
        })
    }

    /// Whether everything written from now on sorts after the token: it is on a later timeline, or further along.
    pub(super) fn is_after(&self, token: &Token) -> bool {
        (token.timeline, token.reach()) <= (self.timeline, self.head)
    }

    pub(super) fn identity(&self) -> Identity {
        [
            (SYSTEM, self.identifier.clone()),
            (TIMELINE, self.timeline.to_string()),
            (DATABASE, self.database.clone()),
            (DATABASE_OID, self.database_oid.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Refuses another server or database than the known one (G6). The timeline may be a later one; see [`Timelines`].
    pub(super) fn compare(&self, known: &Identity) -> Result<(), Error> {
        let now = self.identity();
        let differing =
            [SYSTEM, DATABASE, DATABASE_OID].into_iter().find(|name| known.get(*name).is_some_and(|known| now.get(*name) != Some(known)));
        match differing {
            None => Ok(()),
            Some(name) => Err(Error::Foreign {
                what: format!(
                    "PostgreSQL's {name} is {}, but the checkpoint has {}",
                    now.get(name).map_or("", String::as_str),
                    known.get(name).map_or("", String::as_str)
                ),
            }),
        }
    }
}

/// The current timeline and the earlier ones.
#[derive(Clone, Debug)]
pub(super) struct Timelines {
    current: u32,
    /// Each earlier timeline and the position where it ended, oldest first.
    earlier: Vec<(u32, Lsn)>,
}

impl Timelines {
    /// Reads the history of the server's timeline; timeline 1 has none.
    pub(super) async fn read(system: &System, session: &mut Session) -> Result<Self, Error> {
        let current = system.timeline;
        if current <= 1 {
            return Ok(Self { current, earlier: Vec::new() });
        }
        let history = session.query_one(&format!("TIMELINE_HISTORY {current}")).await?;
        Ok(Self { current, earlier: parse_history(&decode_bytea(history.text(1))) })
    }

    /// The timeline on which this position was written.
    pub(super) fn of(&self, position: Lsn) -> u32 {
        self.earlier.iter().find(|(_, ended_at)| position < *ended_at).map_or(self.current, |(timeline, _)| *timeline)
    }

    /// Refuses a token on a timeline branch that this server's log does not contain.
    pub(super) fn check(&self, token: &Token, head: Lsn) -> Result<(), Error> {
        let reach = token.reach();
        if token.timeline != self.current {
            match self.earlier.iter().find(|(timeline, _)| *timeline == token.timeline) {
                Some((_, ended_at)) if reach <= *ended_at => {}
                Some((_, ended_at)) => {
                    return Err(Error::Rewound {
                        what: format!("timeline {} ended at {ended_at}, but was read up to {reach}", token.timeline),
                    });
                }
                None => {
                    return Err(Error::Rewound {
                        what: format!(
                            "the server is on timeline {}, which does not descend from timeline {}",
                            self.current, token.timeline
                        ),
                    });
                }
            }
        }
        if head < reach {
            return Err(Error::Rewound { what: format!("the server's log ends at {head}, but was read up to {reach}") });
        }
        Ok(())
    }
}

/// Parses a history file. Each line has timeline, position and reason (`access/transam/timeline.c`).
fn parse_history(text: &str) -> Vec<(u32, Lsn)> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// Decodes the history, which the server sends as bytea: as plain text, or in hex, depending on `bytea_output`.
fn decode_bytea(text: &str) -> String {
    let Some(hex) = text.strip_prefix("\\x") else { return text.to_owned() };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default();
    let bytes = hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect::<Vec<_>>();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Lsn, Timelines, Token, parse_history};

    fn timelines() -> Timelines {
        Timelines { current: 3, earlier: parse_history("1\t0/3000\tno recovery target\n# a comment\n\n2\t0/5000\twhy not\n") }
    }

    fn token(timeline: u32, boundary: u64) -> Token {
        Token { timeline, boundary: Lsn(boundary), inside: None, last: None }
    }

    #[test]
    fn a_position_belongs_to_the_timeline_on_which_it_was_written() {
        let timelines = timelines();
        assert_eq!([0x2FFF, 0x3000, 0x4FFF, 0x5000].map(|position| timelines.of(Lsn(position))), [1, 2, 2, 3]);
    }

    #[test]
    fn only_what_the_server_still_holds_is_resumed() {
        let timelines = timelines();
        let head = Lsn(0x9000);
        assert!(timelines.check(&token(3, 0x6000), head).is_ok());
        assert!(timelines.check(&token(1, 0x3000), head).is_ok());
        assert!(timelines.check(&token(1, 0x3001), head).is_err());
        assert!(timelines.check(&token(4, 0x100), head).is_err());
        assert!(timelines.check(&token(3, 0x9001), head).is_err());
    }
}
