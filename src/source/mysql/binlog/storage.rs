//! How the values of a column are stored in the log, by the type in the table's definition there.
//!
//! Source: MySQL 9.7 `libs/mysql/binlog/event/rows_event.h` (`Table_map_event`), `sql/rpl_utility.cc`; MariaDB 11.4 `sql/log_event_data_type.h`.

use super::bytes::{Malformed, Reader};
use super::decimal;
use super::temporal::fraction_length;
use std::sync::Arc;

/// How the values of a column are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// An integer.
    Integer {
        /// 1, 2, 3, 4 or 8.
        bytes: u8,
        /// Whether it has no negative values.
        unsigned: bool,
    },
    /// `FLOAT`.
    Float,
    /// `DOUBLE`.
    Double,
    /// `DECIMAL`.
    Decimal {
        /// Digits.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// `YEAR`.
    Year,
    /// `BIT`.
    Bit {
        /// 1 to 64.
        bits: u8,
    },
    /// `DATE`.
    Date,
    /// `TIME`.
    Time {
        /// Digits of the fraction of a second.
        digits: u8,
    },
    /// `DATETIME`.
    DateTime {
        /// Digits of the fraction of a second.
        digits: u8,
    },
    /// `TIMESTAMP`.
    Timestamp {
        /// Digits of the fraction of a second.
        digits: u8,
    },
    /// `TIME` in the format of before MySQL 5.6.
    OldTime,
    /// `DATETIME` in the format of before MySQL 5.6.
    OldDateTime,
    /// `TIMESTAMP` in the format of before MySQL 5.6.
    OldTimestamp,
    /// `ENUM`: the number of a label.
    Enumeration {
        /// 1 or 2.
        bytes: u8,
        /// Its labels.
        labels: Labels,
    },
    /// `SET`: a bit for each label.
    Set {
        /// 1 to 8.
        bytes: u8,
        /// Its labels.
        labels: Labels,
    },
    /// Text or bytes, after their length.
    Characters {
        /// How many bytes the length has: 1 to 4.
        prefix: u8,
        /// The most bytes of a value, where the definition says it.
        length: Option<u16>,
        /// The number of its collation; 63 for bytes.
        collation: u32,
        /// Whether its bytes are padded to their full length: `CHAR` and `BINARY`.
        is_padded: bool,
        /// Whether each value may be compressed (MariaDB's `COMPRESSED`).
        is_compressed: bool,
    },
    /// `JSON` of MySQL, in its binary form.
    Json {
        /// How many bytes the length has.
        prefix: u8,
    },
    /// `GEOMETRY` and its kinds: four bytes for the reference system, then well-known binary.
    Geometry {
        /// How many bytes the length has.
        prefix: u8,
    },
    /// `VECTOR` of MySQL: numbers of four bytes.
    Vector {
        /// How many bytes the length has.
        prefix: u8,
    },
}

/// The labels of an `ENUM` or `SET`, in the encoding of its collation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The labels in order; empty where the definition does not name them.
    pub texts: Arc<[Box<[u8]>]>,
    /// The number of the collation.
    pub collation: u32,
}

/// The collation of bytes.
pub const BINARY: u32 = 63;

impl Storage {
    /// Reads the type's details from the definition's own list of them.
    pub(super) fn read(kind: u8, details: &mut Reader<'_>) -> Result<Self, Malformed> {
        let integer = |bytes| Self::Integer { bytes, unsigned: false };
        let characters = |prefix, length| Self::Characters { prefix, length, collation: BINARY, is_padded: false, is_compressed: false };
        Ok(match kind {
            1 => integer(1),
            2 => integer(2),
            9 => integer(3),
            3 => integer(4),
            8 => integer(8),
            4 => {
                details.byte()?;
                Self::Float
            }
            5 => {
                details.byte()?;
                Self::Double
            }
            246 => {
                let [precision, scale] = details.array()?;
                decimal::length(precision, scale).ok_or(Malformed("definition of a table: DECIMAL"))?;
                Self::Decimal { precision, scale }
            }
            13 => Self::Year,
            16 => {
                let [bits, bytes] = details.array()?;
                let bits = bytes.checked_mul(8).and_then(|whole| whole.checked_add(bits)).filter(|bits| *bits <= 64);
                Self::Bit { bits: bits.ok_or(Malformed("definition of a table: BIT"))? }
            }
            10 | 14 => Self::Date,
            19 => Self::Time { digits: digits(details)? },
            18 => Self::DateTime { digits: digits(details)? },
            17 => Self::Timestamp { digits: digits(details)? },
            11 => Self::OldTime,
            12 => Self::OldDateTime,
            7 => Self::OldTimestamp,
            15 | 253 => {
                let length = u16::from_le_bytes(details.array()?);
                characters(prefix_of(length), Some(length))
            }
            254 => Self::string(details.array()?)?,
            249..=252 => characters(prefix(details)?, None),
            // MariaDB's compressed columns.
            140 => compressed(characters(prefix(details)?, None)),
            141 => {
                let length = u16::from_le_bytes(details.array()?);
                compressed(characters(prefix_of(length), Some(length)))
            }
            245 => Self::Json { prefix: prefix(details)? },
            255 => Self::Geometry { prefix: prefix(details)? },
            242 => Self::Vector { prefix: prefix(details)? },
            _ => return Err(Malformed("definition of a table: a type that is not known")),
        })
    }

    /// `CHAR`, `BINARY`, `ENUM` or `SET`: the first byte is the type. Two bits of it, inverted, belong to the length of a long `CHAR`.
    fn string([kind, length]: [u8; 2]) -> Result<Self, Malformed> {
        Ok(match kind {
            247 | 248 if !(1..=8).contains(&length) => return Err(Malformed("definition of a table: ENUM or SET")),
            247 => Self::Enumeration { bytes: length, labels: Labels::default() },
            248 => Self::Set { bytes: length, labels: Labels::default() },
            _ => {
                let length = u16::from(length) | u16::from(!kind & 0x30) << 4;
                let prefix = prefix_of(length);
                Self::Characters { prefix, length: Some(length), collation: BINARY, is_padded: true, is_compressed: false }
            }
        })
    }

    /// Whether the definition says of this column whether it is unsigned.
    pub(super) const fn is_numeric(&self) -> bool {
        matches!(self, Self::Integer { .. } | Self::Float | Self::Double | Self::Decimal { .. } | Self::Year)
    }

    /// Whether the definition says which collation this column has.
    pub(super) const fn has_collation(&self) -> bool {
        matches!(self, Self::Characters { .. })
    }

    /// Takes the bytes of one value, without its length.
    #[inline]
    pub(super) fn take<'a>(&self, reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
        let length = match self {
            Self::Integer { bytes, .. } | Self::Enumeration { bytes, .. } | Self::Set { bytes, .. } => usize::from(*bytes),
            Self::Float | Self::OldTimestamp => 4,
            Self::Double | Self::OldDateTime => 8,
            Self::Decimal { precision, scale } => decimal::length(*precision, *scale).unwrap_or_default(),
            Self::Year => 1,
            Self::Bit { bits } => usize::from(bits.div_ceil(8)),
            Self::Date | Self::OldTime => 3,
            Self::Time { digits } => 3 + fraction_length(*digits),
            Self::DateTime { digits } => 5 + fraction_length(*digits),
            Self::Timestamp { digits } => 4 + fraction_length(*digits),
            Self::Characters { prefix, .. } | Self::Json { prefix } | Self::Geometry { prefix } | Self::Vector { prefix } => {
                reader.length(usize::from(*prefix))?
            }
        };
        reader.take(length)
    }
}

fn compressed(storage: Storage) -> Storage {
    match storage {
        Storage::Characters { prefix, length, collation, is_padded, .. } => {
            Storage::Characters { prefix, length, collation, is_padded, is_compressed: true }
        }
        other => other,
    }
}

/// How many bytes the length of a value has, by the longest value.
const fn prefix_of(length: u16) -> u8 {
    if length < 256 { 1 } else { 2 }
}

fn prefix(details: &mut Reader<'_>) -> Result<u8, Malformed> {
    let prefix = details.byte()?;
    if (1..=4).contains(&prefix) { Ok(prefix) } else { Err(Malformed("definition of a table: the length of a value's length")) }
}

fn digits(details: &mut Reader<'_>) -> Result<u8, Malformed> {
    let digits = details.byte()?;
    if digits <= 6 { Ok(digits) } else { Err(Malformed("definition of a table: digits of a second")) }
}
