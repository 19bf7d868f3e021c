//! Opens the change log for a session: checks it, brings the triggers in line, and starts the reading and the trimming thread.

use crate::checkpoint::Identity;
use crate::event::FeedId;
use crate::source::connector::Resume;
use crate::source::live::TableChange;
use crate::source::sqlite::capture::OnLostTriggers;
use crate::source::sqlite::database::Database;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::log::{Log, Threads};
use crate::source::sqlite::log_query::Width;
use crate::source::sqlite::open::{self, OpenFile};
use crate::source::sqlite::page::Page;
use crate::source::sqlite::reader::Reader;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::trim::Trimmer;
use crate::source::sqlite::wake::Stop;
use crate::source::token::LogToken as _;
use crate::status::metrics::SourceMetrics;
use rusqlite::Connection;
use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;
use tokio::sync::mpsc;
use tracing::Span;

/// How many pages may wait between the reading thread and the batch.
const PAGES: usize = 2;

/// A log that was checked and may be read.
struct CheckedSession {
    connection: Connection,
    file: OpenFile,
    position: LogPosition,
    head: i64,
    /// `PRAGMA schema_version`.
    definitions: i64,
    width: Width,
    /// How the tables are now, by feed.
    known: Vec<Option<crate::checkpoint::Layout>>,
    table_changes: Vec<TableChange>,
}

/// Opens the log at `resume`.
pub(super) fn open(database: &Database, known: &Identity, resume: &Resume, metrics: SourceMetrics) -> Result<Log, Error> {
    let session = check(database, known, resume)?;
    start(database, session, metrics)
}

fn check(database: &Database, identity: &Identity, resume: &Resume) -> Result<CheckedSession, Error> {
    let failed = |source| Error::sqlite("open the change log", &database.path, source);
    let capture = database.capture();
    let (mut connection, file) = open::open(&database.path)?;
    let mut position = LogPosition::parse(&resume.token)?;
    let head = database.history(&connection).check(identity, position)?;
    if position.last.is_none() {
        position.last = database.history(&connection).before(position.next)?;
    }
    // Read before the comparison: the reader compares a definition again that changes in between.
    let definitions = connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).map_err(failed)?;
    let state = |feed: FeedId| resume.feeds.get(feed.index());
    let on_lost = |feed| match state(feed) {
        // Changes before the feed's cut are not published: its rows are read after this.
        Some(state) if state.since().is_none() => OnLostTriggers::Reinstall,
        _ => OnLostTriggers::Refuse,
    };
    capture.follow(&mut connection, 0, on_lost)?;
    if !capture.is_swept(&connection)? {
        capture.in_transaction(&mut connection, |transaction| {
            capture.sweep(transaction)?;
            // Their deletes are in the log now.
            let sql = format!("DELETE FROM main.{}", quoted(&database.names.notes));
            transaction.execute(&sql, []).map(drop).map_err(failed)
        })?;
    }
    let mut known: Vec<_> = (0..database.feeds.len()).map(|index| resume.layouts.get(index).cloned().flatten()).collect();
    let table_changes = capture.table_changes(&connection, &mut known)?;
    let width = Width::read(&connection, &database.names).map_err(failed)?;
    database.checked.opened(&database.history(&connection).origin()?, position);
    Ok(CheckedSession { connection, file, position, head, definitions, width, known, table_changes })
}

fn start(database: &Database, session: CheckedSession, metrics: SourceMetrics) -> Result<Log, Error> {
    let failed = |source| Error::Unreachable { path: database.path.clone(), source };
    let position = session.position;
    let stop = Stop::new().map_err(failed)?;
    let (pages, messages) = mpsc::channel(PAGES);
    let (spent, returned) = std::sync::mpsc::channel();
    let durable = Arc::new(Mutex::new(LogPosition { next: 0, last: None, ..position }));
    let settled = Arc::new(AtomicI64::new(session.head));
    let interrupt = session.connection.get_interrupt_handle();
    let (trimming, _) = open::open(&database.path)?;
    let reader = Reader {
        database: database.clone(),
        connection: session.connection,
        file: session.file,
        next: position.next,
        last: position.last,
        definitions: session.definitions,
        compared: Instant::now(),
        known: session.known,
        settled: Arc::clone(&settled),
        stop: Arc::clone(&stop),
        pages,
        spent: returned,
        layouts: HashMap::new(),
        width: session.width,
    };
    let trimmer =
        Trimmer { database: database.clone(), connection: trimming, durable: Arc::clone(&durable), settled, stop: Arc::clone(&stop) };
    let mut threads = Threads { stop, interrupt, messages: Some(messages), joins: Vec::new() };
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    // Lines of the threads belong to the pipeline.
    let (reading_span, trimming_span) = (Span::current(), Span::current());
    threads.joins.push(named("sqlite-log").spawn(move || reading_span.in_scope(|| reader.run())).map_err(failed)?);
    threads.joins.push(named("sqlite-trim").spawn(move || trimming_span.in_scope(|| trimmer.run())).map_err(failed)?);
    metrics.message_received();
    Ok(Log {
        threads,
        spent,
        durable,
        metrics,
        feeds: Arc::clone(&database.feeds),
        position,
        read: position.next,
        page: Page::default(),
        versions: HashMap::new(),
        table_changes: session.table_changes,
        failure: None,
    })
}
