//! A row of the change log: its heading, and a checksum that tells it from every other row.

/// What stands before the values of a log row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heading {
    /// Its number in the log.
    pub(super) seq: i64,
    /// The version of the table.
    pub(super) tid: i64,
    /// The operation.
    pub(super) op: i64,
    /// The writer's clock, in microseconds.
    pub(super) at: i64,
}

/// Identifies a row of the log: a log that holds the same row under the same number is still the log that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Its number.
    pub(super) seq: i64,
    /// CRC-32C of its version, operation, clock and values.
    pub(super) checksum: u32,
}

impl Anchor {
    /// `values` are encoded as in a page.
    pub(super) fn of(heading: &Heading, values: &[u8]) -> Self {
        let mut checksum = 0;
        for number in [heading.tid, heading.op, heading.at] {
            checksum = crc32c::crc32c_append(checksum, &number.to_le_bytes());
        }
        Self { seq: heading.seq, checksum: crc32c::crc32c_append(checksum, values) }
    }
}
