//! Tells of tables that were made after the start and match the feeds' patterns. The feeds of a run are fixed at its start.

use super::error::Error;
use super::options::Options;
use super::session::Session;
use crate::feed::{Feeds, feed_name};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at the list of tables.
const PERIOD: Duration = Duration::from_mins(1);

/// Looks for new tables now and then.
pub(super) struct NewTables {
    pub(super) options: Options,
    pub(super) feeds: Arc<Feeds>,
    pub(super) database_uuid: String,
}

impl NewTables {
    /// Looks without end. A look that fails is made again at the next time: what is wrong with the server is told by those who follow its
    /// tables.
    pub(super) async fn run(self) {
        let mut told = HashSet::new();
        loop {
            sleep(PERIOD).await;
            match self.look().await {
                Ok(names) => names.into_iter().filter(|name| told.insert(name.clone())).for_each(|name| self.tell(&name)),
                Err(error) => tracing::debug!(%error, "new tables cannot be looked for"),
            }
        }
    }

    fn tell(&self, table: &str) {
        let table = feed_name(&self.options.database, table);
        tracing::warn!(%table, "a new table matches the feeds: it is published after the next start, with its existing rows");
    }

    /// The names of tables that match and are not followed.
    async fn look(&self) -> Result<Vec<String>, Error> {
        let mut session = Session::open(&self.options).await?;
        let mut names = session.table_list().await?;
        names.retain(|name| self.feeds.is_missing(&self.options.database, name));
        // Of another cluster's tables nothing is said.
        if let Some(name) = names.first() {
            let info = session.table_info(name).await?;
            if info.is_none_or(|info| info.database_uuid != self.database_uuid) {
                names.clear();
            }
        }
        Ok(names)
    }
}
