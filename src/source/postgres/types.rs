//! What a type's text means: by its number where it is built in, else by what the catalogue says of it.

use super::charset::Charset;
use super::error::Error;
use super::kind::{Element, Kind};
use super::session::{Answer, Session};
use super::survey::contents::Content;
use std::collections::HashMap;
use std::sync::Arc;

/// Built-in types whose numbers are fixed (`pg_type.dat`); `None` is to be looked up.
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
        // text, varchar, bpchar, "char", name, bit, varbit, xml, uuid, money, timetz, inet, cidr, macaddr, macaddr8, and the
        // vectors, which are printed without braces although the catalogue calls them arrays.
        25 | 1043 | 1042 | 18 | 19 | 1560 | 1562 | 142 | 2950 | 790 | 1266 | 869 | 650 | 829 | 774 | 22 | 30 => Kind::Text,
        _ => return None,
    })
}

/// What a look into `pg_type` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Described {
    /// It has no other type under it: text.
    Plain,
    /// A domain.
    Over(u32),
    /// An array.
    Of { element: u32, delimiter: u8 },
}

/// The types met so far.
#[derive(Debug, Default)]
pub(super) struct Types {
    /// What values are written in, where they come as the database has them and that is not UTF-8.
    charset: Option<Arc<Charset>>,
    described: HashMap<u32, Described>,
}

/// Domains over arrays of domains end somewhere; a catalogue that does not is broken.
const DEPTH_MAX: usize = 32;

impl Types {
    /// The same, whose values are written so.
    pub(super) fn written_in(self, charset: Option<Arc<Charset>>) -> Self {
        Self { charset, ..self }
    }

    /// Takes over what was seen of a type earlier. A type never changes in what is taken over, and its number is not used again.
    pub(super) fn remember(&mut self, oid: u32, content: &Content) {
        let described = match *content {
            Content::Domain(under) => Described::Over(under),
            Content::Array(element, delimiter) => Described::Of { element, delimiter },
            Content::Range(_) | Content::Fields(_) | Content::Labels(..) => Described::Plain,
        };
        self.described.insert(oid, described);
    }

    /// Which of these types, and of those under them, are unknown yet.
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
            match self.described.get(&oid) {
                None => return Some(oid),
                Some(Described::Plain) => return None,
                Some(Described::Over(under) | Described::Of { element: under, .. }) => oid = *under,
            }
        }
        None
    }

    /// Asks the catalogue until nothing under these types is unknown. A type that is gone by now counts as text.
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
                    tracing::warn!(
                        oid,
                        "a type that the log names was dropped before it was ever seen: its values are sent as the database's text"
                    );
                }
                self.described.insert(oid, Described::Plain);
            }
            for row in &rows {
                let number = |index: usize| number(row, index);
                let described = match (row.text(1), number(3)) {
                    ("d", _) => Described::Over(number(2)),
                    (_, 0) => Described::Plain,
                    (_, element) => Described::Of { element, delimiter: row.text(4).bytes().next().unwrap_or(b',') },
                };
                self.described.insert(number(0), described);
            }
        }
    }

    /// How values of this type are shown; text where the type is unknown.
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
        match self.described.get(&oid) {
            _ if depth == 0 => Kind::Text,
            None | Some(Described::Plain) => Kind::Text,
            Some(Described::Over(under)) => self.kind_within(*under, depth - 1),
            Some(&Described::Of { element, delimiter }) => {
                // A domain over an array inside an array is printed as one quoted element: text that is itself an array.
                Kind::Array(Arc::new(Element { kind: self.kind_within(element, depth - 1), delimiter }))
            }
        }
    }
}
