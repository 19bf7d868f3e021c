//! Looks for tables that were made after the start and match the feeds' patterns. The feeds of a run are fixed: whoever runs the pipeline begins
//! a new one with them.

use crate::feed::{Feeds, TableName, feed_name};
use crate::source::Probe;
use crate::status::Publisher;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Between two looks, at least.
const INTERVAL: Duration = Duration::from_secs(15);
/// A look that took so long is followed by a pause of so many times that: listing ten thousand tables costs some servers a second.
const PAUSE_FACTOR: u32 = 100;
/// How long a look may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Looks a few times a minute.
#[derive(Debug)]
pub(super) struct NewTables {
    feeds: Arc<Feeds>,
    due: Instant,
}

impl NewTables {
    pub(super) fn new(feeds: Arc<Feeds>) -> Self {
        Self { feeds, due: Instant::now() + INTERVAL }
    }

    /// Publishes the new tables that there are now, if a look is due. What fails is tried again at the next one: others tell what is wrong with
    /// the database.
    pub(super) async fn look<P: Probe>(&mut self, probe: &mut P, status: &Publisher) {
        if Instant::now() < self.due {
            return;
        }
        let begun = Instant::now();
        let listed = timeout(TIMEOUT, probe.tables()).await;
        self.due = Instant::now() + INTERVAL.max(begun.elapsed() * PAUSE_FACTOR);
        let tables = match listed {
            Ok(Ok(tables)) => tables,
            Ok(Err(error)) => return tracing::debug!(%error, "new tables cannot be looked for"),
            Err(_elapsed) => return tracing::debug!("looking for new tables took too long"),
        };
        let is_new = |(schema, name): &TableName| self.feeds.is_missing(schema, name);
        let found: BTreeSet<_> = tables.iter().filter(|table| is_new(table)).map(|(schema, name)| feed_name(schema, name)).collect();
        if found != status.read().new_tables {
            status.publish(|status| status.new_tables = found);
        }
    }
}
