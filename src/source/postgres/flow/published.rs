//! What is needed to publish the rows of a relation.

use super::identity::OldRows;
use super::transaction::Transaction;
use crate::event::{FeedId, Operation, Operations};
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
        let described = types.relation(feed, relation.columns.iter().map(|column| (column.name, column.type_oid, column.modifier)));
        let encoder = format.prepare(&described).await?;
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
