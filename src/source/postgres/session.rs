//! A session with the server: connects, authenticates, and runs queries by the simple query protocol.

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

use answer::ResultColumn;
pub(super) use answer::{Answer, list};
use dial::{OPEN_TIMEOUT, dial};
use interrupt::Backend;
pub(super) use interrupt::Interrupter;
use login::Login;
pub(super) use settings::Mode;

/// Whether the database has an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// It has one, and sends UTF-8.
    Known,
    /// It has none (`SQL_ASCII`): text is whatever bytes an application wrote.
    Unknown,
}

/// How long the server may take to send the next message of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// The most bytes that a server may send before the login is complete: parameters, and data about itself.
const LOGIN_BYTES_MAX: usize = 1 << 20;
/// The most memory that the answer to one statement may take. Rows of tables are not read this way.
const ANSWER_BYTES_MAX: usize = 256 << 20;

#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    user: String,
    database: String,
    backend: Backend,
    version: Version,
    /// The address that it is connected to.
    peer: Option<SocketAddr>,
    instance: Instance,
    is_standby: bool,
    /// The current role. Settings of the login role may have changed it.
    role: String,
    /// How long the server may take to send the next message of an answer.
    timeout: Duration,
    /// How many statements have answers that were not read to their end, because the call was cancelled.
    unanswered: u32,
}

impl Session {
    /// Connects, authenticates, and verifies that this is the server that the pipeline's other sessions reached (G6).
    pub(super) async fn open(options: &Options, mode: Mode) -> Result<Self, Error> {
        let session = Self::open_unverified(options, mode).await?;
        session.check_same(options)?;
        Ok(session)
    }

    /// Refuses a session with another server than the one that the pipeline's sessions must reach.
    pub(super) fn check_same(&self, options: &Options) -> Result<(), Error> {
        options.server.check(&self.instance, self.is_standby, self.wire.address())
    }

    /// Connects and authenticates. The caller must verify that it is the right server.
    pub(super) async fn open_unverified(options: &Options, mode: Mode) -> Result<Self, Error> {
        let address = options.address();
        match timeout(OPEN_TIMEOUT, Self::open_without_timeout(options, mode, &address)).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Silent { address, seconds: OPEN_TIMEOUT.as_secs(), what: "a ready connection" }),
        }
    }

    async fn open_without_timeout(options: &Options, mode: Mode, address: &str) -> Result<Self, Error> {
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
            timeout: ANSWER_TIMEOUT,
            unanswered: 0,
        };
        settings::start_up(&mut session.wire, options, mode);
        session.wire.flush().await?;
        if session.authenticate(options, connected.binding).await? == Encoding::Unknown {
            // Otherwise such a server checks that text is UTF-8 before it sends it, and fails if it is not.
            session.query("SET client_encoding = 'SQL_ASCII'").await?;
        }
        session.settle(address).await?;
        Ok(session)
    }

    /// Applies the settings that the start-up message cannot, and reads which server this is.
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
            // The process that answers is not the one that the server named at login: a pooler is in between.
            return Err(Error::pooler(address, "it answers from another process than it named"));
        }
        self.instance = Instance { started_at: row.text(1).to_owned(), database_oid: row.text(2).to_owned() };
        self.is_standby = row.is_true(3);
        row.text(4).clone_into(&mut self.role);
        Ok(())
    }

    /// Which running server, and which database, it is connected to.
    pub(super) const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The current role.
    pub(super) fn role(&self) -> &str {
        &self.role
    }

    /// From now on waits for answers without a timeout.
    pub(super) const fn disable_timeout(&mut self) {
        self.timeout = Duration::MAX;
    }

    /// Refuses a standby.
    pub(super) fn check_primary(&self) -> Result<(), Error> {
        if self.is_standby { Err(Error::Standby { address: self.wire.address().to_owned() }) } else { Ok(()) }
    }

    /// A handle that can cancel what this session is doing.
    pub(super) fn interrupter(&self, options: &Options) -> Interrupter {
        Interrupter { options: options.clone(), backend: self.backend, peer: self.peer }
    }

    /// Process ID of its backend.
    pub(super) const fn pid(&self) -> u32 {
        self.backend.pid
    }

    /// The version of the server.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// The connection itself, for anything beyond a query and its answer.
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
                b'S' => self.version = reported_version(&body).unwrap_or(self.version),
                b'Z' => {
                    self.wire.accept_all_lengths();
                    return Ok(encoding);
                }
                _ => {}
            }
        }
    }

    /// Runs one statement by the simple query protocol; returns all rows. Cancel safe: the next statement skips the rest of the answer.
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
                        return Err(Error::Protocol { what: "an answer of more than 256 MiB to a catalogue query" });
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

    /// Sends one statement, after reading the answers to all statements before it.
    async fn ask(&mut self, sql: &str) -> Result<(), Error> {
        self.skip_answers().await?;
        self.wire.push(Some(b'Q'), |out| put_text(out, sql));
        self.unanswered += 1;
        self.wire.flush().await
    }

    async fn skip_answers(&mut self) -> Result<(), Error> {
        while 0 < self.unanswered {
            let frame = self.frame().await?;
            self.wire.consume(&frame);
            self.unanswered -= u32::from(frame.tag == b'Z');
        }
        Ok(())
    }

    /// The columns of a statement's result. The statement does not run, and the server refuses a text of several statements
    /// (PostgreSQL documentation, "Extended Query").
    pub(super) async fn columns(&mut self, sql: &str) -> Result<Vec<ResultColumn>, Error> {
        self.skip_answers().await?;
        // Parse a statement without a name; Describe it ('S' for a statement, and the name); Sync.
        self.wire.push(Some(b'P'), |out| {
            put_text(out, "");
            put_text(out, sql);
            out.extend_from_slice(&0_u16.to_be_bytes());
        });
        self.wire.push(Some(b'D'), |out| put_text(out, "S"));
        self.wire.push(Some(b'S'), |_| ());
        self.unanswered += 1;
        self.wire.flush().await?;
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

    /// Runs one statement that returns at least one row; returns the first row.
    pub(super) async fn query_one(&mut self, sql: &str) -> Result<Answer, Error> {
        self.query(sql).await?.into_iter().next().ok_or(Error::Protocol { what: "a row" })
    }

    /// Starts a copy in both directions, and returns the connection.
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

    /// The next message; an error message becomes an error.
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
            if timeout(self.timeout, self.wire.read()).await.map_or(Ok(None), |read| read.map(Some))?.is_none() {
                let address = self.wire.address().to_owned();
                return Err(Error::Silent { address, seconds: self.timeout.as_secs(), what: "an answer" });
            }
        }
    }

    /// Classifies an error of the server.
    pub(super) fn refused(&self, error: ServerError) -> Error {
        Error::from_server(error, self.wire.address(), &self.user, &self.database)
    }
}

/// Reads the version from a `ParameterStatus` message: name and value, each ended by a zero.
fn reported_version(parameter: &[u8]) -> Option<Version> {
    let value = parameter.strip_prefix(b"server_version\0")?.split(|&byte| byte == 0).next()?;
    Version::parse(std::str::from_utf8(value).ok()?)
}
