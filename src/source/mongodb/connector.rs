//! The connector: inspects a cluster, and opens its log, prefeed and probe.

use super::catalogue;
use super::change_stream::ChangeStream;
use super::error::Error;
use super::flow::Flow;
use super::head::Head;
use super::log::Log;
use super::options::Options;
use super::prefeed::Rows;
use super::preflight::preflight;
use super::probe::Probe;
use super::session::Session;
use super::token::{Token, shown};
use super::{cluster::SameCluster, snapshot};
use crate::checkpoint::{Identity, ResumeToken};
use crate::event::Timestamp;
use crate::fault::{Classify as _, Fault};
use crate::feed::{Catalogue, Feeds};
use crate::preflight::{Findings, clock_warning};
use crate::source::{LogToken as _, Renewed, Resume, SourceConnector, file};
use crate::status::metrics::SourceMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The name of the identity's part.
const CLUSTER: &str = "cluster";
/// How long a connect waits for the first reply of the stream. A stream that has to read far answers later, in the session.
const FIRST_REPLY: Duration = Duration::from_secs(5);

/// Connects to one cluster.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    metrics: SourceMetrics,
    feeds: Arc<Feeds>,
    /// A session for all that a start and a check ask. It is opened anew after a call failed or was dropped.
    session: Option<Session>,
    /// As in the positions of the log that is read.
    epoch: Option<u32>,
}

impl Connector {
    /// Makes a connector. It opens no connection yet.
    #[must_use]
    pub fn new(options: Options, metrics: SourceMetrics) -> Self {
        let options = Options { cluster: SameCluster::default(), ..options };
        Self { options, metrics, feeds: Arc::default(), session: None, epoch: None }
    }

    /// Takes the kept session, or opens one.
    async fn session(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) if self.options.cluster.check(session.cluster(), session.address()).is_ok() => Ok(session),
            _ => Session::open(&self.options).await,
        }
    }

    /// Opens a session with the known cluster, whose log was not set back behind a position.
    async fn reach(&mut self, known: &Identity, position: &Token) -> Result<Session, Error> {
        self.options.cluster.set(known.get(CLUSTER).map(String::as_str));
        let mut session = Session::open(&self.options).await?;
        match Head::read(&mut session).await?.applied {
            // A cut lies one behind the newest time that it shows.
            Some(head) if head + 1 < position.place.time => Err(Error::Rewound { head: shown(head), position: shown(position.place.time) }),
            _ => Ok(session),
        }
    }

    /// Opens the stream behind a token, and waits for its first reply: it tells whether the log goes on there.
    async fn open(&self, session: Session, token: &Token) -> Result<ChangeStream, Error> {
        let mut stream = ChangeStream::open(session, &self.options, &self.feeds, token).await?;
        stream.ask(true);
        stream.flush().await?;
        let replied = timeout(FIRST_REPLY, async {
            while !stream.take_reply()? {
                stream.read().await?;
            }
            Ok::<_, Error>(())
        });
        replied.await.unwrap_or(Ok(()))?;
        Ok(stream)
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Rows;
    type Probe = Probe;
    type Error = Error;

    async fn catalogue(&mut self) -> Result<Catalogue, Error> {
        // Each attempt starts here. All later sessions must reach the same cluster.
        self.session = None;
        self.options.cluster.set(None);
        let mut session = Session::open(&self.options).await?;
        let collections = catalogue::collections(&mut session).await?;
        self.session = Some(session);
        Ok(catalogue::catalogue(&self.options, &collections))
    }

    async fn identity(&mut self) -> Result<Identity, Error> {
        let session = self.session().await?;
        let identity = [(CLUSTER.to_owned(), session.cluster().to_owned())].into();
        self.session = Some(session);
        Ok(identity)
    }

    async fn recognize(&mut self, known: &Identity) -> Result<(), Error> {
        self.options.cluster.set(known.get(CLUSTER).map(String::as_str));
        let session = self.session().await?;
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
        match preflight(&self.options, &self.feeds, &mut session, &mut errors, &mut findings).await {
            Ok(()) => {
                let offset = Head::read(&mut session).await?.clock_offset_seconds;
                findings.warnings.extend(offset.and_then(clock_warning));
                self.session = Some(session);
            }
            Err(error) => errors.push(error),
        }
        findings.refuse(errors)?;
        Ok(findings)
    }

    /// The log begins where a snapshot is possible now. The cluster keeps it by its own rules.
    async fn establish(&mut self) -> Result<ResumeToken, Error> {
        let mut session = self.session().await?;
        let time = snapshot::time(&mut session, &self.feeds).await?;
        self.session = Some(session);
        let epoch = u32::try_from(Timestamp::now().millis() / 1000).unwrap_or(u32::MAX);
        self.epoch = Some(epoch);
        Ok((&Token::at(epoch, time + 1)).into())
    }

    async fn connect(&mut self, known: &Identity, resume: &Resume) -> Result<Log, Error> {
        let token = Token::parse(&resume.token)?;
        let session = self.reach(known, &token).await?;
        let stream = self.open(session, &token).await?;
        self.epoch = Some(token.place.epoch);
        let flow = Flow::new(Arc::clone(&self.feeds), self.options.spelling, token);
        Ok(Log::new(stream, flow, self.options.clone(), self.metrics.clone()))
    }

    async fn renew(&mut self, known: &Identity, lost: &Resume) -> Result<Renewed, Error> {
        let token = Token::parse(&lost.token)?;
        let session = match self.reach(known, &token).await {
            Err(error) if error.fault() != Fault::Gap || matches!(error, Error::Foreign { .. }) => return Err(error),
            Err(_) => Session::open(&self.options).await,
            session => session,
        };
        let mut session = session?;
        let time = snapshot::time(&mut session, &self.feeds).await?;
        self.session = Some(session);
        // Positions sort by the epoch first.
        let epoch = token.place.epoch.saturating_add(1);
        self.epoch = Some(epoch);
        Ok(Renewed { token: (&Token::at(epoch, time + 1)).into(), feeds: self.feeds.iter().map(|feed| feed.id).collect() })
    }

    async fn prefeed(&mut self) -> Result<Rows, Error> {
        let epoch = self.epoch.ok_or(Error::NoSnapshot)?;
        Ok(Rows::new(self.options.clone(), Arc::clone(&self.feeds), self.metrics.clone(), epoch))
    }

    async fn probe(&mut self) -> Result<Probe, Error> {
        Probe::open(self.options.clone()).await
    }
}
