//! Transactions that a crash of the server cut off: what was written of them stays at the end of a file of MariaDB's log, and the server sends it.
//! Their numbers are given again. MySQL cuts such a file to what is complete.
//!
//! Each file begins with a list of the transactions that are complete before it, so what is not in the next file's list was cut off. A file
//! that is still written has no next one, and of it the server sends only what is complete (MariaDB 10.11 `sql/log.h`, `binlog_end_pos`).

use super::transaction::Stage;
use super::{Flow, Token};
use crate::source::Emitter;
use crate::source::mysql::binlog::{MariaId, Rotate};
use crate::source::mysql::error::Error;
use crate::source::mysql::head;
use crate::source::mysql::lookup::Lookup;
use crate::source::mysql::token::LogFile;

/// What is known of the ends of files.
#[derive(Debug)]
pub(super) struct Ends {
    /// The last file when the session began. `None` on MySQL.
    head: Option<LogFile>,
    /// The last complete transactions of the file that is read, by domain and server; `None` where all are complete.
    complete: Option<Vec<MariaId>>,
}

impl Ends {
    pub(super) const fn new(head: Option<LogFile>) -> Self {
        Self { head, complete: None }
    }

    /// Whether this transaction was cut off.
    pub(super) fn cut_off(&self, gtid: &MariaId) -> bool {
        let has = |last: &MariaId| last.domain == gtid.domain && last.server == gtid.server && gtid.sequence <= last.sequence;
        self.complete.as_ref().is_some_and(|complete| !complete.iter().any(has))
    }
}

impl Flow {
    /// Goes on in another file, or where the server begins to send. Cancel safe.
    pub(super) async fn rotate(&mut self, rotate: &Rotate<'_>, lookup: &mut Lookup, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let file = head::file(rotate.file)?;
        let has_ended = self.ends.head.as_ref().is_some_and(|head| head.is_beside(&file) && file.number < head.number);
        let complete = if has_ended { lookup.before(&LogFile { number: file.number + 1, ..file }).await? } else { None };
        lookup.forget();
        self.drop_cut_off(out)?;
        self.ends.complete = complete;
        self.cursor.rotate(rotate)
    }

    /// Another file begins: an open transaction was cut off.
    pub(super) fn drop_cut_off(&mut self, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let Some(transaction) = &self.transaction else { return Ok(()) };
        if transaction.is_published {
            return Err(self.lost("a crash of the server cut a transaction off after its rows were published", out));
        }
        tracing::warn!(transaction = %self.name, "passed over a transaction that a crash of the server cut off");
        self.transaction = None;
        self.rows_read = 0;
        out.commit();
        Ok(())
    }

    /// Refuses the end of a transaction that was taken for one that has none.
    pub(super) fn refuse_end_of_cut_off(&self) -> Result<(), Error> {
        match &self.transaction {
            Some(transaction) if transaction.stage == Stage::CutOff => {
                Err(Error::Protocol { what: "a transaction that the next file of the log does not know" })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ends;
    use crate::source::mysql::binlog::MariaId;

    #[test]
    fn what_the_next_file_does_not_list_was_cut_off() {
        let id = |domain, server, sequence| MariaId { domain, server, sequence };
        let ends = Ends { head: None, complete: Some(vec![id(0, 1, 86), id(0, 2, 90), id(7, 1, 3)]) };
        assert!(!ends.cut_off(&id(0, 1, 86)) && !ends.cut_off(&id(0, 2, 1)) && !ends.cut_off(&id(7, 1, 3)));
        assert!(ends.cut_off(&id(0, 1, 87)) && ends.cut_off(&id(0, 3, 1)) && ends.cut_off(&id(8, 1, 1)));
        assert!(!Ends::new(None).cut_off(&id(0, 1, 87)));
    }
}
