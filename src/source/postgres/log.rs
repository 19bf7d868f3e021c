//! Reads the log: decodes the replication stream, answers keep-alives, and confirms to the server what is durable.

use super::charset::Charset;
use super::error::Error;
use super::flow::Flow;
use super::monitor::Monitor;
use super::options::Options;
use super::pgoutput::{self, EPOCH_MICROSECONDS, Message};
use super::server_error::ServerError;
use super::slot;
use super::survey::{self, Survey};
use super::token::{Lsn, Token};
use super::types::Types;
use super::version;
use super::wire::{Frame, Wire};
use crate::checkpoint::Layout;
use crate::event::{FeedId, Timestamp};
use crate::feed::Feeds;
use crate::source::{Emission, Emitter, Filled, Gathering, SocketLog, Source, SourceProgress, gather};
use crate::status::metrics::SourceMetrics;
use catalogue_watch::CatalogueWatch;
use liveness::Liveness;
use lookup::Lookup;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use unkeyed::UnkeyedFeeds;

mod catalogue_watch;
mod liveness;
mod lookup;
pub(super) mod unkeyed;

/// After this time without bytes the server is asked for its position.
const QUIET: Duration = Duration::from_secs(5);
/// How often the server is asked for its position while the log is read up to a limit. The server writes WAL to disk within 200 ms.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// An open changefeed.
pub struct Log {
    wire: Wire,
    flow: Flow,
    types: Types,
    /// The encoding of text in the log, if it is not UTF-8.
    charset: Option<Arc<Charset>>,
    lookup: Lookup,
    options: Options,
    metrics: SourceMetrics,
    /// Everything before it is in a durable checkpoint.
    durable: Lsn,
    liveness: Liveness,
    /// When the server was last asked for its position, while the log is read up to a limit.
    position_asked_at: Instant,
    gathering: Gathering<Error>,
    catalogue: CatalogueWatch,
    unkeyed: UnkeyedFeeds,
}

/// The connection over which the log arrives, and how its loss is noticed.
pub(super) struct Link {
    pub(super) wire: Wire,
    /// After this time without bytes the connection counts as dead.
    pub(super) silence_limit: Duration,
    pub(super) monitor: Monitor,
}

impl Log {
    pub(super) fn new(
        link: Link,
        flow: Flow,
        feeds: Arc<Feeds>,
        layouts: Vec<Option<Layout>>,
        options: Options,
        metrics: SourceMetrics,
    ) -> Self {
        let Link { wire, silence_limit, monitor } = link;
        let mut types = Types::default();
        survey::teach(layouts.iter().flatten(), &mut types);
        Self {
            liveness: Liveness::new(monitor, silence_limit, wire.address().to_owned()),
            wire,
            flow,
            types,
            charset: None,
            lookup: Lookup::new(options.clone()),
            catalogue: CatalogueWatch::new(options.clone(), feeds, layouts),
            options,
            metrics,
            durable: Lsn::default(),
            position_asked_at: Instant::now(),
            gathering: Gathering::default(),
            unkeyed: UnkeyedFeeds::default(),
        }
    }

    /// Reports feeds whose changed rows the log does not identify to `unkeyed`.
    pub(super) fn reporting_to(self, unkeyed: UnkeyedFeeds) -> Self {
        Self { unkeyed, ..self }
    }

    /// Decodes text in this encoding; UTF-8 if `None`.
    pub(super) fn with_charset(self, charset: Option<Arc<Charset>>) -> Self {
        Self { types: self.types.with_charset(charset.clone()), charset, ..self }
    }

    /// Ignores what the log shows of the columns of this feed's table before `position`.
    pub(super) fn ignore_columns_before(&mut self, feed: FeedId, position: Lsn) {
        self.catalogue.ignore_columns_before(feed, position);
    }

    /// Remembers what a survey of the catalogue found.
    pub(super) fn record(&mut self, survey: Survey) {
        self.catalogue.record(survey, &mut self.types);
    }

    /// Applies one message of the copy stream. Returns false if it begins a transaction beyond the limit; then it is not consumed.
    ///
    /// Cancel safe: a message is consumed only after it has been applied.
    async fn copied(&mut self, frame: &Frame, out: &mut Emitter<'_, Token>, until: Option<Lsn>) -> Result<bool, Error> {
        let body = self.wire.body(frame);
        match body.split_first() {
            Some((b'w', rest)) => {
                // Skips start, end and send time: the messages themselves say more exactly where they belong.
                let message = rest.get(24..).ok_or(Error::Protocol { what: "head of a log message" })?;
                let converted = match (&self.charset, message.first()) {
                    (Some(charset), Some(b'R')) => charset.convert_relation(message),
                    _ => None,
                };
                let message = pgoutput::decode(converted.as_deref().unwrap_or(message))?;
                match message {
                    Message::Begin(begin)
                        if let Some(until) = until
                            && until <= Lsn(begin.commit_lsn) =>
                    {
                        // The log comes in the order of commits: everything before the limit has been read.
                        self.flow.caught_up_to(until);
                        return Ok(false);
                    }
                    Message::Relation(relation) => self.lookup.learn(&relation, &mut self.flow, &mut self.types, out).await?,
                    message => self.flow.apply(&message, out).inspect_err(|error| self.unkeyed.note(error))?,
                }
                self.wire.consume(frame);
            }
            Some((b'k', rest)) => {
                let (end, rest) = rest.split_first_chunk::<8>().ok_or(Error::Protocol { what: "keep-alive" })?;
                let wants_reply = rest.get(8).is_some_and(|&byte| byte != 0);
                let end = Lsn(u64::from_be_bytes(*end));
                // Never beyond the limit, even if the server has nothing left to send before its own position: the rows that follow are
                // published at exactly this limit, and a checkpoint behind the slot would look like a gap.
                self.flow.caught_up_to(until.map_or(end, |until| end.min(until)));
                self.wire.consume(frame);
                if wants_reply {
                    self.push_status(false);
                    self.wire.flush().await?;
                }
            }
            _ => return Err(Error::Protocol { what: "message of the log" }),
        }
        Ok(true)
    }

    fn received(&mut self, count: usize) {
        self.gathering.received(count);
        self.liveness.received();
        self.metrics.bytes.inc_by(count as u64);
        self.metrics.message_received();
    }

    /// Queues a standby status update (PostgreSQL documentation, 55.4): received up to here, and durable up to here.
    fn push_status(&mut self, wants_reply: bool) {
        let received = self.flow.boundary().0.max(self.durable.0);
        let durable = self.durable.0;
        let clock = Timestamp::now().0 - EPOCH_MICROSECONDS;
        self.wire.push(Some(b'd'), |out| {
            out.push(b'r');
            for position in [received, durable, durable] {
                out.extend_from_slice(&position.to_be_bytes());
            }
            out.extend_from_slice(&clock.to_be_bytes());
            out.push(u8::from(wants_reply));
        });
    }
}

impl SocketLog for Log {
    fn gathering(&mut self) -> &mut Gathering<Error> {
        &mut self.gathering
    }

    async fn drain(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Option<Filled>, Error> {
        let until = until.map(|until| until.boundary);
        loop {
            if !self.flow.is_inside() && until.is_some_and(|until| until <= self.flow.boundary()) {
                return Ok(Some(Filled::Reached));
            }
            if out.is_full() {
                return Ok(Some(Filled::Full));
            }
            let Some(frame) = self.wire.frame()? else { return Ok(None) };
            match frame.tag {
                b'd' => {
                    if !self.copied(&frame, out, until).await? {
                        return Ok(Some(Filled::Reached));
                    }
                }
                b'E' => {
                    let error = ServerError::parse(self.wire.body(&frame));
                    if error.is_publication_missing() {
                        return Err(slot::publication_missing(&error, &self.options));
                    }
                    return Err(Error::from_server(error, self.wire.address(), &self.options.user, &self.options.database));
                }
                b'c' | b'C' => return Err(self.wire.failed(io::Error::new(io::ErrorKind::ConnectionAborted, "the server ended the log"))),
                b'N' => {
                    let notice = ServerError::parse(self.wire.body(&frame));
                    if version::is_publication_skipped(&notice) {
                        return Err(slot::publication_missing(&notice, &self.options));
                    }
                    tracing::debug!(sqlstate = notice.sqlstate, "notice from the server");
                    self.wire.consume(&frame);
                }
                // Changed parameters.
                _ => self.wire.consume(&frame),
            }
        }
    }

    fn try_receive(&mut self) -> Result<bool, Error> {
        let count = self.wire.try_read()?;
        if let Some(count) = count {
            self.received(count);
        }
        Ok(count.is_some())
    }

    /// Before a limit it keeps asking the server for its position, because an idle server would not send it.
    async fn wait(&mut self, has_limit: bool) -> Result<bool, Error> {
        loop {
            let ask_at = self.position_asked_at + ASK_INTERVAL;
            if has_limit && ask_at <= Instant::now() {
                self.position_asked_at = Instant::now();
                self.push_status(true);
                self.wire.flush().await?;
                continue;
            }
            let idle_due = self.flow.has_advanced().then(|| self.gathering.idle_due());
            if idle_due.is_some_and(|due| due <= Instant::now()) {
                return Ok(false);
            }
            let silent_at = self.liveness.deadline();
            self.liveness.start_observation();
            let wake = idle_due.into_iter().chain(has_limit.then_some(ask_at));
            let deadline = wake.fold(silent_at, Instant::min);
            let read = tokio::select! { biased;
                read = timeout_at(deadline, self.wire.read()) => read,
                observed = self.liveness.observed() => {
                    observed?;
                    continue;
                }
            };
            match read {
                Ok(count) => {
                    self.received(count?);
                    return Ok(true);
                }
                Err(_) if deadline < silent_at => {}
                Err(_) => {
                    if self.liveness.expired().await? {
                        self.push_status(true);
                        self.wire.flush().await?;
                    }
                }
            }
        }
    }
}

impl Source for Log {
    type Error = Error;
    type Token = Token;

    async fn fill(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Filled, Error> {
        let filled = gather(self, out, until).await?;
        self.flow.reset_advanced();
        Ok(filled)
    }

    fn progress(&mut self, written: &Emission<Token>) -> SourceProgress {
        SourceProgress { token: self.flow.token(written).into(), table_changes: self.catalogue.take_table_changes() }
    }

    async fn acknowledge(&mut self, durable: Option<&Token>, written: &Emission<Token>) -> Result<(), Error> {
        // I1: the server's slot advances only here, and only to what the engine has made durable.
        if let Some(durable) = durable {
            self.durable = self.durable.max(durable.boundary);
        }
        // A quiet server is asked for its position, so that an idle slot follows the head of the log.
        let is_quiet = QUIET <= self.liveness.received_at().elapsed();
        self.push_status(is_quiet);
        self.wire.flush().await?;
        self.liveness.poll_observation().await?;
        if self.flow.take_changed() || self.catalogue.is_due() {
            self.catalogue.check(&mut self.flow, &mut self.types, written).await
        } else {
            Ok(())
        }
    }

    /// Commits that would wait for feedline are noticed within two heartbeats, whatever the pipeline itself waits for.
    const HEARTBEAT: Duration = Duration::from_secs(1);
}
