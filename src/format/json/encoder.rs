//! Writes events as JSON: one compact object for each event, fields in a fixed order.
//!
//! Text that all rows of a relation share is prepared once for each relation. An event copies it, and its values, straight into
//! the batch, without an allocation of its own.

use super::{text, timestamp, value};
use crate::batch::{BatchWriter, Ending, OpenBody, RecordWriter};
use crate::event::{Cell, Event, FeedId, Head, Operation, Relation, Row, RowError, Seen, Transaction};
use crate::format::envelope::Envelope;
use crate::format::error::Error;
use std::sync::Arc;

/// The media type of each event.
pub const CONTENT_TYPE: &str = "application/json";

/// Encodes the events of one relation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Encoder(Arc<Prepared>);

/// The parts of an event that are the same for all rows.
#[derive(Debug)]
struct Prepared {
    feed: FeedId,
    tombstones: bool,
    /// All fixed text, in the order in which an event uses it. With many tables it is rarely in the processor's cache, and one
    /// block of memory is fetched much faster than twenty small ones.
    text: Box<[u8]>,
    /// `shop/`
    id: TextRange,
    /// `","schema":"public","table":"orders","key":`
    table: TextRange,
    /// `,"source":{"backend":"postgres","name":"shop","database":"shop","position":"`
    source: TextRange,
    columns: Box<[Column]>,
}

/// A range of the fixed text.
#[derive(Clone, Copy, Debug)]
struct TextRange {
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct Column {
    /// `,"total":`. The first column of an object leaves the comma out.
    label: TextRange,
    key: bool,
}

/// Builds the fixed text.
#[derive(Default)]
struct TextBuilder(Vec<u8>);

impl TextBuilder {
    /// The range of what `write` appends.
    fn range(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> TextRange {
        let start = self.end();
        write(&mut self.0);
        TextRange { start, end: self.end() }
    }

    /// Where the next text begins; `u32::MAX` if it is too far for a range.
    fn end(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn finish(self, relation: &Relation) -> Result<Box<[u8]>, Error> {
        if self.end() == u32::MAX {
            return Err(Error::Unfit { table: relation.table.to_string(), reason: "its names have more than 4 GiB" });
        }
        Ok(self.0.into_boxed_slice())
    }
}

impl Encoder {
    /// Prepares the encoder of a relation.
    ///
    /// # Errors
    /// If the table's names are too long.
    pub fn new(envelope: &Envelope, relation: &Relation) -> Result<Self, Error> {
        let mut text = TextBuilder::default();
        let id = text.range(|out| out.extend_from_slice(format!("{}/", envelope.name).as_bytes()));
        let table = text.range(|out| {
            labelled(out, br#"","schema":"#, &relation.schema);
            labelled(out, br#","table":"#, &relation.table);
            out.extend_from_slice(br#","key":"#);
        });
        let columns = relation.columns.iter().map(|column| {
            let label = text.range(|out| {
                labelled(out, b",", &column.name);
                out.push(b':');
            });
            Column { label, key: column.key }
        });
        let columns = columns.collect();
        let source = text.range(|out| {
            labelled(out, br#","source":{"backend":"#, envelope.backend);
            labelled(out, br#","name":"#, &envelope.name);
            labelled(out, br#","database":"#, &envelope.database);
            out.extend_from_slice(br#","position":""#);
        });
        let text = text.finish(relation)?;
        Ok(Self(Arc::new(Prepared { feed: relation.feed, tombstones: envelope.tombstones, text, id, table, source, columns })))
    }

    /// Appends the records of one event. An event with a transaction stays open until [`close`].
    ///
    /// # Errors
    /// If the row does not fit the relation. The batch is then unchanged.
    pub fn write<R: Row + Copy>(&self, event: &Event<'_, R>, out: &mut BatchWriter) -> Result<(), RowError> {
        let mut record = self.begin(event, out)?;
        self.body(event, &mut record)?;
        self.end(event, record)
    }

    /// Begins the record of an event: id, key and related key.
    pub(in crate::format) fn begin<'w, R: Row + Copy>(
        &self,
        event: &Event<'_, R>,
        out: &'w mut BatchWriter,
    ) -> Result<RecordWriter<'w>, RowError> {
        let prepared = &*self.0;
        let mut record = out.begin(Head { feed: prepared.feed, operation: event.operation, timestamp: event.timestamp });
        record.arena().extend_from_slice(prepared.text(prepared.id));
        record.arena().extend_from_slice(event.position.as_bytes());
        record.end_id();
        match event.key {
            Some(row) => prepared.key(&row, record.arena())?,
            None if event.operation.is_table_wide() => record.arena().extend_from_slice(b"null"),
            None => return Err(RowError::Malformed { what: "its event has no key" }),
        }
        record.end_key();
        if let Some(row) = event.counterpart {
            prepared.key(&row, record.arena())?;
            record.end_related_key();
        }
        Ok(record)
    }

    /// Appends the JSON of an event. With a transaction, it ends before the value of `last`, which [`complete`] adds.
    pub(in crate::format) fn body<R: Row + Copy>(&self, event: &Event<'_, R>, record: &mut RecordWriter<'_>) -> Result<(), RowError> {
        let prepared = &*self.0;
        record.arena().extend_from_slice(br#"{"v":1,"op":""#);
        record.arena().extend_from_slice(event.operation.name().as_bytes());
        record.arena().extend_from_slice(prepared.text(prepared.table));
        record.repeat_key();
        prepared.rows(event, record.arena())?;
        prepared.source(event, record.arena());
        Ok(())
    }

    /// Ends the record of an event, and appends the tombstone of a delete.
    pub(in crate::format) fn end<R>(&self, event: &Event<'_, R>, record: RecordWriter<'_>) -> Result<(), RowError> {
        let ending = if matches!(event.seen, Seen::In(_)) { Ending::Open } else { Ending::Closed };
        record.end(ending, self.0.tombstones && event.operation == Operation::Delete)
    }
}

/// Completes the open event, if there is one. `last` says whether it is the last of its transaction.
pub fn close(out: &mut BatchWriter, last: bool) {
    out.close(|body| complete(body, last));
}

/// Appends the value of `last`, and the end of the event.
pub(in crate::format) fn complete(body: &mut OpenBody<'_>, last: bool) {
    body.append(if last { b"true}}" } else { b"false}}" });
}

impl Prepared {
    fn text(&self, range: TextRange) -> &[u8] {
        &self.text[range.start as usize..range.end as usize]
    }

    /// Appends the key: its columns in table order.
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

    /// Appends the known values of a row. Returns whether the log left out others, because they did not change.
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

    /// Appends the names of the values that the log left out. This visits the row a second time; few rows need it.
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

    /// Visits each cell with its column.
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

    /// Appends `source`. With a transaction, the event ends before the value of `last`, which [`complete`] adds.
    fn source<R>(&self, event: &Event<'_, R>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(self.source));
        out.extend_from_slice(event.position.as_bytes());
        out.extend_from_slice(br#"","committed_at":"#);
        if event.operation.is_prefeed() {
            out.extend_from_slice(b"null");
        } else {
            timestamp::write(event.timestamp, out);
        }
        let Transaction { id, index } = match event.seen {
            Seen::In(transaction) => transaction,
            Seen::Alone => return out.extend_from_slice(br#","transaction":null,"index":null,"last":null}}"#),
            Seen::ByComparison => {
                return out.extend_from_slice(br#","transaction":null,"index":null,"last":null,"compensating":true}}"#);
            }
        };
        out.extend_from_slice(br#","transaction":"#);
        text::write(id, out);
        out.extend_from_slice(br#","index":"#);
        out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        out.extend_from_slice(br#","last":"#);
    }
}

/// Writes an object of columns and values.
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
