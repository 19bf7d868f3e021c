//! Decodes the messages of the `pgoutput` plugin, protocol version 1, in place (PostgreSQL documentation, 55.9).
//!
//! It turns bytes into borrowed views, without I/O. No input makes it panic.

/// PostgreSQL counts time from 2000-01-01: microseconds between that and 1970-01-01.
pub const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// The bytes are not a message; names the part that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; all its rows follow.
    Begin(Begin),
    /// The transaction ends.
    Commit {
        /// Where its commit record begins.
        commit_lsn: u64,
        /// Where its commit record ends.
        end_lsn: u64,
    },
    /// The description of a table, valid from here on.
    Relation(Relation<'a>),
    /// A row was added.
    Insert {
        /// The table.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was changed.
    Update {
        /// The table.
        relation: u32,
        /// The old row, as far as the log carries it.
        old: Option<Old<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row was removed.
    Delete {
        /// The table.
        relation: u32,
        /// The old row, as far as the log carries it.
        old: Old<'a>,
    },
    /// Tables were emptied.
    Truncate(Relations<'a>),
    /// A type that is not built in, before the relation that uses it.
    Type,
    /// The origin of a transaction that was replicated from another server.
    Origin,
    /// A message that an application wrote to the log (`pg_logical_emit_message`).
    Logical,
}

/// The start of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record begins.
    pub commit_lsn: u64,
    /// Commit time: microseconds since 2000-01-01.
    pub committed_at: i64,
    /// The transaction ID.
    pub xid: u32,
}

/// An old row, as far as the log carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only the columns of the replica identity; the others are sent as null, whatever their value.
    Identity(Tuple<'a>),
    /// The whole row.
    Full(Tuple<'a>),
}

/// The replica identity of a table: which columns of old rows its updates and deletes carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// Every column.
    Full,
    /// The columns of an index.
    Index,
}

/// The description of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its OID.
    pub id: u32,
    /// Schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Name.
    pub name: &'a str,
    /// Replica identity.
    pub identity: Identity,
    /// The published columns, in table order.
    pub columns: Vec<Column<'a>>,
}

/// The description of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether it is part of the replica identity.
    pub identity: bool,
    /// Name.
    pub name: &'a str,
    /// Type.
    pub type_oid: u32,
    /// Type modifier (`atttypmod`): precision, length or the like; -1 if it has none.
    pub modifier: i32,
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// Stored out of line (TOAST), unchanged, and not sent.
    Unchanged,
    /// The text that the type's output function prints.
    Text(&'a [u8]),
}

/// A row. Its bytes have been checked and are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    bytes: &'a [u8],
    columns: u16,
}

impl<'a> Tuple<'a> {
    /// The number of values.
    #[must_use]
    pub const fn columns(&self) -> u16 {
        self.columns
    }

    /// The values in table order.
    #[must_use]
    pub const fn values(&self) -> Values<'a> {
        Values { reader: Reader(self.bytes), left: self.columns }
    }
}

/// Iterator over the values of a row.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.reader.value().ok()
    }
}

/// The tables of a truncate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relations<'a>(&'a [u8]);

impl Relations<'_> {
    /// Their OIDs.
    #[must_use]
    pub fn ids(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.0.chunks_exact(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// Decodes one message.
///
/// # Errors
/// If the bytes end too early, are too many, or contain a value that the protocol does not define.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader(bytes);
    let message = match reader.u8("message kind")? {
        b'B' => {
            let (commit_lsn, committed_at) = (reader.u64("commit position")?, reader.u64("commit time")?.cast_signed());
            Message::Begin(Begin { commit_lsn, committed_at, xid: reader.u32("transaction ID")? })
        }
        b'C' => {
            reader.u8("commit flags")?;
            let (commit_lsn, end_lsn) = (reader.u64("commit position")?, reader.u64("commit end")?);
            reader.u64("commit time")?;
            Message::Commit { commit_lsn, end_lsn }
        }
        b'R' => Message::Relation(reader.relation()?),
        b'I' => {
            let relation = reader.u32("relation")?;
            reader.expect(b'N', "new row")?;
            Message::Insert { relation, new: reader.tuple()? }
        }
        b'U' => {
            let relation = reader.u32("relation")?;
            let (old, new) = reader.update()?;
            Message::Update { relation, old, new }
        }
        b'D' => {
            let relation = reader.u32("relation")?;
            let kind = reader.u8("old row's kind")?;
            Message::Delete { relation, old: reader.old(kind)? }
        }
        b'T' => {
            let count = reader.u32("number of relations")?;
            reader.u8("truncate options")?;
            let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(4)).ok_or(Malformed("number of relations"))?;
            Message::Truncate(Relations(reader.take(length, "relations")?))
        }
        b'Y' => {
            reader.u32("type")?;
            reader.name("type's schema")?;
            reader.name("type's name")?;
            Message::Type
        }
        b'O' => {
            reader.u64("origin's position")?;
            reader.name("origin's name")?;
            Message::Origin
        }
        b'M' => {
            reader.u8("message flags")?;
            reader.u64("message position")?;
            reader.name("message prefix")?;
            let length = reader.u32("message length")?;
            reader.take(usize::try_from(length).map_err(|_| Malformed("message length"))?, "message")?;
            Message::Logical
        }
        _ => return Err(Malformed("message kind")),
    };
    if reader.0.is_empty() { Ok(message) } else { Err(Malformed("end of message")) }
}

#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array(what).map(u8::from_be_bytes)
    }

    #[inline]
    fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    #[inline]
    fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.u8(what)? == byte { Ok(()) } else { Err(Malformed(what)) }
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed(what))?;
        let name = std::str::from_utf8(self.take(end, what)?).map_err(|_| Malformed(what))?;
        self.expect(0, what)?;
        Ok(name)
    }

    #[inline]
    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        match self.u8("value's kind")? {
            b't' => {
                let length = self.u32("value's length")?;
                let length = usize::try_from(length).map_err(|_| Malformed("value's length"))?;
                Ok(Value::Text(self.take(length, "value")?))
            }
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            _ => Err(Malformed("value's kind")),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let columns = self.u16("number of columns")?;
        let start = self.0;
        for _ in 0..columns {
            self.value()?;
        }
        Ok(Tuple { bytes: &start[..start.len() - self.0.len()], columns })
    }

    fn old(&mut self, kind: u8) -> Result<Old<'a>, Malformed> {
        match kind {
            b'K' => Ok(Old::Identity(self.tuple()?)),
            b'O' => Ok(Old::Full(self.tuple()?)),
            _ => Err(Malformed("old row's kind")),
        }
    }

    fn update(&mut self) -> Result<(Option<Old<'a>>, Tuple<'a>), Malformed> {
        let kind = self.u8("row's kind")?;
        let old = if kind == b'N' {
            None
        } else {
            let old = self.old(kind)?;
            self.expect(b'N', "new row")?;
            Some(old)
        };
        Ok((old, self.tuple()?))
    }

    fn relation(&mut self) -> Result<Relation<'a>, Malformed> {
        let (id, schema, name) = (self.u32("relation")?, self.name("schema")?, self.name("table")?);
        let identity = match self.u8("replica identity")? {
            b'd' => Identity::Default,
            b'n' => Identity::Nothing,
            b'f' => Identity::Full,
            b'i' => Identity::Index,
            _ => return Err(Malformed("replica identity")),
        };
        let count = self.u16("number of columns")?;
        let columns = (0..count).map(|_| self.column()).collect::<Result<_, _>>()?;
        Ok(Relation { id, schema, name, identity, columns })
    }

    fn column(&mut self) -> Result<Column<'a>, Malformed> {
        let flags = self.u8("column's flags")?;
        let (name, type_oid) = (self.name("column's name")?, self.u32("column's type")?);
        let modifier = self.u32("column's type modifier")?.cast_signed();
        Ok(Column { identity: flags & 1 != 0, name, type_oid, modifier })
    }
}

#[cfg(test)]
mod tests;
