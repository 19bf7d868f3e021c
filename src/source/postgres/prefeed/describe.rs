//! Describes what is read for each feed: its table, or its query.

use super::query;
use super::table::{self, Table};
use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::session::Session;
use crate::source::postgres::types::Types;
use std::collections::HashMap;

/// Describes the tables of these feeds, as the session's snapshot shows them.
pub(super) async fn describe(
    options: &Options,
    feeds: &Feeds,
    wanted: &[FeedId],
    types: &mut Types,
    session: &mut Session,
) -> Result<HashMap<FeedId, Table>, Error> {
    let mut described = HashMap::new();
    let mut listed: Vec<&Feed> = Vec::new();
    for feed in wanted.iter().map(|id| feeds.get(*id)) {
        match query::from_item(feed) {
            Some(from) => drop(described.insert(feed.id, query::describe(feed, from, types, session).await?)),
            None => listed.push(feed),
        }
    }
    if !listed.is_empty() {
        described.extend(table::describe(options, feeds, &listed, types, session).await?);
    }
    match wanted.iter().find(|id| !described.contains_key(id)) {
        None => Ok(described),
        Some(gone) => Err(Error::TableChanged {
            table: feeds.get(*gone).name.to_string(),
            reason: format!("it no longer exists, or left publication {:?}; remove it from the feeds", options.publication),
        }),
    }
}
