//! Where the log ends.

use super::binlog::MariaId;
use super::error::Error;
use super::quote::literal;
use super::session::Session;
use super::token::{LogFile, LogId, Token};
use super::transaction_id::{self, Gtids};
use crate::source::Answer;

/// The end of the log: every transaction that was committed before is in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) file: LogFile,
    pub(super) offset: u64,
    /// The transactions before it. On MySQL the newest ones may be missing.
    pub(super) gtids: Gtids,
}

impl Head {
    /// Asks the server.
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        let status = status(session).await?;
        let (file, offset) = in_file(&status)?;
        let gtids = if session.is_mariadb() { maria(session, &file, offset).await? } else { mysql(session, &status).await? };
        Ok(Self { file, offset, gtids })
    }

    /// Asks the server where the log ends, without what comes before.
    pub(super) async fn place(session: &mut Session) -> Result<(LogFile, u64), Error> {
        in_file(&status(session).await?)
    }

    /// The token at which the log is read from here on.
    pub(super) fn token(&self, log: LogId) -> Token {
        Token::at(log, &self.file, self.offset, self.gtids.clone())
    }
}

async fn status(session: &mut Session) -> Result<Answer, Error> {
    let statement = session.version().log_status_statement();
    let status = session.query(statement).await?.into_iter().next();
    status.ok_or_else(|| Error::Unsuitable {
        address: session.address().to_owned(),
        reason: "it writes no binary log; set log_bin, and restart it".to_owned(),
    })
}

fn in_file(status: &Answer) -> Result<(LogFile, u64), Error> {
    let offset = status.text(1).parse().map_err(|_| Error::Protocol { what: "where the log ends" })?;
    Ok((file(status.text(0))?, offset))
}

/// Reads the name of a file of the log.
pub(super) fn file(name: &str) -> Result<LogFile, Error> {
    name.parse().map_err(|()| Error::Protocol { what: "the name of a file of the log" })
}

/// MariaDB knows which transactions come before a place.
pub(super) async fn maria(session: &mut Session, file: &LogFile, offset: u64) -> Result<Gtids, Error> {
    let rows = session.query(&format!("SELECT BINLOG_GTID_POS({}, {offset})", literal(&file.to_string()))).await?;
    let position = rows.first().and_then(|row| row.text(0).parse().ok());
    position.map(Gtids::Maria).ok_or(Error::Protocol { what: "the GTIDs before the end of the log" })
}

/// MySQL names transactions if `gtid_mode` is `ON`.
async fn mysql(session: &mut Session, status: &Answer) -> Result<Gtids, Error> {
    if !names_transactions(session).await? {
        return Ok(Gtids::Unnamed);
    }
    status.text(4).parse().map(Gtids::MySql).map_err(|_| Error::Protocol { what: "the GTIDs before the end of the log" })
}

/// Whether every transaction of this MySQL server has a name.
pub(super) async fn names_transactions(session: &mut Session) -> Result<bool, Error> {
    let rows = session.query("SELECT @@GLOBAL.gtid_mode").await?;
    Ok(rows.first().is_some_and(|row| row.text(0) == "ON"))
}

/// The last transactions of each domain and server of MariaDB that are complete before this file; `None` if there is no such file. A file begins
/// with its format, then this list (MariaDB documentation, "Global Transaction ID").
pub(super) async fn before(session: &mut Session, file: &LogFile) -> Result<Option<Vec<MariaId>>, Error> {
    let rows = match session.query(&format!("SHOW BINLOG EVENTS IN {} LIMIT 3", literal(&file.to_string()))).await {
        Ok(rows) => rows,
        Err(Error::Refused(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let list = rows.iter().find(|row| row.text(2) == "Gtid_list").and_then(|row| row.text(5).strip_prefix('[')?.strip_suffix(']'));
    Ok(list.and_then(|list| list.split(',').filter(|id| !id.is_empty()).map(transaction_id::maria).collect()))
}

/// The file in which the log goes on behind a token of MariaDB, if the token's file has nothing more that is complete: what follows there was
/// cut off by a crash, and the server cannot send what comes behind an event that is cut off. `head` is the last file.
pub(super) async fn next_file(session: &mut Session, token: &Token, head: &LogFile) -> Result<Option<LogFile>, Error> {
    let Gtids::Maria(read) = &token.gtids else { return Ok(None) };
    let mut found = None;
    let mut file = token.file.clone();
    while 0 < file.number && head.is_beside(&file) && file.number < head.number {
        file.number += 1;
        match before(session, &file).await? {
            Some(complete) if complete.iter().all(|id| read.contains(*id)) => found = Some(file.clone()),
            _ => break,
        }
    }
    Ok(found)
}
