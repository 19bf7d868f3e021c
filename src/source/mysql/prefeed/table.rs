//! Describes a table whose rows are read: as the log does, with the order of its rows.

use super::column_type::storage;
use super::field::Field;
use super::order::{KeyColumn, Spelling};
use crate::event::Relation;
use crate::feed::Feed;
use crate::source::mysql::binlog::TableColumn;
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::error::Error;
use crate::source::mysql::kind::Kind;
use crate::source::mysql::layout::Hints;
use crate::source::mysql::quote::identifier;
use crate::source::mysql::relation::Shape;
use crate::source::mysql::row::ColumnShape;
use crate::source::mysql::session::{Definition, Session};
use crate::source::mysql::tables::{self, UniqueIndex};
use std::sync::Arc;

/// What is read for a feed: its table, or its query.
#[derive(Debug)]
pub(super) struct Table {
    /// The item of the `FROM` clause.
    pub(super) from: String,
    /// What is asked for: the columns of the relation in table order, then what only orders the rows.
    pub(super) selected: Vec<String>,
    /// The columns of the relation.
    pub(super) shapes: Vec<ColumnShape>,
    /// In the order of the unique index.
    pub(super) key: Vec<KeyColumn>,
    /// Changes when stored keys can no longer be compared with the table's keys.
    pub(super) fingerprint: String,
    pub(super) relation: Relation,
    /// Whether it is a query. Its keys may not be unique.
    pub(super) is_query: bool,
}

/// Describes a feed's table. It must be held: nobody may change its definition meanwhile.
pub(super) async fn describe(feed: &Feed, charsets: &Charsets, session: &mut Session) -> Result<Table, Error> {
    let gone = |reason: &str| Error::TableChanged { table: feed.name.to_string(), reason: reason.to_owned() };
    let described = tables::one(session, &feed.schema, &feed.table).await?;
    let described = described.ok_or_else(|| gone("it no longer exists; remove it from the feeds"))?;
    let index = described.unique_index(&feed.key).ok_or_else(|| Error::Keyless {
        table: feed.name.to_string(),
        reason: "no unique index makes its rows unique by the key".to_owned(),
        remedy: format!("CREATE UNIQUE INDEX ... ON {} over the key, or set another key or prefeed = \"none\"", described.sql_name()),
    })?;
    let columns = described.columns.iter().map(|column| {
        let storage = storage(column, charsets).ok_or_else(|| Error::Unfit {
            table: feed.name.to_string(),
            reason: format!("column {:?} is of type {}, which cannot be read", column.name, type_of(column)),
        })?;
        Ok(TableColumn { name: Some(Arc::clone(&column.name)), storage, is_nullable: column.is_nullable })
    });
    let columns = columns.collect::<Result<Vec<_>, Error>>()?;
    let Shape { columns: shapes, relation } = Shape::of(feed, &columns, &Hints::of(&described), charsets)?;
    let selected = columns.iter().zip(&shapes).map(|(column, shape)| selected(column, &shape.kind)).collect();
    let key = index.columns.iter().map(|name| {
        let position = columns.iter().position(|column| column.name.as_ref() == Some(name));
        let spelling = position.and_then(|index| Spelling::of(&columns[index].storage, &shapes[index].kind));
        let (index, spelling) = position.zip(spelling).ok_or_else(|| Error::Keyless {
            table: feed.name.to_string(),
            reason: format!("its rows have no order by column {name:?}"),
            remedy: "set another key, or prefeed = \"none\"".to_owned(),
        })?;
        Ok(KeyColumn { expression: identifier(name), index, spelling })
    });
    let key = key.collect::<Result<Vec<_>, Error>>()?;
    let identity = index
        .columns
        .iter()
        .filter_map(|name| described.column(name))
        .map(|column| format!("{}:{}:{}", column.name, column.type_name, column.collation.as_deref().unwrap_or_default()));
    let fingerprint = identity.collect::<Vec<_>>().join(";");
    let from = format!("{}{}", described.sql_name(), forced(index));
    Ok(Table { from, selected, shapes, key, fingerprint, relation, is_query: false })
}

fn type_of(column: &tables::Column) -> String {
    match &column.charset {
        Some(charset) => format!("{} in {charset}", column.type_name),
        None => column.type_name.to_string(),
    }
}

/// Has the server read in the order of the index. Otherwise it may sort the whole table, of which a slice reads only a part.
fn forced(index: &UniqueIndex) -> String {
    // An index of the beginning of a column does not sort by the column.
    if index.has_prefix { String::new() } else { format!(" FORCE INDEX ({})", identifier(&index.name)) }
}

/// How a column is asked for: as the log has it, where the server would send something else.
fn selected(column: &TableColumn, kind: &Kind) -> String {
    let name = identifier(column.name.as_deref().unwrap_or_default());
    match kind {
        Kind::Label(_) | Kind::Labels(_) => format!("CAST({name} AS UNSIGNED)"),
        Kind::Uuid | Kind::Inet6 => format!("CAST({name} AS BINARY(16))"),
        Kind::Inet4 => format!("CAST({name} AS BINARY(4))"),
        _ => name,
    }
}

impl Table {
    /// How the columns are sent that the server describes so.
    pub(super) fn fields(&self, definitions: &[Definition]) -> Result<Vec<Field>, Error> {
        const OTHERS: Error = Error::Protocol { what: "other columns than were asked for" };
        if definitions.len() != self.selected.len() {
            return Err(OTHERS);
        }
        let ordering = Kind::Bytes(None);
        let kinds = self.shapes.iter().map(|shape| &shape.kind).chain(std::iter::repeat(&ordering));
        definitions.iter().zip(kinds).map(|(definition, kind)| Field::of(definition, kind).ok_or(OTHERS)).collect()
    }
}
