//! Who the server is: its system, its database, and the timelines that its log has lived through.

use super::error::Error;
use super::session::Session;
use super::token::{Lsn, Token};
use crate::checkpoint::Identity;

const SYSTEM: &str = "system_identifier";
const TIMELINE: &str = "timeline";
const DATABASE: &str = "database";
const DATABASE_OID: &str = "database_oid";

/// What the server says of itself on a replication connection.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) identifier: String,
    pub(super) timeline: u32,
    /// How far its log is written.
    pub(super) head: Lsn,
    pub(super) database: String,
    pub(super) database_oid: String,
}

impl System {
    /// Asks on a replication connection.
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        let system = session.query_one("IDENTIFY_SYSTEM").await?;
        Ok(Self {
            identifier: system.text(0).to_owned(),
            timeline: system.text(1).parse().map_err(|_| Error::Protocol { what: "a timeline" })?,
            head: system.text(2).parse().map_err(|()| Error::Protocol { what: "a place in the log" })?,
            database: system.text(3).to_owned(),
            database_oid: session.instance().database_oid.clone(),
        })
    }

    /// Whether what is written from now on sorts after all that was read up to this place: on a later timeline, or further on.
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

    /// Refuses another system or another database than the one that is known (G6). The timeline may grow; see [`Timelines`].
    pub(super) fn compare(&self, known: &Identity) -> Result<(), Error> {
        let now = self.identity();
        let differing =
            [SYSTEM, DATABASE, DATABASE_OID].into_iter().find(|name| known.get(*name).is_some_and(|known| now.get(*name) != Some(known)));
        match differing {
            None => Ok(()),
            Some(name) => Err(Error::Foreign {
                what: format!(
                    "PostgreSQL's {name} is {}, the checkpoint knows {}",
                    now.get(name).map_or("", String::as_str),
                    known.get(name).map_or("", String::as_str)
                ),
            }),
        }
    }
}

/// The present timeline and those before it, each with the place where it was left.
#[derive(Clone, Debug)]
pub(super) struct Timelines {
    present: u32,
    /// In the order in which they were left.
    left: Vec<(u32, Lsn)>,
}

impl Timelines {
    /// Asks for the history of the server's timeline, where it has one.
    pub(super) async fn read(system: &System, session: &mut Session) -> Result<Self, Error> {
        let present = system.timeline;
        if present <= 1 {
            return Ok(Self { present, left: Vec::new() });
        }
        let history = session.query_one(&format!("TIMELINE_HISTORY {present}")).await?;
        Ok(Self { present, left: parse_history(&decode_bytea(history.text(1))) })
    }

    /// The timeline on which this place was written.
    pub(super) fn of(&self, place: Lsn) -> u32 {
        self.left.iter().find(|(_, left_at)| place < *left_at).map_or(self.present, |(timeline, _)| *timeline)
    }

    /// Refuses a token that lies on a branch which this server's log does not contain.
    pub(super) fn check(&self, token: &Token, head: Lsn) -> Result<(), Error> {
        let reach = token.reach();
        if token.timeline != self.present {
            match self.left.iter().find(|(timeline, _)| *timeline == token.timeline) {
                Some((_, left_at)) if reach <= *left_at => {}
                Some((_, left_at)) => {
                    return Err(Error::Rewound {
                        what: format!("timeline {} was left at {left_at}, but was read up to {reach}", token.timeline),
                    });
                }
                None => {
                    return Err(Error::Rewound {
                        what: format!(
                            "the server is on timeline {}, which does not descend from timeline {}",
                            self.present, token.timeline
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

/// Lines of a history file: timeline, place, reason (`access/transam/timeline.c`).
fn parse_history(text: &str) -> Vec<(u32, Lsn)> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// The history comes as text that the server labels bytea: plain, or hex where the session prints bytea so.
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
        Timelines { present: 3, left: parse_history("1\t0/3000\tno recovery target\n# a comment\n\n2\t0/5000\twhy not\n") }
    }

    fn token(timeline: u32, boundary: u64) -> Token {
        Token { timeline, boundary: Lsn(boundary), inside: None, last: None }
    }

    #[test]
    fn a_place_belongs_to_the_timeline_on_which_it_was_written() {
        let timelines = timelines();
        assert_eq!([0x2FFF, 0x3000, 0x4FFF, 0x5000].map(|place| timelines.of(Lsn(place))), [1, 2, 2, 3]);
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
