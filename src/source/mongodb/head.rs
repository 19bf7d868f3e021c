//! Where the log ends, and where it begins.

use super::action::Action;
use super::bson::{Document, Value, Writer};
use super::error::Error;
use super::session::{Session, first};
use crate::event::Timestamp;

/// The end of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Head {
    /// The newest time that a majority of the members has; on a sharded cluster the newest that its router knows.
    pub(super) time: u64,
    /// The newest time that this primary has. Whoever becomes the primary has everything that a majority had. A router does not know it.
    pub(super) applied: Option<u64>,
    /// The server's clock minus this machine's, in seconds.
    pub(super) clock_offset_seconds: Option<f64>,
}

impl Head {
    /// Asks the server.
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        let asked_at = Timestamp::now();
        let reply = session.run_in("admin", Action::Watch, Writer::new().int("hello", 1)).await?;
        let now = f64::midpoint(asked_at.seconds(), Timestamp::now().seconds());
        let reply = Document::new(&reply)?;
        let last = reply.document("lastWrite")?.unwrap_or(Document::EMPTY);
        let time_of = |name: &str| -> Result<Option<u64>, Error> {
            let time = last.document(name)?.map(|time| time.get("ts")).transpose()?.flatten();
            Ok(time.and_then(Value::timestamp))
        };
        let (majority, applied) = (time_of("majorityOpTime")?, time_of("opTime")?);
        let time = majority.or(reply.get("operationTime")?.and_then(Value::timestamp));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this era are exact")]
        let clock_offset_seconds = match reply.get("localTime")? {
            Some(Value::DateTime(millis)) => Some(millis as f64 / 1000.0 - now),
            _ => None,
        };
        Ok(Self { time: time.ok_or(Error::Protocol { what: "the time of the newest write" })?, applied, clock_offset_seconds })
    }
}

/// The time of the oldest entry of the oplog; `None` where it cannot be asked: on a sharded cluster, or without the privilege.
pub(super) async fn oldest(session: &mut Session) -> Result<Option<u64>, Error> {
    if session.is_router() {
        return Ok(None);
    }
    let order = Writer::new().int("$natural", 1).finish();
    let find = Writer::new().text("find", "oplog.rs").document("sort", &order).int("limit", 1).boolean("singleBatch", true);
    let find = find.document("projection", &Writer::new().int("ts", 1).finish());
    match session.run_in("local", Action::Oplog, find).await {
        Err(Error::Privilege { .. } | Error::Refused { .. }) => Ok(None),
        reply => {
            let reply = reply?;
            let entry = first(Document::new(&reply)?)?;
            Ok(entry.map(|entry| entry.get("ts")).transpose()?.flatten().and_then(Value::timestamp))
        }
    }
}
