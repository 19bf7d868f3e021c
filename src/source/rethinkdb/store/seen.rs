//! Which documents the current scan of a table has shown.
//!
//! This lives as long as the scan, and so needs no disk: whatever ends the one, a crash or a failed transaction, has the next scan begin without
//! any document.

use std::collections::HashMap;

/// Words of a page, and numbers of documents in it.
const WORDS: usize = 16;
const PAGE: i64 = 1024;

/// Numbers of documents, one bit each. Those of a table lie together, since a scan gives them in turn.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<i64, Box<[u64; WORDS]>>);

impl Seen {
    pub(crate) fn insert(&mut self, id: i64) {
        let (page, word, bit) = place(id);
        self.0.entry(page).or_default()[word] |= bit;
    }

    /// The store may give the number to another document.
    pub(crate) fn remove(&mut self, id: i64) {
        let (page, word, bit) = place(id);
        if let Some(words) = self.0.get_mut(&page) {
            words[word] &= !bit;
        }
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        let (page, word, bit) = place(id);
        self.0.get(&page).is_some_and(|words| words[word] & bit != 0)
    }
}

/// A number's page, the word in it, and the bit in that.
const fn place(id: i64) -> (i64, usize, u64) {
    let within = id.rem_euclid(PAGE).cast_unsigned();
    let word = (within / 64) as usize;
    (id.div_euclid(PAGE), word, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn numbers_are_kept_apart() {
        let numbers = [i64::MIN, -1025, -1, 0, 1, 63, 64, 1023, 1024, 1 << 40, i64::MAX];
        let mut seen = Seen::default();
        for (at, id) in numbers.into_iter().enumerate() {
            assert!(!seen.contains(id), "{id}");
            seen.insert(id);
            assert!(numbers.iter().enumerate().all(|(other, id)| seen.contains(*id) == (other <= at)), "{id}");
        }
        seen.remove(64);
        seen.remove(5000);
        assert!(numbers.iter().all(|id| seen.contains(*id) == (*id != 64)));
    }
}
