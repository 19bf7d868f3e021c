//! Why no snapshot could be opened.

/// What holds a snapshot up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Transactions of others.
    ByTransactions,
    /// Something else, in words for a person.
    By(String),
}
