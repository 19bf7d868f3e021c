//! Verifies that the server's log is the one that was read up to a token, and that it goes on from there.
//!
//! A name of a transaction is no proof: a server that was made anew, or restored from a copy, gives the same names to other transactions. So the
//! log is opened before the last transaction that was read, which must come first, and have begun in the same second.

use super::binlog::{Event, Message, MySqlGtid, decode};
use super::error::Error;
use super::events::{Events, Start};
use super::gtid_set::GtidSet;
use super::head::Head;
use super::options::Options;
use super::session::Session;
use super::token::{Last, LastName, LogFile, LogId, Token};
use super::transaction_id::{Gtids, TransactionId};
use std::time::Duration;
use tokio::time::timeout;

/// How long the server may take to find the last transaction in its log.
const FIND_TIMEOUT: Duration = Duration::from_mins(2);

/// Verifies the log, and returns the token at which it goes on: another log than before has the next epoch.
///
/// # Errors
/// A gap where the log was set back, belongs to another server, or has lost what follows the token.
pub(super) async fn verify(options: &Options, token: Token, session: &mut Session) -> Result<Token, Error> {
    let server = session.instance().fingerprint();
    let is_same = token.log.server == server;
    let head = Head::read(session).await?;
    let token = Token { gtids: check_holds(&token, &head, is_same, session).await?, ..token };
    if let Some(last) = &token.last {
        find_last(options, &token, last, is_same).await?;
    }
    let place = (head.file.number, head.offset);
    let goes_on = is_same && head.file.is_beside(&token.file) && (token.file.number, token.offset) <= place;
    if goes_on {
        return Ok(token);
    }
    if token.gtids == Gtids::Unnamed {
        return Err(Error::Rewound {
            what: format!("the log ends at {}:{}, but was read up to {}:{}", head.file, head.offset, token.file, token.offset),
        });
    }
    // Its files are others, so every place in them comes behind the token.
    let log = LogId { epoch: token.log.epoch + 1, server };
    let file = LogFile { number: 0, ..head.file };
    tracing::warn!(from = %token, epoch = log.epoch, "the log goes on in other files: after a failover, or because the files have new names");
    Ok(Token { log, file, offset: 0, prepared: token.prepared.clone().elsewhere(), ..token })
}

/// Refuses a server that lacks transactions that were read, or has deleted those that follow. Returns the names by which the log is opened.
async fn check_holds(token: &Token, head: &Head, is_same: bool, session: &mut Session) -> Result<Gtids, Error> {
    let lacks = |what: String| {
        if is_same { Error::Rewound { what } } else { Error::Foreign { what } }
    };
    if !is_same && (token.gtids.is_empty() || head.gtids == Gtids::Unnamed) {
        return Err(lacks(format!(
            "another server answers at {}, and without GTIDs the position {} means nothing there",
            session.address(),
            token
        )));
    }
    match (&token.gtids, &head.gtids) {
        (Gtids::MySql(read), Gtids::MySql(_)) => {
            // Read again: the status may lack the newest ones.
            let row = session.query("SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged").await?;
            let set = |column| row.first().and_then(|row| row.text(column).parse().ok()).ok_or(Error::Protocol { what: "a set of GTIDs" });
            let (executed, purged): (GtidSet, GtidSet) = (set(0)?, set(1)?);
            if !read.is_within(&executed) {
                return Err(lacks(format!("the server lacks transactions that were read: {}", read.without(&executed))));
            }
            let lost = purged.without(read);
            if lost != GtidSet::default() {
                return Err(Error::LogLost {
                    what: format!("the server has deleted transactions from its log that were not read: {lost}"),
                });
            }
            Ok(token.gtids.clone())
        }
        (Gtids::Maria(read), Gtids::Maria(written)) if read.is_within(written) => Ok(token.gtids.clone()),
        (Gtids::Maria(read), Gtids::Maria(written)) => {
            Err(lacks(format!("the log was read up to GTID {read}, but ends at {written} on this server")))
        }
        // By the place, which only this server knows.
        (_, Gtids::Unnamed) | (Gtids::Unnamed, Gtids::MySql(_)) => Ok(Gtids::Unnamed),
        _ => Err(Error::Foreign { what: "the server is not of the product whose log was read".to_owned() }),
    }
}

/// Looks for the last transaction that was read.
async fn find_last(options: &Options, token: &Token, last: &Last, is_same: bool) -> Result<(), Error> {
    let Some(found) = first_behind(options, token, last, is_same).await? else { return Ok(()) };
    let is_it = match &last.name {
        LastName::Named { id, offset, .. } => found.id.as_ref() == Some(id) && (!is_same || found.at == (offset & 0xFFFF_FFFF)),
        LastName::Unnamed { .. } => true,
    };
    if is_it && found.began_at == last.began_at {
        return Ok(());
    }
    let what = format!("the last transaction that was read ({}) is another one in the log of this server", shown(last));
    Err(if is_same { Error::Rewound { what } } else { Error::Foreign { what } })
}

fn shown(last: &Last) -> String {
    match &last.name {
        LastName::Named { id, .. } => id.to_string(),
        LastName::Unnamed { file, offset } => format!("{file}:{offset}"),
    }
}

/// How a transaction begins.
struct Beginning {
    id: Option<TransactionId>,
    began_at: u32,
    /// The place in its file, modulo 2^32.
    at: u64,
}

/// The transaction in the place of the last one. `None` where this cannot be looked up: the log before it is deleted, or MySQL has other
/// times for it on another server, where its name is proof enough.
async fn first_behind(options: &Options, token: &Token, last: &Last, is_same: bool) -> Result<Option<Beginning>, Error> {
    let begun = match (&last.name, &token.gtids) {
        (LastName::Named { id: TransactionId::Maria(id), previous, .. }, Gtids::Maria(position)) => {
            let mut before = position.clone();
            let previous = if let Some(TransactionId::Maria(previous)) = previous { Some(*previous) } else { None };
            before.set(id.domain, previous);
            let start = before.to_string();
            timeout(FIND_TIMEOUT, read_first(options, &Start::MariaGtid(&start), Some(id.domain))).await
        }
        (LastName::Named { id, .. }, Gtids::MySql(set)) if is_same => {
            let mut before = set.clone();
            id.take_out_of(&mut before);
            timeout(FIND_TIMEOUT, read_first(options, &Start::MySqlGtid(&before), None)).await
        }
        (LastName::Unnamed { file, offset }, _) if let Ok(position) = u32::try_from(*offset) => {
            let name = file.to_string();
            timeout(FIND_TIMEOUT, read_first(options, &Start::File { name: &name, position }, None)).await
        }
        _ => return Ok(None),
    };
    match begun {
        Ok(Ok(begun)) => Ok(Some(begun)),
        // On the same server nothing else is known to be missing. Another one must prove itself.
        Ok(Err(Error::LogLost { .. })) if is_same => Ok(None),
        Ok(Err(Error::LogLost { what } | Error::Rewound { what })) if !is_same => Err(Error::Foreign { what }),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            Err(Error::Silent { address: options.address(), seconds: FIND_TIMEOUT.as_secs(), what: "the last transaction in its log" })
        }
    }
}

/// How the first transaction begins that the log has from here on, in this domain of MariaDB.
async fn read_first(options: &Options, start: &Start<'_>, domain: Option<u32>) -> Result<Beginning, Error> {
    let session = Session::open(options).await?;
    // A number of its own: the log itself is read by the configured one.
    let number = fastrand::u32(1 << 31..);
    let mut events = Events::open(session, number, &format!("feedline/{}/check", options.pipeline), start).await?;
    loop {
        while let Some(arrived) = events.arrived()? {
            if let Some(begun) = beginning(&events.event(&arrived)?, domain)? {
                return Ok(begun);
            }
            events.consume(&arrived)?;
        }
        events.read().await?;
    }
}

fn beginning(event: &Event<'_>, domain: Option<u32>) -> Result<Option<Beginning>, Error> {
    let began_at = event.header.timestamp;
    let at = event.header.next_position.wrapping_sub(event.header.size).into();
    Ok(match decode(event).map_err(|malformed| Error::Protocol { what: malformed.0 })? {
        Message::MariaGtid(begin) if domain.is_none_or(|domain| domain == begin.gtid.domain) => {
            Some(Beginning { id: Some(TransactionId::Maria(begin.gtid)), began_at, at })
        }
        Message::MySqlGtid(MySqlGtid { gtid, .. }) => Some(Beginning { id: gtid.map(TransactionId::from), began_at, at }),
        _ => None,
    })
}
