//! Prepared statements: their rows come in the binary form, in which numbers have all their digits.
//!
//! Source: MySQL documentation, "Prepared Statements" (`COM_STMT_PREPARE`, `COM_STMT_EXECUTE`), "Column Definition".

use super::{Part, Reading, Session, answer};
use crate::source::mysql::error::Error;
use crate::source::mysql::server_error::ServerError;
use crate::source::mysql::wire::Packet;
use std::ops::Range;
use std::task::{Context, Poll};

/// Commands.
mod command {
    pub(super) const PREPARE: u8 = 0x16;
    pub(super) const EXECUTE: u8 = 0x17;
    pub(super) const CLOSE: u8 = 0x19;
}

/// A prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Prepared {
    number: [u8; 4],
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

fn counts(packet: &[u8]) -> Option<(usize, usize)> {
    let [0, _, _, _, _, columns @ ..] = packet else { return None };
    let [columns_low, columns_high, parameters_low, parameters_high, ..] = *columns else { return None };
    let count = |low, high| usize::from(u16::from_le_bytes([low, high]));
    Some((count(columns_low, columns_high), count(parameters_low, parameters_high)))
}

impl Definition {
    fn parse(packet: &[u8]) -> Option<Self> {
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

impl Session {
    /// Prepares a statement. Cancel safe.
    pub(in super::super) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Error> {
        const MALFORMED: Error = Error::Protocol { what: "a prepared statement" };
        self.skip_answers().await?;
        self.wire.command(|out| {
            out.push(command::PREPARE);
            out.extend_from_slice(sql.as_bytes());
        });
        (self.unanswered, self.progress) = (1, Reading::Prepared);
        self.wire.flush().await?;
        let head = self.packet_of_answer().await?;
        let mut part = self.advance(&head)?;
        let (columns, parameters) = counts(&head).ok_or(MALFORMED)?;
        let number = head.get(1..5).and_then(|number| number.try_into().ok()).ok_or(MALFORMED)?;
        let mut described = Vec::with_capacity(columns);
        for index in 0..columns + parameters {
            let packet = self.packet_of_answer().await?;
            part = self.advance(&packet)?;
            if parameters <= index {
                described.push(Definition::parse(&packet).ok_or(MALFORMED)?);
            }
        }
        if part == Part::End { Ok(Prepared { number, parameters, columns: described }) } else { Err(MALFORMED) }
    }

    /// Executes a statement without parameters. Its rows are read by [`Self::next_row`].
    pub(in super::super) async fn execute(&mut self, statement: &Prepared) -> Result<(), Error> {
        self.skip_answers().await?;
        self.wire.command(|out| {
            out.push(command::EXECUTE);
            out.extend_from_slice(&statement.number);
            // No cursor; one execution.
            out.extend_from_slice(&[0, 1, 0, 0, 0]);
        });
        self.unanswered = 1;
        self.wire.flush().await
    }

    /// Forgets a prepared statement with the next command; the server does not answer it.
    pub(in super::super) fn forget(&mut self, statement: &Prepared) {
        self.wire.command(|out| {
            out.push(command::CLOSE);
            out.extend_from_slice(&statement.number);
        });
    }

    /// The next row that has arrived. Does not wait for input. The row stays the next one until [`Self::take_row`].
    pub(in super::super) fn next_row(&mut self) -> Result<NextRow, Error> {
        while 0 < self.unanswered {
            let Some(packet) = self.wire.packet()? else { return Ok(NextRow::Pending) };
            let body = self.wire.body(&packet);
            if body.first() == Some(&0xFF) {
                let error = ServerError::parse(body);
                self.wire.consume(&packet);
                self.finish();
                return Err(Error::from_server(error, self.wire.address(), &self.user));
            }
            let (part, progress) = self.progress.behind(body)?;
            if part == Part::Row {
                return Ok(NextRow::Row(packet));
            }
            self.progress = progress;
            self.wire.consume(&packet);
            if part == Part::End {
                self.finish();
            }
        }
        Ok(NextRow::Ended)
    }

    /// The bytes of a row that was not taken yet.
    pub(in super::super) fn row(&self, packet: &Packet) -> &[u8] {
        self.wire.body(packet)
    }

    /// Moves on behind a row. Returns the places of its bytes, which [`Self::at`] reads until the next input.
    pub(in super::super) fn take_row(&mut self, packet: &Packet) -> Range<usize> {
        let places = self.wire.places(packet);
        self.wire.consume(packet);
        places
    }

    /// The bytes at these places.
    pub(in super::super) fn at(&self, places: Range<usize>) -> &[u8] {
        self.wire.at(places)
    }

    /// Reads input that has arrived.
    pub(in super::super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.wire.poll_input(context)
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
