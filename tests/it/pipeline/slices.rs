//! How long a snapshot is held while the prefeed waits for something.

use super::world::{Faults, World};
use super::{settings, start, start_with, wait_until_told, write_for_a_while};
use feedline::feed::PrefeedKind;
use feedline::pipeline::Settings;
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
        wait_until_told(&world, away_after).await;
        run.drain().await;
        world.assert_order();
        let longest = world.state().held_longest;
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_between_snapshots() {
    let world = World::new(14, 3000, Faults::default());
    let settings = Settings { prefeed_bytes_per_second: NonZeroU64::new(4 << 10), ..settings(PrefeedKind::Snapshot) };
    let begun = tokio::time::Instant::now();
    let run = start_with(&world, settings);
    write_for_a_while(&world, 100).await;
    wait_until_told(&world, 14).await;
    assert!(Duration::from_secs(10) < begun.elapsed(), "{:?}", begun.elapsed());
    run.drain().await;
    world.assert_order();
    let longest = world.state().held_longest;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}
