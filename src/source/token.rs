//! A token as its source reads it.

use crate::checkpoint::ResumeToken;

/// A position in the log of one backend, parsed. The engine compares nothing in it; it only hands it on.
pub trait LogToken: Clone + Send + Sync + Sized + 'static {
    /// Why a text is no token of this source.
    type Error;
    /// One change in the log, as far as it is compared with the start of a feed.
    type Change: Copy;

    /// Reads a token.
    ///
    /// # Errors
    /// Where this source has not made it.
    fn parse(token: &ResumeToken) -> Result<Self, Self::Error>;

    /// Whether a session that goes on here would read changes again that one at `other` leaves out.
    fn is_before(&self, other: &Self) -> bool;

    /// Whether the change lies at or behind this position.
    fn admits(&self, change: Self::Change) -> bool;

    /// The position as the positions of events begin with it: printable ASCII of one width, at most
    /// [`PREFIX_LENGTH_MAX`](crate::source::PREFIX_LENGTH_MAX) bytes. As bytes, prefixes sort in log order.
    fn position_prefix(&self) -> String;
}
