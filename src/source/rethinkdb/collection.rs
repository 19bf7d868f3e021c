//! Everything that fills the store: the writing thread, and a task for each table. It outlives sessions, so that one table's failure costs
//! a scan of that table, and not of all.

use super::error::Error;
use super::follow::Follow;
use super::options::Options;
use super::progress::Progress;
use super::store::{self, Origin, StoredTable, Writer, WriterClient};
use crate::feed::Feeds;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The first failure that no session has reported yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<(Mutex<Option<Error>>, Notify)>);

impl Failure {
    fn set(&self, error: Error) {
        let mut known = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Tasks that find the thread ended may come before its reason.
        if known.as_ref().is_none_or(|known| matches!(known, Error::Ended)) {
            *known = Some(error);
        }
        drop(known);
        self.0.1.notify_one();
    }

    fn take(&self) -> Option<Error> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Fails where there is one.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.take().map_or(Ok(()), Err)
    }

    /// Waits for a failure. Cancel safe.
    pub(super) async fn wait(&self) -> Error {
        loop {
            if let Some(error) = self.take() {
                return error;
            }
            self.0.1.notified().await;
        }
    }
}

/// Fills one store. Its tasks and its thread end with it.
pub(super) struct Collection {
    tasks: JoinSet<()>,
    /// For each feed, what the task that follows its table holds; gone when it has ended.
    followed: Vec<Weak<()>>,
    writer: Writer,
    failure: Failure,
}

impl Collection {
    /// Opens the store and starts to follow the feeds' tables.
    pub(super) async fn start(options: &Options, feeds: &Arc<Feeds>, progress: &Progress) -> Result<Self, Error> {
        let (path, pipeline, address) = (options.store.clone(), Arc::clone(&options.pipeline), options.address());
        let names: Vec<String> = feeds.iter().map(|feed| feed.table.to_string()).collect();
        let (failure, counted) = (Failure::default(), progress.clone());
        let writing_failed = failure.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let (mut connection, origin) = store::open(&path, &pipeline)?.ok_or_else(|| Error::StoreLost { path: path.clone() })?;
            StoredTable::follow(&mut connection, &path, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
            Ok::<_, Error>((Writer::start(connection, path, address, counted, move |error| writing_failed.set(error))?, origin))
        });
        let (writer, origin) = opening.await.map_err(|_| Error::Ended)??;
        let followed = feeds.iter().map(|_| Weak::new()).collect();
        let mut collection = Self { tasks: JoinSet::new(), followed, writer, failure };
        collection.follow(options, feeds, progress, &origin);
        Ok(collection)
    }

    /// Whether the store can be written. If not, the collection must be made anew.
    pub(super) fn is_running(&self) -> bool {
        self.writer.is_running()
    }

    /// Follows the tables that are not followed now.
    pub(super) fn follow(&mut self, options: &Options, feeds: &Feeds, progress: &Progress, origin: &Origin) {
        while self.tasks.try_join_next().is_some() {}
        // What ended is begun again here.
        drop(self.failure.take());
        for feed in feeds.iter() {
            let followed = &mut self.followed[feed.id.index()];
            if 0 < followed.strong_count() {
                continue;
            }
            let following = Arc::new(());
            *followed = Arc::downgrade(&following);
            let follow = Follow {
                options: options.clone(),
                feed: feed.id,
                table: feed.table.to_string(),
                database_uuid: origin.database_uuid.clone(),
                writer: self.writer.client(),
                watched: self.writer.watched(),
                progress: progress.clone(),
            };
            let failure = self.failure.clone();
            self.tasks.spawn(async move {
                let failed = follow.run().await;
                // Before the failure is told: the next session may begin at once, and must find that nothing follows the table.
                drop(following);
                failure.set(failed);
            });
        }
    }

    pub(super) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    pub(super) const fn writer(&self) -> &Writer {
        &self.writer
    }

    pub(super) fn client(&self) -> WriterClient {
        self.writer.client()
    }
}
