//! What statements do to the feeds' tables.

use super::statement::{Effect, Statement};
use super::words::TableName;
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
    /// Publishes what a statement does to the feeds' tables, or has them read again. Cancel safe: nothing changes before the last wait.
    pub(super) async fn affect(
        &mut self,
        statement: &Statement,
        schema: &str,
        lookup: &mut Lookup,
        out: &mut Emitter<'_, Token>,
    ) -> Result<(), Error> {
        let affected = self.affected(statement, schema);
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

    /// The feeds whose tables a statement concerns, in the order of their ids.
    fn affected(&self, statement: &Statement, schema: &str) -> BTreeMap<FeedId, Affected> {
        let mut affected = BTreeMap::new();
        let mut note = |table: &TableName, what: Affected| {
            if let Some(feed) = self.feed_of(table.schema.as_deref().unwrap_or(schema), &table.name) {
                affected.insert(feed, what);
            }
        };
        let rows = |reason: &str| Affected::Redefined(Some(Reread { reset: true, reason: reason.to_owned() }));
        match statement {
            Statement::Truncate(table) => note(table, Affected::Emptied),
            Statement::Drop(tables) => tables.iter().for_each(|table| note(table, Affected::Emptied)),
            Statement::DropSchema(dropped) => {
                for feed in self.feeds.iter().filter(|feed| self.is_same(&feed.schema, dropped)) {
                    affected.insert(feed.id, Affected::Emptied);
                }
            }
            Statement::Create(table) => note(table, Affected::Redefined(None)),
            Statement::Rename(pairs) => {
                for (old, _) in pairs {
                    note(old, Affected::Emptied);
                }
                for (_, new) in pairs {
                    note(new, rows("another table got its name"));
                }
            }
            Statement::Alter { table, renamed, effect } => {
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
        affected
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
