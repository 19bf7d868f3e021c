//! A session with the server: connects, logs in, asks queries, and follows one changefeed.

use super::error::Error;
use super::feed_end::FeedEnd;
use super::handshake::Handshake;
use super::options::Options;
use super::query;
use super::response::{FeedBatch, Response};
use super::server_error::ServerError;
use super::wire::{Frame, Wire};
use crate::net::secret::Secret;
use crate::net::{self, Failure, Socket, TlsMode};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a connection may take until it is ready. A TLS port says nothing to a client that speaks without TLS.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take to answer a query.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two heartbeats on the connection of a feed. The server sends nothing while nothing changes, also when it hangs.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a heartbeat may stay unanswered.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a batch must have been asked for until a heartbeat shows that there is none: the server works on both at the same time.
const ASKED_FOR: Duration = Duration::from_millis(100);
/// A batch has everything that was queued when it was asked for, if it comes sooner and is smaller than this. The server ends one after 500 ms
/// or at 1 MB in its own encoding (`src/rdb_protocol/batching.cc`, `get_els` in `changefeed.cc`).
const WHOLE_WITHIN: Duration = Duration::from_millis(250);
const WHOLE_BYTES: usize = 128 * 1024;

/// What a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableInfo {
    /// The UUID of its database, which another cluster does not have.
    pub(super) database_uuid: String,
    /// Its UUID, which a table of the same name that is made later does not have.
    pub(super) uuid: String,
    /// The field that is its primary key.
    pub(super) primary_key: String,
    /// About how many documents it has.
    pub(super) documents: u64,
}

/// A logged-in connection.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    user: String,
    database: String,
    /// The token of the newest query.
    token: u64,
}

impl Session {
    /// Connects and logs in.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let address = options.address();
        match timeout(OPEN_TIMEOUT, Self::open_without_timeout(options, &address)).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Silent { address, seconds: OPEN_TIMEOUT.as_secs(), what: "a ready connection" }),
        }
    }

    async fn open_without_timeout(options: &Options, address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Connection { address: address.to_owned(), source };
        let tcp = net::connect(&options.host, options.port).await.map_err(failed)?;
        let socket = if options.trust.mode == TlsMode::Disable {
            Socket::Plain(tcp)
        } else {
            let encrypted = net::encrypt(tcp, &options.host, &options.trust).await.map_err(|failure| match failure {
                Failure::Connection(source) => failed(source),
                Failure::Tls(reason) => Error::Tls { address: address.to_owned(), reason },
            })?;
            Socket::Tls(Box::pin(encrypted))
        };
        let mut wire = Wire::new(socket, address.to_owned());
        let refused = |error| Error::of_handshake(&error, address, &options.user);
        let password = options.password.as_ref().map(Secret::reveal).unwrap_or_default();
        let mut handshake = Handshake::begin(&options.user, password, wire.output()).map_err(refused)?;
        while !handshake.is_complete() {
            wire.flush().await?;
            let message = wire.message().await?;
            handshake.receive(&message, wire.output()).map_err(refused)?;
        }
        Ok(Self { wire, user: options.user.clone(), database: options.database.clone(), token: 0 })
    }

    /// Host and port, for messages.
    pub(super) fn address(&self) -> &str {
        self.wire.address()
    }

    /// The names of the database's tables.
    pub(super) async fn table_list(&mut self) -> Result<Vec<String>, Error> {
        let query = query::table_list(&self.database);
        self.ask(&query).await?.map_err(|error| self.refused(error))
    }

    /// What a table is; `None` where it does not exist.
    pub(super) async fn table_info(&mut self, table: &str) -> Result<Option<TableInfo>, Error> {
        #[derive(Deserialize)]
        struct Database {
            id: String,
        }
        #[derive(Deserialize)]
        struct Info {
            db: Database,
            id: String,
            primary_key: String,
            #[serde(default)]
            doc_count_estimates: Vec<f64>,
        }
        let query = query::table_info(&self.database, table);
        match self.ask::<Info>(&query).await? {
            Ok(Info { db, id, primary_key, doc_count_estimates }) => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
                let documents = doc_count_estimates.iter().sum::<f64>() as u64;
                Ok(Some(TableInfo { database_uuid: db.id, uuid: id, primary_key, documents }))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Fails where the user may not read the table. What a table is may be asked without that permission.
    pub(super) async fn check_readable(&mut self, table: &str) -> Result<(), Error> {
        let query = query::is_empty(&self.database, table);
        self.ask::<bool>(&query).await?.map(drop).map_err(|error| self.refused(error))
    }

    /// Asks a query that has one answer.
    async fn ask<T: for<'d> Deserialize<'d>>(&mut self, query: &str) -> Result<Result<T, ServerError>, Error> {
        self.send(query).await?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        let frame = self.frame(until, ANSWER_TIMEOUT, "an answer").await?;
        let body = self.wire.body(&frame);
        let answer = match Response::parse(body)? {
            Err(error) => Ok(Err(error)),
            Ok(response) => {
                // The server may give the elements of an array one by one, as a sequence.
                let first = response.elements.first().map_or("null", |element| element.get());
                let whole = || format!("[{}]", response.elements.iter().map(|element| element.get()).collect::<Vec<_>>().join(","));
                let read = serde_json::from_str(first).or_else(|_| serde_json::from_str(&whole()));
                read.map(Ok).map_err(|_| Error::Protocol { what: "the answer to a query" })
            }
        };
        self.wire.consume(&frame);
        answer
    }

    async fn send(&mut self, query: &str) -> Result<(), Error> {
        self.token += 1;
        self.wire.push(self.token, query);
        self.wire.flush().await
    }

    /// The next frame that answers the newest query. Answers to earlier ones are passed over.
    async fn frame(&mut self, until: Instant, waited: Duration, what: &'static str) -> Result<Frame, Error> {
        loop {
            let Ok(frame) = timeout_at(until, self.wire.frame()).await else {
                return Err(Error::Silent { address: self.wire.address().to_owned(), seconds: waited.as_secs(), what });
            };
            let frame = frame?;
            if frame.token == self.token {
                return Ok(frame);
            }
            self.wire.consume(&frame);
        }
    }

    fn refused(&self, error: ServerError) -> Error {
        Error::from_server(error, &self.user, &self.database)
    }

    /// Opens a table's changefeed. The session serves nothing else from here on.
    pub(super) async fn follow(mut self, table: &str, queue_size: u32) -> Result<Feed, Error> {
        let changes = query::changes(&self.database, table, queue_size);
        self.send(&changes).await?;
        let query = self.token;
        let now = Instant::now();
        Ok(Feed {
            session: self,
            query,
            asked_at: Some(now),
            beat: None,
            shown_until: now,
            is_ready: false,
            beat_due: now + HEARTBEAT,
            silent_after: now + ANSWER_TIMEOUT,
        })
    }
}

/// An open changefeed.
#[derive(Debug)]
pub(super) struct Feed {
    session: Session,
    /// The token of its query.
    query: u64,
    /// When a batch was asked for that has not come.
    asked_at: Option<Instant>,
    /// The newest heartbeat, if a batch was asked for before it and none came since: its token, and when it was sent.
    beat: Option<(u64, Instant)>,
    /// Once the scan is complete: see [`Self::shown_until`].
    shown_until: Instant,
    /// Whether the scan is complete.
    is_ready: bool,
    /// When the next heartbeat is due.
    beat_due: Instant,
    /// When the server counts as dead. Far away while no heartbeat is unanswered.
    silent_after: Instant,
}

impl Feed {
    /// Waits for the next batch, and meanwhile sends heartbeats. `None`: the server has said that it is alive. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<FeedBatch>, Error> {
        if self.asked_at.is_none() {
            self.listen_again();
            self.asked_at = Some(Instant::now());
            self.session.wire.push(self.query, query::CONTINUE);
        }
        self.step().await
    }

    /// Sends heartbeats until cancelled, while no batch is asked for.
    pub(super) async fn keep_alive(&mut self) -> Result<(), Error> {
        self.listen_again();
        loop {
            if self.step().await?.is_some() {
                return Err(Error::Protocol { what: "a batch that was not asked for" });
            }
        }
    }

    /// Each change that the server had queued before this moment is in a batch that [`Self::next`] has returned. `None` while the table is
    /// scanned.
    pub(super) fn shown_until(&self) -> Option<Instant> {
        self.is_ready.then_some(self.shown_until)
    }

    /// Has the next heartbeat sent as soon as it can show that nothing is queued.
    pub(super) fn hurry(&mut self) {
        if let Some(asked_at) = self.asked_at {
            self.beat_due = self.beat_due.min(asked_at + ASKED_FOR);
        }
    }

    /// Begins to listen: while a batch was being stored, nobody did, and that says nothing about the server.
    fn listen_again(&mut self) {
        let now = Instant::now();
        (self.beat_due, self.silent_after) = (now + HEARTBEAT, now + HEARTBEAT + HEARTBEAT_TIMEOUT);
    }

    /// Waits for one frame, and sends heartbeats that are due.
    async fn step(&mut self) -> Result<Option<FeedBatch>, Error> {
        let frame = loop {
            self.session.wire.flush().await?;
            let wake = self.beat_due.min(self.silent_after);
            match timeout_at(wake, self.session.wire.frame()).await {
                Ok(frame) => break frame?,
                Err(_elapsed) => self.beat()?,
            }
        };
        // Whatever comes shows that the server is alive.
        self.listen_again();
        if frame.token != self.query {
            self.session.wire.consume(&frame);
            if let Some((_, sent_at)) = self.beat.take_if(|(token, _)| *token == frame.token) {
                self.shown_until = sent_at;
            }
            return Ok(None);
        }
        self.beat = None;
        let asked_at = self.asked_at.take();
        let parsed = FeedBatch::parse(self.session.wire.body(&frame), self.session.address());
        self.session.wire.consume(&frame);
        match parsed? {
            Ok(batch) => {
                let is_whole = |asked_at: &Instant| self.is_ready && asked_at.elapsed() < WHOLE_WITHIN && batch.size_bytes() < WHOLE_BYTES;
                let shown_until = asked_at.filter(is_whole).unwrap_or(self.shown_until);
                self.shown_until = self.shown_until.max(shown_until);
                self.is_ready |= batch.is_ready();
                Ok(Some(batch))
            }
            Err(error) if error.is_passing() => {
                Err(Error::FeedEnded { address: self.session.address().to_owned(), reason: FeedEnd::Closed { text: error.text } })
            }
            Err(error) => Err(self.session.refused(error)),
        }
    }

    fn beat(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.silent_after <= now {
            let address = self.session.address().to_owned();
            return Err(Error::Silent { address, seconds: HEARTBEAT_TIMEOUT.as_secs(), what: "a heartbeat" });
        }
        self.session.token += 1;
        self.session.wire.push(self.session.token, query::SERVER_INFO);
        let is_asked = self.is_ready && self.asked_at.is_some_and(|asked_at| asked_at + ASKED_FOR <= now);
        self.beat = is_asked.then_some((self.session.token, now));
        self.beat_due = now + HEARTBEAT;
        self.silent_after = self.silent_after.min(now + HEARTBEAT_TIMEOUT);
        Ok(())
    }
}
