//! Decodes one event. No input makes it panic.

use super::bytes::Malformed;
use super::compression::{self, Packing, Payload};
use super::control::{self, FormatDescription, Heartbeat, Rotate};
use super::event::{Event, kind};
use super::gtid::{self, MariaGtid, MariaGtidList, MySqlGtid};
use super::rows::{self, Change, Rows, Version};
use super::statement::{self, Query, XaPrepare};
use super::table_map::{self, TableMap};

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The log goes on in another file.
    Rotate(Rotate<'a>),
    /// The format of the events that follow.
    FormatDescription(FormatDescription<'a>),
    /// The server is there, and has sent its log up to here.
    Heartbeat(Heartbeat<'a>),
    /// A transaction of MariaDB begins.
    MariaGtid(MariaGtid),
    /// Which transactions come before this file of MariaDB's log.
    MariaGtidList(MariaGtidList<'a>),
    /// A transaction of MySQL begins.
    MySqlGtid(MySqlGtid<'a>),
    /// A statement.
    Query(Query<'a>),
    /// The transaction is committed.
    Xid(u64),
    /// An XA transaction is prepared.
    XaPrepare(XaPrepare<'a>),
    /// The definition of the table whose rows follow.
    TableMap(TableMap<'a>),
    /// Rows.
    Rows(Rows<'a>),
    /// A whole transaction of MySQL, compressed: its events, but the first.
    Payload(Payload<'a>),
    /// A part of a statement that loads a file, and is logged as a statement.
    LoadedFile,
    /// Something was lost before this event (`Incident`): the server says so itself.
    Incident,
    /// Nothing that matters here.
    Nothing,
}

/// Decodes an event.
///
/// # Errors
/// Where it is malformed, or of a kind that is not known and may not be passed over.
pub fn decode<'a>(event: &Event<'a>) -> Result<Message<'a>, Malformed> {
    let (header, body) = (&event.header, event.body);
    if let Some((change, version, packing)) = rows_of(header.kind) {
        return Ok(rows::rows(body, change, version, packing)?.map_or(Message::Nothing, Message::Rows));
    }
    Ok(match header.kind {
        kind::ROTATE => Message::Rotate(control::rotate(body)?),
        kind::FORMAT_DESCRIPTION => Message::FormatDescription(control::format_description(body)?),
        kind::HEARTBEAT => Message::Heartbeat(control::heartbeat(header, body)?),
        kind::HEARTBEAT_2 => Message::Heartbeat(control::heartbeat_2(body)?),
        kind::MARIADB_GTID => Message::MariaGtid(gtid::maria(header, body)?),
        kind::MARIADB_GTID_LIST => Message::MariaGtidList(gtid::maria_list(body)?),
        kind::GTID => Message::MySqlGtid(gtid::mysql(body, false)?),
        kind::ANONYMOUS_GTID => Message::MySqlGtid(gtid::mysql(body, true)?),
        kind::GTID_TAGGED => Message::MySqlGtid(gtid::mysql_tagged(body)?),
        kind::QUERY => Message::Query(statement::query(body, Packing::Plain)?),
        kind::QUERY_COMPRESSED => Message::Query(statement::query(body, Packing::Maria)?),
        kind::XID => Message::Xid(statement::xid(body)?),
        kind::XA_PREPARE => Message::XaPrepare(statement::xa_prepare(body)?),
        kind::TABLE_MAP => Message::TableMap(table_map::table_map(body)?),
        kind::TRANSACTION_PAYLOAD => Message::Payload(compression::payload(body)?),
        kind::BEGIN_LOAD_QUERY | kind::EXECUTE_LOAD_QUERY => Message::LoadedFile,
        kind::INCIDENT => Message::Incident,
        // What precedes a statement, what a statement was, what other replicas need.
        kind::STOP
        | kind::INTVAR
        | kind::RAND
        | kind::USER_VARIABLE
        | kind::IGNORABLE
        | kind::ROWS_QUERY
        | kind::PREVIOUS_GTIDS
        | kind::TRANSACTION_CONTEXT
        | kind::VIEW_CHANGE
        | kind::ANNOTATE_ROWS
        | kind::BINLOG_CHECKPOINT
        // The server decrypts what it sends.
        | kind::START_ENCRYPTION => Message::Nothing,
        _ if header.is_ignorable() => Message::Nothing,
        _ => return Err(Malformed("event: a kind that is not known")),
    })
}

/// What an event of rows says by its kind.
const fn rows_of(kind: u8) -> Option<(Change, Version, Packing)> {
    Some(match kind {
        kind::WRITE_ROWS_1 => (Change::Insert, Version::One, Packing::Plain),
        kind::UPDATE_ROWS_1 => (Change::Update, Version::One, Packing::Plain),
        kind::DELETE_ROWS_1 => (Change::Delete, Version::One, Packing::Plain),
        kind::WRITE_ROWS_2 => (Change::Insert, Version::Two, Packing::Plain),
        kind::UPDATE_ROWS_2 => (Change::Update, Version::Two, Packing::Plain),
        kind::DELETE_ROWS_2 => (Change::Delete, Version::Two, Packing::Plain),
        kind::PARTIAL_UPDATE_ROWS => (Change::Update, Version::Partial, Packing::Plain),
        kind::WRITE_ROWS_COMPRESSED_1 => (Change::Insert, Version::One, Packing::Maria),
        kind::UPDATE_ROWS_COMPRESSED_1 => (Change::Update, Version::One, Packing::Maria),
        kind::DELETE_ROWS_COMPRESSED_1 => (Change::Delete, Version::One, Packing::Maria),
        kind::WRITE_ROWS_COMPRESSED_2 => (Change::Insert, Version::Two, Packing::Maria),
        kind::UPDATE_ROWS_COMPRESSED_2 => (Change::Update, Version::Two, Packing::Maria),
        kind::DELETE_ROWS_COMPRESSED_2 => (Change::Delete, Version::Two, Packing::Maria),
        _ => return None,
    })
}
