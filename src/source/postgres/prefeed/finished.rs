//! Which transactions a snapshot shows, and which of them are not finished for everybody.
//!
//! A slot's snapshot takes a transaction for committed from its commit record on. Its process marks it as committed in the commit log a moment
//! later, however long it takes. Whoever meets its rows between the two takes it for aborted, and notes that on the rows *for everybody*: a
//! committed row is gone (`HeapTupleSatisfiesMVCC`, which asks for running transactions only the snapshot). So nothing is read under a snapshot,
//! catalogues included, before every transaction that it shows is finished in the eyes of an ordinary session: that sees it as running until
//! the commit log knows it (`ProcArrayEndTransaction` comes after `TransactionIdCommitTree`).

/// A snapshot as `pg_current_snapshot()` prints it: `xmin:xmax:running,running`, with the numbers of transactions since the server was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// All before it are finished.
    xmin: u64,
    /// None from here on is shown.
    xmax: u64,
    /// In ascending order: of those between, the ones that are not shown.
    running: Vec<u64>,
}

impl Shown {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = parts.next()?.split(',').filter(|xid| !xid.is_empty()).map(str::parse).collect::<Result<Vec<_>, _>>().ok()?;
        (parts.next().is_none() && running.is_sorted()).then_some(Self { xmin, xmax, running })
    }

    fn shows(&self, xid: u64) -> bool {
        xid < self.xmin || xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// Transactions that this snapshot shows and `now`, that of an ordinary session at a later time, does not. What began after this snapshot
    /// it does not show, so that the list only shrinks.
    pub(super) fn unfinished(&self, now: &Self) -> Vec<u64> {
        // Of a transaction that runs, an ordinary session may know neither that it ended nor that it began.
        now.running.iter().copied().chain(now.xmax..self.xmax).filter(|xid| self.shows(*xid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;

    fn shown(text: &str) -> Shown {
        Shown::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_snapshot_is_read_as_the_server_prints_it() {
        assert_eq!(shown("10:20:10,14,15"), Shown { xmin: 10, xmax: 20, running: vec![10, 14, 15] });
        assert_eq!(shown("4294967300:4294967300:"), Shown { xmin: 4_294_967_300, xmax: 4_294_967_300, running: Vec::new() });
        for text in ["", "10", "10:20", "10:20:1,a", "10:20:15,14", "10:20::"] {
            assert_eq!(Shown::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_snapshot_shows_is_unfinished_until_an_ordinary_session_sees_its_end() {
        let snapshot = shown("10:20:10,14,15");
        // It shows 11 to 13 and 16 to 19.
        assert_eq!(snapshot.unfinished(&shown("10:21:10,13,14,16,20")), [13, 16]);
        assert_eq!(snapshot.unfinished(&shown("10:12:10,11")), [11, 12, 13, 16, 17, 18, 19], "what has just begun is in no list");
        assert_eq!(snapshot.unfinished(&shown("14:25:14,15,22")), [0_u64; 0], "what it does not show may run on");
        assert_eq!(snapshot.unfinished(&shown("30:30:")), [0_u64; 0]);
        assert_eq!(shown("10:10:").unfinished(&shown("8:12:8")), [8]);
    }
}
