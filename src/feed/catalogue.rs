//! The catalogue: which tables a source has, and the names of their feeds.

use crate::checkpoint::FeedName;
use std::sync::Arc;

/// A table as the catalogue describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Schema name.
    pub schema: Arc<str>,
    /// Table name.
    pub name: Arc<str>,
    /// Primary key columns in table order; empty without one.
    pub primary_key: Vec<Arc<str>>,
    /// All columns in table order.
    pub columns: Vec<Arc<str>>,
    /// Whether an update may leave out values that it did not change, so that its event names them `unchanged`.
    pub leaves_values_out: bool,
}

/// Which tables a source has.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The database's name, for routes and events.
    pub database: Arc<str>,
    /// Its tables that a pipeline could publish.
    pub tables: Vec<Table>,
}

/// The name of a table over restarts and in headers: `schema.table`, a part that holds a dot or a quote quoted as SQL does.
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
    fn a_name_that_holds_a_dot_or_a_quote_is_quoted() {
        assert_eq!(&*feed_name("public", "orders"), "public.orders");
        assert_eq!(&*feed_name("public", "a.b"), "public.\"a.b\"");
        assert_eq!(&*feed_name("pu\"b", "t"), "\"pu\"\"b\".t");
    }
}
