//! The connector: prepares the store, and opens its log, its rows and its probe.

use super::collection::Collection;
use super::error::Error;
use super::log::Log;
use super::options::Options;
use super::prefeed::Rows;
use super::probe::LogProbe;
use super::progress::Progress;
use super::session::{Session, TableInfo};
use super::store::{self, LogPage, Origin, next_seq};
use super::token::LogPosition;
use crate::checkpoint::{Identity, ResumeToken};
use crate::event::Timestamp;
use crate::feed::{Catalogue, Feed, Feeds, Table};
use crate::preflight::Findings;
use crate::source::file;
use crate::source::{LogToken as _, Renewed, Resume, SourceConnector};
use crate::status::metrics::SourceMetrics;
use rusqlite::Connection;
use std::collections::HashMap;
use std::sync::Arc;

/// The name of the identity's part. The store is proved by the epoch in each token instead: after a gap it is made anew.
const DATABASE: &str = "database";

/// The connector to one database.
pub struct Connector {
    options: Options,
    feeds: Arc<Feeds>,
    progress: Progress,
    /// The UUID of the database, once a server has told it.
    database_uuid: Option<String>,
    /// What fills the store; it outlives sessions.
    collection: Option<Collection>,
}

impl Connector {
    /// A connector that opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SourceMetrics) -> Self {
        Self { options, feeds: Arc::default(), progress: Progress::new(metrics), database_uuid: None, collection: None }
    }

    /// Asks for a table, and checks that it is in the known database (G6).
    async fn table_info(&mut self, session: &mut Session, table: &str) -> Result<Option<TableInfo>, Error> {
        let Some(info) = session.table_info(table).await? else { return Ok(None) };
        let known = self.database_uuid.get_or_insert_with(|| info.database_uuid.clone());
        if *known != info.database_uuid {
            return Err(self.foreign(format!(
                "its UUID is {}, not {}",
                info.database_uuid,
                self.database_uuid.as_deref().unwrap_or_default()
            )));
        }
        Ok(Some(info))
    }

    fn foreign(&self, what: String) -> Error {
        Error::Foreign { address: self.options.address(), database: self.options.database.clone(), what }
    }

    /// Opens the store; `None` where there is none.
    async fn open_store(&self) -> Result<Option<(Connection, Origin)>, Error> {
        let (path, pipeline) = (self.options.store.clone(), Arc::clone(&self.options.pipeline));
        tokio::task::spawn_blocking(move || store::open(&path, &pipeline)).await.map_err(|_| Error::Ended)?
    }

    async fn make_store(&mut self, epoch: u32) -> Result<(Connection, Origin), Error> {
        // Whatever fills the old one must end first.
        self.collection = None;
        let mut session = Session::open(&self.options).await?;
        let first = self.feeds.iter().next().map(|feed| Arc::clone(&feed.table));
        if let (None, Some(table)) = (&self.database_uuid, first) {
            self.table_info(&mut session, &table).await?.ok_or_else(|| Error::TableGone { table: table.to_string() })?;
        }
        let (path, pipeline) = (self.options.store.clone(), Arc::clone(&self.options.pipeline));
        let database_uuid = self.database_uuid.clone().unwrap_or_default();
        tokio::task::spawn_blocking(move || store::create(&path, &pipeline, &database_uuid, epoch)).await.map_err(|_| Error::Ended)?
    }

    /// Follows the tables that are not followed now.
    async fn collect(&mut self, origin: &Origin) -> Result<&mut Collection, Error> {
        if self.collection.as_ref().is_some_and(|collection| !collection.is_running()) {
            self.collection = None;
        }
        match &mut self.collection {
            Some(collection) => collection.follow(&self.options, &self.feeds, &self.progress, origin),
            None => self.collection = Some(Collection::start(&self.options, &self.feeds, &self.progress).await?),
        }
        self.collection.as_mut().ok_or(Error::Ended)
    }

    /// Checks that a feed can be followed.
    async fn check(&mut self, session: &mut Session, feed: &Feed) -> Result<(), Error> {
        let info = self.table_info(session, &feed.table).await?.ok_or_else(|| Error::TableGone { table: feed.name.to_string() })?;
        if feed.key.iter().any(|key| **key != *info.primary_key) || feed.key.len() != 1 {
            return Err(Error::Key { table: feed.name.to_string(), primary_key: info.primary_key });
        }
        session.check_readable(&feed.table).await
    }

    /// Opens the log's connection where `resume` ends, and checks that the store is the one that was read and not an older copy.
    async fn verify(&self, known: &Identity, resume: &Resume) -> Result<(Connection, Origin, LogPosition), Error> {
        let position = LogPosition::parse(&resume.token)?;
        let path = || self.options.store.clone();
        let Some((connection, origin)) = self.open_store().await? else { return Err(Error::StoreLost { path: path() }) };
        if known.get(DATABASE).is_some_and(|database| *database != origin.database_uuid) {
            return Err(self.foreign("the local store follows another one".to_owned()));
        }
        let next = next_seq(&connection).map_err(|source| Error::store("read the head of", &self.options.store, source))?;
        let rewound = |what: String| Error::StoreRewound { path: path(), what };
        if position.epoch != origin.epoch {
            return Err(rewound(format!("it was made in second {}, and the checkpoint is of {}", origin.epoch, position.epoch)));
        }
        if next < position.next {
            return Err(rewound(format!("its log ends before {next}, and the checkpoint is at {}", position.next)));
        }
        if position.next <= origin.trimmed {
            return Err(Error::StoreLost { path: path() });
        }
        Ok((connection, origin, position))
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Rows;
    type Probe = LogProbe;
    type Error = Error;

    async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        let mut session = Session::open(&self.options).await?;
        let schema: Arc<str> = self.options.database.as_str().into();
        let mut tables = Vec::new();
        for name in session.table_list().await? {
            // A table that was dropped meanwhile is left out.
            let Some(info) = self.table_info(&mut session, &name).await? else { continue };
            let key: Vec<Arc<str>> = vec![info.primary_key.into()];
            tables.push(Table {
                schema: Arc::clone(&schema),
                name: name.into(),
                primary_key: key.clone(),
                columns: key,
                leaves_values_out: false,
            });
        }
        Ok(Catalogue { database: schema, tables, views: Vec::new() })
    }

    async fn identity(&mut self) -> Result<Identity, Error> {
        Ok(self.database_uuid.iter().map(|uuid| (DATABASE.to_owned(), uuid.clone())).collect())
    }

    async fn recognize(&mut self, known: &Identity) -> Result<(), Error> {
        let Some(known) = known.get(DATABASE) else { return Ok(()) };
        match self.database_uuid.replace(known.clone()) {
            Some(found) if found != *known => {
                // The next attempt asks again.
                self.database_uuid = None;
                Err(self.foreign(format!("its UUID is {found}, not {known}")))
            }
            _ => Ok(()),
        }
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.collection = None;
        self.feeds = feeds;
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        let mut errors: Vec<Error> = file::check(&self.feeds).into_iter().map(Error::from).collect();
        let mut findings = Findings::default();
        let mut session = Session::open(&self.options).await?;
        let feeds = Arc::clone(&self.feeds);
        for feed in feeds.iter() {
            if let Err(error) = self.check(&mut session, feed).await {
                errors.push(error);
            }
        }
        let (path, tables) = (self.options.store.display(), feeds.iter().count());
        match self.open_store().await {
            Ok(Some(_)) => findings.actions.push(format!("keep the local store {path}, and follow {tables} tables")),
            Ok(None) => findings.actions.push(format!("make the local store {path}, and follow {tables} tables")),
            Err(error) => errors.push(error),
        }
        findings.refuse(errors)?;
        Ok(findings)
    }

    async fn unclaimed(&mut self) -> Result<(), Error> {
        match self.open_store().await? {
            Some(_) => Err(Error::Claimed { path: self.options.store.clone() }),
            None => Ok(()),
        }
    }

    async fn resumable(&mut self, known: &Identity, resume: &Resume) -> Result<(), Error> {
        self.verify(known, resume).await.map(drop)
    }

    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        let (connection, origin) = match self.open_store().await? {
            Some(found) => found,
            None => self.make_store(now()).await?,
        };
        let next = next_seq(&connection).map_err(|source| Error::store("read the head of", &self.options.store, source))?;
        self.collect(&origin).await?;
        Ok(LogPosition { epoch: origin.epoch, next }.token())
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let (connection, origin, position) = self.verify(known, resume).await?;
        let (feeds, schema, path) = (Arc::clone(&self.feeds), self.options.database.clone(), self.options.store.clone());
        let collection = self.collect(&origin).await?;
        Ok(Log {
            feeds,
            schema,
            path,
            position,
            page: LogPage::default(),
            read: position.next,
            connection: Some(connection),
            reading: None,
            tables: HashMap::new(),
            watched: collection.writer().watched(),
            writer: collection.client(),
            failure: collection.failure(),
            pending: None,
        })
    }

    /// Makes the store anew: what readers have is not known any more, so every table is read again, after a `reset`.
    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        self.recognize(known).await?;
        // Positions sort by the epoch first.
        let epoch = now().max(LogPosition::parse(&lost.token)?.epoch.saturating_add(1));
        let (connection, origin) = self.make_store(epoch).await?;
        let next = next_seq(&connection).map_err(|source| Error::store("read the head of", &self.options.store, source))?;
        let token = LogPosition { epoch: origin.epoch, next }.token();
        Ok(Renewed { token, feeds: self.feeds.iter().map(|feed| feed.id).collect() })
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        Ok(Rows::new(self.options.clone(), Arc::clone(&self.feeds), self.progress.clone()))
    }

    async fn probe(&mut self) -> Result<LogProbe, Error> {
        Ok(LogProbe::new(self.options.clone(), Arc::clone(&self.feeds), self.progress.clone()))
    }

    async fn detach(&mut self) -> Result<Vec<String>, Error> {
        self.collection = None;
        let path = self.options.store.clone();
        // A file of something else stays.
        let Some((connection, _)) = self.open_store().await? else { return Ok(Vec::new()) };
        drop(connection);
        store::remove(&path)?;
        Ok(vec![format!("removed the local store {}", path.display())])
    }
}

/// The current second since 1970.
fn now() -> u32 {
    u32::try_from(Timestamp::now().0 / 1_000_000).unwrap_or(u32::MAX)
}
