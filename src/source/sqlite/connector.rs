//! Opens the ports to one SQLite database.

use crate::checkpoint::{FeedState, Identity, ResumeToken};
use crate::event::FeedId;
use crate::feed::{Catalogue, Feeds};
use crate::format::Format;
use crate::preflight::Findings;
use crate::source::sqlite::capture::{Capture, Lost, Names};
use crate::source::sqlite::history::{self, History, Proved};
use crate::source::sqlite::identity::{self, Origin};
use crate::source::sqlite::log::{Log, Threads};
use crate::source::sqlite::page::Page;
use crate::source::sqlite::prefeed::{Reading, Rows};
use crate::source::sqlite::probe::LogProbe;
use crate::source::sqlite::reader::Reader;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::trim::Trimmer;
use crate::source::sqlite::wake::Stop;
use crate::source::sqlite::{Error, schema};
use crate::source::{Renewed, Resume, SourceConnector, file};
use crate::status::metrics::SourceMetrics;
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;
use tokio::sync::mpsc;

/// Which database, and for which pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file. It must exist and be in WAL mode.
    pub path: PathBuf,
    /// The pipeline's name: part of the names of all that is made in the database.
    pub pipeline: Arc<str>,
}

/// Opens the ports to one database.
pub struct Connector {
    reading: Reading,
    format: Format,
    metrics: SourceMetrics,
}

impl Connector {
    /// Pages that wait between the reading thread and the batch.
    const PAGES: usize = 2;

    /// A connector that opens nothing yet.
    #[must_use]
    pub fn new(options: Options, format: Format, metrics: SourceMetrics) -> Self {
        let names = Names::new(&options.pipeline);
        Self { reading: Reading { path: options.path, names, feeds: Arc::default(), proved: Proved::default() }, format, metrics }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Reading) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let reading = self.reading.clone();
        tokio::task::spawn_blocking(move || work(&reading)).await.map_err(|_| Error::Ended)?
    }
}

impl Reading {
    fn capture(&self) -> Capture<'_> {
        Capture { names: &self.names, feeds: &self.feeds, path: &self.path }
    }

    fn history<'c>(&'c self, connection: &'c Connection) -> History<'c> {
        History { connection, names: &self.names, path: &self.path }
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Rows;
    type Probe = LogProbe;
    type Error = Error;

    async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        self.blocking(catalogue).await
    }

    /// Who the database is, is chosen when its change log is made: before that its identity is empty.
    async fn identity(&mut self) -> Result<Identity, Error> {
        self.blocking(|reading| {
            let (connection, _) = identity::open(&reading.path)?;
            let origin = Origin::read(&connection, &reading.names, &reading.path)?;
            Ok(origin.map(|origin| origin.identity()).unwrap_or_default())
        })
        .await
    }

    async fn recognize(&mut self, known: &Identity) -> Result<(), Error> {
        let known = known.clone();
        self.blocking(move |reading| {
            let (connection, _) = identity::open(&reading.path)?;
            reading.history(&connection).origin()?.recognize(&known, &reading.path)
        })
        .await
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.reading.feeds = feeds;
    }

    async fn verify(&mut self) -> Result<(), Vec<Error>> {
        let found = self.blocking(|reading| {
            let mut found: Vec<Error> = file::check(&reading.feeds).into_iter().map(Error::from).collect();
            match identity::open(&reading.path) {
                Ok((connection, _)) => found.extend(reading.capture().verify(&connection)),
                Err(error) => found.push(error),
            }
            Ok(found)
        });
        let found = found.await.unwrap_or_else(|error| vec![error]);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        self.blocking(|reading| {
            let (connection, _) = identity::open(&reading.path)?;
            let log = &reading.names.log;
            let action = match Origin::read(&connection, &reading.names, &reading.path)? {
                Some(_) => format!("read from the change log {log}, and keep its triggers on {} tables", reading.feeds.len()),
                None => format!("make the change log {log}, and triggers on {} tables that write to it", reading.feeds.len()),
            };
            Ok(Findings { actions: vec![action], warnings: reading.capture().warnings(&connection)?, ..Findings::default() })
        })
        .await
    }

    async fn unclaimed(&mut self) -> Result<(), Error> {
        self.blocking(|reading| {
            let (connection, _) = identity::open(&reading.path)?;
            match Origin::read(&connection, &reading.names, &reading.path)? {
                Some(_) => Err(Error::Claimed { path: reading.path.clone() }),
                None => Ok(()),
            }
        })
        .await
    }

    async fn resumable(&mut self, known: &Identity, resume: &Resume) -> Result<(), Error> {
        let (known, place) = (known.clone(), LogPosition::parse(&resume.token)?);
        let live: Vec<bool> = resume.feeds.iter().map(|feed| feed.since().is_some()).collect();
        self.blocking(move |reading| {
            let (connection, _) = identity::open(&reading.path)?;
            reading.history(&connection).check(&known, place)?;
            reading.capture().refuse_lost(&connection, |feed| live.get(feed.index()).copied().unwrap_or(false))
        })
        .await
    }

    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        self.blocking(|reading| {
            let (mut connection, _) = identity::open(&reading.path)?;
            Ok(reading.capture().establish(&mut connection)?.token())
        })
        .await
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let (known, resume) = (known.clone(), resume.clone());
        let (format, metrics) = (self.format.clone(), self.metrics.clone());
        self.blocking(move |reading| connect(reading, &known, &resume, format, metrics)).await
    }

    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        let (known, place) = (known.clone(), LogPosition::parse(&lost.token)?);
        self.blocking(move |reading| {
            let (mut connection, _) = identity::open(&reading.path)?;
            reading.capture().renewed(&mut connection, &known, place)
        })
        .await
    }

    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Error> {
        LogPosition::parse(token)?.skips(stored)
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        Ok(Rows::new(self.reading.clone(), self.format.clone(), self.metrics.clone()))
    }

    async fn probe(&mut self) -> Result<LogProbe, Error> {
        self.blocking(|reading| {
            let (connection, file) = identity::open(&reading.path)?;
            Ok(LogProbe {
                file,
                proved: reading.proved.clone(),
                path: reading.path.clone(),
                names: reading.names.clone(),
                connection: Arc::new(Mutex::new(connection)),
            })
        })
        .await
    }

    async fn detach(&mut self) -> Result<Vec<String>, Error> {
        self.blocking(|reading| {
            let (mut connection, _) = identity::open(&reading.path)?;
            reading.capture().detach(&mut connection)
        })
        .await
    }
}

fn catalogue(reading: &Reading) -> Result<Catalogue, Error> {
    let failed = |source| Error::sqlite("read the catalogue", &reading.path, source);
    let (connection, _) = identity::open(&reading.path)?;
    let mut tables = Vec::new();
    for name in schema::table_names(&connection).map_err(failed)? {
        match schema::catalogued(&connection, &name) {
            Ok(table) => tables.push(table),
            // An event cannot name it.
            Err(rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::Utf8Error(..)) => {
                tracing::warn!(table = %name, "passed over: a column's name is not UTF-8");
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Catalogue { database: database(&reading.path), tables })
}

/// The database's name: the file's, with its extension.
fn database(path: &Path) -> Arc<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}

fn connect(reading: &Reading, known: &Identity, resume: &Resume, format: Format, metrics: SourceMetrics) -> Result<Log, Error> {
    let path = &reading.path;
    let failed = |source| Error::sqlite("open the change log", path, source);
    let (mut connection, file) = identity::open(path)?;
    let mut place = LogPosition::parse(&resume.token)?;
    let head = reading.history(&connection).check(known, place)?;
    if place.last.is_none() {
        place.last = reading.history(&connection).before(place.next)?;
    }
    // Taken before the comparison: a definition that changes in between is compared again by the reader.
    let definitions = connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).map_err(failed)?;
    let state = |feed: FeedId| resume.feeds.get(feed.index());
    // Before its cut a feed's changes are not published: its rows are read after this.
    let lost = |feed| if state(feed).is_some_and(|state| state.since().is_none()) { Lost::Renew } else { Lost::Refuse };
    reading.capture().follow(&mut connection, 0, lost)?;
    if !reading.capture().is_swept(&connection)? {
        reading.capture().in_one(&mut connection, |transaction| {
            reading.capture().sweep(transaction)?;
            // Looked at once: what they tell is in the log now.
            let sql = format!("DELETE FROM main.{}", quoted(&reading.names.notes));
            transaction.execute(&sql, []).map(drop).map_err(failed)
        })?;
    }
    let mut known: Vec<_> = (0..reading.feeds.len()).map(|index| resume.layouts.get(index).cloned().flatten()).collect();
    let table_changes = reading.capture().table_changes(&connection, &mut known)?;
    let mut starts = Vec::new();
    for feed in reading.feeds.iter() {
        let start = state(feed.id).and_then(FeedState::start);
        starts.push(start.map(LogPosition::parse).transpose()?.map(|start| start.next));
    }
    let width = history::width(&connection, &reading.names).map_err(failed)?;
    reading.proved.opened(&reading.history(&connection).origin()?, place);

    let ended = |source| Error::Unreachable { path: path.clone(), source };
    let stop = Stop::new().map_err(ended)?;
    let (pages, messages) = mpsc::channel(Connector::PAGES);
    let (spent, returned) = std::sync::mpsc::channel();
    let durable = Arc::new(Mutex::new(LogPosition { next: 0, last: None, ..place }));
    let settled = Arc::new(AtomicI64::new(head));
    let interrupt = connection.get_interrupt_handle();
    let (trimming, _) = identity::open(path)?;
    let reader = Reader {
        connection,
        file,
        path: path.clone(),
        names: reading.names.clone(),
        feeds: Arc::clone(&reading.feeds),
        next: place.next,
        definitions,
        compared: Instant::now(),
        known,
        settled: Arc::clone(&settled),
        stop: Arc::clone(&stop),
        pages,
        spent: returned,
        layouts: HashMap::new(),
        width,
        last: place.last,
        proved: reading.proved.clone(),
    };
    let trimmer = Trimmer {
        connection: trimming,
        path: path.clone(),
        names: reading.names.clone(),
        feeds: Arc::clone(&reading.feeds),
        durable: Arc::clone(&durable),
        settled,
        stop: Arc::clone(&stop),
    };
    let mut threads = Threads { stop, interrupt, messages: Some(messages), joins: Vec::new() };
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    threads.joins.push(named("sqlite-log").spawn(move || reader.run()).map_err(ended)?);
    threads.joins.push(named("sqlite-trim").spawn(move || trimmer.run()).map_err(ended)?);
    metrics.message_received();
    Ok(Log {
        threads,
        spent,
        durable,
        format,
        metrics,
        feeds: Arc::clone(&reading.feeds),
        starts,
        place,
        read: place.next,
        page: Page::default(),
        versions: HashMap::new(),
        table_changes,
        failure: None,
    })
}
