//! Feeds that are published again: a `reset` tells readers to forget what is not sent again.

use super::broker::Message;
use super::faults::Faults;
use super::world::World;
use super::{Run, settings, start, start_with, wait_until_caught_up, write_for_a_while};
use feedline::fault::Code;
use feedline::feed::PrefeedKind;
use feedline::pipeline::{Ending, Settings};
use std::time::Duration;

/// Starts without the table in the feeds.
fn start_without(world: &World) -> Run {
    start_with(world, Settings { rules: Vec::new(), ..settings(PrefeedKind::Snapshot) })
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_was_published_before_begins_with_a_reset() {
    let faults = Faults { source_fill: 40, sink_submit: 50, store_save: 10, prefeed_scan: 20, ..Faults::default() };
    for seed in 400..420 {
        let world = World::new(seed, 30, faults);
        for _ in 0..3 {
            for publishes in [true, false] {
                let run = if publishes { start(&world, PrefeedKind::Snapshot) } else { start_without(&world) };
                write_for_a_while(&world, 30).await;
                if seed % 2 == 0 {
                    run.drain().await;
                } else {
                    run.ending.abort();
                    drop(run.ending.await);
                }
            }
        }
        world.state().faults = Faults::default();
        let run = start(&world, PrefeedKind::Snapshot);
        wait_until_caught_up(&world, seed).await;
        run.drain().await;
        assert!(world.state().disk.as_ref().unwrap().former.is_empty(), "the feed is published again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_without_a_prefeed_that_was_published_before_sends_a_reset() {
    let world = World::new(21, 30, Faults::default());
    for publishes in [true, false, true] {
        let run = if publishes { start(&world, PrefeedKind::None) } else { start_without(&world) };
        tokio::time::sleep(Duration::from_secs(1)).await;
        write_for_a_while(&world, 20).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        run.drain().await;
    }
    let state = world.state();
    let resets: Vec<_> = (0..state.broker.messages.len()).filter(|at| state.broker.messages[*at].is_reset()).collect();
    assert_eq!(resets.len(), 1);
    let (before, after) = state.broker.messages.split_at(resets[0]);
    assert!(
        !before.is_empty()
            && 1 < after.len()
            && !state.broker.messages.iter().any(|message| message.prefeed && message.key != Message::RESET)
    );
}

#[tokio::test(start_paused = true)]
async fn a_feed_with_a_changed_key_begins_with_a_reset() {
    let world = World::new(23, 30, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 23).await;
    run.drain().await;
    world.state().disk.as_mut().unwrap().keys.insert("main.rows".into(), vec!["value".into()]);
    let Ending::Failed(failure) = start(&world, PrefeedKind::Snapshot).ending.await.unwrap() else { panic!("the key changed") };
    assert_eq!(failure.code, Code::CheckpointConfiguration);
    let run = start_with(&world, Settings { accept_config_change: true, ..settings(PrefeedKind::Snapshot) });
    tokio::time::sleep(Duration::from_secs(5)).await;
    run.drain().await;
    let state = world.state();
    let position = state.broker.messages.iter().position(Message::is_reset).expect("a reset");
    assert_eq!((position, state.broker.messages.len() - position - 1), (30, 30), "each row before it, and each row after it");
}
