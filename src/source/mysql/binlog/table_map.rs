//! The definition of a table, which comes before its rows.
//!
//! Source: MySQL 9.7 `libs/mysql/binlog/event/rows_event.h` (`Table_map_event`, "Optional metadata"); MariaDB's is the same.

use super::bytes::{Malformed, Reader, bit};
use super::storage::{Labels, Storage};
use std::sync::Arc;

/// The definition of a table, as far as every reader needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMap<'a> {
    /// The number that its rows name it by, until the definition changes or the table is closed.
    pub id: u64,
    /// Its database.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Everything behind the name.
    rest: &'a [u8],
}

/// The definition of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its columns in table order.
    pub columns: Vec<TableColumn>,
    /// The columns of its primary key, by number, in the key's order. Empty where there is none, or where it is not named.
    pub primary_key: Vec<usize>,
}

/// The definition of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name; `None` where the definition does not say it (`binlog_row_metadata` was not `FULL`).
    pub name: Option<Arc<str>>,
    /// How its values are stored.
    pub storage: Storage,
    /// Whether they may be null.
    pub is_nullable: bool,
}

const WHAT: &str = "event: the definition of a table";

pub(super) fn table_map(body: &[u8]) -> Result<TableMap<'_>, Malformed> {
    let mut reader = Reader::new(body, WHAT);
    let id = reader.little(6)?;
    reader.take(2)?;
    let mut text = || {
        let length = reader.byte()?;
        let text = std::str::from_utf8(reader.take(length.into())?).map_err(|_| Malformed(WHAT))?;
        reader.byte()?;
        Ok(text)
    };
    let (schema, name) = (text()?, text()?);
    Ok(TableMap { id, schema, name, rest: reader.rest() })
}

impl<'a> TableMap<'a> {
    /// Everything behind the name: equal bytes are equal definitions.
    #[must_use]
    pub const fn definition(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the columns.
    ///
    /// # Errors
    /// Where they are malformed, or of a type that is not known.
    pub fn read(&self) -> Result<Table, Malformed> {
        let mut reader = Reader::new(self.rest, WHAT);
        let count = reader.packed_length()?;
        let kinds = reader.take(count)?;
        let mut details = Reader::new(reader.packed_bytes()?, WHAT);
        let mut columns = Vec::with_capacity(count);
        for kind in kinds {
            columns.push(TableColumn { name: None, storage: Storage::read(*kind, &mut details)?, is_nullable: false });
        }
        let nulls = reader.take(count.div_ceil(8))?;
        for (index, column) in columns.iter_mut().enumerate() {
            column.is_nullable = bit(nulls, index);
        }
        let mut table = Table { columns, primary_key: Vec::new() };
        while !reader.is_empty() {
            let field = reader.byte()?;
            table.learn(field, Reader::new(reader.packed_bytes()?, WHAT))?;
        }
        Ok(table)
    }
}

impl Table {
    /// Takes over one field of the optional metadata. A field that is not known says nothing that is needed.
    fn learn(&mut self, field: u8, mut value: Reader<'_>) -> Result<(), Malformed> {
        match field {
            1 => self.signs(value.rest()),
            2 => self.collations(Storage::has_collation, &mut defaults(&mut value)?),
            3 => self.collations(Storage::has_collation, &mut listed(&mut value)),
            4 => {
                for column in &mut self.columns {
                    let name = std::str::from_utf8(value.packed_bytes()?).map_err(|_| value.malformed())?;
                    column.name = Some(name.into());
                }
                Ok(())
            }
            5 => self.labels(|storage| matches!(storage, Storage::Set { .. }), &mut value),
            6 => self.labels(|storage| matches!(storage, Storage::Enumeration { .. }), &mut value),
            8 => self.key(&mut value, false),
            9 => self.key(&mut value, true),
            10 => self.collations(has_labels, &mut defaults(&mut value)?),
            11 => self.collations(has_labels, &mut listed(&mut value)),
            _ => Ok(()),
        }
    }

    /// One bit for each numeric column, the most significant one of a byte first.
    fn signs(&mut self, bits: &[u8]) -> Result<(), Malformed> {
        let mut index = 0;
        for column in &mut self.columns {
            if !column.storage.is_numeric() {
                continue;
            }
            let byte = bits.get(index / 8).ok_or(Malformed(WHAT))?;
            if let Storage::Integer { unsigned, .. } = &mut column.storage {
                *unsigned = byte >> (7 - index % 8) & 1 == 1;
            }
            index += 1;
        }
        Ok(())
    }

    /// Gives each of these columns its collation, which `next` returns by the column's number among them.
    fn collations(&mut self, of: fn(&Storage) -> bool, next: &mut dyn FnMut(usize) -> Result<u32, Malformed>) -> Result<(), Malformed> {
        for (index, column) in self.columns.iter_mut().filter(|column| of(&column.storage)).enumerate() {
            match &mut column.storage {
                Storage::Characters { collation, .. } => *collation = next(index)?,
                Storage::Enumeration { labels, .. } | Storage::Set { labels, .. } => labels.collation = next(index)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// For each of these columns: how many labels, then the labels.
    fn labels(&mut self, of: fn(&Storage) -> bool, value: &mut Reader<'_>) -> Result<(), Malformed> {
        for column in self.columns.iter_mut().filter(|column| of(&column.storage)) {
            let count = value.packed_length()?;
            let mut texts: Vec<Box<[u8]>> = Vec::new();
            for _ in 0..count {
                texts.push(value.packed_bytes()?.into());
            }
            if let Storage::Enumeration { labels, .. } | Storage::Set { labels, .. } = &mut column.storage {
                *labels = Labels { texts: texts.into(), collation: labels.collation };
            }
        }
        Ok(())
    }

    /// The numbers of the key's columns, each with the length of its prefix where the key has prefixes.
    fn key(&mut self, value: &mut Reader<'_>, has_prefixes: bool) -> Result<(), Malformed> {
        while !value.is_empty() {
            let column = value.packed_length()?;
            if self.columns.len() <= column {
                return Err(value.malformed());
            }
            self.primary_key.push(column);
            if has_prefixes {
                value.packed()?;
            }
        }
        Ok(())
    }
}

const fn has_labels(storage: &Storage) -> bool {
    matches!(storage, Storage::Enumeration { .. } | Storage::Set { .. })
}

/// The most frequent collation, then number and collation of each column that has another.
fn defaults(value: &mut Reader<'_>) -> Result<impl FnMut(usize) -> Result<u32, Malformed>, Malformed> {
    let default = collation(value)?;
    let mut others = Vec::new();
    while !value.is_empty() {
        others.push((value.packed_length()?, collation(value)?));
    }
    Ok(move |index| Ok(others.iter().find(|(other, _)| *other == index).map_or(default, |(_, collation)| *collation)))
}

/// The collation of each column.
fn listed(value: &mut Reader<'_>) -> impl FnMut(usize) -> Result<u32, Malformed> {
    |_| collation(value)
}

fn collation(value: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(value.packed()?).map_err(|_| value.malformed())
}
