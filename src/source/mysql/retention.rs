//! How much of its log the server keeps, and for how long.
//!
//! The server deletes whole files. By time, a file may go when it was closed so long ago (MySQL documentation,
//! `binlog_expire_logs_seconds`); by size, the oldest ones go when all together are too large (MariaDB documentation, `max_binlog_total_size`).

use super::binlog::Message;
use super::error::Error;
use super::events::{Events, Start};
use super::options::Options;
use super::session::Session;
use super::token::LogFile;
use super::variables::Variables;
use crate::event::Timestamp;
use std::time::Duration;
use tokio::time::timeout;

/// The limits of the log. `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// How long a file is kept after it was closed.
    pub(super) time: Option<Duration>,
    /// How many bytes all files may have.
    pub(super) bytes: Option<u64>,
}

/// The settings that limit the log.
const SETTINGS: [&str; 4] = ["binlog_expire_logs_seconds", "binlog_expire_logs_auto_purge", "expire_logs_days", "max_binlog_total_size"];

impl Limits {
    pub(super) fn of(variables: &Variables) -> Self {
        let [seconds, purges, days, bytes] = SETTINGS;
        let number = |name| variables.number(name).filter(|number| 0 < *number);
        // The older setting is in force where the newer one does not exist or is 0.
        let seconds = number(seconds).or_else(|| number(days).map(|days| days * 86_400));
        let time = seconds.map(Duration::from_secs).filter(|_| !variables.is(purges, "OFF"));
        Self { time, bytes: number(bytes) }
    }
}

/// The files of the log and their sizes in bytes, oldest first. The last one is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFiles(Vec<(LogFile, u64)>);

impl LogFiles {
    /// Asks the server. Needs `REPLICATION CLIENT`, or `BINLOG MONITOR` on MariaDB.
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        const MALFORMED: Error = Error::Protocol { what: "the files of the log" };
        let rows = session.query("SHOW BINARY LOGS").await?;
        let file = |name: &str, size: &str| Some((name.parse().ok()?, size.parse().ok()?));
        let files = rows.iter().map(|row| file(row.text(0), row.text(1)).ok_or(MALFORMED)).collect::<Result<_, _>>()?;
        Ok(Self(files))
    }

    /// How many bytes of log follow this place; `None` if its file is gone.
    pub(super) fn bytes_behind(&self, file: &LogFile, offset: u64) -> Option<u64> {
        Some(self.from(file)?.iter().map(|(_, size)| size).sum::<u64>().saturating_sub(offset))
    }

    /// The files from this one on.
    fn from(&self, file: &LogFile) -> Option<&[(LogFile, u64)]> {
        let index = self.0.iter().position(|(known, _)| known == file)?;
        self.0.get(index..)
    }
}

/// Follows how much of the time and the space, for which the server keeps a file, is left.
#[derive(Debug)]
pub(super) struct Retention {
    options: Options,
    /// A file, and when it was closed.
    closed: Option<(LogFile, Timestamp)>,
}

/// How long the server may take to show when a file was begun.
const BEGINNING_TIMEOUT: Duration = Duration::from_secs(2);

impl Retention {
    pub(super) const fn new(options: Options) -> Self {
        Self { options, closed: None }
    }

    /// The share that is left until the server may delete this file, between 0 and 1: 1 without a limit, 0 if the file is gone. `None` if the
    /// server does not show it.
    pub(super) async fn headroom(&mut self, files: &LogFiles, file: &LogFile, session: &mut Session) -> Result<Option<f64>, Error> {
        let Some(kept) = files.from(file) else { return Ok(Some(0.0)) };
        let limits = Limits::of(&Variables::read_some(session, &SETTINGS).await?);
        let space = limits.bytes.map_or(1.0, |limit| share_left(kept.iter().map(|(_, size)| size).sum(), limit));
        let time = match (limits.time, kept) {
            (Some(limit), [_, (next, _), ..]) => {
                let Some(closed_at) = self.closed_at(file, next).await else { return Ok(None) };
                let age = (Timestamp::now().seconds() - closed_at.seconds()).max(0.0);
                Duration::try_from_secs_f64(age).map_or(0.0, |age| share_left(age.as_secs(), limit.as_secs()))
            }
            // The file that is being written stays.
            _ => 1.0,
        };
        Ok(Some(space.min(time)))
    }

    /// When a file was closed: when the next one was begun. It is asked once for each file.
    async fn closed_at(&mut self, file: &LogFile, next: &LogFile) -> Option<Timestamp> {
        if let Some((known, at)) = &self.closed
            && known == file
        {
            return Some(*at);
        }
        let at = timeout(BEGINNING_TIMEOUT, begun_at(&self.options, next)).await.ok()?.ok()?;
        self.closed = Some((file.clone(), at));
        Some(at)
    }
}

/// When a file was begun: the time of its first event. The statements that list files and events do not show it.
async fn begun_at(options: &Options, file: &LogFile) -> Result<Timestamp, Error> {
    let session = Session::open(options).await?;
    let name = file.to_string();
    // With the number of the log's own reader it would be thrown out.
    let server_id = fastrand::u32(0xE000_0000..0xF000_0000);
    let mut events = Events::open(session, server_id, "feedline/retention", &Start::File { name: &name, position: 4 }).await?;
    loop {
        let Some(arrived) = events.arrived()? else {
            events.read().await?;
            continue;
        };
        let event = events.event(&arrived)?;
        let timestamp = event.header.timestamp;
        let decoded = super::binlog::decode(&event).map_err(|malformed| Error::Protocol { what: malformed.0 })?;
        if matches!(decoded, Message::FormatDescription(_)) {
            return Ok(Timestamp(i64::from(timestamp) * 1_000_000));
        }
        events.consume(&arrived)?;
    }
}

/// The share of a limit that is left when so much is used.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn share_left(used: u64, limit: u64) -> f64 {
    (1.0 - used as f64 / limit as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::{Limits, LogFile, LogFiles, Variables, share_left};
    use std::time::Duration;

    fn file(number: u32) -> LogFile {
        LogFile { base: "binlog".into(), number }
    }

    #[test]
    fn the_log_behind_a_place_is_the_rest_of_its_file_and_all_later_ones() {
        let files = LogFiles(vec![(file(3), 100), (file(4), 50), (file(5), 7)]);
        assert_eq!(files.bytes_behind(&file(3), 30), Some(127));
        assert_eq!((files.bytes_behind(&file(5), 7), files.bytes_behind(&file(5), 9)), (Some(0), Some(0)));
        assert_eq!(files.bytes_behind(&file(2), 4), None);
    }

    #[test]
    fn a_limit_of_0_is_none() {
        let of = |settings: &[(&str, &str)]| Limits::of(&Variables::of(settings));
        assert_eq!(
            of(&[("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "0.000000"), ("max_binlog_total_size", "0")]),
            Limits::default()
        );
        assert_eq!(of(&[("binlog_expire_logs_seconds", "60"), ("expire_logs_days", "3")]).time, Some(Duration::from_mins(1)));
        assert_eq!(of(&[("binlog_expire_logs_seconds", "60"), ("binlog_expire_logs_auto_purge", "OFF")]), Limits::default());
        assert_eq!(of(&[("max_binlog_total_size", "4096")]).bytes, Some(4096));
    }

    #[test]
    fn nothing_is_left_behind_the_limit() {
        assert_eq!((share_left(25, 100), share_left(0, 100), share_left(200, 100)), (0.75, 1.0, 0.0));
    }
}
