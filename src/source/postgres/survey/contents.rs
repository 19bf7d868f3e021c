//! The definitions of user-defined types. They decide how the server prints a stored value, and how feedline decodes the printed text.

use super::super::error::Error;
use super::super::session::{Answer, Session, list};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Types with smaller oids come with the server. Their definitions do not change.
const FIRST_USER_TYPE: u32 = 16_384;

/// The definition of a type, as a checkpoint stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Content {
    /// A domain over this type.
    Domain(u32),
    /// An array of this type, with its delimiter.
    Array(u32, u8),
    /// A range or multirange of this type.
    Range(u32),
    /// A composite: the type of each field by attribute number; 0 for a field that was dropped.
    Fields(BTreeMap<u16, u32>),
    /// An enum: the highest oid of its labels, and a hash of all labels up to that one.
    Labels(u32, u32),
}

impl Content {
    /// The types that the definition refers to.
    fn referenced(&self) -> Vec<u32> {
        match self {
            Self::Domain(under) | Self::Array(under, _) | Self::Range(under) => vec![*under],
            Self::Fields(fields) => fields.values().copied().collect(),
            Self::Labels(..) => Vec::new(),
        }
    }

    /// Whether values in the log cannot be decoded without the definition.
    const fn is_needed_to_decode(&self) -> bool {
        matches!(self, Self::Domain(_) | Self::Array(..))
    }
}

/// A type as the catalogue describes it now.
struct UserType {
    name: String,
    content: Content,
    /// Oid, text, and the transaction that wrote the label last. A label that was renamed and renamed back has another transaction.
    labels: Vec<(u32, String, String)>,
}

/// All user-defined types that some tables use, directly or through other types, by oid.
#[derive(Default)]
pub(super) struct UserTypes(HashMap<u32, UserType>);

const TYPES: &str = "\
SELECT t.oid, t.typtype, pg_catalog.format_type(t.oid, NULL), t.typbasetype, \
CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem ELSE 0 END, t.typdelim, \
(SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid), \
(SELECT pg_catalog.json_object_agg(a.attnum, CASE WHEN a.attisdropped THEN 0 ELSE a.atttypid::bigint END) \
 FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0), \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(e.oid::bigint, e.enumlabel, e.xmin::text) ORDER BY e.oid) \
 FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) \
FROM pg_catalog.pg_type t WHERE t.oid IN ";

impl UserTypes {
    /// Reads these types and all types that they refer to.
    pub(super) async fn read(oids: BTreeSet<u32>, session: &mut Session) -> Result<Self, Error> {
        let mut types = Self::default();
        let mut asked = BTreeSet::new();
        let mut wanted: BTreeSet<u32> = oids.into_iter().filter(|oid| FIRST_USER_TYPE <= *oid).collect();
        while !wanted.is_empty() {
            let list = wanted.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let rows = session.query(&format!("{TYPES}({list})")).await?;
            asked.append(&mut wanted);
            for (oid, user_type) in rows.iter().map(UserType::read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
                wanted.extend(user_type.content.referenced().into_iter().filter(|oid| FIRST_USER_TYPE <= *oid && !asked.contains(oid)));
                types.0.insert(oid, user_type);
            }
        }
        Ok(types)
    }

    /// This type and all types that it refers to, directly or through other types.
    pub(super) fn under(&self, oid: u32) -> BTreeSet<u32> {
        let mut under = BTreeSet::new();
        let mut next = vec![oid];
        while let Some(oid) = next.pop() {
            if let Some(user_type) = self.0.get(&oid).filter(|_| under.insert(oid)) {
                next.extend(user_type.content.referenced());
            }
        }
        under
    }

    /// The definitions to store for a table that uses these types now. Types that it used before are kept if values in the log need them
    /// to be decoded. Oids are not used again, so the newest types have the highest oids.
    pub(super) fn to_store(&self, types: &BTreeSet<u32>, before: Option<&BTreeMap<u32, Content>>) -> BTreeMap<u32, Content> {
        /// How many earlier types are kept per table.
        const EARLIER_MAX: usize = 256;
        let now = types.iter().filter_map(|oid| Some((*oid, self.0.get(oid)?.content.clone())));
        let earlier = before.into_iter().flatten().filter(|(oid, content)| content.is_needed_to_decode() && !types.contains(oid));
        earlier.rev().take(EARLIER_MAX).map(|(oid, content)| (*oid, content.clone())).chain(now).collect()
    }

    /// How this type changed, if stored values are printed differently now.
    pub(super) fn change(&self, oid: u32, before: &BTreeMap<u32, Content>) -> Option<String> {
        let (before, now) = (before.get(&oid)?, self.0.get(&oid)?);
        match (before, &now.content) {
            // A new label does not change existing rows.
            (Content::Labels(newest, hash), Content::Labels(..)) => {
                (*hash != hashed(&now.labels, *newest)).then(|| format!("a label of type {} was renamed", now.name))
            }
            (before, content) => (before != content).then(|| format!("the fields of type {} changed", now.name)),
        }
    }
}

impl UserType {
    /// Reads a type with its oid; `None` for one that refers to nothing, such as a base type.
    fn read(row: &Answer) -> Result<Option<(u32, Self)>, Error> {
        const MALFORMED: Error = Error::Protocol { what: "a type's description in the catalogue" };
        let number = |index: usize| row.get(index).map_or(Ok(0), |number| number.parse::<u32>().map_err(|_| MALFORMED));
        let labels: Vec<(u32, String, String)> = list(row, 8).ok_or(MALFORMED)?;
        let content = match (row.text(1), number(4)?, number(6)?) {
            ("d", ..) => Content::Domain(number(3)?),
            ("e", ..) => {
                let newest = labels.last().map_or(0, |label| label.0);
                Content::Labels(newest, hashed(&labels, newest))
            }
            ("c", ..) => Content::Fields(list(row, 7).ok_or(MALFORMED)?),
            (_, 0, 0) => return Ok(None),
            (_, 0, under) => Content::Range(under),
            (_, element, _) => Content::Array(element, row.text(5).bytes().next().unwrap_or(b',')),
        };
        Ok(Some((number(0)?, Self { name: row.text(2).to_owned(), content, labels })))
    }
}

/// A hash of the labels up to and including the one with the oid `newest`.
fn hashed(labels: &[(u32, String, String)], newest: u32) -> u32 {
    labels
        .iter()
        .filter(|label| label.0 <= newest)
        .fold(0, |hash, (number, text, writer)| crc32c::crc32c_append(hash, format!("{number} {writer} {} {text};", text.len()).as_bytes()))
}
