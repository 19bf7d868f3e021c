//! How far a feed's rows have been read under a snapshot.

use super::ranges::Range;

/// How far a feed's table has been read.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The ranges by number; `None` once a range is read completely.
    pub(super) ranges: Vec<Option<Range>>,
    /// The first range that no reader has started.
    pub(super) next_range: usize,
}

impl Scan {
    pub(super) fn new(ranges: Vec<Range>) -> Self {
        Self { ranges: ranges.into_iter().map(Some).collect(), next_range: 0 }
    }

    /// The number of the first range that no reader has started.
    pub(super) fn next(&self) -> Option<usize> {
        (self.next_range < self.ranges.len()).then_some(self.next_range)
    }

    pub(super) fn is_done(&self) -> bool {
        self.ranges.iter().all(Option::is_none)
    }
}
