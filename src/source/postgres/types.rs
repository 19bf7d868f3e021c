//! Maps types to the way in which their values are read: built-in types by their OID, others by their definition in the catalogue.

use super::charset::Charset;
use super::error::Error;
use super::kind::{Element, Kind};
use super::session::{Answer, Session};
use super::survey::contents::Content;
use std::collections::HashMap;
use std::sync::Arc;

/// The built-in types, whose OIDs are fixed (`pg_type.dat`). All others must be looked up.
fn built_in(oid: u32) -> Option<Kind> {
    Some(match oid {
        16 => Kind::Boolean,
        20 | 21 | 23 | 26 => Kind::Integer,
        700 | 701 => Kind::Float,
        1700 | 5069 => Kind::Decimal,
        17 => Kind::Bytes,
        114 | 3802 => Kind::Json,
        1082 => Kind::Date,
        1083 => Kind::Time,
        1114 => Kind::Timestamp,
        1184 => Kind::TimestampUtc,
        1186 => Kind::Interval,
        // text, varchar, bpchar, "char", name, bit, varbit, xml, uuid, money, timetz, inet, cidr, macaddr, macaddr8, and
        // int2vector and oidvector, which are printed without braces although the catalogue calls them arrays.
        25 | 1043 | 1042 | 18 | 19 | 1560 | 1562 | 142 | 2950 | 790 | 1266 | 869 | 650 | 829 | 774 | 22 | 30 => Kind::Text,
        _ => return None,
    })
}

/// The definition of a type in `pg_type`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Definition {
    /// Read as text.
    Plain,
    /// A domain over this type.
    Domain(u32),
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
}

/// A limit for domains over arrays of domains. Only a broken catalogue exceeds it.
const DEPTH_MAX: usize = 32;

impl Types {
    /// Decodes values in this encoding; UTF-8 if `None`.
    pub(super) fn with_charset(self, charset: Option<Arc<Charset>>) -> Self {
        Self { charset, ..self }
    }

    /// Adds a definition from an earlier run. It cannot have changed since, and the server does not reuse OIDs of types.
    pub(super) fn remember(&mut self, oid: u32, content: &Content) {
        let described = match *content {
            Content::Domain(under) => Definition::Domain(under),
            Content::Array(element, delimiter) => Definition::Array { element, delimiter },
            Content::Range(_) | Content::Fields(_) | Content::Labels(..) => Definition::Plain,
        };
        self.definitions.insert(oid, described);
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
            if built_in(oid).is_some() {
                return None;
            }
            match self.definitions.get(&oid) {
                None => return Some(oid),
                Some(Definition::Plain) => return None,
                Some(Definition::Domain(under) | Definition::Array { element: under, .. }) => oid = *under,
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
                    "SELECT oid, typtype, typbasetype, CASE WHEN typcategory = 'A' AND typlen = -1 THEN typelem ELSE 0 END, typdelim \
                     FROM pg_catalog.pg_type WHERE oid IN ({list})"
                ))
                .await?;
            let number = |row: &Answer, index: usize| row.text(index).parse::<u32>().unwrap_or(0);
            for oid in unknown {
                if !rows.iter().any(|row| number(row, 0) == oid) {
                    tracing::warn!(oid, "a type in the log was dropped before it was looked up; its values are sent as text");
                }
                self.definitions.insert(oid, Definition::Plain);
            }
            for row in &rows {
                let number = |index: usize| number(row, index);
                let described = match (row.text(1), number(3)) {
                    ("d", _) => Definition::Domain(number(2)),
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
        if let Some(kind) = built_in(oid) {
            return kind;
        }
        match self.definitions.get(&oid) {
            _ if depth == 0 => Kind::Text,
            None | Some(Definition::Plain) => Kind::Text,
            Some(Definition::Domain(under)) => self.kind_within(*under, depth - 1),
            Some(&Definition::Array { element, delimiter }) => {
                // In an array of a domain over an array, each element is printed as quoted text that is itself an array.
                Kind::Array(Arc::new(Element { kind: self.kind_within(element, depth - 1), delimiter }))
            }
        }
    }
}
