//! The ledger alone.

use feedline::batch::{self, Budget, Seq};
use feedline::checkpoint::{Progress, ResumeToken};
use feedline::event::{FeedId, Head, Operation, Timestamp};
use feedline::pipeline::Ledger;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, proptest};

proptest! {
    /// Whatever the order of confirmations, the ledger releases the confirmed prefix, whole and in order.
    #[test]
    fn the_ledger_returns_exactly_the_confirmed_prefix(order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(), back in 0..12_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let budget = Budget::new(1 << 20, 16 << 10);
        let (mut ledger, mut settled) = Ledger::new(Seq(1));
        for seq in 1..=12 {
            let mut out = runtime.block_on(budget.writer());
            let record = out.begin(Head { feed: FeedId(0), operation: Operation::Insert, timestamp: Timestamp(0) });
            record.end(batch::Ending::Closed, false).unwrap();
            let progress = Progress::live(ResumeToken(seq.to_string().into()));
            ledger.track(out.seal(Seq(seq), progress).0);
        }
        let mut acks: Vec<_> = std::iter::from_fn(|| ledger.next_submission()).map(|(_, ack)| ack).collect();
        prop_assert_eq!(acks.len(), 12);
        let mut popped = Vec::new();
        let mut confirmed = vec![false; 12];
        for (turn, index) in order.into_iter().enumerate() {
            if turn == back {
                // A new session: out-of-order and late confirmations of the old one no longer count.
                let old = std::mem::take(&mut acks);
                ledger.go_back();
                acks = std::iter::from_fn(|| ledger.next_submission()).map(|(_, ack)| ack).collect();
                prop_assert_eq!(acks.len() + popped.len(), 12);
                drop(old);
                confirmed = vec![false; 12];
                confirmed[..popped.len()].fill(true);
            }
            let first = 12 - acks.len();
            if index >= first {
                acks[index - first].confirm(1);
                confirmed[index] = true;
            }
            while let Ok(settled) = settled.try_recv() {
                prop_assert!(ledger.settle(settled).is_ok());
            }
            while let Some(batch) = ledger.pop_confirmed() {
                popped.push(batch.seq().0);
            }
            let prefix = confirmed.iter().take_while(|confirmed| **confirmed).count();
            prop_assert_eq!(popped.len(), prefix);
            prop_assert!(popped.iter().copied().eq(1..=prefix as u64));
        }
    }
}
