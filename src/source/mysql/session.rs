//! A session with the server: connects, authenticates, and runs statements.

use super::error::Error;
use super::instance::Instance;
use super::options::Options;
use super::server_error::ServerError;
use super::version::{Product, Version};
use super::wire::Wire;
use crate::source::Answer;
use std::time::Duration;
use tokio::time::timeout;

mod answer;
mod definition;
mod dial;
mod ed25519;
mod greeting;
mod login;
mod prepared;
mod settings;

use dial::{OPEN_TIMEOUT, dial};
use login::{Login, Next};

pub(super) use answer::packed;

pub(super) use definition::{Definition, NextRow, Prepared};

/// How long the server may take to send the next packet of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The most packets of a login.
const LOGIN_PACKETS_MAX: usize = 16;
/// The most memory that the answer to one statement may take. Rows of tables are not read this way.
const ANSWER_BYTES_MAX: usize = 256 << 20;

const QUERY: u8 = 0x03;

/// A session.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
    user: String,
    version: Version,
    /// The number by which the server knows it.
    id: u32,
    instance: Instance,
    /// How many statements have answers that were not read to their end, because the call was cancelled.
    unanswered: u32,
    progress: Reading,
}

/// How far the answer to the oldest statement has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Its first packet comes next.
    Head,
    /// Its first packet comes next, and it is that of a statement to prepare.
    Prepared,
    /// This many descriptions of a prepared statement's columns come next, then nothing.
    Definitions(usize),
    /// This many descriptions of its columns come next, then its rows.
    Columns(usize),
    /// Its rows come next.
    Rows,
}

/// One part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Columns(usize),
    /// The description of a column.
    Description,
    Row,
    End,
}

impl Reading {
    /// Which part of an answer this packet is, and how far the answer has been read behind it.
    fn behind(self, packet: &[u8]) -> Result<(Part, Self), Error> {
        const MALFORMED: Error = Error::Protocol { what: "an answer" };
        Ok(match (self, packet.first().ok_or(MALFORMED)?) {
            (Self::Head, 0) | (Self::Definitions(1), _) => (Part::End, Self::Head),
            // It asks for a file of this machine, which it never gets.
            (Self::Head, 0xFB) => return Err(Error::Protocol { what: "a request for a local file" }),
            (Self::Head, _) => {
                let (count, _) = answer::packed(packet).filter(|(count, rest)| 0 < *count && rest.is_empty()).ok_or(MALFORMED)?;
                (Part::Columns(count), Self::Columns(count))
            }
            (Self::Prepared, _) => match definition::definitions(packet).ok_or(MALFORMED)? {
                0 => (Part::End, Self::Head),
                count => (Part::Columns(count), Self::Definitions(count)),
            },
            (Self::Definitions(count), _) => (Part::Description, Self::Definitions(count - 1)),
            (Self::Columns(1), _) => (Part::Description, Self::Rows),
            (Self::Columns(count), _) => (Part::Description, Self::Columns(count - 1)),
            // A row whose first value is this long takes more bytes.
            (Self::Rows, 0xFE) if packet.len() < 0xFF_FFFF => (Part::End, Self::Head),
            (Self::Rows, _) => (Part::Row, self),
        })
    }
}

impl Session {
    /// Connects, authenticates, and verifies that this is the server that the pipeline's other sessions reached (G6).
    ///
    /// # Errors
    /// Where that fails.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        let session = Self::open_unverified(options).await?;
        options.server.check(&session.instance, session.wire.address())?;
        Ok(session)
    }

    /// Connects and authenticates. The caller must verify that it is the right server.
    pub(super) async fn open_unverified(options: &Options) -> Result<Self, Error> {
        let address = options.address();
        match timeout(OPEN_TIMEOUT, Self::open_without_timeout(options, &address)).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Silent { address, seconds: OPEN_TIMEOUT.as_secs(), what: "a ready connection" }),
        }
    }

    async fn open_without_timeout(options: &Options, address: &str) -> Result<Self, Error> {
        let (mut wire, greeting) = dial(options, address).await?;
        let version = Version::parse(&greeting.version).ok_or(Error::Protocol { what: "the server's version" })?;
        if !version.is_supported() {
            let [mariadb, mysql] = Version::OLDEST;
            let reason = format!("it is {version}; {mariadb} or {mysql} or later logs the names of columns");
            return Err(Error::Unsuitable { address: address.to_owned(), reason });
        }
        let mut login = Login::begin(options, &greeting, &mut wire)?;
        let (user, instance) = (options.user.clone(), Instance::default());
        let id = greeting.session;
        let mut session = Self { wire, user, version, id, instance, unanswered: 0, progress: Reading::Head };
        session.log_in(&mut login).await?;
        session.settle().await?;
        Ok(session)
    }

    async fn log_in(&mut self, login: &mut Login<'_>) -> Result<(), Error> {
        for _ in 0..LOGIN_PACKETS_MAX {
            self.wire.flush().await?;
            let packet = self.packet().await?;
            if let Next::Done = login.proceed(&packet, &mut self.wire)? {
                self.wire.accept_all_lengths();
                return Ok(());
            }
        }
        Err(Error::Protocol { what: "a login that does not end" })
    }

    /// Applies the settings, and reads which server this is.
    async fn settle(&mut self) -> Result<(), Error> {
        for statement in settings::of(self.version.product) {
            self.query(statement).await?;
        }
        let (identity, uptime) = match self.version.product {
            Product::MySql => ("@@server_uuid", "performance_schema.global_status"),
            Product::MariaDb => ("CONCAT_WS(' ', @@hostname, @@port, @@datadir)", "information_schema.GLOBAL_STATUS"),
        };
        let statement = format!(
            "SELECT CONNECTION_ID(), {identity}, \
             UNIX_TIMESTAMP() - (SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM {uptime} WHERE VARIABLE_NAME = 'Uptime')"
        );
        let rows = self.query(&statement).await?;
        let row = rows.first().ok_or(Error::Protocol { what: "a row" })?;
        if row.text(0) != self.id.to_string() {
            // The session that answers is not the one that the server named in its greeting: a proxy is in between.
            let reason = "a proxy that shares sessions is in between; set source.host to the server itself".to_owned();
            return Err(Error::Unsuitable { address: self.wire.address().to_owned(), reason });
        }
        let started_at = row.text(2).parse().map_err(|_| Error::Protocol { what: "the time of the server's start" })?;
        self.instance = Instance { server: row.text(1).to_owned(), started_at };
        Ok(())
    }

    /// The running server that it has reached.
    pub(super) const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Host and port of the server, for messages.
    pub(super) fn address(&self) -> &str {
        self.wire.address()
    }

    /// The server's product and version.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// The number by which the server knows it.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// Whether it is MariaDB and not MySQL.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.version.is_mariadb()
    }

    /// Whether the numbers of collations stand in the table of MariaDB 10.10 and later.
    pub(super) fn has_collation_numbers_by_charset(&self) -> bool {
        self.version.has_collation_numbers_by_charset()
    }

    /// Runs one statement; returns all rows. Cancel safe: the next statement skips the rest of the answer.
    ///
    /// # Errors
    /// Where the server refuses it, or the connection breaks.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Answer>, Error> {
        self.skip_answers().await?;
        let mut rows = Vec::new();
        self.ask(
            |out| {
                out.push(QUERY);
                out.extend_from_slice(sql.as_bytes());
            },
            &mut rows,
        )
        .await?;
        Ok(rows)
    }

    /// Reads the rest of all answers into nothing.
    async fn skip_answers(&mut self) -> Result<(), Error> {
        while 0 < self.unanswered {
            // What was cancelled may have been refused too.
            match self.rest(None).await {
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a command whose answer has no rows, after all statements were answered.
    pub(super) async fn command(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        self.ask(write, &mut Vec::new()).await
    }

    async fn ask(&mut self, write: impl FnOnce(&mut Vec<u8>), rows: &mut Vec<Answer>) -> Result<(), Error> {
        self.wire.command(write);
        self.unanswered += 1;
        self.wire.flush().await?;
        self.rest(Some(rows)).await
    }

    /// The connection itself, for the log, and the user.
    pub(super) fn into_parts(self) -> (Wire, String) {
        (self.wire, self.user)
    }

    /// Reads the rest of the oldest answer, into `rows` or into nothing.
    async fn rest(&mut self, mut rows: Option<&mut Vec<Answer>>) -> Result<(), Error> {
        let (mut columns, mut bytes) = (0, 0);
        loop {
            let packet = self.packet_of_answer().await?;
            match self.advance(&packet)? {
                Part::Columns(count) => columns = count,
                Part::Description => {}
                Part::Row => {
                    let Some(rows) = &mut rows else { continue };
                    let row = answer::row(&packet, columns).ok_or(Error::Protocol { what: "a row of an answer" })?;
                    bytes += packet.len() + row.overhead();
                    if ANSWER_BYTES_MAX < bytes {
                        return Err(Error::Protocol { what: "an answer of more than 256 MiB" });
                    }
                    rows.push(row);
                }
                Part::End => return Ok(()),
            }
        }
    }

    /// Reads the next packet of the oldest answer; an error of the server ends the answer.
    async fn packet_of_answer(&mut self) -> Result<Vec<u8>, Error> {
        let packet = self.packet().await;
        if let Err(Error::Refused(_) | Error::Full { .. } | Error::Authentication { .. }) = packet {
            self.finish();
        }
        packet
    }

    /// Moves on behind this packet of the oldest answer; returns which part it is.
    fn advance(&mut self, packet: &[u8]) -> Result<Part, Error> {
        let (part, progress) = self.progress.behind(packet)?;
        self.progress = progress;
        if part == Part::End {
            self.finish();
        }
        Ok(part)
    }

    fn finish(&mut self) {
        self.progress = Reading::Head;
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// The next packet. An error packet becomes an error.
    async fn packet(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(packet) = self.wire.packet()? {
                let body = self.wire.body(&packet).to_vec();
                self.wire.consume(&packet);
                if body.first() == Some(&0xFF) {
                    return Err(Error::from_server(ServerError::parse(&body), self.wire.address(), &self.user));
                }
                return Ok(body);
            }
            if timeout(ANSWER_TIMEOUT, self.wire.read()).await.map_or(Ok(None), |read| read.map(Some))?.is_none() {
                let address = self.wire.address().to_owned();
                return Err(Error::Silent { address, seconds: ANSWER_TIMEOUT.as_secs(), what: "an answer" });
            }
        }
    }
}
