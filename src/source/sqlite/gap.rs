//! Gaps: tables whose triggers were lost, and where the log goes on after a gap.

use crate::checkpoint::Identity;
use crate::event::FeedId;
use crate::source::connector::Renewed;
use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::token::LogPosition;
use rusqlite::Connection;

impl Capture<'_> {
    /// Refuses a live feed whose triggers were lost, as a start would.
    pub(super) fn refuse_lost(&self, connection: &Connection, is_live: impl Fn(FeedId) -> bool) -> Result<(), Error> {
        let lost = self.lost(connection)?.into_iter().find(|feed| is_live(*feed));
        lost.map_or(Ok(()), |feed| Err(Error::CaptureLost { table: self.feeds.get(feed).table.clone() }))
    }

    /// Finds where the log goes on after a gap, and of which feeds changes are missing.
    pub(super) fn renew(&self, connection: &mut Connection, known: &Identity, lost: LogPosition) -> Result<Renewed, Error> {
        let all = || self.feeds.iter().map(|feed| feed.id).collect();
        let history = self.history(connection);
        match history.check(known, lost) {
            Ok(head) => {
                let feeds = self.lost(connection)?;
                if feeds.is_empty() {
                    let position = LogPosition { next: head, last: history.before(head)?, ..lost };
                    return Ok(Renewed { token: position.token(), feeds: all() });
                }
                // Nothing is missing of the other feeds.
                Ok(Renewed { token: lost.token(), feeds })
            }
            // Changes may be missing anywhere before the head.
            Err(Error::LogLost { .. }) => {
                let head = history.check_read(1, None)?;
                let position = LogPosition { next: head, last: history.before(head)?, ..lost };
                Ok(Renewed { token: position.token(), feeds: all() })
            }
            Err(Error::Rewound { .. }) => {
                let position = self.in_transaction(connection, |transaction| self.history(transaction).begin_anew(lost))?;
                Ok(Renewed { token: position.token(), feeds: all() })
            }
            Err(error) => Err(error),
        }
    }
}
