//! What is needed to publish the rows of a relation.

use super::identity::OldRows;
use crate::event::{FeedId, Operation};
use crate::feed::Feed;
use crate::source::postgres::error::Error;
use crate::source::postgres::pgoutput::{Old, Relation};
use crate::source::postgres::row::ColumnShape;
use crate::source::postgres::token::Token;
use crate::source::postgres::types::Types;
use crate::source::{Admitted, Definition, Emitter};
use std::sync::Arc;

/// What is needed to publish the rows of a relation.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) definition: Definition,
    pub(super) shapes: Vec<ColumnShape>,
    pub(super) old: OldRows,
    /// A key column that the rows lack.
    missing_key: Option<Arc<str>>,
    pub(super) name: Arc<str>,
}

impl Published {
    pub(super) async fn prepare(feed: &Feed, relation: &Relation<'_>, types: &Types, out: &Emitter<'_, Token>) -> Result<Self, Error> {
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        let missing_key = feed.key.iter().find(|key| relation.columns.iter().all(|column| column.name != &***key)).cloned();
        let mut shapes: Vec<ColumnShape> = relation
            .columns
            .iter()
            .map(|column| ColumnShape { kind: types.kind(column.type_oid), identity: column.identity, key: is_key(column.name) })
            .collect();
        let described = types.relation(feed, relation.columns.iter().map(|column| (column.name, column.type_oid, column.modifier)));
        let definition = out.prepare(&described).await?;
        let old = OldRows::new(String::new(), &mut shapes);
        Ok(Self { definition, shapes, old, missing_key, name: feed.name.clone() })
    }

    pub(super) const fn feed(&self) -> FeedId {
        self.definition.feed()
    }

    /// Refuses a row whose key is not known. Only a row that is published needs a key: after such a row the table must be read again.
    pub(super) fn check_key(&self, operation: Operation, old: Option<Old<'_>>, row: &mut Admitted<'_, Token>) -> Result<(), Error> {
        if let Some(missing) = &self.missing_key {
            return Err(Error::TableChanged {
                table: self.name.to_string(),
                reason: format!(
                    "its key column {missing:?} is not in the log at {:?} (renamed, dropped or not published); name another key and start with \
                     --accept-config-change",
                    row.position()
                ),
            });
        }
        if operation == Operation::Insert {
            return Ok(());
        }
        self.old.unknown(&self.shapes, old).map_or(Ok(()), |unknown| {
            Err(Error::KeyUnknown {
                feed: self.feed(),
                table: self.name.to_string(),
                reason: format!("{}, at {:?}", unknown.reason, row.position()),
                remedy: unknown.remedy,
            })
        })
    }
}
