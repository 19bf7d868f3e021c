//! Reads the end of the log over a connection of its own.

use super::catalogue;
use super::clock;
use super::error::Error;
use super::head::Head;
use super::options::Options;
use super::retention::{LogFiles, Retention};
use super::session::Session;
use super::token::Token;
use crate::checkpoint::ResumeToken;
use crate::feed::TableName;
use crate::source::{self, PastHeads};
use crate::status::LogHead;
use tokio::time::Instant;

/// Reads the end of the log.
#[derive(Debug)]
pub struct Probe {
    options: Options,
    /// `None` after a query that failed or was cancelled.
    session: Option<Session>,
    retention: Retention,
    /// Those of the server that was read last.
    heads: PastHeads<(u32, u64)>,
}

impl Probe {
    pub(super) async fn open(options: Options) -> Result<Self, Error> {
        let session = Session::open(&options).await?;
        Ok(Self { retention: Retention::new(options.clone()), options, session: Some(session), heads: PastHeads::default() })
    }

    async fn session(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => Session::open(&self.options).await,
        }
    }

    async fn look(&mut self, confirmed: &Token, session: &mut Session) -> Result<LogHead, Error> {
        let clock_offset_seconds = clock::offset(session).await?;
        let asked_at = Instant::now();
        let head = Head::place(session).await?;
        // After a failover the place is one in another server's files until a transaction was confirmed there.
        if confirmed.log.server != session.instance().fingerprint() || !head.0.is_beside(&confirmed.file) || confirmed.file.number == 0 {
            self.heads.clear();
            return Ok(LogHead { clock_offset_seconds, ..LogHead::default() });
        }
        let caught_up = confirmed.inside.is_none() && (head.0.number, head.1) <= (confirmed.file.number, confirmed.offset);
        let reached_at = self.heads.note(asked_at, (head.0.number, head.1), &(confirmed.file.number, confirmed.offset));
        let files = LogFiles::read(session).await?;
        let behind = files.bytes_behind(&confirmed.file, confirmed.offset);
        Ok(LogHead {
            caught_up,
            reached_at,
            lag_bytes: if caught_up { Some(0) } else { behind },
            // The server keeps its log by its own rules, for nobody.
            retained_bytes: None,
            xmin_age: None,
            headroom_ratio: self.retention.headroom(&files, &confirmed.file, session).await?,
            clock_offset_seconds,
        })
    }
}

impl source::Probe for Probe {
    type Error = Error;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let confirmed = Token::try_from(confirmed)?;
        let mut session = self.session().await?;
        let head = self.look(&confirmed, &mut session).await?;
        self.session = Some(session);
        Ok(head)
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Error> {
        let mut session = self.session().await?;
        let names = catalogue::names(&mut session, "BASE TABLE").await?;
        self.session = Some(session);
        Ok(names)
    }
}
