//! Reads the head of the log, and the state of the slot, over a connection of its own.

use super::catalogue;
use super::error::Error;
use super::options::Options;
use super::quote::literal;
use super::session::{Answer, Mode, Session};
use super::token::{Lsn, Token};
use crate::checkpoint::ResumeToken;
use crate::event::Timestamp;
use crate::feed::TableName;
use crate::source::{self, PastHeads};
use crate::status::LogHead;
use tokio::time::Instant;

/// Reads the head of the log.
#[derive(Debug)]
pub struct Probe {
    options: Options,
    /// `None` after a query that failed or was cancelled: its unread answer would be taken for the next one's.
    session: Option<Session>,
    /// An unrelated write moves the head, and only a later keep-alive shows that it is unrelated. So the pipeline counts as caught up if it has
    /// confirmed the previous head and the walsender has sent everything.
    heads: PastHeads<Lsn>,
}

impl Probe {
    pub(super) fn new(session: Session, options: Options) -> Self {
        Self { options, session: Some(session), heads: PastHeads::default() }
    }

    async fn session(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => Session::open(&self.options, Mode::Ordinary).await,
        }
    }

    async fn query(&mut self) -> Result<Answer, Error> {
        let mut session = self.session().await?;
        // Only roles with pg_read_all_stats see a walsender's figures; for others they are null.
        let row = session
            .query_one(&format!(
                "SELECT pg_catalog.pg_current_wal_lsn(), \
                 (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint, \
                 s.restart_lsn, s.wal_status, s.safe_wal_size, \
                 (SELECT setting::bigint * 1048576 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting <> '-1'), \
                 s.active_pid IS NOT NULL AND COALESCE(w.sent_lsn >= pg_catalog.pg_current_wal_lsn(), true), \
                 GREATEST(pg_catalog.age(s.xmin), pg_catalog.age(s.catalog_xmin), \
                   (SELECT pg_catalog.max(pg_catalog.age(a.backend_xmin)) FROM pg_catalog.pg_stat_activity a WHERE a.pid <> pg_catalog.pg_backend_pid() \
                    AND a.datname = pg_catalog.current_database() \
                    AND a.application_name = pg_catalog.current_setting('application_name'))) \
                 FROM (SELECT 1) one \
                 LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = {} \
                 LEFT JOIN pg_catalog.pg_stat_replication w ON w.pid = s.active_pid",
                literal(&self.options.slot)
            ))
            .await?;
        self.session = Some(session);
        Ok(row)
    }
}

impl source::Probe for Probe {
    type Error = Error;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let confirmed = Token::try_from(confirmed)?;
        let (asked_at, begun_at) = (Timestamp::now(), Instant::now());
        let row = self.query().await?;
        let answered_at = Timestamp::now();
        let head: Lsn = row.text(0).parse().map_err(|()| Error::Protocol { what: "the head of the log" })?;
        let has_sent_all = row.is_true(6);
        let boundary = confirmed.boundary;
        let caught_up = confirmed.inside.is_none() && (head <= boundary || (has_sent_all && self.heads.is_last_reached(&boundary)));
        let reached_at = self.heads.note(begun_at, head, &boundary);
        let distance = |from: Lsn| head.0.saturating_sub(from.0);
        let clock = row.text(1).parse::<i64>().ok().map(Timestamp);
        let middle = f64::midpoint(asked_at.seconds(), answered_at.seconds());
        Ok(LogHead {
            caught_up,
            reached_at,
            lag_bytes: Some(if caught_up { 0 } else { distance(boundary) }),
            retained_bytes: row.text(2).parse::<Lsn>().ok().map(distance),
            xmin_age: row.text(7).parse().ok(),
            headroom_ratio: headroom(&row),
            clock_offset_seconds: clock.map(|clock| clock.seconds() - middle),
        })
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Error> {
        let mut session = self.session().await?;
        let names = catalogue::names(&mut session).await?;
        self.session = Some(session);
        Ok(names)
    }
}

/// The share of `max_slot_wal_keep_size` that is left; 1 if there is no such limit.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn headroom(row: &Answer) -> Option<f64> {
    match row.get(3)? {
        "lost" => return Some(0.0),
        "unreserved" | "reserved" | "extended" => {}
        _ => return None,
    }
    let limit = row.text(5).parse::<i64>().ok();
    match (row.text(4).parse::<i64>().ok(), limit) {
        (Some(safe), Some(limit)) if 0 < limit => Some((safe as f64 / limit as f64).clamp(0.0, 1.0)),
        _ => Some(1.0),
    }
}
