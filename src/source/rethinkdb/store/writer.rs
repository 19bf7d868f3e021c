//! The writing thread: the only one that changes the store. What waits for it is written in one transaction; it tidies up when nobody waits.

use super::super::error::Error;
use super::super::progress::Progress;
use super::super::response::FeedBatch;
use super::super::session::TableInfo;
use super::apply::{Applier, Followed, Logged};
use super::file::next_seq;
use super::seen::Seen;
use super::statements::Statements;
use super::tables::StoredTable;
use crate::event::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::HashMap;
use std::path::PathBuf;
use std::thread::JoinHandle;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

/// The most commands in one transaction.
const COMMANDS_MAX: usize = 32;
/// The most rows of the log that one transaction removes.
const TRIM_ROWS: i64 = 20_000;
/// Kilobytes of the file that the thread keeps in memory: it looks for documents all over it.
const CACHE_KB: i64 = 16 * 1024;
/// From so many bytes of changes on, the pages of the `-wal` file are copied into the file. A page that changes again and again until then is
/// copied once.
const COPIED_BYTES: u64 = 8 << 20;
/// Pages of the `-wal` file from which on `SQLite` copies them itself, whoever waits.
const COPIED_PAGES: i64 = 16_000;

/// What others see of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// The number that the next row of the log will have. Every row before it is durable.
    pub(crate) next: i64,
    /// Bytes of the log's documents that are not delivered yet.
    pub(crate) log_bytes: u64,
}

/// What the thread is asked to do. The answer comes when it is durable.
enum Command {
    Begin { name: String, info: TableInfo, done: oneshot::Sender<Result<i64, Error>> },
    Apply { tid: i64, batch: FeedBatch, done: oneshot::Sender<Result<(), Error>> },
    Trim { before: i64 },
}

/// A handle of the thread, which ends with the last one.
#[derive(Debug)]
pub(crate) struct Writer {
    commands: Option<mpsc::UnboundedSender<Command>>,
    watched: watch::Receiver<Watched>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the local store panicked");
        }
    }
}

/// Sends to the thread. Cheap to clone. Each table waits for its answer before it sends more, so little waits here.
#[derive(Clone, Debug)]
pub(crate) struct WriterClient(mpsc::WeakUnboundedSender<Command>);

impl Writer {
    /// Starts the thread. `address` is for messages. `progress` counts what it does. `failed` is told why it ends, if that is an error.
    pub(crate) fn start(
        connection: Connection,
        path: PathBuf,
        address: String,
        progress: Progress,
        failed: impl FnOnce(Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let unread = |source| Error::store("read", &path, source);
        connection.pragma_update(None, "cache_size", -CACHE_KB).map_err(unread)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", COPIED_PAGES, |_| Ok(())).map_err(unread)?;
        let sql = "SELECT coalesce(sum(bytes), 0) FROM log";
        let log_bytes: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(unread)?;
        let seen = Watched { next: next_seq(&connection).map_err(unread)?, log_bytes: log_bytes.try_into().unwrap_or_default() };
        let (publish, watched) = watch::channel(seen);
        progress.stored(seen.log_bytes);
        let (commands, received) = mpsc::unbounded_channel();
        let thread = WriterThread {
            connection,
            path,
            address,
            tables: HashMap::new(),
            publish,
            progress,
            delivered: 0,
            removed: 0,
            uncopied_bytes: 0,
        };
        let span = tracing::Span::current();
        let thread = std::thread::Builder::new().name("rethinkdb-store".to_owned()).spawn(move || {
            // Those who wait for it find it ended; what they sent is sent again by the server.
            if let Err(error) = span.in_scope(|| thread.run(received)) {
                failed(error);
            }
        });
        let thread = thread.map_err(|_| Error::Ended)?;
        Ok(Self { commands: Some(commands), watched, thread: Some(thread) })
    }

    /// Whether the thread runs.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// What is in the store, as it grows.
    pub(crate) fn watched(&self) -> watch::Receiver<Watched> {
        self.watched.clone()
    }

    /// A handle that does not keep the thread alive.
    pub(crate) fn client(&self) -> WriterClient {
        WriterClient(self.commands.as_ref().map(mpsc::UnboundedSender::downgrade).expect("present until dropped"))
    }
}

impl WriterClient {
    /// Begins a scan of a table; returns the table's number.
    pub(crate) async fn begin(&self, name: &str, info: TableInfo) -> Result<i64, Error> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Begin { name: name.to_owned(), info, done })?;
        answer.await.map_err(|_| Error::Ended)?
    }

    /// Writes what a feed says. When this returns, it is durable.
    pub(crate) async fn apply(&self, tid: i64, batch: FeedBatch) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Apply { tid, batch, done })?;
        answer.await.map_err(|_| Error::Ended)?
    }

    /// Has rows of the log removed that are durable elsewhere.
    pub(crate) fn trim(&self, before: i64) -> Result<(), Error> {
        self.send(Command::Trim { before })
    }

    /// The sender is not held longer than this call: the thread ends with the last one.
    fn send(&self, command: Command) -> Result<(), Error> {
        let commands = self.0.upgrade().ok_or(Error::Ended)?;
        commands.send(command).map_err(|_| Error::Ended)
    }
}

struct WriterThread {
    connection: Connection,
    path: PathBuf,
    address: String,
    /// The tables that are followed.
    tables: HashMap<i64, Followed>,
    publish: watch::Sender<Watched>,
    progress: Progress,
    /// Rows of the log before this number are durable elsewhere.
    delivered: i64,
    /// Rows before this number are removed.
    removed: i64,
    /// About how many bytes of changes only the `-wal` file has.
    uncopied_bytes: u64,
}

/// An answer that is given once its work is durable.
enum Answer {
    Begun(oneshot::Sender<Result<i64, Error>>, Result<i64, Error>),
    Applied(oneshot::Sender<Result<(), Error>>, Result<(), Error>),
}

impl Answer {
    fn give(self) {
        // Fails where the asking task has ended.
        match self {
            Self::Begun(done, answer) => drop(done.send(answer)),
            Self::Applied(done, answer) => drop(done.send(answer)),
        }
    }
}

impl WriterThread {
    fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> Result<(), Error> {
        let mut waiting = Vec::new();
        loop {
            if self.removed < self.delivered {
                // Rows are removed part by part, between what others wait for.
                match commands.try_recv() {
                    Ok(command) => waiting.push(command),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            } else if commands.blocking_recv_many(&mut waiting, COMMANDS_MAX) == 0 {
                return Ok(());
            }
            if !waiting.is_empty() {
                self.write(waiting.drain(..))?;
            }
            // Nobody waits for this: the servers are at work on their next batches.
            self.trim()?;
            self.copy();
        }
    }

    fn write(&mut self, commands: impl Iterator<Item = Command>) -> Result<(), Error> {
        let Self { connection, path, address, tables, publish, progress, delivered, uncopied_bytes, .. } = self;
        let failed = |source| Error::store("write", path, source);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (mut answers, mut logged) = (Vec::new(), Logged::default());
        let mut statements = Statements::prepare(&transaction).map_err(failed)?;
        for command in commands {
            match command {
                Command::Begin { name, info, done } => {
                    let begun = StoredTable::begin_scan(&transaction, path, &name, &info).map(|table| {
                        let id = table.id;
                        tables.insert(id, Followed { table, scan: Some(Seen::default()) });
                        id
                    });
                    answers.push(Answer::Begun(done, begun));
                }
                Command::Apply { tid, batch, done } => {
                    let Some(followed) = tables.get_mut(&tid) else {
                        answers.push(Answer::Applied(done, Err(Error::Ended)));
                        continue;
                    };
                    *uncopied_bytes += batch.size_bytes() as u64;
                    let received_at = Timestamp::now();
                    let (connection, statements) = (&*transaction, &mut statements);
                    let mut applier = Applier { connection, statements, path, address, followed, received_at };
                    // What came before an error is right, and stays.
                    let written = batch.elements().try_for_each(|element| applier.apply(element, &mut logged));
                    if let Err(error @ Error::Store { .. }) = written {
                        return Err(error);
                    }
                    answers.push(Answer::Applied(done, written));
                }
                Command::Trim { before } => *delivered = before.max(*delivered),
            }
        }
        let next = next_seq(&transaction).map_err(failed)?;
        drop(statements);
        transaction.commit().map_err(failed)?;
        publish.send_modify(|watched| {
            watched.next = next;
            watched.log_bytes += logged.bytes;
            progress.stored(watched.log_bytes);
        });
        progress.compared(logged.compared, logged.differences);
        answers.into_iter().for_each(Answer::give);
        Ok(())
    }

    /// Removes some rows that are durable elsewhere.
    fn trim(&mut self) -> Result<(), Error> {
        if self.delivered <= self.removed {
            return Ok(());
        }
        let Self { connection, path, publish, progress, delivered, removed, uncopied_bytes, .. } = self;
        let failed = |source| Error::store("remove rows of the log from", path, source);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let trimmed_bytes = trim(&transaction, *delivered, removed).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        *uncopied_bytes += trimmed_bytes;
        publish.send_modify(|watched| {
            watched.log_bytes = watched.log_bytes.saturating_sub(trimmed_bytes);
            progress.stored(watched.log_bytes);
        });
        Ok(())
    }

    /// Copies what only the `-wal` file has into the file, if that is much. What fails here, or is in a reader's way, is copied later, as with
    /// `SQLite`'s own copying: if the disk is full or broken, the next write fails.
    fn copy(&mut self) {
        if COPIED_BYTES <= self.uncopied_bytes {
            self.uncopied_bytes = 0;
            drop(self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
        }
    }
}

/// Removes rows before this number, but not too many at once; returns their bytes, and in `removed` up to where none is left.
fn trim(connection: &Connection, before: i64, removed: &mut i64) -> rusqlite::Result<u64> {
    let first: Option<i64> = connection.query_row("SELECT min(seq) FROM log", [], |row| row.get(0))?;
    let end = first.map_or(before, |first| before.min(first.saturating_add(TRIM_ROWS)));
    *removed = end;
    if first.is_none_or(|first| end <= first) {
        return Ok(0);
    }
    let sql = "SELECT coalesce(sum(bytes), 0) FROM log WHERE seq < ?1";
    let bytes: i64 = connection.query_row(sql, [end], |row| row.get(0))?;
    connection.execute("DELETE FROM log WHERE seq < ?1", [end])?;
    connection.execute("UPDATE origin SET trimmed = max(trimmed, ?1)", [end - 1])?;
    Ok(bytes.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::file::{create, open, remove};
    use super::super::tables::StoredTable;
    use super::{Error, FeedBatch, Progress, TableInfo, Watched, Writer};
    use crate::status::metrics::Metrics;
    use std::path::PathBuf;

    /// A new store with one followed table.
    fn store(name: &str) -> (PathBuf, rusqlite::Connection) {
        let path = std::env::temp_dir().join(format!("feedline-{name}-{}.store", std::process::id()));
        let (mut connection, _) = create(&path, "shop", "database", 1).unwrap();
        StoredTable::follow(&mut connection, &path, &["t"]).unwrap();
        (path, connection)
    }

    fn frame(elements: &[&str]) -> FeedBatch {
        FeedBatch::parse(format!("{{\"t\":3,\"r\":[{}]}}", elements.join(",")).as_bytes(), "here").unwrap().unwrap()
    }

    fn add(id: u32, text: &str) -> String {
        format!(r#"{{"new_val":{{"id":{id},"text":"{text}"}},"old_val":null,"type":"add"}}"#)
    }

    fn count(path: &std::path::Path, table: &str) -> i64 {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// Begins to follow the table, and completes its first scan.
    async fn follow(writer: &Writer) -> i64 {
        let info = TableInfo { database_uuid: "database".into(), uuid: "1".into(), primary_key: "id".into(), documents: 0 };
        let tid = writer.client().begin("t", info).await.unwrap();
        writer.client().apply(tid, frame(&[r#"{"state":"ready","type":"state"}"#])).await.unwrap();
        tid
    }

    #[tokio::test]
    async fn a_frame_is_written_whole_or_not_at_all() {
        let (path, connection) = store("whole");
        // A disk that fails in the middle of a frame: behind a document, and before its row of the log.
        let fails = "CREATE TEMP TRIGGER disk BEFORE INSERT ON main.log WHEN NEW.new LIKE '%fails%' \
                     BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END";
        connection.execute_batch(fails).unwrap();
        let progress = Progress::new(Metrics::new("shop").source);
        let (told, failed) = std::sync::mpsc::channel();
        let writer = Writer::start(connection, path.clone(), "here".into(), progress, move |error| told.send(error).unwrap()).unwrap();
        let tid = follow(&writer).await;
        writer.client().apply(tid, frame(&[&add(1, "whole"), &add(2, "whole")])).await.unwrap();
        let broken = writer.client().apply(tid, frame(&[&add(3, "whole"), &add(4, "fails")])).await;
        assert!(matches!(broken, Err(Error::Ended)), "{broken:?}");
        assert!(matches!(failed.recv().unwrap(), Error::Store { .. }));
        drop(writer);
        assert_eq!((count(&path, "documents"), count(&path, "log")), (2, 2), "nothing of the frame is there");
        remove(&path).unwrap();
    }

    #[tokio::test]
    async fn bytes_that_are_removed_are_those_that_were_added() {
        let (path, connection) = store("bytes");
        let progress = Progress::new(Metrics::new("shop").source);
        let writer = Writer::start(connection, path.clone(), "here".into(), progress.clone(), |_| {}).unwrap();
        let tid = follow(&writer).await;
        writer.client().apply(tid, frame(&[&add(1, "\u{2603}\u{1f600}"), &add(2, "")])).await.unwrap();
        let Watched { next, log_bytes } = *writer.watched().borrow();
        assert!(0 < log_bytes && progress.log_bytes() == Some(log_bytes));
        writer.client().trim(next).unwrap();
        writer.watched().wait_for(|watched| watched.log_bytes == 0).await.unwrap();
        drop(writer);
        let (reopened, _) = open(&path, "shop").unwrap().unwrap();
        let writer = Writer::start(reopened, path.clone(), "here".into(), progress, |_| {}).unwrap();
        assert_eq!(writer.watched().borrow().log_bytes, 0);
        drop(writer);
        remove(&path).unwrap();
    }

    #[tokio::test]
    async fn a_long_log_is_removed_to_its_end() {
        let (path, connection) = store("long");
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) \
                    INSERT INTO log (tid, op, at, compensating, bytes, old, new) SELECT 1, 0, 0, 0, 10, NULL, '{}' FROM n";
        connection.execute(rows, []).unwrap();
        let progress = Progress::new(Metrics::new("shop").source);
        let writer = Writer::start(connection, path.clone(), "here".into(), progress, |_| {}).unwrap();
        assert_eq!(writer.watched().borrow().log_bytes, 500_000);
        // Nobody asks again.
        writer.client().trim(50_001).unwrap();
        writer.watched().wait_for(|watched| watched.log_bytes == 0).await.unwrap();
        drop(writer);
        assert_eq!(count(&path, "log"), 0);
        remove(&path).unwrap();
    }
}
