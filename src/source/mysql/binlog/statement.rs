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
    /// How its text is written.
    pub writing: Writing,
    /// Its text.
    pub sql: Packed<'a>,
}

/// How a session writes statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writing {
    /// The number of a collation of its character set (`character_set_client`); `None` where the event does not say it.
    pub collation: Option<u16>,
    /// Whether double quotes enclose names and not strings (`ANSI_QUOTES`).
    pub has_ansi_quotes: bool,
    /// Whether a backslash in a string is an ordinary character (`NO_BACKSLASH_ESCAPES`).
    pub has_plain_backslashes: bool,
}

pub(super) fn query(body: &[u8], packing: Packing) -> Result<Query<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: a statement");
    // The session's number, and the seconds that it took.
    reader.take(8)?;
    let schema_length = usize::from(reader.byte()?);
    let error = u16::from_le_bytes(reader.array()?);
    let variables = reader.length(2)?;
    let writing = writing(reader.take(variables)?);
    let schema = reader.take(schema_length)?;
    reader.byte()?;
    Ok(Query { schema, error, writing, sql: Packed::new(reader.rest(), packing) })
}

/// Reads the variables of the session as far as they say how statements are written. The server writes these before all that a later version
/// could add, so an unknown one is the end.
fn writing(variables: &[u8]) -> Writing {
    const FLAGS: u8 = 0;
    const SQL_MODE: u8 = 1;
    const OLD_CATALOGUE: u8 = 2;
    const AUTO_INCREMENT: u8 = 3;
    const CHARSET: u8 = 4;
    const TIME_ZONE: u8 = 5;
    const CATALOGUE: u8 = 6;
    // MariaDB's, from 11.4 on.
    const COLLATIONS: u8 = 131;
    const ANSI_QUOTES: u64 = 1 << 2;
    const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;
    let mut writing = Writing::default();
    let mut reader = Reader::new(variables, "event: the variables of a statement");
    let mut next = || -> Result<bool, Malformed> {
        let passed = match reader.byte()? {
            FLAGS | AUTO_INCREMENT => 4,
            SQL_MODE => {
                let mode = reader.little(8)?;
                writing.has_ansi_quotes = mode & ANSI_QUOTES != 0;
                writing.has_plain_backslashes = mode & NO_BACKSLASH_ESCAPES != 0;
                0
            }
            OLD_CATALOGUE => reader.length(1)? + 1,
            TIME_ZONE | CATALOGUE => reader.length(1)?,
            // Pairs of a character set and a collation, two bytes each.
            COLLATIONS => 4 * reader.length(1)?,
            CHARSET => {
                writing.collation = Some(u16::from_le_bytes(reader.array()?));
                // Those of the connection and of the server follow.
                4
            }
            _ => return Ok(false),
        };
        reader.take(passed)?;
        Ok(true)
    };
    while next().unwrap_or(false) {}
    writing
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

#[cfg(test)]
mod tests {
    use super::{Writing, writing};

    #[test]
    fn a_session_says_how_it_writes() {
        // As MySQL 9.7 and MariaDB 10.11 log them: flags, mode, catalogue, character set and more.
        let mysql =
            [&[0, 0, 0, 0, 0, 1, 4, 0, 0x10, 0, 0, 0, 0, 0, 6, 3][..], b"std", &[4, 33, 1, 8, 0, 255, 0, 0x0c, 1, b'd', 0]].concat();
        assert_eq!(writing(&mysql), Writing { collation: Some(0x121), has_ansi_quotes: true, has_plain_backslashes: true });
        let mariadb = [&[0, 0, 0, 0, 0, 1, 0, 0, 0x20, 0x54, 0, 0, 0, 0, 3, 2, 0, 1, 0, 4, 8, 0, 8, 0, 8, 0, 0x82, 2][..]].concat();
        assert_eq!(writing(&mariadb), Writing { collation: Some(8), ..Writing::default() });
        let newer = [131, 1, 33, 0, 64, 0, 4, 32, 0, 32, 0, 8, 0];
        assert_eq!(writing(&newer), Writing { collation: Some(32), ..Writing::default() });
        assert!([&[][..], &[4, 8], &[99, 4, 8, 0, 8, 0, 8, 0]].iter().all(|variables| writing(variables) == Writing::default()));
    }
}
