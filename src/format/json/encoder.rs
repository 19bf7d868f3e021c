//! Writes events as JSON: one compact object for each event, fields in a fixed order.
//!
//! All that the rows of a relation share is written once, when the relation is learnt. An event copies it and its values
//! straight into the batch, without an allocation of its own.

use super::{moment, text, value};
use crate::batch::{BatchWriter, Ending};
use crate::event::{Cell, Event, FeedId, Head, Operation, Relation, Row, RowError, Transaction};
use crate::format::envelope::Envelope;
use std::sync::Arc;

/// Writes the events of one relation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Encoder(Arc<Prepared>);

/// The parts of an event that do not depend on the row.
#[derive(Debug)]
struct Prepared {
    feed: FeedId,
    tombstones: bool,
    /// All fixed text, in the order in which an event needs it: with many tables each row finds that of its table cold, and
    /// one stretch of memory is fetched much sooner than twenty small ones.
    text: Box<[u8]>,
    /// `shop/`
    id: Piece,
    /// `","schema":"public","table":"orders","key":`
    table: Piece,
    /// `,"source":{"backend":"postgres","name":"shop","database":"shop","position":"`
    source: Piece,
    columns: Box<[Column]>,
}

/// Where a piece of the fixed text lies.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct Column {
    /// `,"total":`; the first column of an object leaves the comma out.
    label: Piece,
    key: bool,
}

/// Fixed text under way.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    /// The piece that `write` appends.
    fn piece(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Piece {
        let start = self.end();
        write(&mut self.0);
        Piece { start, end: self.end() }
    }

    fn end(&self) -> u32 {
        u32::try_from(self.0.len()).expect("names are short")
    }
}

impl Encoder {
    /// What can be prepared is prepared here.
    #[must_use]
    pub fn new(envelope: &Envelope, relation: &Relation) -> Self {
        let mut text = Text::default();
        let id = text.piece(|out| out.extend_from_slice(format!("{}/", envelope.name).as_bytes()));
        let table = text.piece(|out| {
            labelled(out, br#"","schema":"#, &relation.schema);
            labelled(out, br#","table":"#, &relation.table);
            out.extend_from_slice(br#","key":"#);
        });
        let columns = relation.columns.iter().map(|column| {
            let label = text.piece(|out| {
                labelled(out, b",", &column.name);
                out.push(b':');
            });
            Column { label, key: column.key }
        });
        let columns = columns.collect();
        let source = text.piece(|out| {
            labelled(out, br#","source":{"backend":"#, envelope.backend);
            labelled(out, br#","name":"#, &envelope.name);
            labelled(out, br#","database":"#, &envelope.database);
            out.extend_from_slice(br#","position":""#);
        });
        let text = text.0.into_boxed_slice();
        Self(Arc::new(Prepared { feed: relation.feed, tombstones: envelope.tombstones, text, id, table, source, columns }))
    }

    /// Appends the records of one event. One with a transaction stays open until [`close`].
    ///
    /// # Errors
    /// Where the row's bytes are not a row of the relation; the batch is as before.
    pub fn write<R: Row + Copy>(&self, event: &Event<'_, R>, out: &mut BatchWriter) -> Result<(), RowError> {
        let prepared = &*self.0;
        let mut record = out.begin(Head { feed: prepared.feed, operation: event.operation, timestamp: event.timestamp });
        record.arena().extend_from_slice(prepared.text(prepared.id));
        record.arena().extend_from_slice(event.position.as_bytes());
        record.end_id();
        match event.key {
            Some(row) => prepared.key(&row, record.arena())?,
            None if event.operation.is_table_wide() => record.arena().extend_from_slice(b"null"),
            None => return Err(RowError::Malformed { what: "an event of a row needs its key" }),
        }
        record.end_key();
        if let Some(row) = event.counterpart {
            prepared.key(&row, record.arena())?;
            record.end_related_key();
        }
        record.arena().extend_from_slice(br#"{"v":1,"op":""#);
        record.arena().extend_from_slice(event.operation.name().as_bytes());
        record.arena().extend_from_slice(prepared.text(prepared.table));
        record.repeat_key();
        prepared.rows(event, record.arena())?;
        prepared.source(event, record.arena());
        let ending = if event.transaction.is_some() { Ending::Open } else { Ending::Closed };
        record.end(ending, prepared.tombstones && event.operation == Operation::Delete)
    }
}

/// Completes the open event, if there is one.
pub fn close(out: &mut BatchWriter, last: bool) {
    out.close(if last { b"true}}" } else { b"false}}" });
}

impl Prepared {
    fn text(&self, piece: Piece) -> &[u8] {
        &self.text[piece.start as usize..piece.end as usize]
    }

    /// The key's columns in table order.
    fn key<R: Row>(&self, row: &R, out: &mut Vec<u8>) -> Result<(), RowError> {
        let mut object = Object::open(out);
        self.cells(row, &mut |column, cell| match cell {
            _ if !column.key => Ok(()),
            Cell::Unchanged | Cell::Absent => Err(RowError::Malformed { what: "a key column carries no value" }),
            cell => object.field(self.text(column.label), cell),
        })?;
        object.close();
        Ok(())
    }

    fn rows<R: Row>(&self, event: &Event<'_, R>, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.extend_from_slice(br#","before":"#);
        match &event.before {
            Some(row) => self.row(row, out).map(drop)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","after":"#);
        match &event.after {
            Some(row) if self.row(row, out)? => self.unchanged(row, out),
            Some(_) => Ok(()),
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    /// A row's known values; returns whether the log left others out as unchanged.
    fn row<R: Row>(&self, row: &R, out: &mut Vec<u8>) -> Result<bool, RowError> {
        let mut object = Object::open(out);
        let mut unchanged = false;
        self.cells(row, &mut |column, cell| {
            match cell {
                Cell::Unchanged => unchanged = true,
                Cell::Absent => {}
                cell => object.field(self.text(column.label), cell)?,
            }
            Ok(())
        })?;
        object.close();
        Ok(unchanged)
    }

    /// The names of the values that the log left out: a second look at the row, which few rows need.
    fn unchanged<R: Row>(&self, row: &R, out: &mut Vec<u8>) -> Result<(), RowError> {
        out.extend_from_slice(br#","unchanged":"#);
        let mut separator = b'[';
        self.cells(row, &mut |column, cell| {
            if matches!(cell, Cell::Unchanged) {
                out.push(separator);
                // `"total"`
                let label = self.text(column.label);
                out.extend_from_slice(&label[1..label.len() - 1]);
                separator = b',';
            }
            Ok(())
        })?;
        out.push(b']');
        Ok(())
    }

    /// Visits each cell with its column; the row must have as many cells as the relation has columns.
    fn cells<R: Row>(&self, row: &R, visit: &mut impl FnMut(&Column, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let mut columns = self.columns.iter();
        row.cells(&mut |cell| match columns.next() {
            Some(column) => visit(column, cell),
            None => Err(RowError::Malformed { what: "it has more values than its table has columns" }),
        })?;
        match columns.next() {
            None => Ok(()),
            Some(_) => Err(RowError::Malformed { what: "it has fewer values than its table has columns" }),
        }
    }

    /// Where the event comes from. The place in a transaction is left open before the value of `last`.
    fn source<R>(&self, event: &Event<'_, R>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(self.source));
        out.extend_from_slice(event.position.as_bytes());
        out.extend_from_slice(br#"","committed_at":"#);
        if event.operation.is_prefeed() {
            out.extend_from_slice(b"null");
        } else {
            moment::write(event.timestamp, out);
        }
        let Some(Transaction { id, index }) = event.transaction else {
            return out.extend_from_slice(br#","transaction":null,"index":null,"last":null}}"#);
        };
        out.extend_from_slice(br#","transaction":"#);
        text::write(id, out);
        out.extend_from_slice(br#","index":"#);
        out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        out.extend_from_slice(br#","last":"#);
    }
}

/// An object of columns and values under way.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn field(&mut self, label: &[u8], cell: Cell<'_>) -> Result<(), RowError> {
        self.out.extend_from_slice(if self.empty { &label[1..] } else { label });
        self.empty = false;
        value::write(cell, self.out)
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

fn labelled(out: &mut Vec<u8>, label: &[u8], name: &str) {
    out.extend_from_slice(label);
    text::write(name, out);
}
