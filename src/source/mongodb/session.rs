//! A session with the cluster: finds the primary, logs in, proves the cluster, and runs commands.

use super::action::Action;
use super::bson::{Document, Value, Writer};
use super::error::Error;
use super::hello::{self, Hello, Role};
use super::hex::hex;
use super::login;
use super::options::{Login, Options, address};
use super::server_error::{ErrorKind, ServerError};
use super::wire::{Frame, Wire};
use crate::fault::{Classify as _, Fault};
use crate::net::{self, Failure, Socket, TlsMode};
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long one host may take until it has said what it is, and then until a session is ready.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take to answer a command that reads no log.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// A reply that has a cursor has at most so many documents, if it is not the first one.
pub(super) const BATCH_DOCUMENTS: i32 = 1000;

/// A logged-in connection with a primary or a router.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    is_router: bool,
    /// The cluster's identity.
    cluster: String,
    user: String,
    auth_database: String,
    database: String,
    /// The logical session, without which some servers do not read snapshots.
    lsid: Vec<u8>,
}

impl Session {
    /// Connects with the known cluster.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let session = Self::find(options).await?;
        options.cluster.check(&session.cluster, session.address())?;
        Ok(session)
    }

    /// Connects with the primary, whichever host knows it, or with a router.
    async fn find(options: &Options) -> Result<Self, Error> {
        let mut candidates: VecDeque<_> = options.hosts.clone().into();
        let (mut asked, mut last) = (Vec::new(), None);
        while let Some((host, port)) = candidates.pop_front() {
            if asked.contains(&(host.clone(), port)) {
                continue;
            }
            asked.push((host.clone(), port));
            let at = address(&host, port);
            match Self::dial(options, &host, port, &at).await {
                Ok((wire, hello)) => {
                    hello.check(&at)?;
                    if matches!(hello.role, Role::Router | Role::Primary) {
                        return within(&at, "a login", Self::log_in(options, wire, &hello)).await;
                    }
                    last = Some(Error::NoPrimary { addresses: options.addresses(), reason: format!("{at} is no primary and knows none") });
                    candidates.extend(hello.members);
                    hello.primary.into_iter().for_each(|primary| candidates.push_front(primary));
                }
                Err(error) if error.fault() == Fault::Transient => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::NoPrimary { addresses: options.addresses(), reason: "no host is configured".to_owned() }))
    }

    /// Connects with one host, and asks what it is.
    async fn dial(options: &Options, host: &str, port: u16, at: &str) -> Result<(Wire, Hello), Error> {
        within(at, "a connection", async {
            let failed = |source| Error::Connection { address: at.to_owned(), source };
            let tcp = net::connect(host, port).await.map_err(failed)?;
            let socket = if options.trust.mode == TlsMode::Disable {
                Socket::Plain(tcp)
            } else {
                let encrypted = net::encrypt(tcp, host, &options.trust).await.map_err(|failure| match failure {
                    Failure::Connection(source) => failed(source),
                    Failure::Tls(reason) => Error::Tls { address: at.to_owned(), reason },
                })?;
                Socket::Tls(Box::pin(encrypted))
            };
            let mut wire = Wire::new(socket, at.to_owned());
            let reply = wire.exchange(&hello::command(&options.pipeline, options.login.as_ref())).await?;
            let reply = Document::new(&reply)?;
            if let Some(error) = ServerError::of(reply)? {
                let reason = format!("it answers hello with: {error}; it must be MongoDB 6.0 or later");
                return Err(Error::Unsuitable { address: at.to_owned(), reason });
            }
            Ok((wire, Hello::read(reply)?))
        })
        .await
    }

    async fn log_in(options: &Options, mut wire: Wire, hello: &Hello) -> Result<Self, Error> {
        if let Some(login) = &options.login {
            login::log_in(&mut wire, login, hello.has_sha1_only).await?;
        }
        let (user, auth_database) = match &options.login {
            Some(Login::Scram { user, database, .. }) => (user.clone(), database.clone()),
            Some(Login::X509) => (Login::X509.user().to_owned(), "$external".to_owned()),
            None => (String::new(), "admin".to_owned()),
        };
        let mut session = Self {
            wire,
            is_router: hello.role == Role::Router,
            cluster: String::new(),
            user,
            auth_database,
            database: options.database.clone(),
            lsid: logical_session(),
        };
        session.cluster = session.identify(hello.set_name.as_deref().unwrap_or_default()).await?;
        Ok(session)
    }

    /// The identity of the cluster: the number that it got when it was made. A server that has no such command is known by the name of its
    /// replica set.
    async fn identify(&mut self, set_name: &str) -> Result<String, Error> {
        if self.is_router {
            let filter = Writer::new().int("_id", 1).finish();
            let find = Writer::new().text("find", "version").document("filter", &filter).int("limit", 1).boolean("singleBatch", true);
            let reply = self.run_in("config", Action::Identify, find).await?;
            let version = first(Document::new(&reply)?)?;
            return match version.map(|version| version.get("clusterId")).transpose()?.flatten() {
                Some(Value::ObjectId(id)) => Ok(format!("sharded cluster {}", hex(&id))),
                _ => Err(Error::Protocol { what: "the id of the sharded cluster" }),
            };
        }
        let reply = match self.run_in("admin", Action::Identify, Writer::new().int("replSetGetConfig", 1)).await {
            Err(Error::Refused { error, .. }) if error.kind == ErrorKind::Unknown => return Ok(format!("replica set {set_name}")),
            reply => reply?,
        };
        let settings = Document::new(&reply)?.document("config")?.map(|config| config.document("settings")).transpose()?.flatten();
        match settings.map(|settings| settings.get("replicaSetId")).transpose()?.flatten() {
            Some(Value::ObjectId(id)) => Ok(format!("replica set {set_name} {}", hex(&id))),
            _ => Err(Error::Protocol { what: "the id of the replica set" }),
        }
    }

    /// Host and port, for messages.
    pub(super) fn address(&self) -> &str {
        self.wire.address()
    }

    /// What identifies the cluster.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether this is a router of a sharded cluster.
    pub(super) const fn is_router(&self) -> bool {
        self.is_router
    }

    /// Runs a command in the configured database; returns its reply.
    pub(super) async fn run(&mut self, action: Action, command: Writer) -> Result<Vec<u8>, Error> {
        let database = self.database.clone();
        self.run_in(&database, action, command).await
    }

    /// Runs a command; returns its reply.
    pub(super) async fn run_in(&mut self, database: &str, action: Action, command: Writer) -> Result<Vec<u8>, Error> {
        let request = self.push(database, command);
        self.flush().await?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        let frame = loop {
            let Ok(frame) = timeout_at(until, self.wire.frame()).await else {
                return Err(Error::Silent { address: self.address().to_owned(), seconds: ANSWER_TIMEOUT.as_secs(), what: "an answer" });
            };
            let frame = frame?;
            if frame.answers == request {
                break frame;
            }
            self.wire.consume(&frame);
        };
        let reply = self.wire.body(&frame).to_vec();
        self.wire.consume(&frame);
        self.check(action, Document::new(&reply)?)?;
        Ok(reply)
    }

    /// Runs a command of the configured database whose reply has a cursor; returns all its documents.
    pub(super) async fn documents(&mut self, action: Action, command: Writer) -> Result<Vec<Vec<u8>>, Error> {
        let mut documents = Vec::new();
        let mut reply = self.run(action, command).await?;
        loop {
            let cursor = Document::new(&reply)?.document("cursor")?.ok_or(Error::Protocol { what: "the cursor of a reply" })?;
            let batch = cursor.get("firstBatch")?.or(cursor.get("nextBatch")?).and_then(Value::array).unwrap_or(Document::EMPTY);
            for element in batch.elements() {
                documents.extend(element?.value.document().map(|document| document.bytes().to_vec()));
            }
            let id = cursor.number("id")?.unwrap_or(0);
            if id == 0 {
                return Ok(documents);
            }
            // `database.collection`; a database's name has no dot.
            let namespace = cursor.text("ns")?.and_then(|namespace| namespace.split_once('.'));
            let (_, collection) = namespace.ok_or(Error::Protocol { what: "the name in a cursor" })?;
            reply = self.run(action, Writer::new().long("getMore", id).text("collection", collection)).await?;
        }
    }

    /// Queues a command of the configured database; returns its number.
    pub(super) fn ask(&mut self, command: Writer) -> i32 {
        let database = self.database.clone();
        self.push(&database, command)
    }

    fn push(&mut self, database: &str, command: Writer) -> i32 {
        self.wire.push(&command.document("lsid", &self.lsid).text("$db", database).finish())
    }

    /// Sends everything that was queued. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.wire.flush().await
    }

    /// The next reply, if all of it has arrived.
    pub(super) fn arrived(&self) -> Result<Option<Frame>, Error> {
        self.wire.arrived()
    }

    /// Waits for bytes; returns how many have come. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<usize, Error> {
        self.wire.read().await
    }

    /// Like [`Self::read`], but polled.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.wire.poll_read(context)
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    pub(super) fn try_read(&mut self) -> Result<Option<usize>, Error> {
        self.wire.try_read()
    }

    /// The document of a reply.
    pub(super) fn reply(&self, frame: &Frame) -> Result<Document<'_>, Error> {
        Ok(Document::new(self.wire.body(frame))?)
    }

    /// Moves on to the reply after this one.
    pub(super) const fn consume(&mut self, frame: &Frame) {
        self.wire.consume(frame);
    }

    /// Fails if a reply is an error.
    pub(super) fn check(&self, action: Action, reply: Document<'_>) -> Result<(), Error> {
        match ServerError::of(reply)? {
            None => Ok(()),
            Some(error) => Err(self.refused(action, error)),
        }
    }

    fn refused(&self, action: Action, error: ServerError) -> Error {
        match error.kind {
            ErrorKind::Privilege => Error::Privilege {
                user: self.user.clone(),
                action: action.text(),
                auth_database: self.auth_database.clone(),
                role: action.role(&self.database),
            },
            ErrorKind::LogLost | ErrorKind::ImageMissing if action == Action::Watch => Error::LogLost { what: error.to_string() },
            _ => Error::Refused { action: action.text(), error },
        }
    }
}

/// A new logical session: a UUID of version 4 (RFC 9562, 5.4).
fn logical_session() -> Vec<u8> {
    let mut uuid = fastrand::u128(..).to_le_bytes();
    uuid[6] = uuid[6] & 0x0F | 0x40;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    Writer::new().uuid("id", &uuid).finish()
}

/// The first document of a reply with a cursor.
pub(super) fn first(reply: Document<'_>) -> Result<Option<Document<'_>>, Error> {
    let batch = reply.document("cursor")?.map(|cursor| cursor.get("firstBatch")).transpose()?.flatten().and_then(Value::array);
    Ok(match batch.and_then(|batch| batch.elements().next()) {
        Some(element) => element?.value.document(),
        None => None,
    })
}

async fn within<T>(at: &str, what: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(OPEN_TIMEOUT, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::Silent { address: at.to_owned(), seconds: OPEN_TIMEOUT.as_secs(), what }),
    }
}
