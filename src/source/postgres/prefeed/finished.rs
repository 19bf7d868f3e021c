//! The transactions that a snapshot shows, and those of them that ordinary sessions still see as running.
//!
//! A slot's snapshot shows a transaction as committed from its commit record on. The transaction's process marks it in the commit log later, and
//! there is no upper bound for the time between. A reader that finds a row of the transaction in that time takes the transaction for aborted and
//! stores that in the row's hint bits, *for all sessions*: a committed row is lost (`HeapTupleSatisfiesMVCC` asks only the snapshot for running
//! transactions). So nothing may be read under a snapshot, catalogues included, until an ordinary session sees every transaction that the snapshot
//! shows as finished. An ordinary session sees a transaction as running until it is in the commit log (`ProcArrayEndTransaction` is called after
//! `TransactionIdCommitTree`). A server of 15.20 waits for that before it answers `CREATE_REPLICATION_SLOT`; one of 15.18 does not.

/// A snapshot as `pg_current_snapshot()` prints it: `xmin:xmax:running,running`, with 64-bit transaction ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VisibleTransactions {
    /// All transactions before this one are finished.
    xmin: u64,
    /// This transaction and all later ones are not visible.
    xmax: u64,
    /// The transactions between `xmin` and `xmax` that are not visible, in ascending order.
    running: Vec<u64>,
}

impl VisibleTransactions {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = parts.next()?.split(',').filter(|xid| !xid.is_empty()).map(str::parse).collect::<Result<Vec<_>, _>>().ok()?;
        (parts.next().is_none() && running.is_sorted()).then_some(Self { xmin, xmax, running })
    }

    fn shows(&self, xid: u64) -> bool {
        xid < self.xmin || xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// Transactions that this snapshot shows and `now`, the later snapshot of an ordinary session, does not. The list only shrinks with time:
    /// this snapshot shows no transaction that began after it.
    pub(super) fn unfinished(&self, now: &Self) -> Vec<u64> {
        // For an ordinary session, a transaction may be still running, or not even begun.
        now.running.iter().copied().chain(now.xmax..self.xmax).filter(|xid| self.shows(*xid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::VisibleTransactions;

    fn visible(text: &str) -> VisibleTransactions {
        VisibleTransactions::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_snapshot_is_parsed_as_the_server_prints_it() {
        assert_eq!(visible("10:20:10,14,15"), VisibleTransactions { xmin: 10, xmax: 20, running: vec![10, 14, 15] });
        assert_eq!(
            visible("4294967300:4294967300:"),
            VisibleTransactions { xmin: 4_294_967_300, xmax: 4_294_967_300, running: Vec::new() }
        );
        for text in ["", "10", "10:20", "10:20:1,a", "10:20:15,14", "10:20::"] {
            assert_eq!(VisibleTransactions::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_visible_transaction_is_unfinished_until_an_ordinary_session_sees_its_end() {
        let snapshot = visible("10:20:10,14,15");
        // It shows 11 to 13 and 16 to 19.
        assert_eq!(snapshot.unfinished(&visible("10:21:10,13,14,16,20")), [13, 16]);
        assert_eq!(
            snapshot.unfinished(&visible("10:12:10,11")),
            [11, 12, 13, 16, 17, 18, 19],
            "transactions that have just begun are in no list"
        );
        assert_eq!(
            snapshot.unfinished(&visible("14:25:14,15,22")),
            [0_u64; 0],
            "transactions that the snapshot does not show may be running"
        );
        assert_eq!(snapshot.unfinished(&visible("30:30:")), [0_u64; 0]);
        assert_eq!(visible("10:10:").unfinished(&visible("8:12:8")), [8]);
    }
}
