//! Quotes names and strings for SQL.

/// Quotes an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes a string. Sessions have no `NO_BACKSLASH_ESCAPES`, and speak utf8mb4.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Quotes a table's name with its schema.
pub(super) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}
