//! The kinds of columns, as a source declares them.

use std::sync::Arc;

/// What the values of a column are, in the source's own terms. It says which [`Cell`](crate::event::Cell) its values are.
///
/// Whatever its kind, a value may also be null, unchanged or absent, and bytes ([`MisplacedBytes`](crate::event::Cell::MisplacedBytes))
/// if it is text that is not valid in the database's encoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Any cell: the source does not say, or lets each row decide.
    Any,
    /// `Boolean`.
    Boolean,
    /// `Integer`, `Signed` or `Unsigned`.
    Integer {
        /// Width: 8, 16, 24, 32 or 64.
        bits: u8,
        /// Whether it has no negative values.
        unsigned: bool,
    },
    /// `Float` or `Double`.
    Float {
        /// Width: 32 or 64.
        bits: u8,
    },
    /// `Decimal`.
    Decimal {
        /// The most significant digits; `None` if each value has its own.
        precision: Option<u16>,
        /// Digits after the point; negative if the last digits before it are always 0. `None` if each value has its own.
        scale: Option<i16>,
    },
    /// `Text`: also of types that only the source can read, in the source's spelling.
    Text {
        /// The most characters; `None` if there is no limit.
        length: Option<u32>,
    },
    /// `Bytes`.
    Bytes {
        /// The most bytes; `None` if there is no limit.
        length: Option<u32>,
    },
    /// `Text` of 36 characters.
    Uuid,
    /// `Json` or `Object`.
    Json,
    /// `Date`.
    Date,
    /// `Time`.
    Time {
        /// Digits of the fraction of a second, at most.
        precision: u8,
    },
    /// `Timestamp`, without a time zone.
    Timestamp {
        /// Digits of the fraction of a second, at most.
        precision: u8,
    },
    /// `TimestampUtc`.
    TimestampUtc {
        /// Digits of the fraction of a second, at most.
        precision: u8,
    },
    /// `Interval`.
    Interval,
    /// `Text`, one of these labels.
    Enumeration {
        /// The labels when the definition was read. Labels may be added later without a new definition.
        labels: Arc<[Arc<str>]>,
    },
    /// `Array`, with one dimension or several.
    Array {
        /// The kind of the innermost elements.
        element: Arc<Self>,
    },
}
