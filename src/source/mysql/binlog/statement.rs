//! Statements, and the ends of transactions.
//!
//! Source: MySQL 9.7 `libs/mysql/binlog/event/statement_events.h`; MariaDB 11.4 `sql/log_event.h` (`Query_log_event`).

use super::bytes::{Malformed, Reader};
use super::compression::{Packed, Packing};

/// A statement in the log: a definition, the beginning or the end of a transaction, or a change that is logged as a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The default database of the session.
    pub schema: &'a [u8],
    /// The error with which it ended on the server; 0 for none.
    pub error: u16,
    /// Its text.
    pub sql: Packed<'a>,
}

pub(super) fn query(body: &[u8], packing: Packing) -> Result<Query<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: a statement");
    // The session's number, and the seconds that it took.
    reader.take(8)?;
    let schema_length = usize::from(reader.byte()?);
    let error = u16::from_le_bytes(reader.array()?);
    let variables = reader.length(2)?;
    reader.take(variables)?;
    let schema = reader.take(schema_length)?;
    reader.byte()?;
    Ok(Query { schema, error, sql: Packed::new(reader.rest(), packing) })
}

/// The number of a transaction of the storage engine, which ends it.
pub(super) fn xid(body: &[u8]) -> Result<u64, Malformed> {
    Reader::new(body, "event: the end of a transaction").little(8)
}

/// An XA transaction is prepared, or committed in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// Whether it is committed at once.
    pub is_one_phase: bool,
    /// The number of its format.
    pub format: u32,
    /// Its global identifier.
    pub global: &'a [u8],
    /// Its branch.
    pub branch: &'a [u8],
}

pub(super) fn xa_prepare(body: &[u8]) -> Result<XaPrepare<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: an XA transaction");
    let is_one_phase = reader.byte()? != 0;
    let format = u32::from_le_bytes(reader.array()?);
    let (global, branch) = (reader.length(4)?, reader.length(4)?);
    Ok(XaPrepare { is_one_phase, format, global: reader.take(global)?, branch: reader.take(branch)? })
}
