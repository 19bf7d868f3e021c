//! How far the server's clock is from this machine's.

use super::error::Error;
use super::session::Session;
use crate::event::Timestamp;

/// The server's clock minus this machine's, in seconds; `None` if the server's answer is no time.
pub(super) async fn offset(session: &mut Session) -> Result<Option<f64>, Error> {
    let asked_at = Timestamp::now();
    let rows = session.query("SELECT UNIX_TIMESTAMP(SYSDATE(6))").await?;
    let now = f64::midpoint(asked_at.seconds(), Timestamp::now().seconds());
    let theirs: Option<f64> = rows.first().and_then(|row| row.text(0).parse().ok());
    Ok(theirs.map(|theirs| theirs - now))
}
