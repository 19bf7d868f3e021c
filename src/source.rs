//! The port to a database: its log, its existing rows, its head.

use crate::batch::BatchWriter;
use crate::checkpoint::{FeedState, Identity, Layout, ResumeToken, ScanPosition};
use crate::event::{FeedId, Position, Timestamp};
use crate::fault::Classify;
use crate::feed::{Catalogue, Feeds};
use crate::preflight::Findings;
use crate::status::LogHead;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

pub mod file;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// Where a source goes on: from the checkpoint at a start, from memory after a restart of the feed half.
#[derive(Clone, Debug)]
pub struct Resume {
    /// All before it has been handed over.
    pub token: ResumeToken,
    /// State of each feed, by [`FeedId`].
    pub feeds: Vec<FeedState>,
    /// How each feed's table was seen last, by [`FeedId`].
    pub layouts: Vec<Option<Layout>>,
}

/// Why [`Source::fill`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The batch is full; more may be waiting.
    Full,
    /// No input waits: what is written may be handed over now.
    Drained,
    /// The log up to the limit has been written, and nothing beyond it.
    Reached,
}

/// A database's log, pulled.
pub trait Source: Send + 'static {
    /// Why the log could not be read.
    type Error: Classify;

    /// Waits for input, then appends changes until the batch is full, the input is drained, or `until` is reached.
    ///
    /// It may return [`Filled::Drained`] without a record, when the place in the log moved past changes that are not
    /// published. The limit is decided at a transaction's begin: one that has begun is read to its end. Events of a feed whose
    /// start is still to come, or that lie before it, are not published; nor are operations outside the feed's mask.
    ///
    /// Cancel safe: what was written stays written, what was read but not written stays in `self`.
    fn fill(&mut self, out: &mut BatchWriter, until: Option<&ResumeToken>) -> impl Future<Output = Result<Filled, Self::Error>> + Send;

    /// Where to resume after the last *closed* record: it may point into a transaction.
    fn token(&self) -> ResumeToken;

    /// The feed's live events are published from `start` on.
    fn start(&mut self, feed: FeedId, start: &ResumeToken);

    /// The source may forget what lies before `durable` (I1); nothing more than before where `None`. Also the keep-alive: called every
    /// [`Source::HEARTBEAT`], also while the pipeline waits for memory or for a prefeed; at a third of that rate while it waits in
    /// [`Source::fill`] and nothing comes. Cancel safe.
    fn acknowledge(&mut self, durable: Option<&ResumeToken>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What was noticed of the tables beside the log since the last call. Asked after each [`Source::acknowledge`].
    fn table_changes(&mut self) -> Vec<TableChange>;

    /// How often [`Source::acknowledge`] is called, see there.
    const HEARTBEAT: Duration;
}

/// How a feed's table looks now, where that is not as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    /// The feed.
    pub feed: FeedId,
    /// What to remember.
    pub layout: Layout,
    /// Whether rows changed meanwhile of which the log says nothing.
    pub reread: Option<Reread>,
}

/// Why a table's rows are to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reread {
    /// Whether rows may be gone, so that readers are told to forget what is not repeated.
    pub reset: bool,
    /// What happened, for a person.
    pub reason: String,
}

/// A feed whose rows a snapshot is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToRead {
    /// The feed.
    pub feed: FeedId,
    /// Its rows after this one; all where `None`.
    pub after: Option<ScanPosition>,
}

/// What became of an attempt to open a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is open.
    Cut(Cut),
    /// Others hold it up; nothing is held.
    Blocked {
        /// Who, and with what, for a person.
        by: String,
    },
}

/// What an opened snapshot is: the exact place in the log that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// All before it is visible in the snapshot, nothing after it.
    pub token: ResumeToken,
    /// When it was opened: the record time of its rows.
    pub opened_at: Timestamp,
}

/// One prefeed slice: rows read under one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its number; it only grows over the life of the pipeline.
    pub number: u32,
    /// The number of its next row, from 0; resets come first.
    pub next_row: u32,
}

impl Slice {
    /// Positions of rows in this slice, behind `place`, the source's spelling of the cut. Their layout is the same for every
    /// source, so that a row of the prefeed sorts after all before its cut and before all after it:
    /// `place-0-slice(6)row(9)0`.
    ///
    /// # Panics
    /// When the place is longer than 42 bytes: a source's layout is fixed when it is written. After 1.5 billion slices.
    #[must_use]
    pub fn positions(&self, place: &str) -> RowPositions {
        let mut bytes = [0; Position::LENGTH_MAX];
        let mut rest = &mut bytes[..];
        let number = digits(self.number);
        write!(rest, "{place}-0-{number}{:09}0", 0).expect("a place of at most 42 bytes");
        let length = Position::LENGTH_MAX - rest.len();
        RowPositions { bytes, length }
    }

    /// The number of the next row, which is then taken.
    pub const fn take_row(&mut self) -> u32 {
        let row = self.next_row;
        self.next_row += 1;
        row
    }
}

/// A slice's number in six bytes that sort as numbers do: decimal, and from a million on of the digits 0 to Z, the first of them a letter.
fn digits(number: u32) -> String {
    const MILLION: u32 = 1_000_000;
    let Some(mut beyond) = number.checked_sub(MILLION) else { return format!("{number:06}") };
    let mut digits = [0; 6];
    for digit in digits[1..].iter_mut().rev() {
        *digit = beyond % 36;
        beyond /= 36;
    }
    assert!(beyond < 26, "slice {number} has no number that sorts behind the one before it");
    digits[0] = 10 + beyond;
    digits.iter().filter_map(|digit| char::from_digit(*digit, 36)).map(|digit| digit.to_ascii_uppercase()).collect()
}

/// The positions of one slice's rows.
#[derive(Clone, Copy, Debug)]
pub struct RowPositions {
    bytes: [u8; Position::LENGTH_MAX],
    length: usize,
}

impl RowPositions {
    const ROW_DIGITS: usize = 9;

    /// The position of the row with this number.
    #[must_use]
    pub fn of(&self, row: u32) -> Position {
        let mut position = *self;
        let (mut row, end) = (row, self.length - 1);
        for digit in position.bytes[end - Self::ROW_DIGITS..end].iter_mut().rev() {
            *digit = b'0' + (row % 10) as u8;
            row /= 10;
        }
        Position::new(&position.bytes[..self.length])
    }
}

/// What a call to [`Prefeed::scan`] brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The last row written; `None` where there was none.
    pub after: Option<ScanPosition>,
    /// Rows written.
    pub rows: u64,
    /// Whether the table ends here.
    pub done: bool,
}

/// Reads existing rows: a database's under a snapshot, on connections of its own, and a file's.
pub trait Prefeed: Send + 'static {
    /// Why rows could not be read.
    type Error: Classify;

    /// Opens a snapshot whose exact place in the log is known, over the feeds that it may read in this order, within this time.
    fn open(&mut self, feeds: &[ToRead], within: Duration) -> impl Future<Output = Result<Opened, Self::Error>> + Send;

    /// Says that the table is read anew: appends the feed's `reset` event.
    fn reset(
        &mut self,
        feed: FeedId,
        cut: &Cut,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Appends the rows after `after` as the snapshot shows them, until the batch is full or the feed's rows end, numbering
    /// them by `slice`. What `after` says only the prefeed knows: several ranges may be read at once.
    fn scan(
        &mut self,
        feed: FeedId,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> impl Future<Output = Result<Scanned, Self::Error>> + Send;

    /// As [`Prefeed::scan`], from the feed's file; `cut` is a place at which the log is held. No snapshot is needed.
    fn load(
        &mut self,
        feed: FeedId,
        cut: &Cut,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> impl Future<Output = Result<Scanned, Self::Error>> + Send;

    /// Whether somebody else waits for what the snapshot holds: the slice then ends early. Cancel safe.
    fn is_waited_for(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Releases the snapshot. Also called after an error; there is nothing to release then.
    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// How many rows the feed's prefeed is expected to hold, roughly.
    fn expected_rows(&mut self, feed: FeedId) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send;

    /// The longest that a snapshot may be held.
    const SLICE_MAX: Duration;
}

/// Looks at the head of the log, on its own connection, so that lag is known while the log itself is stuck.
pub trait Probe: Send + 'static {
    /// Why the head could not be seen.
    type Error: Classify;

    /// The head, seen from `confirmed`. A connection that was lost is opened anew.
    fn head(&mut self, confirmed: &ResumeToken) -> impl Future<Output = Result<LogHead, Self::Error>> + Send;
}

/// What goes on after a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Where the log goes on. Nothing was changed in the source that would hide the gap from a process that does not know of this yet.
    pub token: ResumeToken,
    /// Feeds of which something is missing.
    pub feeds: Vec<FeedId>,
}

/// Opens the ports to one source, anew for each attempt.
pub trait SourceConnector: Send + 'static {
    /// The log.
    type Source: Source<Error = Self::Error>;
    /// The existing rows.
    type Prefeed: Prefeed<Error = Self::Error>;
    /// The head.
    type Probe: Probe<Error = Self::Error>;
    /// Why it could not be opened.
    type Error: Classify;

    /// Looks what the source has; changes nothing.
    fn catalogue(&mut self) -> impl Future<Output = Result<Catalogue, Self::Error>> + Send;

    /// Looks who the source is; changes nothing. Empty where it is nobody yet: an embedded database is known by its change log.
    fn identity(&mut self) -> impl Future<Output = Result<Identity, Self::Error>> + Send;

    /// Refuses a source that is not the known one (G6), before anything that it says is used; changes nothing.
    fn recognize(&mut self, known: &Identity) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Which feeds the following calls serve.
    fn select(&mut self, feeds: Arc<Feeds>);

    /// Checks that the source can be followed (its settings, privileges), and every selected feed (a key, a replica identity),
    /// changing nothing. All that stands against it comes at once, at least one error.
    fn verify(&mut self) -> impl Future<Output = Result<(), Vec<Self::Error>>> + Send;

    /// Says what a start would do, changing nothing; asked after [`Self::verify`].
    fn preflight(&mut self) -> impl Future<Output = Result<Findings, Self::Error>> + Send;

    /// Checks that nothing which the pipeline would make is there yet: asked at a first start, before the intent is written.
    /// A slot or a change log without a checkpoint means that a checkpoint was lost, and with it events.
    fn unclaimed(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Checks that the log can be opened where a checkpoint ends, as [`Self::connect`] does, changing nothing.
    fn resumable(&mut self, known: &Identity, resume: &Resume) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What a start that goes on there would notice of the tables beside the log, changing nothing; asked after [`Self::resumable`].
    fn unseen(&mut self, _resume: &Resume) -> impl Future<Output = Result<Vec<TableChange>, Self::Error>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Makes what the source needs (slot, publication, triggers) and returns where its log begins. Called when no token is
    /// known, after the intent is durable; a second call after a crash takes over what the first one made.
    fn establish(&mut self) -> impl Future<Output = Result<ResumeToken, Self::Error>> + Send;

    /// Opens the log. `known` is who the source was when the checkpoint was made: another one is refused (G6).
    fn connect(&mut self, known: &Identity, resume: &Resume) -> impl Future<Output = Result<Self::Source, Self::Error>> + Send;

    /// After a gap behind where `lost` would go on: finds or makes where the log can go on. Refused where the source is not the known one, or where
    /// positions from there on would not sort after those that were published.
    fn renew(&mut self, known: &Identity, lost: &Resume) -> impl Future<Output = Result<Renewed, Self::Error>> + Send;

    /// Whether going on at `token` instead of at `stored` leaves changes out; also where nobody knows, because `stored` is not a
    /// place.
    ///
    /// # Errors
    /// Where `token` is not a place in this source's log.
    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Self::Error>;

    /// Opens a connection for the prefeed.
    fn prefeed(&mut self) -> impl Future<Output = Result<Self::Prefeed, Self::Error>> + Send;

    /// Opens a connection for the probe.
    fn probe(&mut self) -> impl Future<Output = Result<Self::Probe, Self::Error>> + Send;

    /// Removes from the source all that the pipeline made there; says what was removed, and what stays because others are to make
    /// and drop it, a line each.
    fn detach(&mut self) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send;
}

#[cfg(test)]
mod tests {
    use super::Slice;

    #[test]
    fn a_row_has_nine_digits_in_its_slice() {
        let mut slice = Slice { number: 12, next_row: 345 };
        let positions = slice.positions("00000001-00000000016B3748");
        assert_eq!(positions.of(slice.take_row()).as_bytes(), b"00000001-00000000016B3748-0-0000120000003450");
        assert_eq!(positions.of(999_999_999).as_bytes(), b"00000001-00000000016B3748-0-0000129999999990");
        assert_eq!(slice.next_row, 346);
    }

    #[test]
    fn positions_sort_and_keep_their_width_beyond_a_million_slices() {
        let position = |number, row| Slice { number, next_row: 0 }.positions("00000001-00000000016B3748").of(row);
        let rows = [(0, 5), (999_999, 0), (999_999, 7), (1_000_000, 0), (1_000_009, 1), (1_000_010, 0), (1_000_035, 3), (1_000_036, 0)];
        let late = [(61_466_175, 2), (61_466_176, 0), (100_000_000, 0), (1_573_120_575, 9)];
        let positions: Vec<_> = rows.into_iter().chain(late).map(|(number, row)| position(number, row)).collect();
        for pair in positions.windows(2) {
            assert!(pair[0].as_bytes() < pair[1].as_bytes() && pair[0].as_bytes().len() == pair[1].as_bytes().len(), "{pair:?}");
        }
        assert_eq!(position(1_000_000, 0).as_bytes(), b"00000001-00000000016B3748-0-A000000000000000");
        assert_eq!(position(1_000_035, 3).as_bytes(), b"00000001-00000000016B3748-0-A0000Z0000000030");
        assert_eq!(position(1_573_120_575, 9).as_bytes(), b"00000001-00000000016B3748-0-ZZZZZZ0000000090");
    }

    #[test]
    #[should_panic(expected = "has no number")]
    fn a_slice_that_would_sort_before_others_ends_the_run() {
        let _position = Slice { number: 1_573_120_576, next_row: 0 }.positions("1").of(0);
    }
}
