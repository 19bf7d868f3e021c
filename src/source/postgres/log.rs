//! The live log: reads the stream, answers the server's keep-alives, and tells it what may be forgotten.

use super::Options;
use super::aside::{Aside, Seen};
use super::charset::Charset;
use super::error::{Error, ServerError};
use super::flow::Flow;
use super::pgoutput::{self, Message};
use super::session::{Mode, Session};
use super::survey;
use super::tables;
use super::token::{Lsn, Token};
use super::types::Types;
use super::version;
use super::wire::{Frame, Wire};
use crate::batch::BatchWriter;
use crate::checkpoint::{Layout, ResumeToken};
use crate::event::{FeedId, Timestamp};
use crate::feed::Feeds;
use crate::source::{Filled, Source, TableChange};
use crate::status::metrics::SourceMetrics;
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

mod look;

/// PostgreSQL counts time from 2000-01-01: microseconds between that and 1970-01-01.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
/// A stream that has more so soon after a batch is busy: then it pays to let some changes gather, for us and for
/// the walsender, which wakes up and sends once a change for a reader that waits for each.
const BUSY_WITHIN: Duration = Duration::from_micros(300);
/// How long they gather. Below the resolution of the runtime's timer.
const PAUSE: Duration = Duration::from_micros(400);
/// How long a batch is held back for more in all.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// A read of at least this size needs no pause: the server is ahead of us.
const LARGE_READ_BYTES: usize = 32 * 1024;
/// How often progress without records is told: each time a checkpoint is written.
const IDLE_REPORT: Duration = Duration::from_secs(2);

/// A stream that was quiet for so long is asked for its place.
const QUIET: Duration = Duration::from_secs(5);
/// How often the server is asked how far it is, on the way to a limit: what it has written is on its disk within 200 ms.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// A session, the types that it knows, and the name of a table now.
type LookedUp = (Session, Types, Option<(String, String)>);
type Lookup = Pin<Box<dyn Future<Output = Result<LookedUp, Error>> + Send>>;
/// How often the catalogue is looked at.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
/// How long a look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// A changefeed that is open.
pub struct Log {
    wire: Wire,
    flow: Flow,
    types: Types,
    /// What the log's text is written in, where that is not UTF-8.
    charset: Option<Arc<Charset>>,
    /// For looking up types, opened when the first one is unknown.
    session: Option<Session>,
    /// A look that has begun: it goes on where a cancelled call left it, however slow the server is.
    lookup: Option<Lookup>,
    options: Options,
    metrics: SourceMetrics,
    /// All before it is in a durable checkpoint.
    durable: Lsn,
    heard_at: Instant,
    asked_at: Option<Instant>,
    /// When the server was last asked how far it is, on the way to a limit.
    place_asked_at: Instant,
    silence: Duration,
    /// As [`Self::silence`], doubled for each time that the server was found at work instead.
    silence_now: Duration,
    aside: Aside,
    /// Whether the server was seen at work since it was asked whether it is there; `None` while no look has ended.
    works: Option<bool>,
    is_busy: bool,
    /// Since when the batch at hand is held back for more, whatever calls were cancelled meanwhile.
    gathering_since: Option<Instant>,
    /// When the last records were handed over, until something comes after them.
    handed_over_at: Option<Instant>,
    reported_at: Option<Instant>,
    feeds: Arc<Feeds>,
    /// When the catalogue was last looked at.
    looked_at: Instant,
    /// How each feed's table was seen last.
    layouts: Vec<Option<Layout>>,
    /// Before which place in the log nothing that is shown of a feed's table matters: its rows are read again later than that.
    overtaken: Vec<Lsn>,
    /// Tables that the feeds mean and that are published from the next start on.
    newcomers: Vec<String>,
    /// What was noticed beside the log, until somebody asks.
    table_changes: Vec<TableChange>,
    /// What was said last against following the tables.
    problems: Vec<String>,
    unkeyed: Unkeyed,
}

/// Feeds of which the log does not say which rows were changed, for whoever opens the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Unkeyed(Arc<Mutex<BTreeSet<FeedId>>>);

impl Unkeyed {
    fn note(&self, error: &Error) {
        if let Error::KeyUnknown { feed, .. } = error {
            self.feeds().insert(*feed);
        }
    }

    pub(super) fn feeds(&self) -> MutexGuard<'_, BTreeSet<FeedId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection over which the log comes, and how it is known to live.
pub(super) struct Link {
    pub(super) wire: Wire,
    /// After how much silence it counts as dead.
    pub(super) silence: Duration,
    pub(super) aside: Aside,
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
        let Link { wire, silence, aside } = link;
        let mut types = Types::default();
        survey::teach(layouts.iter().flatten(), &mut types);
        Self {
            wire,
            flow,
            types,
            charset: None,
            session: None,
            lookup: None,
            options,
            metrics,
            durable: Lsn::default(),
            heard_at: Instant::now(),
            asked_at: None,
            place_asked_at: Instant::now(),
            silence,
            silence_now: silence,
            aside,
            works: None,
            is_busy: false,
            gathering_since: None,
            handed_over_at: None,
            reported_at: None,
            feeds,
            looked_at: Instant::now(),
            overtaken: vec![Lsn::default(); layouts.len()],
            layouts,
            newcomers: Vec::new(),
            table_changes: Vec::new(),
            problems: Vec::new(),
            unkeyed: Unkeyed::default(),
        }
    }

    /// The same, which notes there of which feeds the log does not say which rows were changed.
    pub(super) fn noting(self, unkeyed: Unkeyed) -> Self {
        Self { unkeyed, ..self }
    }

    /// The same whose text is written so.
    pub(super) fn written_in(self, charset: Option<Arc<Charset>>) -> Self {
        Self { types: self.types.written_in(charset.clone()), charset, ..self }
    }

    async fn fill_until(&mut self, out: &mut BatchWriter, until: Option<Lsn>) -> Result<Filled, Error> {
        loop {
            if let Some(filled) = self.drain(out, until).await? {
                return Ok(filled);
            }
            if self.flow.moved().records {
                let since = *self.gathering_since.get_or_insert_with(Instant::now);
                if !self.is_busy || GATHER_MAX < since.elapsed() {
                    return Ok(Filled::Drained);
                }
                std::thread::sleep(PAUSE);
                // The runtime looks at the socket before it comes back here.
                tokio::task::yield_now().await;
                match self.wire.try_read()? {
                    Some(count) => self.heard(count),
                    None => return Ok(Filled::Drained),
                }
            } else if !self.wait(until.is_some()).await? {
                return Ok(Filled::Drained);
            }
        }
    }

    /// Applies the messages that are there. `None` when there are no more.
    async fn drain(&mut self, out: &mut BatchWriter, until: Option<Lsn>) -> Result<Option<Filled>, Error> {
        loop {
            if !self.flow.is_inside() && until.is_some_and(|until| until <= self.flow.boundary()) {
                return Ok(Some(Filled::Reached));
            }
            // Full of one record that is still open it can only be closed.
            if out.is_full() && !out.is_empty() {
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
                    if Error::is_publication_missing(&error) {
                        return Err(Error::publication_missing(&error, &self.options));
                    }
                    return Err(Error::from_server(error, self.wire.address(), &self.options.user, &self.options.database));
                }
                b'c' | b'C' => return Err(self.wire.failed(io::Error::new(io::ErrorKind::ConnectionAborted, "the server ended the log"))),
                b'N' => {
                    let notice = ServerError::parse(self.wire.body(&frame));
                    if version::is_publication_skipped(&notice) {
                        return Err(Error::publication_missing(&notice, &self.options));
                    }
                    tracing::debug!(%notice, "the server says");
                    self.wire.consume(&frame);
                }
                // Changed parameters.
                _ => self.wire.consume(&frame),
            }
        }
    }

    /// Takes in one message of the copy; false where it begins a transaction beyond the limit, and stays.
    ///
    /// Cancel safe: a message is consumed when it has been applied.
    async fn copied(&mut self, frame: &Frame, out: &mut BatchWriter, until: Option<Lsn>) -> Result<bool, Error> {
        let body = self.wire.body(frame);
        match body.split_first() {
            Some((b'w', rest)) => {
                // Start, end and time of sending: the messages know better where they belong.
                let message = rest.get(24..).ok_or(Error::Protocol { what: "head of a log message" })?;
                let described = match (&self.charset, message.first()) {
                    (Some(charset), Some(b'R')) => charset.describe(message),
                    _ => None,
                };
                let message = pgoutput::decode(described.as_deref().unwrap_or(message))?;
                match message {
                    Message::Begin(begin) if until.is_some_and(|until| until <= Lsn(begin.commit_lsn)) => return Ok(false),
                    Message::Relation(relation) => {
                        let unknown = self.flow.unknown_types(&relation, &self.types);
                        let renamed = self.flow.renamed(&relation);
                        let mut name = None;
                        if !unknown.is_empty() || renamed {
                            let (options, session, types) = (&self.options, &mut self.session, &mut self.types);
                            let lookup = self.lookup.get_or_insert_with(|| {
                                let renamed = renamed.then_some(relation.id);
                                Box::pin(look_up(options.clone(), session.take(), std::mem::take(types), unknown, renamed))
                            });
                            let looked_up = lookup.as_mut().await;
                            self.lookup = None;
                            let (session, types, now) = looked_up?;
                            (self.session, self.types, name) = (Some(session), types, now);
                        }
                        self.flow.check_name(&relation, name)?;
                        self.flow.learn(&relation, &self.types).await?;
                    }
                    message => self.flow.apply(&message, out).inspect_err(|error| self.unkeyed.note(error))?,
                }
                self.wire.consume(frame);
            }
            Some((b'k', rest)) => {
                let (end, rest) = rest.split_first_chunk::<8>().ok_or(Error::Protocol { what: "keep-alive" })?;
                let wants_reply = rest.get(8).is_some_and(|&byte| byte != 0);
                let end = Lsn(u64::from_be_bytes(*end));
                // Not beyond the limit, even where nothing is left to come before the server's place: what follows says that the log
                // was carried exactly so far, and a checkpoint that says less than the slot would look like a gap.
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

    /// Waits for bytes, or until progress without records is due; false in the latter case. On the way to a limit the server is
    /// asked again and again how far it is: it would not say so by itself where nothing is written any more. Cancel safe.
    async fn wait(&mut self, to_limit: bool) -> Result<bool, Error> {
        loop {
            let ask_at = self.place_asked_at + ASK_INTERVAL;
            if to_limit && ask_at <= Instant::now() {
                self.place_asked_at = Instant::now();
                self.push_status(true);
                self.wire.flush().await?;
                continue;
            }
            let idle_due = self.flow.moved().boundary.then(|| self.reported_at.map_or(self.heard_at, |at| at + IDLE_REPORT));
            if idle_due.is_some_and(|due| due <= Instant::now()) {
                return Ok(false);
            }
            // The server answers at half of the limit, or is gone at its end. Bytes that came while nobody read are found
            // at the first look, so that only true silence counts.
            let silent_at = self.heard_at + if self.asked_at.is_some() { self.silence_now } else { self.silence / 2 };
            self.aside.begin(self.asked_at.is_some());
            let wake = idle_due.into_iter().chain(to_limit.then_some(ask_at));
            let deadline = wake.fold(silent_at, Instant::min);
            let read = tokio::select! { biased;
                read = timeout_at(deadline, self.wire.read()) => read,
                seen = self.aside.seen() => {
                    self.note(seen)?;
                    continue;
                }
            };
            match read {
                Ok(count) => {
                    self.heard(count?);
                    return Ok(true);
                }
                Err(_) if deadline < silent_at => {}
                Err(_) => self.silent().await?,
            }
        }
    }

    /// Side of the limit has passed, or all of it. A server that decodes what is not published (a table that is written anew) says
    /// nothing for as long as that takes, up to version 15 even when it is asked: it is given up only where it is not seen at work,
    /// and not before a look has ended, however slow the machine is. Cancel safe.
    async fn silent(&mut self) -> Result<(), Error> {
        if self.asked_at.is_none() {
            self.asked_at = Some(Instant::now());
            self.works = None;
            self.push_status(true);
            return self.wire.flush().await;
        }
        let Some(works) = self.works else {
            self.aside.begin_now();
            let seen = self.aside.seen().await;
            return self.note(seen);
        };
        let seconds = self.silence_now.as_secs();
        if !works {
            let address = self.wire.address().to_owned();
            return Err(Error::Silent { address, seconds, what: "anything on the replication connection" });
        }
        self.works = None;
        self.silence_now *= 2;
        tracing::info!(seconds, "the server decodes and has sent nothing yet: waiting on");
        Ok(())
    }

    /// Takes in what a look beside the log shows.
    fn note(&mut self, seen: Result<Seen, Error>) -> Result<(), Error> {
        match seen {
            Ok(Seen { commits_wait: Some(reason), .. }) => {
                return Err(Error::CommitsWait { address: self.wire.address().to_owned(), reason });
            }
            Ok(Seen { works: Some(works), .. }) => *self.works.get_or_insert_default() |= works,
            Ok(_) => {}
            Err(error) if leads_elsewhere(&error) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "nothing could be seen beside the log");
                self.works.get_or_insert_default();
            }
        }
        Ok(())
    }

    /// Takes the looks beside the log further without waiting for them.
    async fn glance(&mut self) -> Result<(), Error> {
        // One that has ended shows how it was when it began: another one begins at once.
        for _ in 0..2 {
            self.aside.begin(self.asked_at.is_some());
            let seen = tokio::select! { biased;
                seen = self.aside.seen() => seen,
                () = std::future::ready(()) => return Ok(()),
            };
            self.note(seen)?;
        }
        Ok(())
    }

    fn heard(&mut self, count: usize) {
        let now = Instant::now();
        if let Some(handed_over_at) = self.handed_over_at.take() {
            self.is_busy = now - handed_over_at < BUSY_WITHIN;
        }
        self.is_busy &= count < LARGE_READ_BYTES;
        self.heard_at = now;
        self.asked_at = None;
        self.silence_now = self.silence;
        self.metrics.bytes.inc_by(count as u64);
        self.metrics.message_received();
    }

    /// A standby status update (PostgreSQL documentation, 55.4): received so far, and durable so far.
    fn push_status(&mut self, wants_reply: bool) {
        let received = self.flow.boundary().0.max(self.durable.0);
        let durable = self.durable.0;
        let clock = Timestamp::now().0 - EPOCH_MICROSECONDS;
        self.wire.push(Some(b'd'), |out| {
            out.push(b'r');
            for place in [received, durable, durable] {
                out.extend_from_slice(&place.to_be_bytes());
            }
            out.extend_from_slice(&clock.to_be_bytes());
            out.push(u8::from(wants_reply));
        });
    }
}

/// Whether the name leads to another primary now: then the log is read from one that was left. A standby behind the same name says
/// nothing of that.
const fn leads_elsewhere(error: &Error) -> bool {
    matches!(error, Error::Elsewhere { is_standby: false, .. })
}

/// Learns types, and the name of a table now, on an ordinary connection, a new one where there is none.
async fn look_up(
    options: Options,
    session: Option<Session>,
    mut types: Types,
    unknown: Vec<u32>,
    renamed: Option<u32>,
) -> Result<LookedUp, Error> {
    let mut session = match session {
        Some(session) => session,
        None => Session::open(&options, Mode::Ordinary).await?,
    };
    types.learn(&unknown, &mut session).await?;
    let name = match renamed {
        Some(number) => tables::name_of(number, &mut session).await?,
        None => None,
    };
    Ok((session, types, name))
}

impl Source for Log {
    type Error = Error;

    async fn fill(&mut self, out: &mut BatchWriter, until: Option<&ResumeToken>) -> Result<Filled, Error> {
        let until = until.map(Token::try_from).transpose()?.map(|until| until.boundary);
        let filled = self.fill_until(out, until).await?;
        self.gathering_since = None;
        if self.flow.moved().records {
            self.handed_over_at = Some(Instant::now());
        }
        self.flow.report(&self.metrics);
        self.flow.reset_moved();
        self.reported_at = Some(Instant::now());
        Ok(filled)
    }

    fn token(&self) -> ResumeToken {
        self.flow.token().into()
    }

    fn start(&mut self, feed: FeedId, start: &ResumeToken) {
        // A start that was passed over would silence the feed for ever.
        self.flow.start(feed, Token::try_from(start).expect("a feed's start is a token of this source"));
    }

    async fn acknowledge(&mut self, durable: Option<&ResumeToken>) -> Result<(), Error> {
        // I1: only here, and only with what the engine has made durable, does the server's slot advance.
        if let Some(durable) = durable {
            self.durable = self.durable.max(Token::try_from(durable)?.boundary);
        }
        // A stream that was quiet since the last time is asked for its place, so that an idle slot follows the head.
        let is_quiet = QUIET <= self.heard_at.elapsed();
        self.push_status(is_quiet);
        self.wire.flush().await?;
        self.glance().await?;
        if self.flow.take_changed() || LOOK_INTERVAL <= self.looked_at.elapsed() { self.look_at_catalogue().await } else { Ok(()) }
    }

    fn table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }

    /// Within two of them commits that would wait for us are noticed, whatever the pipeline waits for.
    const HEARTBEAT: Duration = Duration::from_secs(1);
}
