//! Reads the end of the log over a connection of its own.

use super::error::Error;
use super::head::Head;
use super::options::Options;
use super::retention::{LogFiles, Retention};
use super::session::Session;
use super::token::Token;
use crate::checkpoint::ResumeToken;
use crate::event::Timestamp;
use crate::source;
use crate::status::LogHead;

/// Reads the end of the log.
#[derive(Debug)]
pub struct Probe {
    options: Options,
    /// `None` after a query that failed or was cancelled.
    session: Option<Session>,
    retention: Retention,
}

impl Probe {
    pub(super) async fn open(options: Options) -> Result<Self, Error> {
        let session = Session::open(&options).await?;
        Ok(Self { retention: Retention::new(options.clone()), options, session: Some(session) })
    }
}

impl source::Probe for Probe {
    type Error = Error;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let confirmed = Token::try_from(confirmed)?;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.options).await?,
        };
        let head = Head::read(&mut session).await?;
        let asked_at = Timestamp::now();
        let row = session.query("SELECT UNIX_TIMESTAMP(SYSDATE(6))").await?;
        let answered_at = Timestamp::now();
        let clock = row.first().and_then(|row| row.text(0).parse::<f64>().ok());
        // Its place says nothing where another server has the log.
        let is_here = confirmed.log.server == session.instance().fingerprint() && head.file.is_beside(&confirmed.file);
        let caught_up =
            is_here && confirmed.inside.is_none() && (head.file.number, head.offset) <= (confirmed.file.number, confirmed.offset);
        let (mut behind, mut headroom_ratio) = (None, None);
        if is_here {
            let files = LogFiles::read(&mut session).await?;
            behind = files.bytes_behind(&confirmed.file, confirmed.offset);
            headroom_ratio = self.retention.headroom(&files, &confirmed.file, &mut session).await?;
        }
        self.session = Some(session);
        Ok(LogHead {
            caught_up,
            lag_bytes: if caught_up { Some(0) } else { behind },
            retained_bytes: None,
            xmin_age: None,
            headroom_ratio,
            clock_offset_seconds: clock.map(|clock| clock - f64::midpoint(asked_at.seconds(), answered_at.seconds())),
        })
    }
}
