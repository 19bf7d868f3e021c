//! Reads the rows of an XA transaction again, once it is committed.

use super::binlog::{Message, decode};
use super::error::Error;
use super::events::{Events, Start};
use super::flow::{Flow, Replayed};
use super::options::Options;
use super::session::Session;
use super::token::{LogFile, Token};
use crate::source::Emitter;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// How long the server may send nothing: the rows are in its log.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The log, opened a second time where the transaction was prepared.
pub(super) enum Replay {
    Opening(Pin<Box<dyn Future<Output = Result<Events, Error>> + Send>>),
    Open(Box<Events>),
}

/// How far a step of it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The batch is full.
    Full,
    /// All rows were given.
    Done,
}

impl Replay {
    /// Begins to open the log at this place.
    pub(super) fn begin(options: Options, file: &LogFile, offset: u64) -> Self {
        Self::Opening(Box::pin(open(options, file.to_string(), offset)))
    }

    /// Gives the next rows. Cancel safe.
    pub(super) async fn step(&mut self, flow: &mut Flow, out: &mut Emitter<'_, Token>) -> Result<Step, Error> {
        let events = match self {
            Self::Opening(opening) => {
                let events = opening.as_mut().await?;
                *self = Self::Open(Box::new(events));
                return Ok(Step::More);
            }
            Self::Open(events) => events,
        };
        let Some(arrived) = events.arrived()? else {
            let Ok(read) = timeout(SILENCE_MAX, events.read()).await else {
                let address = events.address().to_owned();
                return Err(Error::Silent { address, seconds: SILENCE_MAX.as_secs(), what: "an XA transaction" });
            };
            return read.map(|_| Step::More);
        };
        let event = events.event(&arrived)?;
        let message = decode(&event)?;
        if matches!(message, Message::Payload(_)) {
            return Err(Error::Protocol { what: "a compressed XA transaction" });
        }
        match flow.replay(&message, out).await? {
            Replayed::Whole => {}
            Replayed::Part => return Ok(Step::Full),
            Replayed::End => return Ok(Step::Done),
        }
        events.consume(&arrived)?;
        Ok(Step::More)
    }
}

async fn open(options: Options, name: String, offset: u64) -> Result<Events, Error> {
    let position = u32::try_from(offset)
        .map_err(|_| Error::LogLost { what: format!("an XA transaction was prepared beyond 4 GiB of the log's file {name}") })?;
    let session = Session::open(&options).await?;
    // The log itself is read by the configured number.
    let number = fastrand::u32(1 << 31..);
    let reader = format!("feedline/{}/xa", options.pipeline);
    Events::open(session, number, &reader, &Start::File { name: &name, position }).await
}
