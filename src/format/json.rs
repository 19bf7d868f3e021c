//! feedline's own JSON, version 1: one compact object an event, fields in a fixed order.
//!
//! All that the rows of a relation share is written once, when the relation is learnt; an event copies it and its values
//! straight into the batch, without an allocation of its own.

use crate::batch::{BatchWriter, Ending};
use crate::change::{FeedId, Head, Operation};
use crate::format::Envelope;
use crate::row::{Cell, Event, Relation, Row, RowError, Transaction};
use std::sync::Arc;

mod compact;
mod moment;
mod text;
mod value;

/// Writes the events of one relation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Encoder(Arc<Prepared>);

/// The parts of an event that do not depend on the row.
#[derive(Debug)]
struct Prepared {
    feed: FeedId,
    tombstones: bool,
    /// `shop/`
    id: Vec<u8>,
    /// `","schema":"public","table":"orders","key":`
    table: Vec<u8>,
    /// `,"source":{"backend":"postgres","name":"shop","database":"shop","position":"`
    source: Vec<u8>,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    /// `,"total":`; the first column of an object leaves the comma out.
    label: Vec<u8>,
    key: bool,
}

impl Column {
    /// `"total"`
    fn name(&self) -> &[u8] {
        &self.label[1..self.label.len() - 1]
    }
}

impl Encoder {
    /// What can be prepared is prepared here.
    #[must_use]
    pub fn new(envelope: &Envelope, relation: &Relation) -> Self {
        let mut table = Vec::new();
        labelled(&mut table, br#"","schema":"#, &relation.schema);
        labelled(&mut table, br#","table":"#, &relation.table);
        table.extend_from_slice(br#","key":"#);
        let mut source = Vec::new();
        labelled(&mut source, br#","source":{"backend":"#, envelope.backend);
        labelled(&mut source, br#","name":"#, &envelope.name);
        labelled(&mut source, br#","database":"#, &envelope.database);
        source.extend_from_slice(br#","position":""#);
        let columns = relation.columns.iter().map(|column| {
            let mut label = Vec::new();
            labelled(&mut label, b",", &column.name);
            label.push(b':');
            Column { label, key: column.key }
        });
        Self(Arc::new(Prepared {
            feed: relation.feed,
            tombstones: envelope.tombstones,
            id: format!("{}/", envelope.name).into_bytes(),
            table,
            source,
            columns: columns.collect(),
        }))
    }

    /// Appends the records of one event. One with a transaction stays open until [`close`].
    ///
    /// # Errors
    /// Where the row's bytes are not a row of the relation; the batch is as before.
    pub fn write<R: Row + Copy>(&self, event: &Event<'_, R>, out: &mut BatchWriter) -> Result<(), RowError> {
        let prepared = &*self.0;
        let mut record = out.begin(Head { feed: prepared.feed, operation: event.operation, timestamp: event.timestamp });
        record.arena().extend_from_slice(&prepared.id);
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
        record.arena().extend_from_slice(&prepared.table);
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
    /// The key's columns in table order.
    fn key<R: Row>(&self, row: &R, out: &mut Vec<u8>) -> Result<(), RowError> {
        let mut object = Object::open(out);
        self.cells(row, &mut |column, cell| match cell {
            _ if !column.key => Ok(()),
            Cell::Unchanged | Cell::Absent => Err(RowError::Malformed { what: "a key column carries no value" }),
            cell => object.field(column, cell),
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
                cell => object.field(column, cell)?,
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
                out.extend_from_slice(column.name());
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
        out.extend_from_slice(&self.source);
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

    fn field(&mut self, column: &Column, cell: Cell<'_>) -> Result<(), RowError> {
        self.out.extend_from_slice(if self.empty { &column.label[1..] } else { &column.label });
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
