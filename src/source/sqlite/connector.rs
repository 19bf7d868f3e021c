//! The connector: prepares one database, and opens its log, its prefeed and its probe. Its work runs on threads that may block.

use crate::checkpoint::{Identity, ResumeToken};
use crate::feed::{Catalogue, Feeds};
use crate::preflight::Findings;
use crate::source::connector::{Renewed, Resume, SourceConnector};
use crate::source::file;
use crate::source::sqlite::catalogue;
use crate::source::sqlite::database::Database;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::identity::Origin;
use crate::source::sqlite::log::Log;
use crate::source::sqlite::open;
use crate::source::sqlite::options::Options;
use crate::source::sqlite::prefeed::Rows;
use crate::source::sqlite::probe::LogProbe;
use crate::source::sqlite::session;
use crate::source::sqlite::token::LogPosition;
use crate::source::token::LogToken as _;
use crate::status::metrics::SourceMetrics;
use std::sync::{Arc, Mutex};

/// The connector to one database.
pub struct Connector {
    database: Database,
    metrics: SourceMetrics,
}

impl Connector {
    /// A connector that opens nothing yet.
    #[must_use]
    pub fn new(options: Options, metrics: SourceMetrics) -> Self {
        Self { database: Database::new(options), metrics }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Database) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let database = self.database.clone();
        tokio::task::spawn_blocking(move || work(&database)).await.map_err(|_| Error::Ended)?
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Rows;
    type Probe = LogProbe;
    type Error = Error;

    async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        self.blocking(|database| catalogue::read(&database.path)).await
    }

    /// The identity is chosen when the change log is made. Before that it is empty.
    async fn identity(&mut self) -> Result<Identity, Error> {
        self.blocking(|database| {
            let (connection, _) = open::open(&database.path)?;
            let origin = Origin::read(&connection, &database.names, &database.path)?;
            Ok(origin.map(|origin| origin.identity()).unwrap_or_default())
        })
        .await
    }

    async fn recognize(&mut self, known: &Identity) -> Result<(), Error> {
        let known = known.clone();
        self.blocking(move |database| {
            let (connection, _) = open::open(&database.path)?;
            database.history(&connection).origin()?.recognize(&known, &database.path)
        })
        .await
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.database.feeds = feeds;
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        self.blocking(|database| {
            let mut errors: Vec<Error> = file::check(&database.feeds).into_iter().map(Error::from).collect();
            let mut findings = Findings::default();
            match open::open(&database.path) {
                Ok((connection, _)) => {
                    errors.extend(database.capture().verify(&connection));
                    match database.capture().action(&connection) {
                        Ok(action) => findings.actions.push(action),
                        Err(error) => errors.push(error),
                    }
                    match database.capture().warnings(&connection) {
                        Ok(warnings) => findings.warnings = warnings,
                        Err(error) => errors.push(error),
                    }
                }
                Err(error) => errors.push(error),
            }
            findings.refuse(errors)?;
            Ok(findings)
        })
        .await
    }

    async fn unclaimed(&mut self) -> Result<(), Error> {
        self.blocking(|database| {
            let (connection, _) = open::open(&database.path)?;
            match Origin::read(&connection, &database.names, &database.path)? {
                Some(_) => Err(Error::Claimed { path: database.path.clone() }),
                None => Ok(()),
            }
        })
        .await
    }

    async fn resumable(&mut self, known: &Identity, resume: &Resume) -> Result<(), Error> {
        let (known, position) = (known.clone(), LogPosition::parse(&resume.token)?);
        let live: Vec<bool> = resume.feeds.iter().map(|feed| feed.since().is_some()).collect();
        self.blocking(move |database| {
            let (connection, _) = open::open(&database.path)?;
            database.history(&connection).check(&known, position)?;
            database.capture().refuse_lost(&connection, |feed| live.get(feed.index()).copied().unwrap_or(false))
        })
        .await
    }

    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        self.blocking(|database| {
            let (mut connection, _) = open::open(&database.path)?;
            Ok(database.capture().establish(&mut connection)?.token())
        })
        .await
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let (known, resume) = (known.clone(), resume.clone());
        let metrics = self.metrics.clone();
        self.blocking(move |database| session::open(database, &known, &resume, metrics)).await
    }

    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        let (known, position) = (known.clone(), LogPosition::parse(&lost.token)?);
        self.blocking(move |database| {
            let (mut connection, _) = open::open(&database.path)?;
            database.capture().renew(&mut connection, &known, position)
        })
        .await
    }

    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Error> {
        LogPosition::parse(token)?.skips(stored)
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        Ok(Rows::new(self.database.clone(), self.metrics.clone()))
    }

    async fn probe(&mut self) -> Result<LogProbe, Error> {
        self.blocking(|database| {
            let (connection, file) = open::open(&database.path)?;
            Ok(LogProbe { database: database.clone(), file, connection: Arc::new(Mutex::new(connection)) })
        })
        .await
    }

    async fn detach(&mut self) -> Result<Vec<String>, Error> {
        self.blocking(|database| {
            let (mut connection, _) = open::open(&database.path)?;
            database.capture().detach(&mut connection)
        })
        .await
    }
}
