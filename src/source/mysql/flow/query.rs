//! Statements of the log.

use super::statement::Statement;
use super::transaction::Stage;
use super::words::TableName;
use super::{Applied, Flow, Token, text};
use crate::source::Emitter;
use crate::source::mysql::binlog::Query;
use crate::source::mysql::error::Error;
use crate::source::mysql::lookup::Lookup;

impl Flow {
    pub(super) async fn query(&mut self, query: &Query<'_>, lookup: &mut Lookup, out: &mut Emitter<'_, Token>) -> Result<Applied, Error> {
        let mut unpacked = Vec::new();
        let sql = query.sql.unpack(&mut unpacked)?;
        let transaction = self.transaction.as_mut().ok_or(Error::Protocol { what: "a transaction around a statement" })?;
        match (transaction.stage, sql) {
            // As the server writes it for each transaction.
            (Stage::Announced, b"BEGIN") => transaction.stage = Stage::Open,
            (Stage::CutOff, sql) if sql != b"COMMIT" => {}
            (Stage::Open | Stage::CutOff, b"COMMIT") | (Stage::Without, _) => self.end(out)?,
            _ => return self.statement(query, sql, lookup, out).await,
        }
        Ok(Applied::Whole)
    }

    /// Applies a statement that more has to be known of. Cancel safe.
    async fn statement(
        &mut self,
        query: &Query<'_>,
        sql: &[u8],
        lookup: &mut Lookup,
        out: &mut Emitter<'_, Token>,
    ) -> Result<Applied, Error> {
        // The server writes it in UTF-8.
        let schema = String::from_utf8_lossy(query.schema);
        let Some(readings) = text::read(query, sql, self.definitions.charsets(), lookup).await? else {
            return Err(self.lost("a statement cannot be read in its character set (character_set_client)", out));
        };
        let mut ends = false;
        for statement in &readings {
            let transaction = self.transaction.as_mut().ok_or(Error::Protocol { what: "a transaction around a statement" })?;
            ends |= transaction.stage == Stage::Announced;
            match (transaction.stage, statement) {
                (Stage::Announced, Statement::Begin) => {
                    transaction.stage = Stage::Open;
                    return Ok(Applied::Whole);
                }
                (Stage::Announced, Statement::XaBegin) => {
                    transaction.stage = Stage::Xa;
                    return Ok(Applied::Whole);
                }
                (_, Statement::XaCommit(id)) => return self.commit_xa(*id, out),
                (_, Statement::XaRollback(Some(id))) => self.prepared.remove(*id),
                (_, Statement::Change(target)) => self.refuse_logged_change(target.as_ref(), &schema, lookup, out).await?,
                (Stage::Open, Statement::Rollback | Statement::RollbackToSavepoint) => self.refuse_rollback(out)?,
                _ => {}
            }
            ends |= matches!(statement, Statement::Commit | Statement::Rollback | Statement::XaRollback(_));
        }
        self.affect(&readings, &schema, lookup, out).await?;
        lookup.forget();
        if ends {
            self.end(out)?;
        }
        Ok(Applied::Whole)
    }

    /// Refuses a change that is logged as a statement, unless it can only concern a table of no feed.
    async fn refuse_logged_change(
        &mut self,
        target: Option<&TableName>,
        schema: &str,
        lookup: &mut Lookup,
        out: &mut Emitter<'_, Token>,
    ) -> Result<(), Error> {
        if let Some(table) = target.filter(|table| !table.is_unclear()) {
            let schema = table.schema.as_deref().unwrap_or(schema);
            if self.feed_of(schema, &table.name).is_none() && lookup.is_without_triggers(schema, &table.name).await? {
                return Ok(());
            }
        }
        Err(self.lost("rows were changed by a statement (binlog_format), and the log does not say which", out))
    }

    /// Refuses to take back rows that were published.
    fn refuse_rollback(&mut self, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        if self.transaction.as_ref().is_some_and(|transaction| transaction.is_published) {
            return Err(self.lost("a transaction with tables of several engines was rolled back after its rows were logged", out));
        }
        Ok(())
    }
}
