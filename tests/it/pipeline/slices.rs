//! How long a snapshot is held while the prefeed waits.

use super::faults::Faults;
use super::world::World;
use super::{settings, start, start_with, wait_until_caught_up, write_for_a_while};
use feedline::feed::PrefeedKind;
use feedline::pipeline::Settings;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn no_snapshot_is_held_while_the_broker_is_away() {
    for away_after in [0, 50, 200, 500] {
        let world = World::new(away_after, 2000, Faults::default());
        let run = start(&world, PrefeedKind::Snapshot);
        tokio::time::sleep(Duration::from_millis(away_after)).await;
        world.state().faults = Faults { sink_connect: 1, sink_submit: 1, ..Faults::default() };
        write_for_a_while(&world, 200).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(world.state().held.is_none(), "the broker is away after {away_after} ms");
        world.state().faults = Faults::default();
        wait_until_caught_up(&world, away_after).await;
        run.drain().await;
        let longest = world.state().held_longest;
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_waited_for_between_snapshots() {
    let world = World::new(14, 3000, Faults::default());
    let settings = Settings { prefeed_bytes_per_second: NonZeroU64::new(4 << 10), ..settings(PrefeedKind::Snapshot) };
    let begun = tokio::time::Instant::now();
    let run = start_with(&world, settings);
    write_for_a_while(&world, 100).await;
    wait_until_caught_up(&world, 14).await;
    assert!(Duration::from_secs(10) < begun.elapsed(), "{:?}", begun.elapsed());
    run.drain().await;
    let longest = world.state().held_longest;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// A broker that takes no more than is written never catches up: the log reaches each snapshot's position late.
#[tokio::test(start_paused = true)]
async fn existing_rows_are_sent_while_writers_fill_the_broker() {
    const ROWS: u32 = 5_000;
    /// The number of records that the broker accepts in half a minute.
    const BEHIND: usize = 5_000;
    let world = World::new(25, ROWS, Faults { sink_record_time: Duration::from_millis(5), ..Faults::default() });
    let run = start(&world, PrefeedKind::Snapshot);
    // After the table's first cut its changes are published.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rows = || world.state().broker.messages.iter().filter(|message| message.prefeed).count();
    let (before, mut snapshots) = (rows(), BTreeSet::new());
    for _ in 0..20_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let end = world.state().broker.messages.len() + BEHIND;
        while world.state().log.len() < end {
            world.write();
        }
        snapshots.extend(world.state().held);
    }
    let (snapshots, read) = (snapshots.len(), rows() - before);
    assert!(3 < snapshots && 15 * (snapshots - 1) <= read, "{read} rows of {snapshots} snapshots");
    let longest = world.state().held_longest;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    run.kill().await;
}
