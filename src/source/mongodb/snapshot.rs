//! The place of a snapshot in the log: reads with read concern `snapshot` see exactly what was committed at a cluster time.

use super::action::Action;
use super::bson::{Document, Value, Writer};
use super::error::Error;
use super::session::Session;
use crate::feed::Feeds;

/// The newest time at which the cluster can be read. Everything that a majority has is in front of it, and nothing else is.
pub(super) async fn time(session: &mut Session, feeds: &Feeds) -> Result<u64, Error> {
    // A collection that does not exist has a time too.
    let collection = feeds.iter().next().map_or("feedline", |feed| &*feed.table);
    let find = Writer::new().text("find", collection).int("limit", 1).boolean("singleBatch", true);
    let find = find.document("projection", &Writer::new().int("_id", 1).finish()).document("readConcern", &concern(None));
    let reply = session.run(Action::Read, find).await?;
    let cursor = Document::new(&reply)?.document("cursor")?;
    let time = cursor.map(|cursor| cursor.get("atClusterTime")).transpose()?.flatten().and_then(Value::timestamp);
    time.ok_or(Error::Protocol { what: "the time of a snapshot" })
}

/// The read concern of a snapshot: the newest one, or that of a time.
pub(super) fn concern(at: Option<u64>) -> Vec<u8> {
    let concern = Writer::new().text("level", "snapshot");
    match at {
        Some(time) => concern.timestamp("atClusterTime", time).finish(),
        None => concern.finish(),
    }
}
