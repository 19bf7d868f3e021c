//! The connector: inspects a server, sets it up, and opens its log, prefeed and probe.

use super::charset::Charset;
use super::error::Error;
use super::flow::Flow;
use super::identity::{System, Timelines};
use super::instance::SameServer;
use super::log::unkeyed::UnkeyedFeeds;
use super::log::{Link, Log};
use super::monitor::Monitor;
use super::options::Options;
use super::prefeed::Rows;
use super::preflight::Ours;
use super::probe::Probe;
use super::publication::{Definition, Gap, Membership};
use super::quote::{identifier, literal};
use super::session::{Mode, Session};
use super::slot::{self, Slot, SlotCreation};
use super::token::{Lsn, Token};
use super::{catalogue, history, preflight, publication, standby, survey, tables};
use crate::checkpoint::{FeedState, Identity, ResumeToken};
use crate::fault::{Classify as _, Fault};
use crate::feed::{Catalogue, Feed, Feeds};
use crate::preflight::Findings;
use crate::source::{Renewed, Resume, SourceConnector, TableChange, file};
use crate::status::metrics::SourceMetrics;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Connects to one PostgreSQL server.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    metrics: SourceMetrics,
    feeds: Arc<Feeds>,
    unkeyed: UnkeyedFeeds,
    /// An ordinary session for all that a start and a check ask, from the catalogue on. The log's monitor takes it over. It is opened anew after
    /// a call failed or was dropped.
    session: Option<Session>,
    /// A replication connection that has only identified the server. The slot's creation or the log takes it over.
    replication: Option<Session>,
    /// The slot that is being created. It is kept from one attempt to start to the next.
    creation: Option<SlotCreation>,
}

impl Connector {
    /// Makes a connector. It opens no connection yet.
    #[must_use]
    pub fn new(options: Options, metrics: SourceMetrics) -> Self {
        let options = Options { server: SameServer::default(), ..options };
        Self { options, metrics, feeds: Arc::default(), unkeyed: UnkeyedFeeds::default(), session: None, replication: None, creation: None }
    }

    /// Takes the kept session, or opens one.
    async fn session(&mut self) -> Result<Session, Error> {
        take_or_open(&mut self.session, &self.options, Mode::Ordinary).await
    }

    /// Takes the kept replication connection, or opens one.
    async fn replication(&mut self) -> Result<Session, Error> {
        take_or_open(&mut self.replication, &self.options, Mode::Replication).await
    }

    /// Identifies the server over the kept replication connection.
    async fn system(&mut self) -> Result<System, Error> {
        let mut replication = self.replication().await?;
        let system = System::read(&mut replication).await?;
        self.replication = Some(replication);
        Ok(system)
    }

    /// Opens a replication connection, and verifies that the server is the known one and a primary. From now on all sessions must reach it.
    async fn reach_known(&mut self, known: &Identity) -> Result<(Session, System), Error> {
        let mut replication = match self.replication.take() {
            Some(replication) => replication,
            None => Session::open_unverified(&self.options, Mode::Replication).await?,
        };
        replication.check_primary()?;
        let system = System::read(&mut replication).await?;
        system.compare(known)?;
        self.options.server.set(replication.instance());
        Ok((replication, system))
    }

    /// Verifies that the server's log is the one that was read up to `token`, and that the slot still holds the log after it. Returns where
    /// to resume.
    async fn check_holds(
        &self,
        system: &System,
        token: &Token,
        replication: &mut Session,
        session: &mut Session,
    ) -> Result<(Timelines, Slot, Token), Error> {
        let timelines = Timelines::read(system, replication).await?;
        timelines.check(token, system.head)?;
        // A slot that is still being created holds nothing yet.
        let slot = Slot::read(&self.options.slot, session).await?.filter(|_| self.creation.is_none());
        let slot = slot.ok_or_else(|| slot::gone(&self.options, token))?;
        slot.check_ours(&self.options)?;
        slot.check_holds(token)?;
        let token = history::verify(&self.options, token, &slot, &timelines, session).await?;
        Ok((timelines, slot, token))
    }

    /// After a gap, creates a new slot, or expects that somebody else has done so if `source.manage` is false. Returns where its log begins.
    async fn replace_slot(&mut self, lost: &Token, mut replication: Session, session: &mut Session) -> Result<Lsn, Error> {
        if !self.options.manage {
            let slot = Slot::read(&self.options.slot, session).await?.ok_or_else(|| slot::missing(&self.options))?;
            slot.check_ours(&self.options)?;
            return slot.start_after(lost, session).await;
        }
        if self.creation.is_none() {
            slot::drop(&self.options, &mut replication).await?;
        }
        self.create_slot(replication).await
    }

    /// Creates the slot over this connection, or continues its creation; returns its consistent point.
    async fn create_slot(&mut self, replication: Session) -> Result<Lsn, Error> {
        let creation = match &mut self.creation {
            Some(creation) if creation.is_on_this_server(&self.options) => creation,
            _ => self.creation.insert(SlotCreation::begin(&self.options, replication)),
        };
        let created = creation.finished(&self.options).await;
        if !matches!(created, Err(Error::HeldUp { .. })) {
            self.creation = None;
        }
        created
    }

    /// Feeds whose live events are published, each with its table's last known membership in the publication. Feeds whose table was never
    /// seen are new and left out: the publication may not hold them yet.
    fn begun<'a>(&'a self, resume: &'a Resume) -> impl Iterator<Item = (&'a Feed, Option<Membership>)> {
        let has_begun = |feed: &&Feed| resume.feeds.get(feed.id.index()).and_then(FeedState::since).is_some();
        self.feeds.iter().filter(has_begun).filter_map(|feed| {
            let layout = resume.layouts.get(feed.id.index())?.as_ref()?;
            Some((feed, survey::membership(layout)))
        })
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Rows;
    type Probe = Probe;
    type Error = Error;

    async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        // Each attempt starts here. All later sessions must reach the same server.
        (self.session, self.replication) = (None, None);
        let mut session = Session::open_unverified(&self.options, Mode::Ordinary).await?;
        self.options.server.set(session.instance());
        let (tables, views) = (catalogue::tables(&mut session).await?, catalogue::views(&mut session).await?);
        self.session = Some(session);
        Ok(Catalogue { database: self.options.database.as_str().into(), tables, views })
    }

    async fn identity(&mut self) -> Result<Identity, Error> {
        Ok(self.system().await?.identity())
    }

    async fn recognize(&mut self, known: &Identity) -> Result<(), Error> {
        self.system().await?.compare(known)
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        let mut session = self.session().await?;
        let ours = Ours { creation: self.creation.as_ref().map(SlotCreation::pid), walsender: self.replication.as_ref().map(Session::pid) };
        let mut errors: Vec<Error> = file::check(&self.feeds).into_iter().map(Error::from).collect();
        let mut findings = Findings::default();
        match preflight::preflight(&self.options, &self.feeds, ours, &mut session, &mut errors, &mut findings).await {
            Ok(()) => self.session = Some(session),
            Err(error) => errors.push(error),
        }
        findings.refuse(errors)?;
        Ok(findings)
    }

    async fn unclaimed(&mut self) -> Result<(), Error> {
        let mut session = self.session().await?;
        let slot = Slot::read(&self.options.slot, &mut session).await?;
        let what = match slot {
            // Somebody else created slot and publication for this pipeline.
            Some(slot) if !self.options.manage => {
                slot.check_not_lost()?;
                if Definition::read(&self.options, &mut session).await?.is_some() {
                    slot.check_published(&self.options, &mut session).await?;
                }
                None
            }
            Some(_) => Some(format!("replication slot {:?}", self.options.slot)),
            None if self.options.manage && publication::is_ours(&self.options, &mut session).await? => {
                Some(format!("publication {:?}", self.options.publication))
            }
            None => None,
        };
        self.session = Some(session);
        what.map_or(Ok(()), |what| Err(Error::Claimed { what }))
    }

    async fn resumable(&mut self, known: &Identity, resume: &Resume) -> Result<(), Error> {
        let token = Token::try_from(&resume.token)?;
        let (mut replication, system) = self.reach_known(known).await?;
        let mut session = self.session().await?;
        self.check_holds(&system, &token, &mut replication, &mut session).await?;
        let publication = Definition::read(&self.options, &mut session).await?;
        publication::check_kept(&self.options, publication.as_ref(), self.begun(resume))?;
        (self.session, self.replication) = (Some(session), Some(replication));
        Ok(())
    }

    async fn unseen(&mut self, resume: &Resume) -> Result<Vec<TableChange>, Error> {
        let mut session = self.session().await?;
        let publication = Definition::read(&self.options, &mut session).await?;
        let survey = survey::survey(&self.options, &self.feeds, &resume.layouts, publication.as_ref(), &mut session).await?;
        self.session = Some(session);
        Ok(survey.table_changes)
    }

    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        let mut replication = self.replication().await?;
        let system = System::read(&mut replication).await?;
        // In an ordinary session, because the login role's settings may change its role to the tables' owner.
        let mut session = self.session().await?;
        let publication = Definition::read(&self.options, &mut session).await?;
        publication::ensure(&self.options, &self.feeds, publication, &mut session).await?;
        let found = Slot::read(&self.options.slot, &mut session).await?.filter(|_| self.creation.is_none());
        let boundary = match found {
            Some(slot) => {
                slot.check_ours(&self.options)?;
                slot.check_free(&mut session).await?;
                self.replication = Some(replication);
                // Nobody has read from it yet, so it is still at its start.
                slot.confirmed_flush.ok_or_else(|| Error::SlotUnfit {
                    what: format!("replication slot {:?} was never completed", self.options.slot),
                    remedy: format!("run: SELECT pg_drop_replication_slot({})", literal(&self.options.slot)),
                })?
            }
            None if self.options.manage => self.create_slot(replication).await?,
            None => return Err(slot::missing(&self.options)),
        };
        self.session = Some(session);
        Ok(Token::beginning(system.timeline, boundary).into())
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let token = Token::try_from(&resume.token)?;
        // The connection that will decode runs no queries besides its identification. A query would fill the walsender's caches with today's
        // publications and tables, and it would apply them to earlier positions of the log.
        let (mut replication, system) = self.reach_known(known).await?;
        let mut session = self.session().await?;
        if let Some(reason) = standby::check(&mut session).await? {
            return Err(Error::CommitsWait { address: self.options.address(), reason });
        }
        let (timelines, slot, token) = self.check_holds(&system, &token, &mut replication, &mut session).await?;
        slot.check_free(&mut session).await?;
        let publication = Definition::read(&self.options, &mut session).await?;
        publication::check_whole(&self.options, &self.feeds, publication.as_ref(), &mut session).await?;
        publication::check_kept(&self.options, publication.as_ref(), self.begun(resume))?;
        let publication = publication::ensure(&self.options, &self.feeds, publication, &mut session).await?;
        let mut layouts = resume.layouts.clone();
        layouts.resize(self.feeds.len(), None);
        let survey = survey::survey(&self.options, &self.feeds, &layouts, publication.as_ref(), &mut session).await?;
        let silence_limit = silence_limit(&mut session, &mut replication).await?;
        let oids = tables::numbers(&self.feeds, &mut session).await?;
        let flow = Flow::new(Arc::clone(&self.feeds), oids, timelines, token, self.metrics.clone());
        let start = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
            identifier(&self.options.slot),
            token.boundary,
            // In replication commands the only escape is a doubled quote.
            format_args!("'{}'", identifier(&self.options.publication).replace('\'', "''")),
        );
        let charset = Charset::read(&mut session).await?.filter(|_| start.is_ascii()).map(Arc::new);
        if charset.is_some() {
            // Then the server does not convert text, so no conversion can fail.
            replication.query("SET client_encoding = 'SQL_ASCII'").await?;
        }
        let monitor = Monitor::begin(self.options.clone(), replication.pid(), session).await?;
        let wire = replication.copy_both(&start).await?;
        let link = Link { wire, silence_limit, monitor };
        let log = Log::new(link, flow, Arc::clone(&self.feeds), layouts, self.options.clone(), self.metrics.clone());
        let mut log = log.reporting_to(self.unkeyed.clone()).with_charset(charset);
        // If a feed has not been read yet, the log before its cut does not matter.
        for feed in self.feeds.iter() {
            if !matches!(resume.feeds.get(feed.id.index()), Some(FeedState::Reading { .. } | FeedState::Live { .. })) {
                log.ignore_columns_before(feed.id, survey.head);
            }
        }
        log.record(survey);
        Ok(log)
    }

    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        let token = Token::try_from(&lost.token)?;
        let (mut replication, system) = self.reach_known(known).await?;
        let mut session = self.session().await?;
        let publication = Definition::read(&self.options, &mut session).await?;
        let left = publication::left(publication.as_ref(), self.begun(lost));
        let is_readable = left.iter().all(|(_, gap)| *gap != Gap::Remade);
        match self.check_holds(&system, &token, &mut replication, &mut session).await {
            Ok(_) if is_readable => {
                // The log has no gap, but tables left it, or it does not identify their changed rows.
                let unkeyed: Vec<_> = self.unkeyed.lock().iter().copied().collect();
                tables::check::verify(&self.options, &self.feeds, &unkeyed, &mut session).await?;
                self.unkeyed.lock().clear();
                let feeds: BTreeSet<_> = left.iter().map(|(feed, _)| feed.id).chain(unkeyed).collect();
                return Ok(Renewed { token: lost.token.clone(), feeds: feeds.into_iter().collect() });
            }
            Err(gap) if gap.fault() == Fault::Gap && !system.is_after(&token) => return Err(gap),
            Err(error) if error.fault() != Fault::Gap => return Err(error),
            _ => {}
        }
        publication::ensure(&self.options, &self.feeds, publication, &mut session).await?;
        let boundary = self.replace_slot(&token, replication, &mut session).await?;
        let token = Token::beginning(system.timeline, boundary);
        Ok(Renewed { token: token.into(), feeds: self.feeds.iter().map(|feed| feed.id).collect() })
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        Rows::new(self.options.clone(), Arc::clone(&self.feeds), self.metrics.clone()).await
    }

    async fn probe(&mut self) -> Result<Probe, Error> {
        Ok(Probe::new(Session::open(&self.options, Mode::Ordinary).await?, self.options.clone()))
    }

    async fn detach(&mut self) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        let mut session = self.session().await?;
        session.check_primary()?;
        if !self.options.manage {
            let stays = |what: &str, drop: &str| format!("{what} stays, because source.manage is false; to drop it, run: {drop}");
            if Slot::read(&self.options.slot, &mut session).await?.is_some() {
                let drop = format!("SELECT pg_drop_replication_slot({})", literal(&self.options.slot));
                removed.push(stays(&format!("replication slot {}", self.options.slot), &drop));
            }
            if Definition::read(&self.options, &mut session).await?.is_some() {
                let drop = format!("DROP PUBLICATION {}", identifier(&self.options.publication));
                removed.push(stays(&format!("publication {}", self.options.publication), &drop));
            }
            return Ok(removed);
        }
        let mut replication = self.replication().await?;
        if slot::drop(&self.options, &mut replication).await? {
            removed.push(format!("removed replication slot {}", self.options.slot));
        }
        if publication::remove(&self.options, &mut session).await? {
            removed.push(format!("removed publication {}", self.options.publication));
        }
        Ok(removed)
    }
}

/// Takes a kept session, unless it is one with another server by now, or opens one.
async fn take_or_open(kept: &mut Option<Session>, options: &Options, mode: Mode) -> Result<Session, Error> {
    match kept.take() {
        Some(session) if session.check_same(options).is_ok() => Ok(session),
        _ => Session::open(options, mode).await,
    }
}

/// Sets the connection's `wal_sender_timeout` to at least one minute, because feedline may be busy for longer than a short timeout. Returns
/// after how much silence the connection counts as dead: twice the server's own `wal_sender_timeout`.
async fn silence_limit(session: &mut Session, replication: &mut Session) -> Result<Duration, Error> {
    const UNLIMITED: Duration = Duration::from_mins(2);
    const SHORTEST: Duration = Duration::from_secs(2);
    const GRANTED: Duration = Duration::from_mins(1);
    let row = session.query_one("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'").await?;
    let granted = row.text(0).parse().map_or(Duration::ZERO, Duration::from_millis);
    if granted.is_zero() {
        return Ok(UNLIMITED);
    }
    replication.query(&format!("SET wal_sender_timeout = {}", granted.max(GRANTED).as_millis())).await?;
    Ok((2 * granted).max(SHORTEST))
}
