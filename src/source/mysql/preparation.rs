//! Looks for where an XA transaction was prepared, if that was before feedline began to read, or in the log of another server.

use super::binlog::{Event, Header, Message, decode};
use super::error::Error;
use super::events::{Events, Start};
use super::options::Options;
use super::retention::LogFiles;
use super::session::Session;
use super::token::LogFile;
use super::xa::XaId;
use std::time::Duration;
use tokio::time::timeout;

/// How much of the log is searched, backwards from the commit, in whole files.
const SEARCHED_MAX_BYTES: u64 = 4 << 30;
/// How long the server may send nothing while it has log to send.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Where the first event of a file begins.
const FIRST: u64 = 4;

/// Finds the file and the offset at which the rows of a transaction begin, which was committed at `commit`.
///
/// # Errors
/// A gap where the log does not have it, or not among its last 4 GiB.
pub(super) async fn find(options: &Options, id: XaId, commit: &(LogFile, u64)) -> Result<(LogFile, u64), Error> {
    let files = LogFiles::read(&mut Session::open(options).await?).await?;
    let mut searched = 0;
    for (file, size) in files.back_from(&commit.0) {
        // Nothing behind the commit is of interest: the transaction may have had its name again.
        let end = if *file == commit.0 { commit.1 } else { *size };
        tracing::info!(%file, bytes = end, "looks for the rows of an XA transaction that was prepared before feedline began to read this log");
        if let Some(offset) = find_in(options, id, file, end).await? {
            return Ok((file.clone(), offset));
        }
        searched += end;
        if SEARCHED_MAX_BYTES < searched {
            break;
        }
    }
    let what = format!(
        "an XA transaction was committed at {}:{}, and its rows are not among the {searched} bytes of log before it (XA RECOVER lists such transactions)",
        commit.0, commit.1
    );
    Err(Error::LogLost { what })
}

/// Where its rows begin in a file, before `end`; its last preparation counts.
async fn find_in(options: &Options, id: XaId, file: &LogFile, end: u64) -> Result<Option<u64>, Error> {
    let session = Session::open(options).await?;
    // The log itself is read by the configured number.
    let number = fastrand::u32(1 << 31..);
    let (name, reader) = (file.to_string(), format!("feedline/{}/xa", options.pipeline));
    let mut events = Events::open(session, number, &reader, &Start::File { name: &name, position: 4 }).await?;
    let mut search = Search { id, name, offset: FIRST, began_at: FIRST, found: None };
    while search.offset < end {
        let Some(arrived) = events.arrived()? else {
            let Ok(read) = timeout(SILENCE_MAX, events.read()).await else {
                let address = events.address().to_owned();
                return Err(Error::Silent { address, seconds: SILENCE_MAX.as_secs(), what: "an XA transaction" });
            };
            read?;
            continue;
        };
        if search.take(&events.event(&arrived)?) == Next::Ends {
            break;
        }
        events.consume(&arrived)?;
    }
    Ok(search.found)
}

struct Search {
    id: XaId,
    /// The name of the file.
    name: String,
    /// Where the next event begins.
    offset: u64,
    /// Where the current transaction began.
    began_at: u64,
    found: Option<u64>,
}

#[derive(PartialEq, Eq)]
enum Next {
    GoesOn,
    Ends,
}

impl Search {
    fn take(&mut self, event: &Event<'_>) -> Next {
        match decode(event) {
            Ok(Message::MariaGtid(_) | Message::MySqlGtid(_)) => self.began_at = self.offset,
            Ok(Message::XaPrepare(prepare)) if !prepare.is_one_phase && XaId::of(&prepare) == self.id => self.found = Some(self.began_at),
            // The first event names this file, and the last one the next file. A heartbeat comes where there is no next one.
            Ok(Message::Rotate(rotate)) if rotate.file != self.name => return Next::Ends,
            Ok(Message::Heartbeat(_)) => return Next::Ends,
            // What cannot be read is not the preparation that is looked for.
            Ok(_) | Err(_) => {}
        }
        if !event.header.is_artificial() {
            self.pass(&event.header);
        }
        Next::GoesOn
    }

    /// Events say where they end, modulo 2^32; those inside a transaction of MariaDB 11.4 do not.
    fn pass(&mut self, header: &Header) {
        let end = self.offset + u64::from(header.size);
        self.offset = match header.next_position {
            0 => end,
            next => (end & !u64::from(u32::MAX)) | u64::from(next),
        };
    }
}
