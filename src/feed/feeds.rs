//! The feeds of a run: the published tables and their destinations.

use crate::checkpoint::FeedName;
use crate::event::{FeedId, Operation, Operations};
use crate::feed::catalogue::TableName;
use crate::feed::route::Destination;
use crate::feed::selection::Selection;
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
    /// The rows of a query, read in the same way as a table.
    Query(Arc<str>),
    /// The rows of a file of JSON lines.
    File(Arc<Path>),
}

impl PrefeedKind {
    /// Its name, without the query or the path.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snapshot => "snapshot",
            Self::Query(_) => "query",
            Self::File(_) => "file",
        }
    }

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
    /// The feed's name, which stays the same over restarts.
    pub name: FeedName,
    /// The schema's name; `main` for SQLite.
    pub schema: Arc<str>,
    /// The table's name.
    pub table: Arc<str>,
    /// Which live operations are published.
    pub operations: Operations,
    /// What comes before the live events.
    pub prefeed: PrefeedKind,
    /// Prefeeds of a lower stage are delivered completely before those of a higher stage begin.
    pub stage: u32,
    /// Key columns in table order.
    pub key: Vec<Arc<str>>,
    /// All columns in table order.
    pub columns: Vec<Arc<str>>,
    /// See [`Table::leaves_values_out`](crate::feed::Table::leaves_values_out).
    pub leaves_values_out: bool,
    /// The destination of each operation, in the order of [`Operation::ALL`]. All are equal unless the route contains the operation.
    pub destinations: [Destination; Operation::ALL.len()],
}

impl Feed {
    /// Whether records of this operation are sent. An update that changes the key is sent as a delete and an insert.
    #[must_use]
    pub const fn sends(&self, operation: Operation) -> bool {
        let may_be_key_change = matches!(operation, Operation::Insert | Operation::Delete);
        self.operations.admits(operation) || (may_be_key_change && self.operations.admits(Operation::Update))
    }

    /// The destinations of its records, in the order of their operations. A destination may occur more than once.
    pub fn destinations_used(&self) -> impl Iterator<Item = &Destination> {
        Operation::ALL.into_iter().filter(|operation| self.sends(*operation)).map(|operation| self.destination(operation))
    }

    /// The destination of records of this operation.
    #[must_use]
    pub const fn destination(&self, operation: Operation) -> &Destination {
        &self.destinations[operation as usize]
    }
}

/// Every feed of this run, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    list: Vec<Feed>,
    by_table: HashMap<TableName, FeedId>,
    /// What is configured, which may match further tables later.
    selections: Vec<Selection>,
    /// The schema of a pattern without a schema.
    default_schema: Arc<str>,
}

impl Feeds {
    /// Sets each feed's id to its index in the list.
    ///
    /// # Panics
    /// If there are 2^32 feeds or more. A catalogue of that size does not fit into memory.
    #[must_use]
    pub fn new(mut list: Vec<Feed>) -> Self {
        for (index, feed) in list.iter_mut().enumerate() {
            feed.id = FeedId(u32::try_from(index).expect("fewer than 2^32 tables"));
        }
        let by_table = list.iter().map(|feed| ((feed.schema.clone(), feed.table.clone()), feed.id)).collect();
        Self { list, by_table, selections: Vec::new(), default_schema: Arc::default() }
    }

    /// Adds what is configured, for [`Self::is_missing`].
    #[must_use]
    pub fn with_selections(self, selections: Vec<Selection>, default_schema: &str) -> Self {
        Self { selections, default_schema: default_schema.into(), ..self }
    }

    /// Whether this table is configured but there is no feed for it: the table was created later.
    #[must_use]
    pub fn is_missing(&self, schema: &str, table: &str) -> bool {
        self.of_table(schema, table).is_none() && self.selections.iter().any(|selection| selection.has(schema, table, &self.default_schema))
    }

    /// The feed with this id.
    #[must_use]
    pub fn get(&self, id: FeedId) -> &Feed {
        &self.list[id.index()]
    }

    /// The feed of this table; `None` if the table is not published.
    #[must_use]
    pub fn of_table(&self, schema: &str, table: &str) -> Option<&Feed> {
        self.by_table.get(&(Arc::from(schema), Arc::from(table))).map(|id| self.get(*id))
    }

    /// All feeds in the order of their ids.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Feed> + Clone {
        self.list.iter()
    }

    /// The number of feeds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are no feeds.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
