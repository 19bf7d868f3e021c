//! What is there: the slot, the publication and the feeds' tables. A preflight reads them once, and all its checks judge the same state.

use super::error::Error;
use super::options::Options;
use super::publication::Definition;
use super::session::Session;
use super::slot::Slot;
use super::tables::{self, Table};
use crate::feed::Feeds;

/// What a preflight judges.
pub(super) struct Facts {
    /// `None` if it does not exist.
    pub(super) slot: Option<Slot>,
    /// `None` if it does not exist.
    pub(super) publication: Option<Definition>,
    /// The feeds' tables that exist.
    pub(super) tables: Vec<Table>,
    /// The publication's column lists and row filters.
    pub(super) published: tables::Publication,
}

impl Facts {
    pub(super) async fn read(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Self, Error> {
        Ok(Self {
            slot: Slot::read(&options.slot, session).await?,
            publication: Definition::read(options, session).await?,
            tables: tables::of(feeds, session).await?,
            published: tables::Publication::read(options, session).await?,
        })
    }
}
