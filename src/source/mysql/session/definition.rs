//! What the server says of a prepared statement (MySQL documentation, "`COM_STMT_PREPARE`", "Column Definition").

use super::answer;
use crate::source::mysql::wire::Packet;

/// A prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Prepared {
    pub(super) number: [u8; 4],
    /// How many values it asks for.
    pub(in super::super) parameters: usize,
    /// The columns of its rows.
    pub(in super::super) columns: Vec<Definition>,
}

/// What the server says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Definition {
    pub(in super::super) name: String,
    /// The number of its type.
    pub(in super::super) kind: u8,
    /// The number of the collation of its text; 63 for bytes.
    pub(in super::super) collation: u32,
    /// The most bytes of a value as text.
    pub(in super::super) length: u32,
    pub(in super::super) is_not_null: bool,
    pub(in super::super) is_unsigned: bool,
    /// Digits behind the point, or of the fraction of a second.
    pub(in super::super) decimals: u8,
}

/// The next row of a statement, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum NextRow {
    /// A row.
    Row(Packet),
    /// None has arrived yet.
    Pending,
    /// There are no more.
    Ended,
}

/// How many descriptions of parameters and columns follow the first packet of the answer.
pub(super) fn definitions(packet: &[u8]) -> Option<usize> {
    let (columns, parameters) = counts(packet)?;
    Some(columns + parameters)
}

pub(super) fn counts(packet: &[u8]) -> Option<(usize, usize)> {
    let [0, _, _, _, _, columns @ ..] = packet else { return None };
    let [columns_low, columns_high, parameters_low, parameters_high, ..] = *columns else { return None };
    let count = |low, high| usize::from(u16::from_le_bytes([low, high]));
    Some((count(columns_low, columns_high), count(parameters_low, parameters_high)))
}

impl Definition {
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let (mut rest, mut name) = (packet, &packet[..0]);
        // Catalogue, schema, alias and name of the table; then alias and name of the column, of which the alias counts.
        for part in 0..6 {
            let length;
            (length, rest) = answer::packed(rest)?;
            let value;
            (value, rest) = rest.split_at_checked(length)?;
            if part == 4 {
                name = value;
            }
        }
        let (_, rest) = answer::packed(rest)?;
        let [collation_low, collation_high, l0, l1, l2, l3, kind, flags_low, _, decimals, ..] = *rest else { return None };
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            kind,
            collation: u16::from_le_bytes([collation_low, collation_high]).into(),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            is_not_null: flags_low & 1 == 1,
            is_unsigned: flags_low & 0x20 != 0,
            decimals,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Definition, counts};

    #[test]
    fn a_column_is_described_by_its_alias_and_its_type() {
        let packet = [&b"\x03def\x01s\x01t\x01t\x04name\x02id\x0C"[..], &[63, 0, 20, 0, 0, 0, 8, 0x21, 0, 0, 0, 0]].concat();
        let definition = Definition::parse(&packet).unwrap();
        assert_eq!((&*definition.name, definition.kind, definition.collation, definition.length), ("name", 8, 63, 20));
        assert!(definition.is_not_null && definition.is_unsigned);
        for length in 0..packet.len() - 2 {
            assert_eq!(Definition::parse(&packet[..length]), None, "{length}");
        }
        assert_eq!((counts(&[0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0]), counts(&[0, 1, 0, 0, 0, 2])), (Some((2, 1)), None));
    }
}
