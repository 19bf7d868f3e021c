//! The events of the log, as the server sends them to a replica.

use super::binlog::{Checksum, Event, Malformed, Message, decode};
use super::error::Error;
use super::gtid_set::GtidSet;
use super::server_error::ServerError;
use super::session::Session;
use super::wire::{Packet, Wire};
use std::time::Duration;
use tokio::time::timeout;

/// Where the log is opened.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// On MariaDB: behind the last transaction of each domain, `0-1-17,3-2-5`.
    MariaGtid(&'a str),
    /// On MySQL: at the first transaction that is not one of these.
    MySqlGtid(&'a GtidSet),
    /// At a place between two transactions.
    File {
        /// The name of the file.
        name: &'a str,
        /// The place in it.
        position: u32,
    },
}

/// The open log.
#[derive(Debug)]
pub struct Events {
    wire: Wire,
    user: String,
    checksum: Checksum,
}

/// One event that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived(Packet);

/// How long the server waits for a reader that takes nothing, as none does while a broker is away: the most that it allows.
const WRITE_TIMEOUT_SECONDS: u32 = 31_536_000;
/// How often the server says that it is there while it has nothing to send.
const HEARTBEAT_NANOSECONDS: u64 = 10_000_000_000;

/// Commands (MySQL documentation, "Replication Protocol").
mod command {
    pub(super) const BINLOG_DUMP: u8 = 0x12;
    pub(super) const REGISTER_REPLICA: u8 = 0x15;
    pub(super) const BINLOG_DUMP_GTID: u8 = 0x1E;
}

impl Events {
    /// Opens the log. `server_id` is the number by which the server knows this reader: another reader with the same number would be
    /// thrown out, or throw this one out. `name` is shown among the server's replicas.
    ///
    /// # Errors
    /// Where the server refuses it. It tells only with the first event whether it has the log from there on.
    pub async fn open(mut session: Session, server_id: u32, name: &str, start: &Start<'_>) -> Result<Self, Error> {
        let rows = session.query("SELECT @@GLOBAL.binlog_checksum").await?;
        let checksum = rows.first().map_or("", |row| row.text(0));
        let checksum = Checksum::of_variable(checksum).ok_or(Error::Protocol { what: "the checksum of the log" })?;
        for statement in settings(session.is_mariadb(), start) {
            session.query(&statement).await?;
        }
        let name = name.as_bytes().get(..60).unwrap_or(name.as_bytes());
        session.command(|out| register(out, server_id, name)).await?;
        let (mut wire, user) = session.into_parts();
        wire.command(|out| request(out, server_id, start));
        wire.flush().await?;
        Ok(Self { wire, user, checksum })
    }

    /// Waits for the first event: the server sends none where it has no such log. It stays the next one.
    ///
    /// # Errors
    /// Where the server refuses, or says nothing for a minute.
    pub(super) async fn first(&mut self) -> Result<(), Error> {
        const FIRST_TIMEOUT: Duration = Duration::from_mins(1);
        let wait = async {
            while self.arrived()?.is_none() {
                self.read().await?;
            }
            Ok(())
        };
        match timeout(FIRST_TIMEOUT, wait).await {
            Ok(first) => first,
            Err(_) => Err(Error::Silent { address: self.address().to_owned(), seconds: FIRST_TIMEOUT.as_secs(), what: "the log" }),
        }
    }

    /// The next event, if it has arrived completely. It stays the next one until it is consumed.
    ///
    /// # Errors
    /// Where the server ended the log, or refuses to send it.
    pub fn arrived(&mut self) -> Result<Option<Arrived>, Error> {
        let Some(packet) = self.wire.packet()? else { return Ok(None) };
        match self.wire.body(&packet).first() {
            Some(0) => Ok(Some(Arrived(packet))),
            Some(0xFF) => {
                let error = ServerError::parse(self.wire.body(&packet));
                Err(Error::of_log(error, self.wire.address(), &self.user))
            }
            // It shuts down, or another reader with the same number has come.
            Some(0xFE) => Err(Error::LogClosed { address: self.wire.address().to_owned() }),
            _ => Err(Error::Protocol { what: "the log" }),
        }
    }

    /// Reads an event that was not consumed yet, and verifies its checksum.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn event(&self, arrived: &Arrived) -> Result<Event<'_>, Error> {
        Event::read(self.event_bytes(arrived), self.checksum).map_err(damaged)
    }

    /// An event follows one byte that says that it is one.
    fn event_bytes(&self, arrived: &Arrived) -> &[u8] {
        self.wire.body(&arrived.0).get(1..).unwrap_or_default()
    }

    /// Moves on to the event after this one. Whether later events have checksums is what the last description of their format says.
    ///
    /// # Errors
    /// Where that description is damaged.
    pub fn consume(&mut self, arrived: &Arrived) -> Result<(), Error> {
        let bytes = self.event_bytes(arrived);
        if Event::describes_format(bytes) {
            let event = Event::read(bytes, self.checksum).map_err(damaged)?;
            if let Message::FormatDescription(format) = decode(&event).map_err(damaged)? {
                self.checksum = format.checksum;
            }
        }
        self.wire.consume(&arrived.0);
        Ok(())
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn try_read(&mut self) -> Result<Option<usize>, Error> {
        self.wire.try_read()
    }

    /// Host and port of the server.
    #[must_use]
    pub fn address(&self) -> &str {
        self.wire.address()
    }

    /// Waits for bytes; returns how many arrived. Cancel safe.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn read(&mut self) -> Result<usize, Error> {
        self.wire.read().await
    }
}

const fn damaged(malformed: Malformed) -> Error {
    Error::Protocol { what: malformed.0 }
}

/// What a reader says of itself before it asks for the log.
fn settings(is_mariadb: bool, start: &Start<'_>) -> Vec<String> {
    let common = format!(
        "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum, @source_binlog_checksum = @@GLOBAL.binlog_checksum, \
         @master_heartbeat_period = {HEARTBEAT_NANOSECONDS}, @source_heartbeat_period = {HEARTBEAT_NANOSECONDS}, \
         SESSION net_write_timeout = {WRITE_TIMEOUT_SECONDS}"
    );
    let mut statements = vec![common];
    if is_mariadb {
        // Without this capability the server sends no GTIDs, and dummy events instead of those of its own.
        statements.push("SET @mariadb_slave_capability = 4".to_owned());
    }
    if let Start::MariaGtid(position) = start {
        let position = position.replace(['\'', '\\'], "");
        statements.push(format!("SET @slave_connect_state = '{position}', @slave_gtid_strict_mode = 1"));
    }
    statements
}

/// `COM_REGISTER_SLAVE`: number, name, user, password, port, rank, and the number of the server, which fills in its own.
fn register(out: &mut Vec<u8>, server_id: u32, name: &[u8]) {
    out.push(command::REGISTER_REPLICA);
    out.extend_from_slice(&server_id.to_le_bytes());
    super::wire::put_bytes(out, name);
    out.extend_from_slice(&[0; 12]);
}

/// `COM_BINLOG_DUMP`, or with a set of transactions `COM_BINLOG_DUMP_GTID`.
fn request(out: &mut Vec<u8>, server_id: u32, start: &Start<'_>) {
    /// Where the first event of a file begins.
    const FIRST: u32 = 4;
    const THROUGH_GTID: u16 = 4;
    let (name, position) = match start {
        Start::File { name, position } => (*name, *position),
        Start::MariaGtid(_) | Start::MySqlGtid(_) => ("", FIRST),
    };
    if let Start::MySqlGtid(set) = start {
        let set = set.encode();
        out.push(command::BINLOG_DUMP_GTID);
        out.extend_from_slice(&THROUGH_GTID.to_le_bytes());
        out.extend_from_slice(&server_id.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&u64::from(FIRST).to_le_bytes());
        out.extend_from_slice(&u32::try_from(set.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&set);
    } else {
        out.push(command::BINLOG_DUMP);
        out.extend_from_slice(&position.to_le_bytes());
        out.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(&server_id.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
}
