//! Transactions that a crash of the server cut off: what was written of them stays at the end of a file of MariaDB's log, and the server sends it.
//! Their numbers are given again. MySQL cuts such a file to what is complete.
//!
//! Each file begins with a list of the transactions that are complete before it, so what is not in the next file's list was cut off. A file
//! that is still written has no next one, and of it the server sends only what is complete (MariaDB 10.11 `sql/log.h`, `binlog_end_pos`).

use super::transaction::Stage;
use super::{Flow, Token};
use crate::source::Emitter;
use crate::source::mysql::binlog::Rotate;
use crate::source::mysql::error::Error;
use crate::source::mysql::head;
use crate::source::mysql::lookup::Lookup;
use crate::source::mysql::token::LogFile;

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
        if self.transaction.as_ref().is_none_or(|transaction| transaction.stage != Stage::CutOff) {
            return Ok(());
        }
        let what =
            format!("transaction {} is complete, but the next file of the log does not list it (was gtid_strict_mode OFF?)", self.name);
        Err(Error::LogLost { what })
    }
}
