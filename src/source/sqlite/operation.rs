//! The operations of the change log, as numbers, and which values a log row of each holds.

/// A new row.
pub(super) const INSERT: i64 = 1;
/// A deleted row: the log holds its key only.
pub(super) const DELETE: i64 = 2;
/// A new row that replaced one with the same key.
pub(super) const REPLACE: i64 = 3;
/// A changed row: the log holds its old key too.
pub(super) const UPDATE: i64 = 4;
/// A row that feedline read again after columns were added.
pub(super) const REREAD: i64 = 5;
/// No row of a table: where feedline began the log anew.
pub(super) const MARK: i64 = 6;

/// Which values a log row of an operation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holds {
    pub(super) old_key: bool,
    pub(super) values: bool,
}

/// Which values rows of an operation hold; `None` for an unknown operation.
pub(super) const fn holds(operation: i64) -> Option<Holds> {
    match operation {
        INSERT => Some(Holds { old_key: false, values: true }),
        DELETE => Some(Holds { old_key: true, values: false }),
        REPLACE | UPDATE | REREAD => Some(Holds { old_key: true, values: true }),
        _ => None,
    }
}
