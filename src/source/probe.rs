//! The port to the end of the log: how far the database is ahead.

use crate::checkpoint::ResumeToken;
use crate::fault::Classify;
use crate::feed::TableName;
use crate::status::LogHead;

/// Looks at the end of the log on a connection of its own, so that the lag is known while the log itself is stuck. Looks for new tables too.
///
/// It is opened once per process by [`SourceConnector::probe`](crate::source::SourceConnector::probe), and is called while sessions come
/// and go. It runs in a task of its own, beside the session.
pub trait Probe: Send + 'static {
    /// Why the end of the log could not be read.
    type Error: Classify;

    /// Looks at the end of the log, as seen from `confirmed`, the last durable token.
    ///
    /// Called every 5 s, and every second while nothing is in flight and the source is not known to be caught up.
    ///
    /// It must reach the server that the log is read from, or fail (G6): an answer of another server would show a lag that is wrong.
    /// [`LogHead::caught_up`] may only be true where nothing that is to be published lies behind `confirmed`. It changes nothing in the
    /// database. It opens a new connection where the last one is lost.
    ///
    /// # Errors
    /// Never ends the session. The engine calls it once more at once, then counts a probe error; the lag counts up from the last success.
    ///
    /// # Cancel safety
    /// Dropped after 5 s without an answer. The next call must work then, over a new connection if need be.
    fn head(&mut self, confirmed: &ResumeToken) -> impl Future<Output = Result<LogHead, Self::Error>> + Send;

    /// Lists the tables that the database has now, and that could be published.
    ///
    /// Called a few times a minute, to find tables that were made after the start. It reads names alone, so that this costs little, and changes nothing.
    /// It must reach the database that the log is read from, or fail (G6).
    ///
    /// # Errors
    /// Never ends the session. The next call is made later.
    ///
    /// # Cancel safety
    /// As for [`Self::head`].
    fn tables(&mut self) -> impl Future<Output = Result<Vec<TableName>, Self::Error>> + Send;
}
