//! Estimated sizes of tables, from the server's statistics.

use crate::feed::Feed;
use crate::source::mysql::error::Error;
use crate::source::mysql::quote::literal;
use crate::source::mysql::session::Session;

/// A table's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// Estimates the size of a feed's table.
pub(super) async fn of(feed: &Feed, session: &mut Session) -> Result<Estimate, Error> {
    let rows = session
        .query(&format!(
            "SELECT TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            literal(&feed.schema),
            literal(&feed.table)
        ))
        .await?;
    let number = |index| rows.first().and_then(|row| row.text(index).parse().ok()).unwrap_or_default();
    Ok(Estimate { rows: number(0), bytes: number(1) })
}
