//! The feeds of a run: the configured tables with their routes.

use crate::checkpoint::FeedName;
use crate::event::{FeedId, Operation, Operations};
use crate::feed::pattern::TablePattern;
use crate::feed::route::Destination;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// What a feed publishes before its live events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefeedKind {
    /// Nothing.
    None,
    /// The table's rows.
    Snapshot,
    /// The rows of a query, read as the table's are.
    Query(Arc<str>),
    /// The rows of a file of JSON lines.
    File(Arc<Path>),
}

impl PrefeedKind {
    /// Whether rows are read from the database, under a snapshot.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Snapshot | Self::Query(_))
    }
}

/// One table that is published.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Its index in [`Feeds`].
    pub id: FeedId,
    /// Its name over restarts.
    pub name: FeedName,
    /// Schema name; `main` for SQLite.
    pub schema: Arc<str>,
    /// Table name.
    pub table: Arc<str>,
    /// Which live operations are published.
    pub operations: Operations,
    /// What comes before the live events.
    pub prefeed: PrefeedKind,
    /// Lower stages are delivered whole before higher ones begin.
    pub stage: u32,
    /// Key columns in table order.
    pub key: Vec<Arc<str>>,
    /// All columns in table order.
    pub columns: Vec<Arc<str>>,
    /// As [`Table::leaves_values_out`].
    pub leaves_values_out: bool,
    /// Where its records go, by operation in the order of [`Operation::ALL`]; all the same unless the route names the operation.
    pub destinations: [Destination; Operation::ALL.len()],
}

impl Feed {
    /// Whether records of this operation are sent: where the mask admits it, and the halves of an update that changes the key.
    #[must_use]
    pub const fn sends(&self, operation: Operation) -> bool {
        let is_half = matches!(operation, Operation::Insert | Operation::Delete);
        self.operations.admits(operation) || (is_half && self.operations.admits(Operation::Update))
    }

    /// Where its records go, in the order of their operations; the same destination may come more than once.
    pub fn destinations_used(&self) -> impl Iterator<Item = &Destination> {
        Operation::ALL.into_iter().filter(|operation| self.sends(*operation)).map(|operation| self.destination(operation))
    }

    /// Where a record of this operation goes.
    #[must_use]
    pub const fn destination(&self, operation: Operation) -> &Destination {
        &self.destinations[operation as usize]
    }
}

/// Every feed of this run, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    list: Vec<Feed>,
    by_table: HashMap<(Arc<str>, Arc<str>), FeedId>,
    /// What the configuration means, now and later.
    patterns: Vec<TablePattern>,
    /// The schema of a pattern that names none.
    default_schema: &'static str,
}

impl Feeds {
    /// These feeds; their ids become their places.
    ///
    /// # Panics
    /// When there are 2^32 of them: a catalogue is read into memory whole before.
    #[must_use]
    pub fn new(mut list: Vec<Feed>) -> Self {
        for (index, feed) in list.iter_mut().enumerate() {
            feed.id = FeedId(u32::try_from(index).expect("fewer than 2^32 tables"));
        }
        let by_table = list.iter().map(|feed| ((feed.schema.clone(), feed.table.clone()), feed.id)).collect();
        Self { list, by_table, patterns: Vec::new(), default_schema: "" }
    }

    /// The same, which knows which other tables would be among them by their names.
    #[must_use]
    pub fn meaning(self, patterns: Vec<TablePattern>, default_schema: &'static str) -> Self {
        Self { patterns, default_schema, ..self }
    }

    /// Whether a table of this name is meant, but is not among them: it was made later.
    #[must_use]
    pub fn is_missing(&self, schema: &str, table: &str) -> bool {
        self.of_table(schema, table).is_none() && self.patterns.iter().any(|pattern| pattern.matches(schema, table, self.default_schema))
    }

    /// The feed with this id.
    #[must_use]
    pub fn get(&self, id: FeedId) -> &Feed {
        &self.list[id.index()]
    }

    /// The feed of this table; `None` where the table is not published.
    #[must_use]
    pub fn of_table(&self, schema: &str, table: &str) -> Option<&Feed> {
        self.by_table.get(&(Arc::from(schema), Arc::from(table))).map(|id| self.get(*id))
    }

    /// All feeds in the order of their ids.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Feed> + Clone {
        self.list.iter()
    }

    /// Number of feeds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no table is published.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
