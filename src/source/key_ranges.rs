//! Key ranges of a table that remain to be read, as the checkpoint stores them, for databases that read a table in key order.
//!
//! feedline itself compares no keys: the database orders them by their types and collations, and is told where to continue.

use crate::checkpoint::ScanPosition;
use serde::{Deserialize, Serialize};

/// A table of at least this size is split.
const SPLIT_BYTES: u64 = 16 << 20;
/// Key ranges per reader. More than one, so that a reader that finishes early takes another.
const RANGES_PER_READER: usize = 4;

/// The values of a key as text, in the order of the table's key columns.
pub type Key = Vec<String>;

/// Rows after `after`, up to and including `until`. Without `after` from the first row, without `until` to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRange {
    /// The newest key that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Key>,
    /// The last key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Key>,
}

impl KeyRange {
    /// Into how many ranges a table of this size is split for so many readers; `None` if it is not.
    #[must_use]
    pub fn parts(size_bytes: u64, readers: usize) -> Option<usize> {
        (2 <= readers && SPLIT_BYTES <= size_bytes).then_some(readers * RANGES_PER_READER)
    }

    /// The ranges between these keys, which are in ascending order.
    #[must_use]
    pub fn between(boundaries: Vec<Key>) -> Vec<Self> {
        let mut ranges = Vec::new();
        let mut after: Option<Key> = None;
        for boundary in boundaries {
            if after.as_ref() != Some(&boundary) {
                ranges.push(Self { after: after.replace(boundary.clone()), until: Some(boundary) });
            }
        }
        ranges.push(Self { after, until: None });
        ranges
    }
}

/// The scan position in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRanges {
    /// The fingerprint of the table's key.
    key: String,
    ranges: Vec<KeyRange>,
}

/// How far a feed's rows have been read under a snapshot.
#[derive(Debug, Default)]
pub struct KeyRanges {
    /// The ranges by number; `None` once a range is read completely.
    ranges: Vec<Option<KeyRange>>,
    /// The first range that no reader has started.
    next: usize,
}

impl KeyRanges {
    /// Nothing of these is read.
    #[must_use]
    pub fn new(ranges: Vec<KeyRange>) -> Self {
        Self { ranges: ranges.into_iter().map(Some).collect(), next: 0 }
    }

    /// Those that a checkpoint holds; `None` when they do not fit the table's key, whose fingerprint this is, or cannot be read. `fits`: whether
    /// a range has keys of this table.
    #[must_use]
    pub fn resume(position: &ScanPosition, fingerprint: &str, fits: impl Fn(&KeyRange) -> bool) -> Option<Self> {
        let stored: StoredRanges = serde_json::from_str(&position.0).ok()?;
        (stored.key == fingerprint && stored.ranges.iter().all(fits)).then(|| Self::new(stored.ranges))
    }

    /// What remains, as a checkpoint stores it. `fingerprint` is that of the table's key.
    ///
    /// # Panics
    /// Never: the ranges are lists of strings.
    #[must_use]
    pub fn position(&self, fingerprint: &str) -> ScanPosition {
        let stored = StoredRanges { key: fingerprint.to_owned(), ranges: self.ranges.iter().flatten().cloned().collect() };
        ScanPosition(serde_json::to_string(&stored).expect("lists of strings").into())
    }

    /// The first range that no reader has started, with its number.
    #[must_use]
    pub fn next(&self) -> Option<(usize, &KeyRange)> {
        let range = self.ranges.get(self.next)?.as_ref()?;
        Some((self.next, range))
    }

    /// A reader has started that range.
    pub const fn start_next(&mut self) {
        self.next += 1;
    }

    /// The range that is being read; `None` once it is read completely.
    pub fn range_mut(&mut self, number: usize) -> Option<&mut KeyRange> {
        self.ranges.get_mut(number)?.as_mut()
    }

    /// The range is read completely.
    pub fn finish(&mut self, number: usize) {
        if let Some(range) = self.ranges.get_mut(number) {
            *range = None;
        }
    }

    /// Whether all are read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ranges.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyRange, KeyRanges};

    fn key(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn ranges_between_keys_leave_no_gap() {
        let ranges = KeyRange::between(vec![key("a"), key("a"), key("m")]);
        let expected = [(None, Some("a")), (Some("a"), Some("m")), (Some("m"), None)]
            .map(|(after, until)| KeyRange { after: after.map(key), until: until.map(key) });
        assert_eq!(ranges, expected);
        assert_eq!(KeyRange::between(Vec::new()), [KeyRange::default()]);
    }

    #[test]
    fn what_remains_is_read_after_a_resume() {
        let mut ranges = KeyRanges::new(KeyRange::between(vec![key("a"), key("m")]));
        let (first, _) = ranges.next().unwrap();
        ranges.start_next();
        let (second, _) = ranges.next().unwrap();
        ranges.start_next();
        ranges.finish(first);
        ranges.range_mut(second).unwrap().after = Some(key("c"));
        let stored = ranges.position("the key");
        assert!(KeyRanges::resume(&stored, "another key", |_| true).is_none());
        assert!(KeyRanges::resume(&stored, "the key", |range| range.after.is_none()).is_none(), "a key of another table");
        let mut resumed = KeyRanges::resume(&stored, "the key", |_| true).unwrap();
        assert_eq!(resumed.next(), Some((0, &KeyRange { after: Some(key("c")), until: Some(key("m")) })));
        resumed.start_next();
        assert_eq!(resumed.next(), Some((1, &KeyRange { after: Some(key("m")), until: None })));
        resumed.start_next();
        assert_eq!(resumed.next(), None);
        assert!(!resumed.is_done());
        (0..2).for_each(|number| resumed.finish(number));
        assert!(resumed.is_done());
    }
}
