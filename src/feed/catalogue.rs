//! The catalogue: the tables of a source, and the names of their feeds.

use crate::checkpoint::FeedName;
use std::sync::Arc;

/// Schema and name of a table or a view.
pub type TableName = (Arc<str>, Arc<str>);

/// A table in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The schema's name.
    pub schema: Arc<str>,
    /// The table's name.
    pub name: Arc<str>,
    /// The columns of the primary key in table order; empty without a primary key.
    pub primary_key: Vec<Arc<str>>,
    /// All columns in table order.
    pub columns: Vec<Arc<str>>,
    /// Whether the log of an update may leave out values that did not change. The event then lists them as `unchanged`.
    pub leaves_values_out: bool,
}

/// The tables of a source.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The database's name, for routes and events.
    pub database: Arc<str>,
    /// The tables that a pipeline could publish, without those that feedline made.
    pub tables: Vec<Table>,
    /// The views: a pattern may name one by mistake.
    pub views: Vec<TableName>,
}

/// The name of a table's feed, in headers and over restarts: `schema.table`. A part that contains a dot or a quote is quoted as in
/// SQL.
#[must_use]
pub fn feed_name(schema: &str, table: &str) -> FeedName {
    let part = |name: &str| {
        if name.contains(['.', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
    };
    format!("{}.{}", part(schema), part(table)).into()
}

#[cfg(test)]
mod tests {
    use super::feed_name;

    #[test]
    fn a_name_with_a_dot_or_a_quote_is_quoted() {
        assert_eq!(&*feed_name("public", "orders"), "public.orders");
        assert_eq!(&*feed_name("public", "a.b"), "public.\"a.b\"");
        assert_eq!(&*feed_name("pu\"b", "t"), "\"pu\"\"b\".t");
    }
}
