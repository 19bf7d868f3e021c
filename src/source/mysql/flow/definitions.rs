//! The definitions of tables, as the log shows them before their rows.

use crate::event::FeedId;
use crate::event::{Column, ColumnKind, Relation};
use crate::feed::{Feed, Feeds};
use crate::source::mysql::binlog::{TableColumn, TableMap};
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::error::Error;
use crate::source::mysql::layout::Hints;
use crate::source::mysql::relation::Shape;
use crate::source::mysql::row::ColumnShape;
use crate::source::mysql::token::Token;
use crate::source::{Definition, Emitter};
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::sync::Arc;

/// The server numbers a table anew each time it opens it. So many numbers are remembered at a transaction's begin.
const NUMBERS_MAX: usize = 4096;

/// What is known of tables.
#[derive(Debug)]
pub(super) struct Definitions {
    feeds: Arc<Feeds>,
    charsets: Charsets,
    /// By feed: what the log does not say of its table.
    hints: Vec<Hints>,
    /// By the number that rows name.
    by_number: HashMap<u64, Arc<Table>>,
    /// By feed: its table's newest definition.
    newest: Vec<Option<Arc<Table>>>,
    metrics: SourceMetrics,
}

/// A definition of a table.
#[derive(Debug)]
pub(super) struct Table {
    schema: Box<str>,
    name: Box<str>,
    /// The bytes of the definition.
    bytes: Box<[u8]>,
    /// `None` where they cannot be read and no feed needs them.
    pub(super) columns: Option<Vec<TableColumn>>,
    /// `None` if no feed publishes the table.
    pub(super) published: Option<Published>,
}

/// What is needed to publish the rows of a table.
#[derive(Debug)]
pub(super) enum Published {
    Readable {
        definition: Definition,
        shapes: Vec<ColumnShape>,
    },
    /// Its rows cannot be read.
    Unreadable(FeedId),
}

impl Table {
    fn is(&self, map: &TableMap<'_>) -> bool {
        *self.bytes == *map.definition() && *self.name == *map.name && *self.schema == *map.schema
    }
}

impl Definitions {
    pub(super) fn new(feeds: Arc<Feeds>, charsets: Charsets, hints: Vec<Hints>, metrics: SourceMetrics) -> Self {
        let newest = vec![None; feeds.len()];
        Self { feeds, charsets, hints, by_number: HashMap::new(), newest, metrics }
    }

    /// The table of this number.
    pub(super) fn get(&self, number: u64) -> Option<&Arc<Table>> {
        self.by_number.get(&number)
    }

    pub(super) const fn charsets(&self) -> &Charsets {
        &self.charsets
    }

    pub(super) fn feed(&self, id: FeedId) -> &Feed {
        self.feeds.get(id)
    }

    /// Forgets numbers, between two transactions.
    pub(super) fn forget_many(&mut self) {
        if NUMBERS_MAX < self.by_number.len() {
            self.by_number.clear();
        }
    }

    /// Remembers what the catalogue says of a feed's table.
    pub(super) fn hint(&mut self, feed: FeedId, hints: Hints) {
        self.hints[feed.index()] = hints;
        // The next rows come after a definition, which is read again.
        self.newest[feed.index()] = None;
        self.by_number.retain(|_, table| table.published.as_ref().is_none_or(|published| published.feed() != feed));
    }

    /// Takes over a definition. Cancel safe: repeating it gives the same result.
    pub(super) async fn learn(&mut self, map: &TableMap<'_>, out: &Emitter<'_, Token>) -> Result<(), Error> {
        if self.by_number.get(&map.id).is_some_and(|table| table.is(map)) {
            return Ok(());
        }
        let feed = self.feeds.of_table(map.schema, map.name).map(|feed| feed.id);
        let newest = feed.and_then(|feed| self.newest[feed.index()].clone());
        let table = match newest.clone().filter(|newest| newest.is(map)) {
            Some(same) => same,
            None => Arc::new(self.read(map, feed, out).await?),
        };
        if let Some(feed) = feed {
            if newest.is_some_and(|newest| !Arc::ptr_eq(&newest, &table)) {
                self.metrics.schema_changes.inc();
                tracing::info!(table = %self.feeds.get(feed).name, "the table's definition changed");
            }
            self.newest[feed.index()] = Some(Arc::clone(&table));
        }
        self.by_number.insert(map.id, table);
        Ok(())
    }

    async fn read(&self, map: &TableMap<'_>, feed: Option<FeedId>, out: &Emitter<'_, Token>) -> Result<Table, Error> {
        let columns = match (map.read(), feed) {
            (Ok(table), _) => Some(table.columns),
            (Err(_), None) => None,
            (Err(malformed), Some(feed)) => {
                let reason = format!("its definition in the log cannot be read ({malformed}); leave it out of the feeds");
                return Err(Error::Unfit { table: self.feeds.get(feed).name.to_string(), reason });
            }
        };
        let published = match (feed, &columns) {
            (Some(feed), Some(columns)) => Some(self.publish(feed, columns, out).await?),
            _ => None,
        };
        Ok(Table { schema: map.schema.into(), name: map.name.into(), bytes: map.definition().into(), columns, published })
    }

    async fn publish(&self, feed: FeedId, columns: &[TableColumn], out: &Emitter<'_, Token>) -> Result<Published, Error> {
        // Only a row that is published needs to be readable.
        let Ok(shape) = self.shape(feed, columns) else { return Ok(Published::Unreadable(feed)) };
        let definition = out.prepare(&shape.relation).await?;
        Ok(Published::Readable { definition, shapes: shape.columns })
    }

    fn shape(&self, feed: FeedId, columns: &[TableColumn]) -> Result<Shape, Error> {
        Shape::of(self.feeds.get(feed), columns, &self.hints[feed.index()], &self.charsets)
    }

    /// Why the rows of this table cannot be read.
    pub(super) fn problem(&self, feed: FeedId, columns: &[TableColumn], position: &str) -> Error {
        let table = self.feeds.get(feed).name.to_string();
        if columns.iter().any(|column| column.name.is_none()) {
            return Error::LogLost {
                what: format!(
                    "rows of table {table} at {position} were logged while binlog_row_metadata was not FULL, so their columns are unknown"
                ),
            };
        }
        let reason = "its rows cannot be read".to_owned();
        self.shape(feed, columns).err().unwrap_or(Error::TableChanged { table, reason })
    }

    /// The definition for an event that concerns a feed's whole table.
    pub(super) async fn of_feed(&self, feed: FeedId, out: &Emitter<'_, Token>) -> Result<Definition, Error> {
        if let Some(Published::Readable { definition, .. }) = self.newest[feed.index()].as_ref().and_then(|table| table.published.as_ref())
        {
            return Ok(definition.clone());
        }
        // The log has not described the table yet. Such an event shows no column.
        let feed = self.feeds.get(feed);
        let column = |name: &Arc<str>| Column::new(Arc::clone(name), ColumnKind::Any, feed.key.contains(name));
        let columns = feed.columns.iter().map(column).collect();
        let relation = Relation { feed: feed.id, schema: Arc::clone(&feed.schema), table: Arc::clone(&feed.table), columns };
        Ok(out.prepare(&relation).await?)
    }
}

impl Published {
    pub(super) const fn feed(&self) -> FeedId {
        match self {
            Self::Readable { definition, .. } => definition.feed(),
            Self::Unreadable(feed) => *feed,
        }
    }
}
