//! What statements do to the feeds' tables.

use super::alteration::{Effect, OtherTable};
use super::statement::Statement;
use super::words::{TableName, is_unclear, may_be};
use super::{Flow, Token};
use crate::event::{FeedId, Operation};
use crate::source::mysql::error::Error;
use crate::source::mysql::lookup::Lookup;
use crate::source::{Emitter, Reread, TableChange};
use std::collections::BTreeMap;

/// What a statement does to a feed's table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Affected {
    /// All its rows are removed.
    Emptied,
    /// It has another definition, or is another table; its rows may have changed too.
    Redefined(Option<Reread>),
}

impl Flow {
    /// Publishes what a statement does to the feeds' tables, or has them read again. It may have several readings. Cancel safe: nothing
    /// changes before the last wait.
    pub(super) async fn affect(
        &mut self,
        readings: &[Statement],
        schema: &str,
        lookup: &mut Lookup,
        out: &mut Emitter<'_, Token>,
    ) -> Result<(), Error> {
        let mut affected = BTreeMap::new();
        for statement in readings {
            self.note_affected(statement, schema, &mut affected);
        }
        let (mut emptied, mut changes) = (Vec::new(), Vec::new());
        for (id, affected) in affected {
            match affected {
                Affected::Emptied => emptied.push(self.definitions.of_feed(id, out).await?),
                Affected::Redefined(reread) => {
                    let feed = self.feeds.get(id);
                    let hints = lookup.hints(&feed.schema, &feed.table).await?;
                    changes.push((id, hints, reread));
                }
            }
        }
        for (feed, hints, reread) in changes {
            self.table_changes.push(TableChange { feed, layout: hints.layout(), reread });
            self.definitions.hint(feed, hints);
        }
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        for definition in emptied {
            let (row, ordinal) = (transaction.row(), transaction.row().ordinal);
            transaction.next_row();
            let Some(admitted) = out.admit(&definition, Operation::Truncate, row, ordinal) else { continue };
            admitted.truncate().map_err(|source| Error::Row {
                table: self.feeds.get(definition.feed()).name.to_string(),
                position: format!("{:?}", out.position(ordinal)),
                source,
            })?;
        }
        Ok(())
    }

    /// Notes the feeds whose tables a statement concerns, in the order of their ids.
    fn note_affected(&self, statement: &Statement, schema: &str, affected: &mut BTreeMap<FeedId, Affected>) {
        let mut note = |table: &TableName, what: Affected| {
            let schema = table.schema.as_deref().unwrap_or(schema);
            if let Some(feed) = self.feed_of(schema, &table.name) {
                affected.insert(feed, what);
            }
            for feed in self.feeds.iter().filter(|_| table.is_unclear()) {
                if may_be(schema, &feed.schema) && may_be(&table.name, &feed.table) {
                    affected.insert(feed.id, unclear());
                }
            }
        };
        match statement {
            Statement::Truncate(table) => note(table, Affected::Emptied),
            Statement::Drop(tables) => tables.iter().for_each(|table| note(table, Affected::Emptied)),
            Statement::DropSchema(dropped) => {
                for feed in self.feeds.iter().filter(|feed| self.is_same(&feed.schema, dropped)) {
                    affected.insert(feed.id, Affected::Emptied);
                }
                for feed in self.feeds.iter().filter(|feed| is_unclear(dropped) && may_be(dropped, &feed.schema)) {
                    affected.insert(feed.id, unclear());
                }
            }
            Statement::Create { table, effect: Effect::None | Effect::Values } => note(table, Affected::Redefined(None)),
            Statement::Create { table, effect: Effect::Rows } => {
                note(table, rows("it was made anew, with rows that the log does not show"));
            }
            Statement::Rename(pairs) => {
                for (old, _) in pairs {
                    note(old, Affected::Emptied);
                }
                for (_, new) in pairs {
                    note(new, rows("another table got its name"));
                }
            }
            Statement::Alter { table, renamed, other, effect } => {
                let reread = match effect {
                    Effect::None => Affected::Redefined(None),
                    Effect::Values => {
                        let reason = "ALTER TABLE may have changed values of its rows".to_owned();
                        Affected::Redefined(Some(Reread { reset: false, reason }))
                    }
                    Effect::Rows => rows("ALTER TABLE may have removed or added rows"),
                };
                note(table, if renamed.is_some() { Affected::Emptied } else { reread });
                if let Some(new) = renamed {
                    note(new, rows("another table got its name"));
                }
                match other {
                    Some(OtherTable::Changed(other)) => note(other, rows("ALTER TABLE may have removed or added rows")),
                    Some(OtherTable::Gone(other)) => note(other, Affected::Emptied),
                    None => {}
                }
            }
            Statement::Begin
            | Statement::Commit
            | Statement::Rollback
            | Statement::RollbackToSavepoint
            | Statement::XaBegin
            | Statement::XaCommit(_)
            | Statement::XaRollback(_)
            | Statement::Change(_)
            | Statement::Other => {}
        }
    }

    /// The feed of this table.
    pub(super) fn feed_of(&self, schema: &str, table: &str) -> Option<FeedId> {
        if let Some(feed) = self.feeds.of_table(schema, table) {
            return Some(feed.id);
        }
        let is_it = |feed: &&crate::feed::Feed| self.is_same(&feed.schema, schema) && self.is_same(&feed.table, table);
        self.feeds.iter().find(is_it).map(|feed| feed.id)
    }

    /// Whether both are the name of the same thing.
    fn is_same(&self, name: &str, other: &str) -> bool {
        name == other || (self.folds_names && name.to_lowercase() == other.to_lowercase())
    }
}

/// Rows may be gone or new.
fn rows(reason: &str) -> Affected {
    Affected::Redefined(Some(Reread { reset: true, reason: reason.to_owned() }))
}

/// A statement may concern the table.
fn unclear() -> Affected {
    rows("a statement names a table in characters that cannot be read")
}
