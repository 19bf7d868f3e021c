//! Whether the server's log still is the one that was read: a data directory that was set back to a copy of its files goes on with
//! the same system identifier on the same timeline, and writes another history over the places that were read.
//!
//! The token remembers the last commit that was read: place, transaction and moment. The server's log itself is asked for the bytes
//! at that place, as a physical standby would; another history has something else there. Up to that commit, and up to what the slot has
//! confirmed, it is the history that was read. What we were told of the log beyond that, without a row in it, may belong to another
//! one, and is asked for again.

use super::error::Error;
use super::identity::Timelines;
use super::options::Options;
use super::server_error::ServerError;
use super::session::{Mode, Session};
use super::slot::Slot;
use super::token::{Commit, Lsn, Token};
use crate::fault::{Classify as _, Fault};
use std::time::Duration;
use tokio::time::timeout;

/// How long the server may take to send the bytes of one commit.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// As much of a commit's record is looked at. One that is longer has many subtransactions or dropped many tables.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// The head of a record (`xlogrecord.h`), and the number of the resource manager that writes commits (`rmgrlist.h`).
const RECORD_HEAD: usize = 24;
const MANAGER: usize = 17;
const TRANSACTIONS: u8 = 1;

/// From where the log goes on as it was read up to `token`; refuses a server whose log does not hold the last commit that was read.
pub(super) async fn proven(
    options: &Options,
    token: &Token,
    slot: &Slot,
    timelines: &Timelines,
    session: &mut Session,
) -> Result<Token, Error> {
    // A place that was named by hand is taken as it is.
    let Some(last) = &token.last else { return Ok(*token) };
    let confirmed = slot.confirmed_flush.unwrap_or_default();
    if !last.is_none() {
        let is_ours = match read(options, last.at, timelines.of(last.at), session).await {
            Ok(record) => is_of(&record, last),
            // What the slot confirmed it confirmed to us; the server may have removed the log before it.
            Err(_) if last.at < confirmed => true,
            // Where the server shows its bytes to nobody, or has no walsender left, what it knows of the transaction is asked for.
            Err(error) if error.fault() == Fault::Fatal || matches!(error, Error::Exhausted { .. }) => is_committed(last, session).await?,
            Err(error) => return Err(error),
        };
        if !is_ours {
            return Err(Error::Rewound {
                what: format!(
                    "the server's log has no commit of transaction {} at {}, which was read: it was set back to an earlier state",
                    last.xid, last.at
                ),
            });
        }
    }
    let boundary = confirmed.max(last.end).min(token.boundary);
    Ok(Token { boundary, ..*token })
}

/// Whether the transaction is one that the server knows as committed, or has forgotten.
async fn is_committed(commit: &Commit, session: &mut Session) -> Result<bool, Error> {
    let next = session.query_one("SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())").await?;
    let next: u64 = next.text(0).parse().map_err(|_| Error::Protocol { what: "a transaction's number" })?;
    match whole(commit.xid, next) {
        None => Ok(true),
        Some(whole) if next <= whole => Ok(false),
        Some(whole) => {
            let status = session.query_one(&format!("SELECT pg_catalog.pg_xact_status('{whole}'::xid8)")).await?;
            Ok(status.get(0).is_none_or(|status| status == "committed"))
        }
    }
}

/// The whole number of which this is the lower half, nearest to the next one; `None` where there can be none so old.
fn whole(xid: u32, next: u64) -> Option<u64> {
    let near = next - (next & 0xFFFF_FFFF) + u64::from(xid);
    if next + (1 << 31) < near { near.checked_sub(1 << 32) } else { Some(near) }
}

/// The bytes of the record that begins at this place, or as much of them as is looked at.
async fn read(options: &Options, at: Lsn, timeline: u32, session: &mut Session) -> Result<Vec<u8>, Error> {
    let sizes = session
        .query("SELECT setting FROM pg_catalog.pg_settings WHERE name IN ('wal_block_size', 'wal_segment_size') ORDER BY name")
        .await?;
    let size = |index: usize| sizes.get(index).and_then(|row| row.text(0).parse().ok()).ok_or(Error::Protocol { what: "the log's sizes" });
    let pages = Pages { page: size(0)?, segment: size(1)? };
    // A connection of its own, which ends with the look: it is in the midst of a copy then.
    let sender = Session::open(options, Mode::Replication).await?;
    let sent = timeout(READ_TIMEOUT, receive(sender, options, at, timeline, pages)).await;
    sent.unwrap_or_else(|_| Err(Error::Silent { address: options.address(), seconds: READ_TIMEOUT.as_secs(), what: "bytes of the log" }))
}

async fn receive(sender: Session, options: &Options, at: Lsn, timeline: u32, pages: Pages) -> Result<Vec<u8>, Error> {
    const UNEXPECTED: Error = Error::Protocol { what: "bytes of the log" };
    let mut wire = sender.copy_both(&format!("START_REPLICATION PHYSICAL {at} TIMELINE {timeline}")).await?;
    let mut bytes = Vec::new();
    loop {
        let record = pages.without_heads(&bytes, at);
        if length(&record).is_some_and(|length| length.min(RECORD_BYTES_MAX) <= record.len()) {
            wire.push(Some(b'X'), |_| {});
            wire.flush().await?;
            return Ok(record);
        }
        let Some(frame) = wire.frame()? else {
            wire.read().await?;
            continue;
        };
        match (frame.tag, wire.body(&frame)) {
            // Start, end and time of sending, then the log.
            (b'd', [b'w', rest @ ..]) => {
                let (start, rest) = rest.split_first_chunk::<8>().ok_or(UNEXPECTED)?;
                if u64::from_be_bytes(*start) != at.0 + bytes.len() as u64 {
                    return Err(UNEXPECTED);
                }
                bytes.extend_from_slice(rest.get(16..).ok_or(UNEXPECTED)?);
            }
            (b'E', body) => {
                let refused = ServerError::parse(body);
                return Err(Error::from_server(refused, wire.address(), &options.user, &options.database));
            }
            // The timeline's end: the record would lie beyond it.
            (b'c' | b'C', _) => return Ok(Vec::new()),
            _ => {}
        }
        wire.consume(&frame);
    }
}

/// How the log is divided.
#[derive(Clone, Copy, Debug)]
struct Pages {
    page: u64,
    segment: u64,
}

impl Pages {
    /// Each page has a head, the first of a segment a longer one (`xlog_internal.h`).
    fn without_heads(self, bytes: &[u8], at: Lsn) -> Vec<u8> {
        const HEAD: usize = 24;
        const FIRST_HEAD: usize = 40;
        let (mut out, mut rest, mut place) = (Vec::new(), bytes, at.0);
        while !rest.is_empty() {
            let left_of_page = usize::try_from(self.page - place % self.page).unwrap_or(usize::MAX);
            let (page, after) = rest.split_at(left_of_page.min(rest.len()));
            let head = match (place.is_multiple_of(self.page), place.is_multiple_of(self.segment)) {
                (_, true) => FIRST_HEAD,
                (true, false) => HEAD,
                (false, false) => 0,
            };
            out.extend_from_slice(page.get(head..).unwrap_or_default());
            place += page.len() as u64;
            rest = after;
        }
        out
    }
}

/// The length that a record says it has, in the server's order of bytes: read in the other one it would be far longer.
fn length(record: &[u8]) -> Option<usize> {
    let bytes = *record.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(bytes).min(u32::from_be_bytes(bytes))).ok()
}

/// Whether this is the record of this commit: by its kind, its transaction, and the moment, which stands at the beginning of its data or, for
/// one that another server committed first, at the end. The record of a transaction that was prepared has no number of its own.
fn is_of(record: &[u8], commit: &Commit) -> bool {
    let Some((head, data)) = record.split_at_checked(RECORD_HEAD) else { return false };
    let data = &data[..data.len().min(length(record).unwrap_or_default().saturating_sub(RECORD_HEAD))];
    let is_cut_off = length(record).is_none_or(|length| record.len() < length);
    let is = |number: [u8; 4], moment: [u8; 8]| {
        (head[4..8] == number || head[4..8] == [0; 4])
            && head[MANAGER] == TRANSACTIONS
            && (is_cut_off || data.windows(8).any(|bytes| bytes == moment))
    };
    is(commit.xid.to_le_bytes(), commit.committed_at.to_le_bytes()) || is(commit.xid.to_be_bytes(), commit.committed_at.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Commit, Lsn, Pages, is_of, whole};

    #[test]
    fn heads_of_pages_are_no_part_of_a_record() {
        let pages = Pages { page: 8192, segment: 16384 };
        let bytes: Vec<u8> = (0..100).collect();
        assert_eq!(pages.without_heads(&bytes, Lsn(8192 + 100)), bytes);
        // Ten bytes, then the head of a page, or that of a segment's first one.
        assert_eq!(pages.without_heads(&bytes, Lsn(8192 - 10)), [&bytes[..10], &bytes[34..]].concat());
        assert_eq!(pages.without_heads(&bytes, Lsn(16384 - 10)), [&bytes[..10], &bytes[50..]].concat());
        assert_eq!(pages.without_heads(&bytes[..15], Lsn(8192 - 10)), bytes[..10]);
    }

    #[test]
    fn a_commit_is_known_by_its_transaction_and_its_moment() {
        let commit = Commit { at: Lsn(1), end: Lsn(35), xid: 733, committed_at: 849_000_000_123_456 };
        let mut record = vec![0; 100];
        record[..4].copy_from_slice(&34_u32.to_le_bytes());
        record[4..8].copy_from_slice(&733_u32.to_le_bytes());
        record[17] = 1;
        record[26..34].copy_from_slice(&commit.committed_at.to_le_bytes());
        assert!(is_of(&record, &commit) && is_of(&record[..34], &commit));
        assert!(!is_of(&record, &Commit { xid: 734, ..commit }));
        assert!(!is_of(&record, &Commit { committed_at: 1, ..commit }));
        // What follows is another record.
        record[..4].copy_from_slice(&33_u32.to_le_bytes());
        assert!(!is_of(&record, &commit));
        // One that is not read to its end may have it there.
        record[..4].copy_from_slice(&200_u32.to_le_bytes());
        assert!(is_of(&record, &Commit { committed_at: 1, ..commit }) && !is_of(&record, &Commit { xid: 734, ..commit }));
        record[17] = 10;
        assert!(!is_of(&record, &commit) && !is_of(&[], &commit));
    }

    #[test]
    fn a_transaction_s_whole_number_is_the_nearest_to_the_next_one() {
        const ROUND: u64 = 1 << 32;
        assert_eq!([whole(700, 800), whole(900, 800)], [Some(700), Some(900)]);
        assert_eq!([whole(700, 3 * ROUND + 800), whole(u32::MAX, 3 * ROUND + 5)], [Some(3 * ROUND + 700), Some(3 * ROUND - 1)]);
        assert_eq!(whole(u32::MAX, 5), None);
    }
}
