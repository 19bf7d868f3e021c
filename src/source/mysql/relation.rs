//! A table as events show it: how its columns become cells, and its relation. The log and the prefeed describe a table in this one way.

use super::binlog::TableColumn;
use super::charset::Charsets;
use super::error::Error;
use super::kind::{Kind, Unreadable};
use super::layout::Hints;
use super::row::ColumnShape;
use crate::event::{Column, Relation};
use crate::feed::Feed;
use std::sync::Arc;

/// A feed's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// In table order.
    pub(super) columns: Vec<ColumnShape>,
    pub(super) relation: Relation,
}

impl Shape {
    /// The table with these columns.
    ///
    /// # Errors
    /// Where a column of the feed's key is missing, or values of a column cannot be read.
    pub(super) fn of(feed: &Feed, columns: &[TableColumn], hints: &Hints, charsets: &Charsets) -> Result<Self, Error> {
        let mut shapes = Vec::with_capacity(columns.len());
        let mut described = Vec::with_capacity(columns.len());
        for column in columns {
            let name = column.name.clone().unwrap_or_default();
            let kind = Kind::of(column, hints.get(&name), charsets).map_err(|why| unreadable(feed, &name, &why))?;
            let key = feed.key.contains(&name);
            described.push(Column { kind: kind.column_kind(&column.storage), nullable: Some(column.is_nullable && !key), key, name });
            shapes.push(ColumnShape { kind, key });
        }
        if let Some(gone) = feed.key.iter().find(|key| described.iter().all(|column| column.name != **key)) {
            let reason = format!("its key column {gone:?} is no longer there; name another key for the feed");
            return Err(Error::TableChanged { table: feed.name.to_string(), reason });
        }
        let relation = Relation { feed: feed.id, schema: Arc::clone(&feed.schema), table: Arc::clone(&feed.table), columns: described };
        Ok(Self { columns: shapes, relation })
    }
}

fn unreadable(feed: &Feed, column: &str, why: &Unreadable) -> Error {
    let reason = match why {
        Unreadable::Unnamed => {
            "the log does not name its columns; set binlog_row_metadata = FULL on the server, and read the table again".to_owned()
        }
        Unreadable::Collation(number) => {
            format!(
                "column {column:?} has collation number {number}, which cannot be decoded; convert it to utf8mb4, or leave the table out"
            )
        }
    };
    Error::Unfit { table: feed.name.to_string(), reason }
}
