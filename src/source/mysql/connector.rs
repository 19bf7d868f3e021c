//! The connector: inspects a server, and opens its log, prefeed and probe.

use super::charset::Charsets;
use super::error::Error;
use super::events::{Events, Start};
use super::flow::{Flow, Known};
use super::head::Head;
use super::instance::SameServer;
use super::layout::Hints;
use super::log::Log;
use super::lookup::Lookup;
use super::options::Options;
use super::prefeed::Rows;
use super::probe::Probe;
use super::session::Session;
use super::token::{LogId, Token};
use super::transaction_id::Gtids;
use super::{catalogue, head, history, identity, preflight, tables};
use crate::checkpoint::{Identity, ResumeToken};
use crate::event::Timestamp;
use crate::fault::{Classify as _, Fault};
use crate::feed::{Catalogue, Feed, Feeds};
use crate::preflight::Findings;
use crate::source::{Renewed, Resume, SourceConnector, TableChange, file};
use crate::status::metrics::SourceMetrics;
use std::sync::Arc;

/// Where the first event of a file begins.
const FIRST_EVENT: u32 = 4;

/// Connects to one MySQL or MariaDB server.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    metrics: SourceMetrics,
    feeds: Arc<Feeds>,
    /// A session for all that a start and a check ask. It is opened anew after a call failed or was dropped.
    session: Option<Session>,
    /// The log that is read, which the cuts of snapshots belong to.
    log: Option<LogId>,
}

impl Connector {
    /// Makes a connector. It opens no connection yet.
    #[must_use]
    pub fn new(options: Options, metrics: SourceMetrics) -> Self {
        let options = Options { server: SameServer::default(), ..options };
        Self { options, metrics, feeds: Arc::default(), session: None, log: None }
    }

    /// Takes the kept session, or opens one.
    async fn session(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) if self.options.server.check(session.instance(), session.address()).is_ok() => Ok(session),
            _ => Session::open(&self.options).await,
        }
    }

    /// Opens a session with whatever server answers, and verifies that it may be the known one. From now on all sessions must reach it.
    async fn reach_known(&mut self, known: &Identity) -> Result<Session, Error> {
        let mut session = Session::open_unverified(&self.options).await?;
        identity::compare(known, &mut session).await?;
        self.options.server.set(session.instance());
        Ok(session)
    }

    /// What the checkpoint and the server say of the feeds' tables.
    async fn known(&self, resume: &Resume, session: &mut Session) -> Result<Known, Error> {
        let charsets = Charsets::read(session).await?;
        let row = session.query("SELECT @@GLOBAL.lower_case_table_names").await?;
        let folds_names = row.first().is_some_and(|row| row.text(0) != "0");
        let remembered = |feed: &Feed| resume.layouts.get(feed.id.index()).and_then(Option::as_ref).and_then(Hints::parse);
        let mut found: Vec<Option<Hints>> = self.feeds.iter().map(remembered).collect();
        let mut table_changes = Vec::new();
        if found.iter().any(Option::is_none) {
            // All at once: there may be a thousand.
            for table in tables::of(&self.feeds, session).await? {
                let feed = self.feeds.of_table(&table.schema, &table.name).map(|feed| feed.id);
                if let Some(unknown) = feed.map(|feed| &mut found[feed.index()]).filter(|hints| hints.is_none()) {
                    *unknown = Some(Hints::of(&table));
                }
            }
            let is_new = |feed: &&Feed| remembered(feed).is_none();
            for feed in self.feeds.iter().filter(is_new) {
                let layout = found[feed.id.index()].get_or_insert_default().layout();
                table_changes.push(TableChange { feed: feed.id, layout, reread: None });
            }
        }
        let hints = found.into_iter().flatten().collect();
        let head = if session.is_mariadb() { Some(Head::place(session).await?.0) } else { None };
        Ok(Known { charsets, hints, folds_names, table_changes, head })
    }

    /// Opens the log at a token that was verified, or in the next file, where that is given.
    async fn open(&self, token: &Token, next: Option<String>) -> Result<Events, Error> {
        let session = Session::open(&self.options).await?;
        let name = format!("feedline/{}", self.options.pipeline);
        let (position, file);
        let start = match &token.gtids {
            Gtids::Maria(_) if let Some(next) = &next => Start::File { name: next, position: FIRST_EVENT },
            Gtids::Maria(read) => {
                position = read.to_string();
                Start::MariaGtid(&position)
            }
            Gtids::MySql(read) => Start::MySqlGtid(read),
            Gtids::Unnamed => {
                file = token.file.to_string();
                let position = u32::try_from(token.offset)
                    .map_err(|_| Error::LogLost { what: format!("without GTIDs no log can be opened beyond 4 GiB of a file ({token})") })?;
                Start::File { name: &file, position }
            }
        };
        let mut events = Events::open(session, self.options.server_id, &name, &start).await?;
        events.first().await?;
        Ok(events)
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Rows;
    type Probe = Probe;
    type Error = Error;

    async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        // Each attempt starts here. All later sessions must reach the same server.
        self.session = None;
        let mut session = Session::open_unverified(&self.options).await?;
        self.options.server.set(session.instance());
        let tables = catalogue::tables(&self.options, &mut session).await?;
        let views = catalogue::names(&mut session, "VIEW").await?;
        self.session = Some(session);
        Ok(Catalogue { database: self.options.database.as_str().into(), tables, views })
    }

    async fn identity(&mut self) -> Result<Identity, Error> {
        let session = self.session().await?;
        let identity = identity::of(&session);
        self.session = Some(session);
        Ok(identity)
    }

    async fn recognize(&mut self, known: &Identity) -> Result<(), Error> {
        let mut session = self.session().await?;
        identity::compare(known, &mut session).await?;
        self.session = Some(session);
        Ok(())
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        let mut session = self.session().await?;
        let mut errors: Vec<Error> = file::check(&self.feeds).into_iter().map(Error::from).collect();
        let mut findings = Findings::default();
        match preflight::preflight(&self.options, &self.feeds, &mut session, &mut errors, &mut findings).await {
            Ok(()) => self.session = Some(session),
            Err(error) => errors.push(error),
        }
        findings.refuse(errors)?;
        Ok(findings)
    }

    /// The log begins where it ends now. The server keeps it by its own rules.
    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        let mut session = self.session().await?;
        let head = Head::read(&mut session).await?;
        let seconds = u32::try_from(Timestamp::now().millis() / 1000).unwrap_or(u32::MAX);
        let log = LogId { epoch: seconds, server: session.instance().fingerprint() };
        self.session = Some(session);
        self.log = Some(log);
        Ok((&head.token(log)).into())
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let token = Token::try_from(&resume.token)?;
        let mut session = self.reach_known(known).await?;
        let token = history::verify(&self.options, token, &mut session).await?;
        let tables = self.known(resume, &mut session).await?;
        let lookup = Lookup::new(self.options.clone(), session.is_mariadb());
        let next = match &tables.head {
            Some(head) => head::next_file(&mut session, &token, head).await?.map(|file| file.to_string()),
            None => None,
        };
        self.session = Some(session);
        let events = self.open(&token, next).await?;
        self.log = Some(token.log);
        let flow = Flow::new(Arc::clone(&self.feeds), tables, token, self.metrics.clone());
        Ok(Log::new(events, flow, lookup, self.options.clone(), self.metrics.clone()))
    }

    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        let token = Token::try_from(&lost.token)?;
        let mut session = self.reach_known(known).await?;
        match history::verify(&self.options, token.clone(), &mut session).await {
            Err(error) if error.fault() != Fault::Gap || matches!(error, Error::Foreign { .. }) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let head = Head::read(&mut session).await?;
        let log = LogId { epoch: token.log.epoch + 1, server: session.instance().fingerprint() };
        self.session = Some(session);
        self.log = Some(log);
        Ok(Renewed { token: (&head.token(log)).into(), feeds: self.feeds.iter().map(|feed| feed.id).collect() })
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        let log = self.log.ok_or(Error::Protocol { what: "a log before its snapshots" })?;
        Rows::open(self.options.clone(), Arc::clone(&self.feeds), self.metrics.clone(), log).await
    }

    async fn probe(&mut self) -> Result<Probe, Error> {
        Probe::open(self.options.clone()).await
    }
}
