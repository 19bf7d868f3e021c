//! Writes records into a batch's arena, part by part, and seals the batch.

use super::arena::Buffers;
use super::lease::Lease;
use super::record::{Entry, Record};
use super::sealed::Batch;
use super::seq::Seq;
use crate::checkpoint::Progress;
use crate::event::{Head, RowError};
use std::ops::Range;

/// Records whose body is not complete yet. They move from a sealed batch to the writer of the next one.
#[derive(Debug)]
pub struct OpenRecords(Buffers);

/// Collects records until it is full.
#[derive(Debug)]
pub struct BatchWriter {
    buffers: Buffers,
    /// Number of closed entries. Those behind them are open, and all bytes from the first open entry on are theirs.
    closed: usize,
    limit_bytes: usize,
    lease: Lease,
}

impl BatchWriter {
    pub(super) const fn new(buffers: Buffers, limit_bytes: usize, lease: Lease) -> Self {
        Self { buffers, closed: 0, limit_bytes, lease }
    }

    /// Begins a record, to be written part by part. If the record is dropped before its end, the batch is as before.
    ///
    /// # Panics
    /// When a record is still open: the source must close it before it begins the next.
    pub fn begin(&mut self, head: Head) -> RecordWriter<'_> {
        assert!(!self.is_open(), "the newest record is closed before the next begins");
        let start = self.buffers.arena.len();
        RecordWriter { writer: self, head, start, id_end: start, key_end: start, related_end: start }
    }

    /// Lets `complete` finish the body of the open record, and closes it. Does nothing when no record is open.
    ///
    /// # Panics
    /// When the body is longer than 4 GiB; what is added here is a few bytes.
    pub fn close(&mut self, complete: impl FnOnce(&mut OpenBody<'_>)) {
        let Some(entry) = self.buffers.entries.get_mut(self.closed) else { return };
        let start = entry.body_start();
        complete(&mut OpenBody { arena: &mut self.buffers.arena, start });
        entry.body_length = u32::try_from(self.buffers.arena.len() - start).expect("the end of a body is a few bytes");
        self.closed = self.buffers.entries.len();
    }

    /// Whether the newest record's body is not complete yet.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed < self.buffers.entries.len()
    }

    /// Whether the batch must be handed over before more is written. It may exceed its limit by one record.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.limit_bytes <= self.buffers.used_bytes()
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.buffers.used_bytes()
    }

    /// Whether it holds no closed record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.closed == 0
    }

    /// The closed records, in order.
    #[must_use]
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.buffers.entries[..self.closed].iter().map(|entry| entry.view(&self.buffers.arena))
    }

    /// Takes over the memory of other writers, as far as the records written need it: one may be larger than a batch.
    pub(crate) fn absorb(&mut self, others: &mut impl Iterator<Item = Self>) {
        self.lease.cover(self.buffers.used_bytes(), others.map(|other| other.lease));
    }

    /// Makes a batch of the closed records. Returns the open ones, for [`Self::adopt`] of the next writer.
    #[must_use]
    pub fn seal(mut self, seq: Seq, progress: Progress) -> (Batch, Option<OpenRecords>) {
        let open = self.take_open();
        let buffers = self.lease.fit(self.buffers);
        (Batch { seq, buffers, progress, lease: self.lease }, open)
    }

    fn take_open(&mut self) -> Option<OpenRecords> {
        let cut = self.buffers.entries.get(self.closed)?.start;
        let arena = self.buffers.arena.split_off(cut as usize);
        let mut entries = self.buffers.entries.split_off(self.closed);
        for entry in &mut entries {
            entry.start -= cut;
        }
        Some(OpenRecords(Buffers { arena, entries }))
    }

    /// Takes over the open records of the last batch.
    ///
    /// # Panics
    /// When the writer is not empty.
    pub fn adopt(&mut self, open: &OpenRecords) {
        assert!(self.buffers.entries.is_empty(), "open records come first");
        self.buffers.arena.extend_from_slice(&open.0.arena);
        self.buffers.entries.extend_from_slice(&open.0.entries);
    }
}

/// The body of the open record, to be completed.
#[derive(Debug)]
pub struct OpenBody<'w> {
    arena: &'w mut Vec<u8>,
    start: usize,
}

impl OpenBody<'_> {
    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        self.arena.extend_from_slice(bytes);
    }

    /// What is written already, to be changed in place.
    #[must_use]
    pub fn written(&mut self) -> &mut [u8] {
        &mut self.arena[self.start..]
    }
}

/// Whether a record is complete when it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its body is complete.
    Closed,
    /// Its body waits for [`BatchWriter::close`].
    Open,
}

/// Writes one record: its id, its key, optionally a related key, then its body.
#[derive(Debug)]
pub struct RecordWriter<'w> {
    writer: &'w mut BatchWriter,
    head: Head,
    start: usize,
    id_end: usize,
    key_end: usize,
    related_end: usize,
}

impl RecordWriter<'_> {
    /// The buffer for the current part. Only append to it.
    #[must_use]
    pub const fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.writer.buffers.arena
    }

    /// Ends the id.
    pub const fn end_id(&mut self) {
        self.id_end = self.writer.buffers.arena.len();
        self.key_end = self.id_end;
        self.related_end = self.id_end;
    }

    /// Ends the key.
    pub const fn end_key(&mut self) {
        self.key_end = self.writer.buffers.arena.len();
        self.related_end = self.key_end;
    }

    /// Ends the related key.
    pub const fn end_related_key(&mut self) {
        self.related_end = self.writer.buffers.arena.len();
    }

    /// Copies the key into the body.
    pub fn repeat_key(&mut self) {
        self.writer.buffers.arena.extend_from_within(self.key());
    }

    /// Where the key is in the buffer.
    #[must_use]
    pub const fn key(&self) -> Range<usize> {
        self.id_end..self.key_end
    }

    /// Where the id is in the buffer.
    #[must_use]
    pub const fn id(&self) -> Range<usize> {
        self.start..self.id_end
    }

    /// Ends the record. With `tombstone`, a second record without a body follows: same id, same key.
    ///
    /// # Errors
    /// [`RowError::TooLarge`] when the batch's offsets no longer fit 32 bits. The batch is as before.
    pub fn end(mut self, ending: Ending, tombstone: bool) -> Result<(), RowError> {
        let entry = self.entry()?;
        let buffers = &mut self.writer.buffers;
        buffers.entries.push(entry);
        if tombstone {
            buffers.entries.push(Entry { body_length: 0, tombstone: true, ..entry });
        }
        if ending == Ending::Closed {
            self.writer.closed = buffers.entries.len();
        }
        // Now dropping `self` truncates nothing.
        self.start = buffers.arena.len();
        Ok(())
    }

    fn entry(&self) -> Result<Entry, RowError> {
        let length = |from: usize, to: usize| u32::try_from(to - from).map_err(|_| RowError::TooLarge);
        Ok(Entry {
            timestamp: self.head.timestamp,
            feed: self.head.feed,
            start: u32::try_from(self.start).map_err(|_| RowError::TooLarge)?,
            key_length: length(self.id_end, self.key_end)?,
            related_length: length(self.key_end, self.related_end)?,
            body_length: length(self.related_end, self.writer.buffers.arena.len())?,
            id_length: u16::try_from(self.id_end - self.start).map_err(|_| RowError::TooLarge)?,
            operation: self.head.operation,
            tombstone: false,
        })
    }
}

impl Drop for RecordWriter<'_> {
    fn drop(&mut self) {
        self.writer.buffers.arena.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchWriter, Ending};
    use crate::batch::lease::BATCH_OVERHEAD_BYTES;
    use crate::batch::{Batch, Budget, Seq};
    use crate::checkpoint::{Progress, ResumeToken};
    use crate::event::{FeedId, Head, Operation, Timestamp};

    const BATCH_BYTES: usize = 1 << 16;

    fn head(operation: Operation, micros: i64) -> Head {
        Head { feed: FeedId(0), operation, timestamp: Timestamp(micros) }
    }

    fn write(out: &mut BatchWriter, head: Head, body: &[u8], ending: Ending, tombstone: bool) {
        let mut record = out.begin(head);
        record.arena().extend_from_slice(b"id");
        record.end_id();
        record.arena().extend_from_slice(b"key");
        record.end_key();
        record.repeat_key();
        record.arena().extend_from_slice(body);
        record.end(ending, tombstone).unwrap();
    }

    fn seal(out: BatchWriter) -> Batch {
        out.seal(Seq(1), Progress::live(ResumeToken("t".into()))).0
    }

    #[tokio::test]
    async fn a_record_dropped_before_its_end_leaves_the_batch_as_it_was() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        write(&mut out, head(Operation::Insert, 1), b"+1", Ending::Closed, false);
        let mut dropped = out.begin(head(Operation::Insert, 2));
        dropped.arena().extend_from_slice(b"idkey");
        dropped.end_key();
        drop(dropped);
        write(&mut out, head(Operation::Insert, 3), b"+3", Ending::Closed, false);
        let batch = seal(out);
        let bodies: Vec<_> = batch.records().map(|record| record.body.unwrap()).collect();
        assert_eq!(bodies, [b"key+1", b"key+3"]);
        assert_eq!(batch.size_bytes(), 2 * b"idkeykey+1".len());
    }

    #[tokio::test]
    async fn parts_are_found_where_they_were_written() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        let mut record = out.begin(head(Operation::Delete, 1));
        for (part, end) in [(&b"id"[..], 0), (b"key", 1), (b"related", 2), (b"body", 3)] {
            record.arena().extend_from_slice(part);
            match end {
                0 => record.end_id(),
                1 => record.end_key(),
                2 => record.end_related_key(),
                _ => {}
            }
        }
        record.end(Ending::Closed, false).unwrap();
        let batch = seal(out);
        let record = batch.records().next().unwrap();
        assert_eq!(
            (record.id, record.key, record.related_key, record.body),
            (&b"id"[..], &b"key"[..], Some(&b"related"[..]), Some(&b"body"[..]))
        );
    }

    #[tokio::test]
    async fn open_records_are_carried_over() {
        let budget = Budget::new(4 * BATCH_BYTES, BATCH_BYTES);
        let mut out = budget.writer().await;
        write(&mut out, head(Operation::Insert, 1), b"+1", Ending::Open, false);
        out.close(|body| body.append(b"."));
        write(&mut out, head(Operation::Delete, 2), b"+2", Ending::Open, true);
        assert_eq!(out.records().len(), 1);
        let (first, open) = out.seal(Seq(1), Progress::live(ResumeToken("t".into())));
        assert_eq!(first.records().map(|record| record.body).collect::<Vec<_>>(), [Some(&b"key+1."[..])]);
        let mut out = budget.writer().await;
        out.adopt(&open.unwrap());
        assert!(out.is_open() && out.is_empty());
        out.close(|body| body.append(b"!"));
        write(&mut out, head(Operation::Insert, 3), b"+3", Ending::Closed, false);
        let second = seal(out);
        let bodies: Vec<_> = second.records().map(|record| (record.key, record.body)).collect();
        assert_eq!(bodies, [(&b"key"[..], Some(&b"key+2!"[..])), (b"key", None), (b"key", Some(b"key+3"))]);
    }

    #[tokio::test]
    async fn an_open_body_is_completed_anywhere() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        write(&mut out, head(Operation::Insert, 1), b"+1", Ending::Closed, false);
        write(&mut out, head(Operation::Delete, 2), b"?2", Ending::Open, true);
        out.close(|body| {
            body.written()[3] = b'+';
            body.append(b"!");
        });
        let batch = seal(out);
        let bodies: Vec<_> = batch.records().map(|record| record.body).collect();
        assert_eq!(bodies, [Some(&b"key+1"[..]), Some(b"key+2!"), None]);
    }

    #[tokio::test]
    async fn closing_without_an_open_record_does_nothing() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        out.close(|body| body.append(b"!"));
        write(&mut out, head(Operation::Insert, 1), b"+1", Ending::Closed, false);
        out.close(|body| body.append(b"!"));
        assert_eq!(seal(out).records().next().unwrap().body, Some(&b"key+1"[..]));
    }

    #[tokio::test]
    #[should_panic(expected = "the newest record is closed before the next begins")]
    async fn a_record_that_is_left_open_is_a_defect() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        write(&mut out, head(Operation::Insert, 1), b"+1", Ending::Open, false);
        write(&mut out, head(Operation::Insert, 2), b"+2", Ending::Open, false);
    }

    #[tokio::test]
    async fn a_tombstone_shares_the_bytes_of_its_delete() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        write(&mut out, head(Operation::Delete, 1), b"+1", Ending::Closed, true);
        let batch = seal(out);
        assert_eq!((batch.len(), batch.size_bytes()), (2, b"idkeykey+1".len()));
        let records: Vec<_> = batch.records().collect();
        assert_eq!((records[0].key.as_ptr(), records[0].head), (records[1].key.as_ptr(), records[1].head));
        assert_eq!(records[1].body, None);
    }

    #[tokio::test]
    async fn a_batch_is_full_by_what_is_written() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        assert!(!out.is_full());
        write(&mut out, head(Operation::Insert, 1), &vec![b'x'; BATCH_BYTES - BATCH_OVERHEAD_BYTES - 100], Ending::Closed, false);
        assert!(!out.is_full());
        write(&mut out, head(Operation::Insert, 2), &[b'x'; 100], Ending::Closed, false);
        assert!(out.is_full());
    }

    #[tokio::test]
    async fn the_oldest_live_record_is_not_a_prefeed_row() {
        let mut out = Budget::new(BATCH_BYTES, BATCH_BYTES).writer().await;
        for (operation, micros) in [(Operation::Reset, 1), (Operation::Read, 2), (Operation::Update, 3), (Operation::Delete, 4)] {
            write(&mut out, head(operation, micros), b"", Ending::Closed, false);
        }
        assert_eq!(seal(out).oldest_live(), Some(Timestamp(3)));
    }
}
