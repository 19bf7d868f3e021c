//! What is needed to publish the rows of a relation.

use super::identity::OldRows;
use super::transaction::Transaction;
use crate::event::{Column, FeedId, Operation, Operations, Relation as EventRelation};
use crate::feed::Feed;
use crate::format::{Encoder, Format};
use crate::source::postgres::error::Error;
use crate::source::postgres::pgoutput::{Old, Relation};
use crate::source::postgres::row::ColumnShape;
use crate::source::postgres::types::Types;
use std::sync::Arc;

/// What is needed to publish the rows of a relation.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) feed: FeedId,
    pub(super) operations: Operations,
    pub(super) encoder: Encoder,
    pub(super) shapes: Vec<ColumnShape>,
    pub(super) old: OldRows,
    /// A key column that the rows lack.
    missing_key: Option<Arc<str>>,
    pub(super) name: Arc<str>,
}

impl Published {
    pub(super) async fn prepare(feed: &Feed, relation: &Relation<'_>, types: &Types, format: &Format) -> Result<Self, Error> {
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        let missing_key = feed.key.iter().find(|key| relation.columns.iter().all(|column| column.name != &***key)).cloned();
        let mut shapes: Vec<ColumnShape> = relation
            .columns
            .iter()
            .map(|column| ColumnShape { kind: types.kind(column.type_oid), identity: column.identity, key: is_key(column.name) })
            .collect();
        let columns = relation.columns.iter().map(|column| Column { name: column.name.into(), key: is_key(column.name) }).collect();
        let described = EventRelation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns };
        let unwritable = |source| Error::Row { table: feed.name.to_string(), position: "its definition".to_owned(), source };
        let encoder = format.prepare(&described).await.map_err(unwritable)?;
        let old = OldRows::new(String::new(), &mut shapes);
        Ok(Self { feed: feed.id, operations: feed.operations, encoder, shapes, old, missing_key, name: feed.name.clone() })
    }

    /// Refuses a row whose key is not known. Only a row that is published needs a key: after such a row the table must be read again.
    pub(super) fn check_key(&self, operation: Operation, old: Option<Old<'_>>, transaction: &Transaction) -> Result<(), Error> {
        if operation == Operation::Truncate {
            return Ok(());
        }
        if let Some(missing) = &self.missing_key {
            return Err(Error::TableChanged {
                table: self.name.to_string(),
                reason: format!(
                    "its key column {missing:?} is not in the log at {} (renamed, dropped or not published); name another key and start with \
                     --accept-config-change",
                    transaction.position(0)
                ),
            });
        }
        if operation == Operation::Insert {
            return Ok(());
        }
        self.old.unknown(&self.shapes, old).map_or(Ok(()), |unknown| {
            Err(Error::KeyUnknown {
                feed: self.feed,
                table: self.name.to_string(),
                reason: format!("{}, at {}", unknown.reason, transaction.position(0)),
                remedy: unknown.remedy,
            })
        })
    }
}
