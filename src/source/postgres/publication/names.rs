//! Names of tables, as the publication compares and prints them.

use crate::feed::Feed;
use crate::source::postgres::quote::table;
use std::collections::BTreeSet;

/// Tables, by schema and name.
pub(super) type Tables = BTreeSet<(String, String)>;

/// The schema and name of the feed's table.
pub(super) fn name_of(feed: &Feed) -> (String, String) {
    (feed.schema.to_string(), feed.table.to_string())
}

/// The tables as a list in SQL. Without `ONLY`, tables that inherit from them would be published too, under their own names.
pub(super) fn list<'t>(tables: impl IntoIterator<Item = &'t (String, String)>) -> String {
    tables.into_iter().map(|(schema, name)| format!("ONLY {}", table(schema, name))).collect::<Vec<_>>().join(", ")
}
