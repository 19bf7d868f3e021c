//! Reads the end of the log over a connection of its own.

use super::catalogue;
use super::error::Error;
use super::head::{Head, oldest};
use super::options::Options;
use super::session::Session;
use super::token::Token;
use crate::checkpoint::ResumeToken;
use crate::feed::TableName;
use crate::source::{self, LogToken as _, PastHeads};
use crate::status::LogHead;
use tokio::time::Instant;

/// Reads the end of the log.
#[derive(Debug)]
pub struct Probe {
    options: Options,
    /// `None` after a question that failed or was cancelled.
    session: Option<Session>,
    /// Cluster times.
    heads: PastHeads<u64>,
}

impl Probe {
    pub(super) async fn open(options: Options) -> Result<Self, Error> {
        let session = Session::open(&options).await?;
        Ok(Self { options, session: Some(session), heads: PastHeads::default() })
    }

    async fn session(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => Session::open(&self.options).await,
        }
    }
}

impl source::Probe for Probe {
    type Error = Error;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let confirmed = Token::parse(confirmed)?;
        let mut session = self.session().await?;
        let asked_at = Instant::now();
        let head = Head::read(&mut session).await?;
        let oldest = oldest(&mut session).await?;
        self.session = Some(session);
        // Inside a transaction that time is not read to its end.
        let whole = confirmed.place.time.saturating_sub(confirmed.inside.is_some().into());
        let caught_up = confirmed.inside.is_none() && head.time <= confirmed.place.time;
        Ok(LogHead {
            caught_up,
            reached_at: self.heads.note(asked_at, head.time, &whole),
            headroom_ratio: oldest.map(|oldest| headroom(oldest, confirmed.place.time, head.time)),
            clock_offset_seconds: head.clock_offset_seconds,
            ..LogHead::default()
        })
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Error> {
        let mut session = self.session().await?;
        let collections = catalogue::collections(&mut session).await?;
        self.session = Some(session);
        let tables = catalogue::catalogue(&self.options, &collections).tables;
        Ok(tables.into_iter().map(|table| (table.schema, table.name)).collect())
    }
}

/// Which share of the oplog, by time, still lies before the confirmed position.
fn headroom(oldest: u64, confirmed: u64, head: u64) -> f64 {
    let seconds = |time: u64| f64::from(u32::try_from(time >> 32).unwrap_or(u32::MAX));
    let window = seconds(head) - seconds(oldest);
    if window <= 0.0 {
        return if oldest <= confirmed { 1.0 } else { 0.0 };
    }
    ((seconds(confirmed) - seconds(oldest)) / window).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::headroom;

    #[test]
    fn nothing_is_left_behind_the_oldest_entry() {
        let of = |oldest: u64, confirmed: u64, head: u64| headroom(oldest << 32, confirmed << 32, head << 32);
        assert_eq!((of(100, 200, 200), of(100, 150, 200), of(100, 100, 200), of(100, 50, 200)), (1.0, 0.5, 0.0, 0.0));
        assert_eq!((of(100, 100, 100), of(100, 99, 100)), (1.0, 0.0));
    }
}
