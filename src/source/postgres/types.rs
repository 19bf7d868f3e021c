//! Maps types to the way in which their values are read: built-in types by their OID, others by their definition in the catalogue.

use super::charset::Charset;
use super::error::Error;
use super::kind::{Element, Kind};
use super::session::{Answer, Session};
use super::survey::contents::Content;
use crate::event::{Column, ColumnKind, Relation};
use crate::feed::Feed;
use std::collections::HashMap;
use std::sync::Arc;

/// Text without a limit.
const TEXT: ColumnKind = ColumnKind::Text { length: None };

/// The built-in types, whose OIDs are fixed (`pg_type.dat`), with a column's type modifier (-1: none). All others must be looked up.
fn built_in(oid: u32, modifier: i32) -> Option<ColumnKind> {
    let integer = |bits, unsigned| ColumnKind::Integer { bits, unsigned };
    // The digits of a second's fraction: 6 unless limited.
    let precision = u8::try_from(modifier).unwrap_or(6);
    Some(match oid {
        16 => ColumnKind::Boolean,
        21 => integer(16, false),
        23 => integer(32, false),
        20 => integer(64, false),
        26 => integer(32, true),
        700 => ColumnKind::Float { bits: 32 },
        701 => ColumnKind::Float { bits: 64 },
        1700 => decimal(modifier),
        // xid8
        5069 => ColumnKind::Decimal { precision: Some(20), scale: Some(0) },
        17 => ColumnKind::Bytes { length: None },
        114 | 3802 => ColumnKind::Json,
        1082 => ColumnKind::Date,
        1083 => ColumnKind::Time { precision },
        1114 => ColumnKind::Timestamp { precision },
        1184 => ColumnKind::TimestampUtc { precision },
        1186 => ColumnKind::Interval,
        2950 => ColumnKind::Uuid,
        // varchar, bpchar
        1043 | 1042 => ColumnKind::Text { length: u32::try_from(modifier).ok().and_then(|modifier| modifier.checked_sub(HEADER)) },
        // bit, varbit
        1560 | 1562 => ColumnKind::Text { length: u32::try_from(modifier).ok() },
        // text, "char", name, xml, money, timetz, inet, cidr, macaddr, macaddr8, and int2vector and oidvector, which are printed without
        // braces although the catalogue calls them arrays.
        25 | 18 | 19 | 142 | 790 | 1266 | 869 | 650 | 829 | 774 | 22 | 30 => TEXT,
        _ => return None,
    })
}

/// What the modifiers of some types count in addition (`VARHDRSZ`).
const HEADER: u32 = 4;

/// `numeric`, by its modifier (`numeric.c`, `make_numeric_typmod`): 16 bits of precision, then 11 bits of scale with a sign.
fn decimal(modifier: i32) -> ColumnKind {
    let bits = u32::try_from(modifier).ok().and_then(|modifier| modifier.checked_sub(HEADER));
    let precision = bits.and_then(|bits| u16::try_from(bits >> 16).ok());
    let scale = bits.and_then(|bits| i16::try_from(bits & 0x7FF).ok()).map(|scale| (scale ^ 0x400) - 0x400);
    ColumnKind::Decimal { precision, scale }
}

/// How the values of a built-in type are read.
fn reading(kind: &ColumnKind) -> Kind {
    match kind {
        ColumnKind::Boolean => Kind::Boolean,
        ColumnKind::Integer { .. } => Kind::Integer,
        ColumnKind::Float { .. } => Kind::Float,
        ColumnKind::Decimal { .. } => Kind::Decimal,
        ColumnKind::Bytes { .. } => Kind::Bytes,
        ColumnKind::Json => Kind::Json,
        ColumnKind::Date => Kind::Date,
        ColumnKind::Time { .. } => Kind::Time,
        ColumnKind::Timestamp { .. } => Kind::Timestamp,
        ColumnKind::TimestampUtc { .. } => Kind::TimestampUtc,
        ColumnKind::Interval => Kind::Interval,
        ColumnKind::Any | ColumnKind::Text { .. } | ColumnKind::Uuid | ColumnKind::Enumeration { .. } | ColumnKind::Array { .. } => {
            Kind::Text
        }
    }
}

/// The definition of a type in `pg_type`, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Definition {
    /// Read as text.
    Plain,
    /// Read as text: one of these labels.
    Enumeration(Arc<[Arc<str>]>),
    /// A domain over this type.
    Domain {
        under: u32,
        modifier: i32,
    },
    Array {
        element: u32,
        delimiter: u8,
    },
}

/// The types seen so far.
#[derive(Debug, Default)]
pub(super) struct Types {
    /// The encoding of values, if the server sends them in the database's own encoding and that is not UTF-8.
    charset: Option<Arc<Charset>>,
    definitions: HashMap<u32, Definition>,
    /// Definitions from an earlier run, of types that the catalogue may no longer have.
    earlier: HashMap<u32, Definition>,
}

/// A limit for domains over arrays of domains. Only a broken catalogue exceeds it.
const DEPTH_MAX: usize = 32;

impl Types {
    /// Decodes values in this encoding; UTF-8 if `None`.
    pub(super) fn with_charset(self, charset: Option<Arc<Charset>>) -> Self {
        Self { charset, ..self }
    }

    /// Adds a definition from an earlier run, for values of a type that was dropped since. The server does not reuse OIDs of types.
    pub(super) fn remember(&mut self, oid: u32, content: &Content) {
        let described = match *content {
            Content::Domain(under) => Definition::Domain { under, modifier: -1 },
            Content::Array(element, delimiter) => Definition::Array { element, delimiter },
            Content::Range(_) | Content::Fields(_) | Content::Labels(..) => Definition::Plain,
        };
        self.earlier.insert(oid, described);
    }

    /// Which of these types, and of the types that they are made of, are not known yet.
    pub(super) fn unknown(&self, oids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut unknown: Vec<u32> = oids.into_iter().filter_map(|oid| self.unknown_under(oid)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    fn unknown_under(&self, mut oid: u32) -> Option<u32> {
        for _ in 0..DEPTH_MAX {
            if built_in(oid, -1).is_some() {
                return None;
            }
            match self.definitions.get(&oid) {
                None => return Some(oid),
                Some(Definition::Plain | Definition::Enumeration(_)) => return None,
                Some(Definition::Domain { under, .. } | Definition::Array { element: under, .. }) => oid = *under,
            }
        }
        None
    }

    /// Looks up these types and all types that they are made of. A type that no longer exists is read as text.
    pub(super) async fn learn(&mut self, oids: &[u32], session: &mut Session) -> Result<(), Error> {
        loop {
            let unknown = self.unknown(oids.iter().copied());
            if unknown.is_empty() {
                return Ok(());
            }
            let list = unknown.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let rows = session
                .query(&format!(
                    "SELECT oid, typtype, typbasetype, CASE WHEN typcategory = 'A' AND typlen = -1 THEN typelem ELSE 0 END, typdelim, typtypmod, \
                     (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) \
                     FROM pg_catalog.pg_type t WHERE oid IN ({list})"
                ))
                .await?;
            let number = |row: &Answer, index: usize| row.text(index).parse::<u32>().unwrap_or(0);
            for oid in unknown {
                let is_gone = !rows.iter().any(|row| number(row, 0) == oid);
                let earlier = self.earlier.get(&oid).filter(|_| is_gone).cloned();
                if is_gone && earlier.is_none() {
                    tracing::warn!(oid, "a type in the log was dropped before it was looked up; its values are sent as text");
                }
                self.definitions.insert(oid, earlier.unwrap_or(Definition::Plain));
            }
            for row in &rows {
                let number = |index: usize| number(row, index);
                let described = match (row.text(1), number(3)) {
                    ("d", _) => Definition::Domain { under: number(2), modifier: row.text(5).parse().unwrap_or(-1) },
                    ("e", _) => Definition::Enumeration(serde_json::from_str::<Vec<Arc<str>>>(row.text(6)).unwrap_or_default().into()),
                    (_, 0) => Definition::Plain,
                    (_, element) => Definition::Array { element, delimiter: row.text(4).bytes().next().unwrap_or(b',') },
                };
                self.definitions.insert(number(0), described);
            }
        }
    }

    /// How to read values of this type; as text if the type is unknown.
    pub(super) fn kind(&self, oid: u32) -> Kind {
        match (self.kind_within(oid, DEPTH_MAX), &self.charset) {
            (kind @ (Kind::Text | Kind::Json | Kind::Array(_)), Some(charset)) => Kind::Encoded(Arc::clone(charset), Box::new(kind)),
            (kind, _) => kind,
        }
    }

    fn kind_within(&self, oid: u32, depth: usize) -> Kind {
        if let Some(kind) = built_in(oid, -1) {
            return reading(&kind);
        }
        match self.definitions.get(&oid) {
            _ if depth == 0 => Kind::Text,
            None | Some(Definition::Plain | Definition::Enumeration(_)) => Kind::Text,
            Some(Definition::Domain { under, .. }) => self.kind_within(*under, depth - 1),
            Some(&Definition::Array { element, delimiter }) => {
                // In an array of a domain over an array, each element is printed as quoted text that is itself an array.
                Kind::Array(Arc::new(Element { kind: self.kind_within(element, depth - 1), delimiter }))
            }
        }
    }

    /// A feed's relation with these columns: name, type and type modifier.
    pub(super) fn relation<'c>(&self, feed: &Feed, columns: impl Iterator<Item = (&'c str, u32, i32)>) -> Relation {
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        let columns = columns.map(|(name, oid, modifier)| Column::new(name, self.column_kind(oid, modifier, DEPTH_MAX), is_key(name)));
        Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns: columns.collect() }
    }

    /// What the values of a column of this type are. The modifier of an array is that of its elements.
    fn column_kind(&self, oid: u32, modifier: i32, depth: usize) -> ColumnKind {
        if let Some(kind) = built_in(oid, modifier) {
            return kind;
        }
        match self.definitions.get(&oid) {
            _ if depth == 0 => TEXT,
            None | Some(Definition::Plain) => TEXT,
            Some(Definition::Enumeration(labels)) => ColumnKind::Enumeration { labels: Arc::clone(labels) },
            Some(Definition::Domain { under, modifier }) => self.column_kind(*under, *modifier, depth - 1),
            Some(Definition::Array { element, .. }) => {
                ColumnKind::Array { element: self.column_kind(*element, modifier, depth - 1).into() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Definition, TEXT, Types};
    use crate::event::ColumnKind;

    fn kind(types: &Types, oid: u32, modifier: i32) -> ColumnKind {
        types.column_kind(oid, modifier, super::DEPTH_MAX)
    }

    #[test]
    fn a_modifier_limits_its_type() {
        let types = Types::default();
        let decimal = |precision, scale| ColumnKind::Decimal { precision, scale };
        for (oid, modifier, expected) in [
            (1700, -1, decimal(None, None)),
            (1700, ((10 << 16) + 2) + 4, decimal(Some(10), Some(2))),
            (1700, ((1000 << 16) + 1000) + 4, decimal(Some(1000), Some(1000))),
            // numeric(3, -2)
            (1700, ((3 << 16) + 0x7FE) + 4, decimal(Some(3), Some(-2))),
            (1043, -1, TEXT),
            (1043, 24, ColumnKind::Text { length: Some(20) }),
            (1042, 5, ColumnKind::Text { length: Some(1) }),
            (1560, 8, ColumnKind::Text { length: Some(8) }),
            (1083, -1, ColumnKind::Time { precision: 6 }),
            (1114, 0, ColumnKind::Timestamp { precision: 0 }),
            (1184, 3, ColumnKind::TimestampUtc { precision: 3 }),
            (26, -1, ColumnKind::Integer { bits: 32, unsigned: true }),
            (99_999, 7, TEXT),
        ] {
            assert_eq!(kind(&types, oid, modifier), expected, "{oid} {modifier}");
        }
    }

    #[test]
    fn a_type_is_what_it_is_made_of() {
        let mut types = Types::default();
        let labels = ["sad".into(), "happy".into()].into();
        types.definitions.insert(100_001, Definition::Enumeration(labels));
        types.definitions.insert(100_002, Definition::Array { element: 100_001, delimiter: b',' });
        types.definitions.insert(100_003, Definition::Domain { under: 1043, modifier: 24 });
        types.definitions.insert(100_004, Definition::Array { element: 1043, delimiter: b',' });
        // A domain over itself: only a broken catalogue has one.
        types.definitions.insert(100_005, Definition::Domain { under: 100_005, modifier: -1 });
        let mood = ColumnKind::Enumeration { labels: ["sad".into(), "happy".into()].into() };
        let text = ColumnKind::Text { length: Some(20) };
        assert_eq!(kind(&types, 100_002, -1), ColumnKind::Array { element: mood.into() });
        assert_eq!(kind(&types, 100_003, -1), text);
        assert_eq!(kind(&types, 100_004, 24), ColumnKind::Array { element: text.into() });
        assert_eq!(kind(&types, 100_005, -1), TEXT);
    }
}
