//! Builds pieces of SQL: quoted names and lists of columns.

use std::fmt::Write as _;

/// A name, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `, k0, k1, ...`: numbered columns, to be appended to a list.
pub(super) fn numbered(prefix: &str, count: usize) -> String {
    (0..count).fold(String::new(), |mut list, index| {
        write!(list, ", {prefix}{index}").expect("a string takes all");
        list
    })
}

/// `, row."a", row."b", ...`: columns of a row, to be appended to a list.
pub(super) fn of_row<'n>(row: &str, names: impl Iterator<Item = &'n str>) -> String {
    names.fold(String::new(), |mut list, name| {
        write!(list, ", {row}.{}", quoted(name)).expect("a string takes all");
        list
    })
}
