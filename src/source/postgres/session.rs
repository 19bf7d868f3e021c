//! A session with the server: connecting, TLS, authentication, and plain queries.

use super::error::Error;
use super::instance::Instance;
use super::options::Options;
use super::server_error::ServerError;
use super::version::{self, Version};
use super::wire::{Frame, Wire, put_text};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

mod answer;
mod dial;
mod interrupt;
mod login;
mod settings;

pub(super) use answer::Answer;
use answer::ResultColumn;
use dial::{OPEN_TIMEOUT, dial};
use interrupt::Backend;
pub(super) use interrupt::Interrupter;
use login::Login;
pub(super) use settings::Mode;

/// Whether a database knows how its text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// It does, and sends UTF-8.
    Known,
    /// It does not (`SQL_ASCII`): text is whatever bytes an application wrote.
    Unknown,
}

/// How long the server may take over one message of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// What a server may send until we are logged in: its parameters, and what it says of itself.
const LOGIN_BYTES_MAX: usize = 1 << 20;
/// What the answer to one statement may take in memory. Rows of tables do not come this way.
const ANSWER_BYTES_MAX: usize = 256 << 20;

#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    user: String,
    database: String,
    backend: Backend,
    version: Version,
    /// Where it is connected.
    peer: Option<SocketAddr>,
    instance: Instance,
    is_standby: bool,
    /// As whom it acts: its role's settings may turn it into another one.
    role: String,
    /// How long the server may take over one message of an answer.
    patience: Duration,
    /// Statements whose answers were not read to their end: whoever waited for them was cancelled.
    unanswered: u32,
}

impl Session {
    /// Connects, authenticates, and proves that the server is the one that the pipeline's other sessions have reached (G6).
    pub(super) async fn open(options: &Options, mode: Mode) -> Result<Self, Error> {
        let session = Self::reach(options, mode).await?;
        options.server.check(&session.instance, session.is_standby, session.wire.address())?;
        Ok(session)
    }

    /// Connects and authenticates, with whatever server: for who proves next that it is the one that is meant.
    pub(super) async fn reach(options: &Options, mode: Mode) -> Result<Self, Error> {
        let address = options.address();
        match timeout(OPEN_TIMEOUT, Self::reach_unbounded(options, mode, &address)).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Silent { address, seconds: OPEN_TIMEOUT.as_secs(), what: "a connection that is ready" }),
        }
    }

    async fn reach_unbounded(options: &Options, mode: Mode, address: &str) -> Result<Self, Error> {
        let (wire, connected) = dial(options, address, None).await?;
        let (user, database) = (options.user.clone(), options.database.clone());
        let (backend, version, instance) = (Backend::default(), Version::OLDEST, Instance::default());
        let mut session = Self {
            wire,
            user,
            database,
            backend,
            version,
            peer: connected.peer,
            instance,
            is_standby: false,
            role: String::new(),
            patience: ANSWER_TIMEOUT,
            unanswered: 0,
        };
        settings::start_up(&mut session.wire, options, mode);
        session.wire.flush().await?;
        if session.authenticate(options, connected.binding).await? == Encoding::Unknown {
            // Such a server checks its bytes against UTF-8 before it sends them, and fails where they are not.
            session.query("SET client_encoding = 'SQL_ASCII'").await?;
        }
        session.settle(address).await?;
        Ok(session)
    }

    /// Sets what the start-up message cannot, and learns who answers.
    async fn settle(&mut self, address: &str) -> Result<(), Error> {
        let row = self
            .query_one(&format!(
                "SELECT pg_catalog.pg_backend_pid(), \
                 (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, \
                 (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), \
                 pg_catalog.pg_is_in_recovery(), current_user, {}",
                settings::afterwards(self.version)
            ))
            .await?;
        if row.text(0) != self.backend.pid.to_string() {
            // Whoever answers is not the process that we were told of: sessions are shared out between us and the server.
            return Err(Error::pooler(address, "it answers under another process number than it gave"));
        }
        self.instance = Instance { started_at: row.text(1).to_owned(), database_oid: row.text(2).to_owned() };
        self.is_standby = row.is_true(3);
        row.text(4).clone_into(&mut self.role);
        Ok(())
    }

    /// Which run of which server it has reached.
    pub(super) const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The role as which it acts.
    pub(super) fn role(&self) -> &str {
        &self.role
    }

    /// From here on it waits for an answer for as long as that takes.
    pub(super) const fn wait_without_end(&mut self) {
        self.patience = Duration::MAX;
    }

    /// Refuses a server that follows another one.
    pub(super) fn check_primary(&self) -> Result<(), Error> {
        if self.is_standby { Err(Error::Standby { address: self.wire.address().to_owned() }) } else { Ok(()) }
    }

    /// What interrupts whatever this session is doing.
    pub(super) fn interrupter(&self, options: &Options) -> Interrupter {
        Interrupter { options: options.clone(), backend: self.backend, peer: self.peer }
    }

    /// The number of the server's process behind it.
    pub(super) const fn pid(&self) -> u32 {
        self.backend.pid
    }

    /// The version of the server.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// The connection itself, for what is more than a question and its answer.
    pub(super) const fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    async fn authenticate(&mut self, options: &Options, binding: Option<Vec<u8>>) -> Result<Encoding, Error> {
        let mut login = Login::new(options, binding);
        let mut encoding = Encoding::Known;
        let mut bytes = 0;
        loop {
            let frame = self.answer().await?;
            let body = self.wire.body(&frame).to_vec();
            bytes += body.len() + 1;
            if LOGIN_BYTES_MAX < bytes {
                return Err(Error::Protocol { what: "a login of more than 1 MiB" });
            }
            self.wire.consume(&frame);
            match frame.tag {
                b'R' => {
                    login.answer(&body, &mut self.wire)?;
                    self.wire.flush().await?;
                }
                b'K' => {
                    let number = |at: usize| body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
                    self.backend = Backend { pid: number(0), secret: number(4) };
                }
                b'S' if body == b"server_encoding\0SQL_ASCII\0" => encoding = Encoding::Unknown,
                b'S' => self.version = told_version(&body).unwrap_or(self.version),
                b'Z' => {
                    self.wire.admit_all_lengths();
                    return Ok(encoding);
                }
                _ => {}
            }
        }
    }

    /// Runs one statement by the simple protocol; all rows of its answer. Cancel safe: what is left of an answer is passed over later.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Answer>, Error> {
        self.ask(sql).await?;
        let (mut rows, mut refused, mut bytes) = (Vec::new(), None, 0);
        loop {
            let frame = self.frame().await?;
            let body = self.wire.body(&frame);
            match frame.tag {
                b'D' => {
                    let row = answer::row(body)?;
                    bytes += body.len() + row.overhead();
                    if ANSWER_BYTES_MAX < bytes {
                        return Err(Error::Protocol { what: "an answer of more than 256 MiB to a question about the catalogue" });
                    }
                    rows.push(row);
                }
                b'E' => refused = Some(ServerError::parse(body)),
                b'N' => refused = refused.or_else(|| Some(ServerError::parse(body)).filter(version::is_publication_skipped)),
                b'Z' => {
                    self.wire.consume(&frame);
                    self.unanswered -= 1;
                    return refused.map_or(Ok(rows), |error| Err(self.refused(error)));
                }
                _ => {}
            }
            self.wire.consume(&frame);
        }
    }

    /// Sends one statement, when all before it are answered.
    async fn ask(&mut self, sql: &str) -> Result<(), Error> {
        while 0 < self.unanswered {
            let frame = self.frame().await?;
            self.wire.consume(&frame);
            self.unanswered -= u32::from(frame.tag == b'Z');
        }
        self.wire.push(Some(b'Q'), |out| put_text(out, sql));
        self.unanswered += 1;
        self.wire.flush().await
    }

    /// The columns of what a statement yields.
    pub(super) async fn columns(&mut self, sql: &str) -> Result<Vec<ResultColumn>, Error> {
        self.ask(sql).await?;
        let (mut columns, mut refused) = (Vec::new(), None);
        loop {
            let frame = self.frame().await?;
            let body = self.wire.body(&frame);
            match frame.tag {
                b'T' => columns = answer::columns(body).ok_or(Error::Protocol { what: "description of an answer" })?,
                b'E' => refused = Some(ServerError::parse(body)),
                _ => {}
            }
            self.wire.consume(&frame);
            if frame.tag == b'Z' {
                self.unanswered -= 1;
                return refused.map_or(Ok(columns), |error| Err(self.refused(error)));
            }
        }
    }

    /// The first row of an answer that has one.
    pub(super) async fn query_one(&mut self, sql: &str) -> Result<Answer, Error> {
        self.query(sql).await?.into_iter().next().ok_or(Error::Protocol { what: "a row" })
    }

    /// Starts a copy in both directions and hands the connection over.
    pub(super) async fn copy_both(mut self, sql: &str) -> Result<Wire, Error> {
        self.wire.push(Some(b'Q'), |out| put_text(out, sql));
        self.wire.flush().await?;
        loop {
            let frame = self.answer().await?;
            self.wire.consume(&frame);
            if frame.tag == b'W' {
                return Ok(self.wire);
            }
        }
    }

    /// The next message that is not an error.
    async fn answer(&mut self) -> Result<Frame, Error> {
        let frame = self.frame().await?;
        if frame.tag == b'E' {
            let error = ServerError::parse(self.wire.body(&frame));
            return Err(self.refused(error));
        }
        Ok(frame)
    }

    async fn frame(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.wire.frame()? {
                return Ok(frame);
            }
            if timeout(self.patience, self.wire.read()).await.map_or(Ok(None), |read| read.map(Some))?.is_none() {
                let address = self.wire.address().to_owned();
                return Err(Error::Silent { address, seconds: self.patience.as_secs(), what: "an answer" });
            }
        }
    }

    /// An error of the server, sorted.
    pub(super) fn refused(&self, error: ServerError) -> Error {
        Error::from_server(error, self.wire.address(), &self.user, &self.database)
    }
}

/// The version in a parameter that the server reports: name and value, a zero after each.
fn told_version(parameter: &[u8]) -> Option<Version> {
    let value = parameter.strip_prefix(b"server_version\0")?.split(|&byte| byte == 0).next()?;
    Version::parse(std::str::from_utf8(value).ok()?)
}
