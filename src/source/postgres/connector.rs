//! Opens the ports to one server.

use super::charset::Charset;
use super::error::Error;
use super::flow::Flow;
use super::identity::{System, Timelines};
use super::log::{Log, Unkeyed};
use super::prefeed::{Rows, query};
use super::probe::Probe;
use super::publication::{Gap, Membership};
use super::session::{Mode, Session};
use super::slot::{self, Slot};
use super::token::Token;
use super::{Options, catalogue, foresight, identifier, literal, preflight, publication, survey, tables};
use crate::checkpoint::{FeedState, Identity, ResumeToken};
use crate::dataset;
use crate::feed::{Feed, Feeds};
use crate::foresight::Foresight;
use crate::format::Format;
use crate::metrics::SourceMetrics;
use crate::source::{Catalogue, Renewed, Resume, SourceConnector};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Opens the ports to one PostgreSQL server.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    format: Format,
    metrics: SourceMetrics,
    feeds: Arc<Feeds>,
    unkeyed: Unkeyed,
}

impl Connector {
    /// A connector; nothing is connected yet.
    #[must_use]
    pub fn new(options: Options, format: Format, metrics: SourceMetrics) -> Self {
        Self { options, format, metrics, feeds: Arc::default(), unkeyed: Unkeyed::default() }
    }

    async fn session(&self) -> Result<Session, Error> {
        Session::open(&self.options, Mode::Ordinary).await
    }

    async fn replication(&self) -> Result<Session, Error> {
        Session::open(&self.options, Mode::Replication).await
    }

    /// What stands against following the feeds.
    async fn look(&self, found: &mut Vec<Error>) -> Result<(), Error> {
        let mut session = self.session().await?;
        preflight::server(&self.options, &mut session, found).await?;
        // The publication before the slot, as they are to be made.
        preflight::feeds(&self.options, &self.feeds, &mut session, found).await?;
        preflight::slot(&self.options, &self.feeds, &mut session, found).await?;
        query::verify(&self.feeds, &self.format, &mut session, found).await
    }

    /// The server is the known one, and its slot still holds what comes after `token`.
    async fn check_holds(
        &self,
        known: &Identity,
        token: &Token,
        replication: &mut Session,
        session: &mut Session,
    ) -> Result<(Timelines, Slot), Error> {
        let system = System::read(replication).await?;
        system.compare(known)?;
        let timelines = Timelines::read(&system, replication).await?;
        timelines.check(token, system.head)?;
        let slot = Slot::read(&self.options.slot, session).await?.ok_or_else(|| slot::gone(&self.options, token))?;
        slot.check_ours(&self.options)?;
        slot.check_holds(token)?;
        Ok((timelines, slot))
    }

    /// Feeds whose live events are published, each with how its table was. One that was never seen is new: the publication may not
    /// hold it yet.
    fn begun<'a>(&'a self, resume: &'a Resume) -> impl Iterator<Item = (&'a Feed, Option<Membership>)> {
        let has_begun = |feed: &&Feed| resume.feeds.get(feed.id.index()).and_then(FeedState::start).is_some();
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
        let tables = catalogue::tables(&mut self.session().await?).await?;
        Ok(Catalogue { database: self.options.database.as_str().into(), tables })
    }

    async fn identity(&mut self) -> Result<Identity, Error> {
        Ok(System::read(&mut self.replication().await?).await?.identity())
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    async fn verify(&mut self) -> Result<(), Vec<Error>> {
        let mut found: Vec<Error> = dataset::check(&self.feeds).into_iter().map(Error::from).collect();
        if let Err(error) = self.look(&mut found).await {
            found.push(error);
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    async fn foresee(&mut self) -> Result<Foresight, Error> {
        foresight::foresee(&self.options, &self.feeds, &mut self.session().await?).await
    }

    async fn unclaimed(&mut self) -> Result<(), Error> {
        let mut session = self.session().await?;
        let slot = Slot::read(&self.options.slot, &mut session).await?;
        if !self.options.manage {
            // Slot and publication are there by somebody else's hand, and meant for us.
            return slot.map_or(Ok(()), |slot| slot.check_begins());
        }
        let what = if slot.is_some() {
            format!("replication slot {:?}", self.options.slot)
        } else if publication::is_ours(&self.options, &mut session).await? {
            format!("publication {:?}", self.options.publication)
        } else {
            return Ok(());
        };
        Err(Error::Claimed { what })
    }

    async fn resumable(&mut self, known: &Identity, resume: &Resume) -> Result<(), Error> {
        let token = Token::try_from(&resume.token)?;
        let (mut replication, mut session) = (self.replication().await?, self.session().await?);
        self.check_holds(known, &token, &mut replication, &mut session).await?;
        publication::check_kept(&self.options, self.begun(resume), &mut session).await
    }

    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        let mut replication = self.replication().await?;
        let system = System::read(&mut replication).await?;
        publication::ensure(&self.options, &self.feeds, &mut replication).await?;
        let boundary = match Slot::read(&self.options.slot, &mut replication).await? {
            Some(slot) => {
                slot.check_ours(&self.options)?;
                slot.check_free(&mut replication).await?;
                // Nobody has read from it yet: it stands where it was made.
                slot.confirmed_flush.ok_or_else(|| Error::SlotUnfit {
                    what: format!("replication slot {:?} was never finished", self.options.slot),
                    remedy: format!("run: SELECT pg_drop_replication_slot({})", literal(&self.options.slot)),
                })?
            }
            None if self.options.manage => Slot::create(&self.options, &mut replication).await?,
            None => return Err(slot::missing(&self.options)),
        };
        Ok(Token { timeline: system.timeline, boundary, inside: None }.into())
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let token = Token::try_from(&resume.token)?;
        // Nothing is asked on the connection that will decode but who the server is: what a question leaves in its process' caches
        // (publications, tables as they are now) would be taken for how things were at each place of the log.
        let mut replication = self.replication().await?;
        let mut session = self.session().await?;
        let (timelines, slot) = self.check_holds(known, &token, &mut replication, &mut session).await?;
        slot.check_free(&mut session).await?;
        publication::check_whole(&self.options, &self.feeds, &mut session).await?;
        publication::check_kept(&self.options, self.begun(resume), &mut session).await?;
        publication::ensure(&self.options, &self.feeds, &mut session).await?;
        let mut layouts = resume.layouts.clone();
        layouts.resize(self.feeds.len(), None);
        let sightings = survey::survey(&self.options, &self.feeds, &layouts, &mut session).await?;
        let silence = silence_limit(&mut session).await?;
        let numbers = tables::numbers(&self.feeds, &mut session).await?;
        let flow = Flow::new(self.format.clone(), Arc::clone(&self.feeds), numbers, timelines, token, resume)?;
        let start = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
            identifier(&self.options.slot),
            token.boundary,
            // The replication grammar knows no escapes but doubled quotes.
            format_args!("'{}'", identifier(&self.options.publication).replace('\'', "''")),
        );
        let charset = Charset::read(&mut session).await?.filter(|_| start.is_ascii()).map(Arc::new);
        if charset.is_some() {
            // It converts nothing then, and so fails at nothing.
            replication.query("SET client_encoding = 'SQL_ASCII'").await?;
        }
        let wire = replication.copy_both(&start).await?;
        let log = Log::new(wire, flow, Arc::clone(&self.feeds), layouts, self.options.clone(), self.metrics.clone(), silence);
        let mut log = log.noting(self.unkeyed.clone()).written_in(charset);
        log.sight(sightings);
        Ok(log)
    }

    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        let token = Token::try_from(&lost.token)?;
        let mut replication = self.replication().await?;
        let system = System::read(&mut replication).await?;
        system.compare(known)?;
        let timelines = Timelines::read(&system, &mut replication).await?;
        let slot = Slot::read(&self.options.slot, &mut replication).await?;
        let left = publication::left(&self.options, self.begun(lost), &mut replication).await?;
        let is_readable = left.iter().all(|(_, gap)| *gap != Gap::Remade);
        if is_readable && slot.is_some_and(|slot| slot.check_holds(&token).is_ok()) && timelines.check(&token, system.head).is_ok() {
            // The log is whole; tables left it, or it does not say which of their rows were changed.
            let unkeyed: Vec<_> = self.unkeyed.feeds().iter().copied().collect();
            tables::verify(&self.options, &self.feeds, &unkeyed, &mut replication).await?;
            self.unkeyed.feeds().clear();
            let feeds: BTreeSet<_> = left.iter().map(|(feed, _)| feed.id).chain(unkeyed).collect();
            return Ok(Renewed { token: lost.token.clone(), feeds: feeds.into_iter().collect() });
        }
        if !system.is_after(&token) {
            timelines.check(&token, system.head)?;
        }
        slot::drop(&self.options, &mut replication).await?;
        publication::ensure(&self.options, &self.feeds, &mut replication).await?;
        let boundary = Slot::create(&self.options, &mut replication).await?;
        let token = Token { timeline: system.timeline, boundary, inside: None };
        Ok(Renewed { token: token.into(), feeds: self.feeds.iter().map(|feed| feed.id).collect() })
    }

    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Error> {
        let token = Token::try_from(token)?;
        Ok(Token::try_from(stored).map_or(true, |stored| token.is_behind(&stored)))
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        Rows::new(self.options.clone(), Arc::clone(&self.feeds), self.format.clone(), self.metrics.clone()).await
    }

    async fn probe(&mut self) -> Result<Probe, Error> {
        Ok(Probe::new(self.session().await?, &self.options))
    }

    async fn detach(&mut self) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        let mut session = self.session().await?;
        if !self.options.manage {
            let stays =
                |what: &str, drop: &str| format!("{what} stays: with source.manage = false it is not feedline's; to drop it, run: {drop}");
            if Slot::read(&self.options.slot, &mut session).await?.is_some() {
                let drop = format!("SELECT pg_drop_replication_slot({})", literal(&self.options.slot));
                removed.push(stays(&format!("replication slot {}", self.options.slot), &drop));
            }
            if publication::exists(&self.options, &mut session).await? {
                let drop = format!("DROP PUBLICATION {}", identifier(&self.options.publication));
                removed.push(stays(&format!("publication {}", self.options.publication), &drop));
            }
            return Ok(removed);
        }
        if slot::drop(&self.options, &mut session).await? {
            removed.push(format!("replication slot {}", self.options.slot));
        }
        if publication::remove(&self.options, &mut session).await? {
            removed.push(format!("publication {}", self.options.publication));
        }
        Ok(removed)
    }
}

/// After how much silence the connection counts as dead: twice what the server grants its receivers.
async fn silence_limit(session: &mut Session) -> Result<Duration, Error> {
    const UNLIMITED: Duration = Duration::from_mins(2);
    let row = session.query_one("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'").await?;
    let limit = row.text(0).parse().map_or(Duration::ZERO, Duration::from_millis) * 2;
    Ok(if limit.is_zero() { UNLIMITED } else { limit })
}
