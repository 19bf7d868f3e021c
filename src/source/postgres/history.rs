//! Verifies that the server's log is still the one that was read. A data directory that was restored from a copy of its files keeps its system
//! identifier and timeline, but writes a different log over the positions that were read.
//!
//! The token holds the last commit that was read: its position, transaction ID and time. The server is asked for the bytes of the log at that
//! position, as by a physical standby; a different log has other bytes there. This proves the log up to that commit, and up to what the slot
//! has confirmed. The log beyond, which held no row so far, may be a different one and is read again.

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
/// How much of a commit record is compared. A longer one has many subtransactions, or dropped many tables.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// The length of a record's header (`xlogrecord.h`).
const RECORD_HEADER: usize = 24;
/// Where the header has the ID of the resource manager.
const MANAGER: usize = 17;
/// The resource manager that writes commits (`rmgrlist.h`).
const TRANSACTIONS: u8 = 1;

/// Returns the position up to which the log is proved to be the one that was read. Refuses a server whose log lacks the last commit that was
/// read.
pub(super) async fn verify(
    options: &Options,
    token: &Token,
    slot: &Slot,
    timelines: &Timelines,
    session: &mut Session,
) -> Result<Token, Error> {
    // A token without a commit was set by hand, and is accepted as it is.
    let Some(last) = &token.last else { return Ok(*token) };
    let confirmed = slot.confirmed_flush.unwrap_or_default();
    if !last.is_none() {
        let is_same = match read(options, last.at, timelines.of(last.at), session).await {
            Ok(record) => is_record_of(&record, last),
            // Only feedline confirms to the slot. The server may have removed the log before what is confirmed.
            Err(_) if last.at < confirmed => true,
            // If the server does not send these bytes, or has no free walsender, its knowledge about the transaction has to do.
            Err(error) if error.fault() == Fault::Fatal || matches!(error, Error::Exhausted { .. }) => is_committed(last, session).await?,
            Err(error) => return Err(error),
        };
        if !is_same {
            return Err(Error::Rewound {
                what: format!(
                    "the server's log no longer has the commit of transaction {} at {}: it was restored to an earlier state",
                    last.xid, last.at
                ),
            });
        }
    }
    let boundary = confirmed.max(last.end).min(token.boundary);
    Ok(Token { boundary, ..*token })
}

/// Whether the server knows the transaction as committed, or has forgotten it.
async fn is_committed(commit: &Commit, session: &mut Session) -> Result<bool, Error> {
    let next = session.query_one("SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())").await?;
    let next: u64 = next.text(0).parse().map_err(|_| Error::Protocol { what: "a transaction ID" })?;
    match full_xid(commit.xid, next) {
        None => Ok(true),
        Some(xid) if next <= xid => Ok(false),
        Some(xid) => {
            let status = session.query_one(&format!("SELECT pg_catalog.pg_xact_status('{xid}'::xid8)")).await?;
            Ok(status.get(0).is_none_or(|status| status == "committed"))
        }
    }
}

/// The 64-bit transaction ID with these lower 32 bits that is nearest to the next ID; `None` if it would be negative.
fn full_xid(xid: u32, next: u64) -> Option<u64> {
    let near = next - (next & 0xFFFF_FFFF) + u64::from(xid);
    if next + (1 << 31) < near { near.checked_sub(1 << 32) } else { Some(near) }
}

/// The bytes of the record at this position, up to [`RECORD_BYTES_MAX`].
async fn read(options: &Options, at: Lsn, timeline: u32, session: &mut Session) -> Result<Vec<u8>, Error> {
    let sizes = session
        .query("SELECT setting FROM pg_catalog.pg_settings WHERE name IN ('wal_block_size', 'wal_segment_size') ORDER BY name")
        .await?;
    let size = |index: usize| {
        sizes.get(index).and_then(|row| row.text(0).parse().ok()).ok_or(Error::Protocol { what: "the sizes of WAL pages and segments" })
    };
    let pages = Pages { page: size(0)?, segment: size(1)? };
    // A connection of its own: it is in the middle of a copy afterwards, and is closed.
    let sender = Session::open(options, Mode::Replication).await?;
    let sent = timeout(READ_TIMEOUT, receive(sender, options, at, timeline, pages)).await;
    sent.unwrap_or_else(|_| Err(Error::Silent { address: options.address(), seconds: READ_TIMEOUT.as_secs(), what: "bytes of the log" }))
}

async fn receive(sender: Session, options: &Options, at: Lsn, timeline: u32, pages: Pages) -> Result<Vec<u8>, Error> {
    const UNEXPECTED: Error = Error::Protocol { what: "bytes of the log" };
    let mut wire = sender.copy_both(&format!("START_REPLICATION PHYSICAL {at} TIMELINE {timeline}")).await?;
    let mut bytes = Vec::new();
    loop {
        let record = pages.without_headers(&bytes, at);
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
            // The end of the timeline: the record is not on it.
            (b'c' | b'C', _) => return Ok(Vec::new()),
            _ => {}
        }
        wire.consume(&frame);
    }
}

/// The sizes of the log's pages and segments.
#[derive(Clone, Copy, Debug)]
struct Pages {
    page: u64,
    segment: u64,
}

impl Pages {
    /// Removes the page headers. The first page of a segment has a longer one (`xlog_internal.h`).
    fn without_headers(self, bytes: &[u8], at: Lsn) -> Vec<u8> {
        const HEADER: usize = 24;
        const FIRST_HEADER: usize = 40;
        let (mut out, mut rest, mut position) = (Vec::new(), bytes, at.0);
        while !rest.is_empty() {
            let rest_of_page = usize::try_from(self.page - position % self.page).unwrap_or(usize::MAX);
            let (page, after) = rest.split_at(rest_of_page.min(rest.len()));
            let header = match (position.is_multiple_of(self.page), position.is_multiple_of(self.segment)) {
                (_, true) => FIRST_HEADER,
                (true, false) => HEADER,
                (false, false) => 0,
            };
            out.extend_from_slice(page.get(header..).unwrap_or_default());
            position += page.len() as u64;
            rest = after;
        }
        out
    }
}

/// The length in a record's header. The server's byte order is not known; read in the wrong one, the length is far larger.
fn length(record: &[u8]) -> Option<usize> {
    let bytes = *record.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(bytes).min(u32::from_be_bytes(bytes))).ok()
}

/// Whether this is the record of this commit, by its resource manager, transaction ID and time. The time is at the start of its data; for a
/// transaction that was replicated from another server, it is at the end. The record of a prepared transaction has no transaction ID.
fn is_record_of(record: &[u8], commit: &Commit) -> bool {
    let Some((header, data)) = record.split_at_checked(RECORD_HEADER) else { return false };
    let data = &data[..data.len().min(length(record).unwrap_or_default().saturating_sub(RECORD_HEADER))];
    let is_cut_off = length(record).is_none_or(|length| record.len() < length);
    let is_match = |number: [u8; 4], time: [u8; 8]| {
        (header[4..8] == number || header[4..8] == [0; 4])
            && header[MANAGER] == TRANSACTIONS
            && (is_cut_off || data.windows(8).any(|bytes| bytes == time))
    };
    is_match(commit.xid.to_le_bytes(), commit.committed_at.to_le_bytes())
        || is_match(commit.xid.to_be_bytes(), commit.committed_at.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Commit, Lsn, Pages, full_xid, is_record_of};

    #[test]
    fn page_headers_are_no_part_of_a_record() {
        let pages = Pages { page: 8192, segment: 16384 };
        let bytes: Vec<u8> = (0..100).collect();
        assert_eq!(pages.without_headers(&bytes, Lsn(8192 + 100)), bytes);
        // Ten bytes, then the header of a page, or of a segment's first page.
        assert_eq!(pages.without_headers(&bytes, Lsn(8192 - 10)), [&bytes[..10], &bytes[34..]].concat());
        assert_eq!(pages.without_headers(&bytes, Lsn(16384 - 10)), [&bytes[..10], &bytes[50..]].concat());
        assert_eq!(pages.without_headers(&bytes[..15], Lsn(8192 - 10)), bytes[..10]);
    }

    #[test]
    fn a_commit_record_is_recognized_by_transaction_and_time() {
        let commit = Commit { at: Lsn(1), end: Lsn(35), xid: 733, committed_at: 849_000_000_123_456 };
        let mut record = vec![0; 100];
        record[..4].copy_from_slice(&34_u32.to_le_bytes());
        record[4..8].copy_from_slice(&733_u32.to_le_bytes());
        record[17] = 1;
        record[26..34].copy_from_slice(&commit.committed_at.to_le_bytes());
        assert!(is_record_of(&record, &commit) && is_record_of(&record[..34], &commit));
        assert!(!is_record_of(&record, &Commit { xid: 734, ..commit }));
        assert!(!is_record_of(&record, &Commit { committed_at: 1, ..commit }));
        // The time lies beyond the record: it belongs to the next one.
        record[..4].copy_from_slice(&33_u32.to_le_bytes());
        assert!(!is_record_of(&record, &commit));
        // The record is longer than what was read: the time may be in the rest.
        record[..4].copy_from_slice(&200_u32.to_le_bytes());
        assert!(is_record_of(&record, &Commit { committed_at: 1, ..commit }) && !is_record_of(&record, &Commit { xid: 734, ..commit }));
        record[17] = 10;
        assert!(!is_record_of(&record, &commit) && !is_record_of(&[], &commit));
    }

    #[test]
    fn a_full_transaction_id_is_the_nearest_to_the_next_one() {
        const ROUND: u64 = 1 << 32;
        assert_eq!([full_xid(700, 800), full_xid(900, 800)], [Some(700), Some(900)]);
        assert_eq!([full_xid(700, 3 * ROUND + 800), full_xid(u32::MAX, 3 * ROUND + 5)], [Some(3 * ROUND + 700), Some(3 * ROUND - 1)]);
        assert_eq!(full_xid(u32::MAX, 5), None);
    }
}
