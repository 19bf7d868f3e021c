//! What user-defined types are made of: it decides how a stored value is printed, and how its text is shown.

use super::super::error::Error;
use super::super::session::{Answer, Session};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Types below it come with the server: nobody renames what they are made of.
const FIRST_USER_TYPE: u32 = 16_384;

/// What a type is made of, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Content {
    /// A domain, over this type.
    Domain(u32),
    /// An array of this type, with what stands between two elements.
    Array(u32, u8),
    /// A range or multirange of this type.
    Range(u32),
    /// A composite: the type of each of its fields, by number; 0 of one that was dropped.
    Fields(BTreeMap<u16, u32>),
    /// An enum: the highest number of a label, and a hash of all labels up to that one.
    Labels(u32, u32),
}

impl Content {
    fn parts(&self) -> Vec<u32> {
        match self {
            Self::Domain(under) | Self::Array(under, _) | Self::Range(under) => vec![*under],
            Self::Fields(fields) => fields.values().copied().collect(),
            Self::Labels(..) => Vec::new(),
        }
    }

    /// Whether it says how the text of a value is shown, for as long as the log holds one.
    const fn is_shape(&self) -> bool {
        matches!(self, Self::Domain(_) | Self::Array(..))
    }
}

/// A type as the catalogue describes it now.
struct Found {
    name: String,
    content: Content,
    /// Number, text, and the transaction that wrote it last: one that was renamed and named back has another.
    labels: Vec<(u32, String, String)>,
}

/// All types under the columns of some tables.
#[derive(Default)]
pub(super) struct Contents(HashMap<u32, Found>);

const TYPES: &str = "\
SELECT t.oid, t.typtype, pg_catalog.format_type(t.oid, NULL), t.typbasetype, \
CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem ELSE 0 END, t.typdelim, \
(SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid), \
(SELECT pg_catalog.json_object_agg(a.attnum, CASE WHEN a.attisdropped THEN 0 ELSE a.atttypid::bigint END) \
 FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0), \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(e.oid::bigint, e.enumlabel, e.xmin::text) ORDER BY e.oid) \
 FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) \
FROM pg_catalog.pg_type t WHERE t.oid IN ";

impl Contents {
    /// Looks until nothing under these types is unknown.
    pub(super) async fn look(oids: BTreeSet<u32>, session: &mut Session) -> Result<Self, Error> {
        let mut contents = Self::default();
        let mut asked = BTreeSet::new();
        let mut wanted: BTreeSet<u32> = oids.into_iter().filter(|oid| FIRST_USER_TYPE <= *oid).collect();
        while !wanted.is_empty() {
            let list = wanted.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let rows = session.query(&format!("{TYPES}({list})")).await?;
            asked.append(&mut wanted);
            for found in rows.iter().filter_map(Found::read) {
                wanted.extend(found.1.content.parts().into_iter().filter(|oid| FIRST_USER_TYPE <= *oid && !asked.contains(oid)));
                contents.0.insert(found.0, found.1);
            }
        }
        Ok(contents)
    }

    /// The types that a value of this type is made of, itself among them.
    pub(super) fn under(&self, oid: u32) -> BTreeSet<u32> {
        let mut under = BTreeSet::new();
        let mut next = vec![oid];
        while let Some(oid) = next.pop() {
            if let Some(found) = self.0.get(&oid).filter(|_| under.insert(oid)) {
                next.extend(found.content.parts());
            }
        }
        under
    }

    /// What is to be remembered of these types. What was remembered of others stays as far as it says how values are shown: the log
    /// may still hold some. Their numbers are not used again, so the newest are the highest.
    pub(super) fn remembered(&self, types: &BTreeSet<u32>, before: Option<&BTreeMap<u32, Content>>) -> BTreeMap<u32, Content> {
        /// How many types are remembered of a table beside those that it has.
        const EARLIER_MAX: usize = 256;
        let now = types.iter().filter_map(|oid| Some((*oid, self.0.get(oid)?.content.clone())));
        let earlier = before.into_iter().flatten().filter(|(oid, content)| content.is_shape() && !types.contains(oid));
        earlier.rev().take(EARLIER_MAX).map(|(oid, content)| (*oid, content.clone())).chain(now).collect()
    }

    /// What became of this type since, where stored values of it now print otherwise.
    pub(super) fn change(&self, oid: u32, before: &BTreeMap<u32, Content>) -> Option<String> {
        let (before, now) = (before.get(&oid)?, self.0.get(&oid)?);
        match (before, &now.content) {
            // Labels that were added since change no row.
            (Content::Labels(newest, hash), Content::Labels(..)) => {
                (*hash != hashed(&now.labels, *newest)).then(|| format!("a label of type {} was renamed", now.name))
            }
            (before, content) => (before != content).then(|| format!("the fields of type {} changed", now.name)),
        }
    }
}

impl Found {
    fn read(row: &Answer) -> Option<(u32, Self)> {
        let number = |index: usize| row.text(index).parse::<u32>().unwrap_or(0);
        let labels: Vec<(u32, String, String)> = serde_json::from_str(row.text(8)).unwrap_or_default();
        let content = match (row.text(1), number(4), number(6)) {
            ("d", ..) => Content::Domain(number(3)),
            ("e", ..) => {
                let newest = labels.last().map_or(0, |label| label.0);
                Content::Labels(newest, hashed(&labels, newest))
            }
            ("c", ..) => Content::Fields(serde_json::from_str(row.text(7)).unwrap_or_default()),
            (_, 0, 0) => return None,
            (_, 0, under) => Content::Range(under),
            (_, element, _) => Content::Array(element, row.text(5).bytes().next().unwrap_or(b',')),
        };
        Some((number(0), Self { name: row.text(2).to_owned(), content, labels }))
    }
}

/// A hash of the labels up to this one.
fn hashed(labels: &[(u32, String, String)], newest: u32) -> u32 {
    labels
        .iter()
        .filter(|label| label.0 <= newest)
        .fold(0, |hash, (number, text, writer)| crc32c::crc32c_append(hash, format!("{number} {writer} {} {text};", text.len()).as_bytes()))
}
