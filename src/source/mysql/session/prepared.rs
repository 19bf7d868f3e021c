//! Prepared statements: their rows come in the binary form, in which numbers have all their digits.
//!
//! Source: MySQL documentation, "Prepared Statements" (`COM_STMT_PREPARE`, `COM_STMT_EXECUTE`, `COM_STMT_CLOSE`).

use super::definition::{Definition, NextRow, Prepared, counts};
use super::{Part, Reading, Session};
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
