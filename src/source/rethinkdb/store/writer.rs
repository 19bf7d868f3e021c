//! The writing thread: the only one that changes the store. What waits for it is written in one transaction.

use super::super::error::Error;
use super::super::response::FeedBatch;
use super::super::session::TableInfo;
use super::apply::{Applied, Applier};
use super::file::next_seq;
use super::tables::StoredTable;
use crate::event::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::HashMap;
use std::path::PathBuf;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// The most commands in one transaction.
const COMMANDS_MAX: usize = 32;
/// The most rows of the log that one transaction removes.
const TRIM_ROWS: i64 = 20_000;

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
    /// Starts the thread. `address` is for messages. `failed` is told why it ends, if that is an error.
    pub(crate) fn start(
        connection: Connection,
        path: PathBuf,
        address: String,
        failed: impl FnOnce(Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let unread = |source| Error::store("read", &path, source);
        let sql = "SELECT coalesce(sum(coalesce(length(old), 0) + coalesce(length(new), 0)), 0) FROM log";
        let log_bytes: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(unread)?;
        let seen = Watched { next: next_seq(&connection).map_err(unread)?, log_bytes: log_bytes.try_into().unwrap_or_default() };
        let (publish, watched) = watch::channel(seen);
        let (commands, received) = mpsc::unbounded_channel();
        let thread = WriterThread { connection, path, address, tables: HashMap::new(), publish };
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
    /// The tables that are followed, and whether their current scan is complete.
    tables: HashMap<i64, (StoredTable, bool)>,
    publish: watch::Sender<Watched>,
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
        while commands.blocking_recv_many(&mut waiting, COMMANDS_MAX) != 0 {
            self.write(waiting.drain(..))?;
        }
        Ok(())
    }

    fn write(&mut self, commands: impl Iterator<Item = Command>) -> Result<(), Error> {
        let Self { connection, path, address, tables, publish } = self;
        let failed = |source| Error::store("write", path, source);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (mut answers, mut applied, mut trimmed_bytes) = (Vec::new(), Applied::default(), 0);
        for command in commands {
            match command {
                Command::Begin { name, info, done } => {
                    let begun = StoredTable::begin_scan(&transaction, path, &name, &info).map(|table| {
                        let id = table.id;
                        tables.insert(id, (table, false));
                        id
                    });
                    answers.push(Answer::Begun(done, begun));
                }
                Command::Apply { tid, batch, done } => {
                    let Some((table, is_ready)) = tables.get_mut(&tid) else {
                        answers.push(Answer::Applied(done, Err(Error::Ended)));
                        continue;
                    };
                    let received_at = Timestamp::now();
                    let mut applier = Applier { connection: &transaction, path, address, table, is_ready, received_at };
                    // What came before an error is right, and stays.
                    let written = batch.elements().try_for_each(|element| applier.apply(element, &mut applied));
                    if let Err(error @ Error::Store { .. }) = written {
                        return Err(error);
                    }
                    answers.push(Answer::Applied(done, written));
                }
                Command::Trim { before } => trimmed_bytes += trim(&transaction, before).map_err(failed)?,
            }
        }
        let next = next_seq(&transaction).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        publish.send_modify(|watched| {
            watched.next = next;
            watched.log_bytes = (watched.log_bytes + applied.bytes).saturating_sub(trimmed_bytes);
        });
        answers.into_iter().for_each(Answer::give);
        Ok(())
    }
}

/// Removes rows before this number; returns their bytes.
fn trim(connection: &Connection, before: i64) -> rusqlite::Result<u64> {
    let first: Option<i64> = connection.query_row("SELECT min(seq) FROM log", [], |row| row.get(0))?;
    let Some(end) = first.filter(|first| *first < before).map(|first| before.min(first.saturating_add(TRIM_ROWS))) else { return Ok(0) };
    let sql = "SELECT coalesce(sum(coalesce(length(old), 0) + coalesce(length(new), 0)), 0) FROM log WHERE seq < ?1";
    let bytes: i64 = connection.query_row(sql, [end], |row| row.get(0))?;
    connection.execute("DELETE FROM log WHERE seq < ?1", [end])?;
    connection.execute("UPDATE origin SET trimmed = max(trimmed, ?1)", [end - 1])?;
    Ok(bytes.try_into().unwrap_or_default())
}
