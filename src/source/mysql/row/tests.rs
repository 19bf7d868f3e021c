//! Shows the rows of logs that were recorded from real servers, cell by cell.
//!
//! `GOLDEN_WRITE=1` writes what is expected of them, beside the logs.

use super::{ColumnShape, LogRow};
use crate::event::{Bytes, Cell, Row as _, RowError};
use crate::source::mysql::binlog::tests::{LOGS, events, path};
use crate::source::mysql::binlog::{Checksum, Event, Message, RowChange, Rows, Table, TableColumn, decode};
use crate::source::mysql::charset::tests::charsets;
use crate::source::mysql::kind::{Hint, Kind, Space, Unreadable};
use std::collections::HashMap;
use std::fmt::Write as _;

fn cell(cell: Cell<'_>, out: &mut String) -> Result<(), RowError> {
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::Unchanged => out.push_str("unchanged"),
        Cell::Absent => out.push_str("absent"),
        Cell::Integer(text) | Cell::Float(text) | Cell::Decimal(text) | Cell::Json(text) => out.push_str(text),
        Cell::Text(text) | Cell::Date(text) | Cell::Time(text) | Cell::Interval(text) => write!(out, "{text:?}").unwrap(),
        Cell::Timestamp(text) => write!(out, "local {text:?}").unwrap(),
        Cell::TimestampUtc(text) => write!(out, "utc {text:?}").unwrap(),
        Cell::Boolean(value) => write!(out, "{value}").unwrap(),
        Cell::Signed(number) => write!(out, "{number}").unwrap(),
        Cell::Unsigned(number) => write!(out, "{number}").unwrap(),
        Cell::Double(number) => write!(out, "{number:?}").unwrap(),
        Cell::Bytes(Bytes::Raw(bytes)) => bytes.iter().for_each(|byte| write!(out, "{byte:02x}").unwrap()),
        Cell::MisplacedBytes(_) => out.push_str("misplaced bytes"),
        Cell::Array(elements) => {
            out.push('[');
            elements.visit(&mut |element| {
                self::cell(element, out)?;
                out.push(' ');
                Ok(())
            })?;
            out.push(']');
        }
        Cell::Bytes(Bytes::Hex(_)) | Cell::Object(_) => panic!("no such cell comes from this source"),
    }
    Ok(())
}

/// The columns of a table, without those in an encoding that these tests do not have (`latin2`).
fn shapes(table: &mut Table) -> Vec<ColumnShape> {
    let hints = [("u", Hint::Uuid), ("ip6", Hint::Inet6), ("ip4", Hint::Inet4), ("js", Hint::Json)];
    let (charsets, key) = (charsets(), table.primary_key.clone());
    let shape = |(index, column): (usize, &TableColumn)| {
        let hint = hints.iter().find(|(name, _)| column.name.as_deref() == Some(*name)).map(|(_, hint)| *hint);
        let kind = Kind::of(column, hint, &charsets).or_else(|unreadable| match unreadable {
            Unreadable::Collation(9) => Ok(Kind::Bytes(None)),
            other => Err(other),
        });
        ColumnShape { kind: kind.unwrap(), key: key.contains(&index) }
    };
    table.columns.iter().enumerate().map(shape).collect()
}

fn show(rows: &Rows<'_>, name: &str, table: &Table, shapes: &[ColumnShape], out: &mut String) {
    let (mut unpacked, space) = (Vec::new(), Space::default());
    let unpacked = rows.rows.unpack(&mut unpacked).unwrap();
    let mut changes = rows.changes(&table.columns, unpacked).unwrap();
    while let Some(change) = changes.next_row().unwrap() {
        let shown = match change {
            RowChange { old: Some(old), new: Some(new) } => {
                let (old, new) = (LogRow::whole(shapes, old, &space), LogRow::changed(shapes, old, new, &space));
                write!(out, "update rekeyed={} more={} ", old.is_rekeyed_by(&new), old.shows_more_than_key()).unwrap();
                new
            }
            RowChange { old: Some(old), new: None } => {
                out.push_str("delete ");
                LogRow::whole(shapes, old, &space)
            }
            RowChange { new, .. } => {
                out.push_str("insert ");
                LogRow::whole(shapes, new.unwrap(), &space)
            }
        };
        write!(out, "{name}:").unwrap();
        let mut columns = table.columns.iter();
        let encoded = shown.cells(&mut |value| {
            let column = columns.next().unwrap().name.as_deref().unwrap();
            let mut text = String::new();
            cell(value, &mut text)?;
            let shortened = text.chars().take(400).collect::<String>();
            write!(out, " {column}={shortened}").unwrap();
            Ok(())
        });
        if let Err(error) = encoded {
            write!(out, " {error}").unwrap();
        }
        out.push('\n');
    }
}

/// The rows of a log, and what the columns of each of its tables are.
fn shown(name: &str) -> String {
    let mut tables = HashMap::new();
    let mut out = String::new();
    for event in events(name) {
        let event = Event::read(&event, Checksum::Crc32).unwrap();
        let mut show_event = |event: &Event<'_>| match decode(event).unwrap() {
            Message::TableMap(map) => {
                let mut table = map.read().unwrap();
                let shapes = shapes(&mut table);
                if !tables.contains_key(&map.id) {
                    write!(out, "table {}:", map.name).unwrap();
                    for (column, shape) in table.columns.iter().zip(&shapes) {
                        let kind = shape.kind.column_kind(&column.storage);
                        write!(out, " {}={kind:?}{}", column.name.as_deref().unwrap(), if column.is_nullable { "?" } else { "" }).unwrap();
                    }
                    out.push('\n');
                }
                tables.insert(map.id, (map.name.to_owned(), table, shapes));
            }
            Message::Rows(rows) => {
                let (name, table, shapes) = &tables[&rows.table];
                show(&rows, name, table, shapes, &mut out);
            }
            _ => {}
        };
        match decode(&event).unwrap() {
            Message::Payload(payload) => {
                let (mut events, mut inner) = (payload.events().unwrap(), Vec::new());
                while events.next(&mut inner).unwrap() {
                    show_event(&Event::read_inner(&inner).unwrap());
                }
            }
            _ => show_event(&event),
        }
    }
    out
}

#[test]
fn rows_of_real_servers_are_shown_cell_by_cell() {
    for name in LOGS {
        let (shown, expected) = (shown(name), path(name, "cells.txt"));
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(&expected).unwrap(), "{name}");
    }
}
