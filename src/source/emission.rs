//! The state behind a session's live events: where feeds begin, the current transaction, and counts.

use crate::batch::BatchWriter;
use crate::checkpoint::FeedState;
use crate::event::{FeedId, Operation, Position, Timestamp};
use crate::feed::Feeds;
use crate::format::Encoders;
use crate::source::token::LogToken;
use crate::status::metrics::SourceMetrics;
use std::sync::Arc;

/// The longest prefix of a position: `prefix-1-ordinal`.
pub const PREFIX_LENGTH_MAX: usize = Position::LENGTH_MAX - 3 - ORDINAL_LENGTH;
const ORDINAL_LENGTH: usize = 16;

/// What lasts as long as one session with the log. The engine owns it; a source writes through an
/// [`Emitter`](crate::source::Emitter).
#[derive(Debug)]
pub struct Emission<T> {
    pub(super) encoders: Encoders,
    pub(super) feeds: Arc<Feeds>,
    /// By [`FeedId`]: where its live events begin; `None` until its first cut.
    pub(super) starts: Vec<Option<T>>,
    pub(super) current: Current,
    pub(super) counts: Counts,
    closed_records: u64,
    metrics: SourceMetrics,
}

/// The part of the log that is being read.
#[derive(Debug)]
pub(super) struct Current {
    position: [u8; Position::LENGTH_MAX],
    prefix_length: usize,
    pub(super) committed_at: Timestamp,
    pub(super) transaction: Option<OpenTransaction>,
    /// The identifier of the newest transaction. Its memory serves the next one too.
    pub(super) transaction_id: String,
    /// Where the newest record stands while it is open.
    pub(super) open: Option<Inside>,
}

/// A transaction that has begun.
#[derive(Debug)]
pub(super) struct OpenTransaction {
    /// Index of its next published event.
    pub(super) index: u64,
    handed_over: HandedOver,
}

/// A place inside a transaction: before the change with this ordinal, whose event would have this index. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inside {
    /// Orders the changes of a transaction.
    pub ordinal: u64,
    /// How many events of the transaction come before.
    pub index: u64,
}

/// How much of a transaction an earlier session handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// Nothing.
    Nothing,
    /// Everything before this place.
    Until(Inside),
    /// All of it.
    All,
}

/// Counts between two reports, so that no metric is touched for a single change.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) events: [u64; Operation::ALL.len()],
    pub(super) filtered: u64,
    pub(super) transactions: u64,
}

impl<T: LogToken> Emission<T> {
    /// A session in which the feeds begin as their states say.
    ///
    /// # Errors
    /// Where a start is no token of the source.
    pub fn new(encoders: Encoders, feeds: Arc<Feeds>, states: &[FeedState], metrics: SourceMetrics) -> Result<Self, T::Error> {
        let starts = states.iter().map(|state| state.start().map(T::parse).transpose()).collect::<Result<_, _>>()?;
        let current = Current {
            position: [b'0'; Position::LENGTH_MAX],
            prefix_length: 0,
            committed_at: Timestamp(0),
            transaction: None,
            transaction_id: String::new(),
            open: None,
        };
        Ok(Self { encoders, feeds, starts, current, counts: Counts::default(), closed_records: 0, metrics })
    }

    /// Publishes the feed's live events from `start` on.
    pub fn start(&mut self, feed: FeedId, start: T) {
        if let Some(known) = self.starts.get_mut(feed.index()) {
            *known = Some(start);
        }
    }

    /// Whether the feed's live events are published.
    #[must_use]
    pub fn has_started(&self, feed: FeedId) -> bool {
        self.starts.get(feed.index()).is_some_and(Option::is_some)
    }

    /// The encoders of the pipeline.
    #[must_use]
    pub const fn encoders(&self) -> &Encoders {
        &self.encoders
    }

    /// How many live records were closed in this session. More can be handed over once it has grown.
    #[must_use]
    pub const fn closed_records(&self) -> u64 {
        self.closed_records
    }

    /// Where a later session goes on in the current transaction, behind its last closed record. `next` is the ordinal of the change that
    /// is read next. `None` at the beginning of a transaction, outside of one, and in one that was handed over before.
    #[must_use]
    pub fn inside(&self, next: u64) -> Option<Inside> {
        let transaction = self.current.transaction.as_ref()?;
        let floor = match transaction.handed_over {
            HandedOver::All => return None,
            HandedOver::Until(inside) => inside.ordinal,
            HandedOver::Nothing => 0,
        };
        let inside = self.current.open.unwrap_or(Inside { ordinal: next.max(floor), index: transaction.index });
        (inside.ordinal != 0).then_some(inside)
    }

    /// Adds to the metrics what was counted since the last report.
    pub fn report(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        for (operation, count) in Operation::ALL.into_iter().zip(counts.events) {
            if 0 < count {
                self.metrics.add_events(operation, count);
            }
        }
        self.metrics.filtered_operations.inc_by(counts.filtered);
        self.metrics.transactions.inc_by(counts.transactions);
    }

    /// Closes the open record, if there is one.
    pub(super) fn close(&mut self, out: &mut BatchWriter, last: bool) {
        if self.current.open.take().is_some() {
            self.encoders.format().close(out, last);
            self.closed_records += 1;
        }
    }

    /// Notes a record that needs no close.
    pub(super) const fn closed(&mut self) {
        self.closed_records += 1;
    }
}

impl Current {
    /// Goes on to another part of the log.
    pub(super) fn go_to(&mut self, prefix: &[u8], committed_at: Timestamp) {
        if self.position[..self.prefix_length] != *prefix {
            assert!(prefix.len() <= PREFIX_LENGTH_MAX, "the prefix of a position has at most {PREFIX_LENGTH_MAX} bytes");
            self.position[..prefix.len()].copy_from_slice(prefix);
            self.position[prefix.len()..prefix.len() + 3].copy_from_slice(b"-1-");
            self.prefix_length = prefix.len();
        }
        self.committed_at = committed_at;
    }

    pub(super) fn begin(&mut self, id: &str, handed_over: HandedOver) {
        let index = if let HandedOver::Until(inside) = handed_over { inside.index } else { 0 };
        self.transaction_id.clear();
        self.transaction_id.push_str(id);
        self.transaction = Some(OpenTransaction { index, handed_over });
    }

    /// The position of a change.
    pub(super) fn position(&mut self, mut ordinal: u64) -> Position {
        let end = self.prefix_length + 3 + ORDINAL_LENGTH;
        for digit in self.position[end - ORDINAL_LENGTH..end].iter_mut().rev() {
            *digit = b'0' + u8::try_from(ordinal % 10).unwrap_or_default();
            ordinal /= 10;
        }
        Position::new(&self.position[..end])
    }

    /// Whether an earlier session handed over this change's event.
    pub(super) fn was_handed_over(&self, ordinal: u64) -> bool {
        match self.transaction.as_ref().map(|transaction| transaction.handed_over) {
            None | Some(HandedOver::Nothing) => false,
            Some(HandedOver::Until(inside)) => ordinal < inside.ordinal,
            Some(HandedOver::All) => true,
        }
    }
}
