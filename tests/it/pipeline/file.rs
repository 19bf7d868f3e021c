//! A file as the prefeed of one table, with live events of another.

use super::world::{Faults, SEEDED, World, file};
use super::{Run, settings, start_with, wait_until_caught_up, write_for_a_while};
use feedline::checkpoint::FeedState;
use feedline::feed::PrefeedKind;
use feedline::feed::pattern::TablePattern;
use feedline::feed::resolve::FeedRule;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

/// Starts with two feeds: a table that is read, and in a later stage one whose rows come from a file.
fn start_seeded(world: &World, bytes_per_second: Option<u64>) -> Run {
    let mut settings = settings(PrefeedKind::Snapshot);
    settings.prefeed_bytes_per_second = bytes_per_second.and_then(NonZeroU64::new);
    let rule = &settings.rules[0];
    let rows = u32::try_from(world.state().file.len()).unwrap();
    let prefeed = PrefeedKind::File(file(rows).into());
    let tables = vec![TablePattern::parse("seeded").unwrap()];
    let seeded = FeedRule { tables, operations: rule.operations, prefeed, stage: 2, key: None, route: None };
    settings.rules.push(seeded);
    start_with(world, settings)
}

/// The number of live messages of the other table in the broker.
fn live(world: &World) -> usize {
    world.state().broker.iter().filter(|message| message.key < SEEDED && !message.prefeed).count()
}

/// Asserts that the file came before the live events of its table. Returns how many of these came after it.
fn assert_file_came_first(world: &World) -> usize {
    let state = world.state();
    let messages: Vec<_> = state.broker.iter().filter(|message| SEEDED <= message.key).collect();
    let first_live = messages.iter().position(|message| !message.prefeed).unwrap_or(messages.len());
    let rows: BTreeSet<_> = messages[..first_live].iter().map(|message| message.key).collect();
    assert_eq!(rows.len(), state.file.len(), "the file is sent before the first live event of its table");
    messages.len() - first_live
}

#[tokio::test(start_paused = true)]
async fn other_tables_continue_while_a_file_is_sent() {
    let world = World::new(31, 30, Faults::default()).seeded(600);
    let run = start_seeded(&world, Some(8 << 10));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..5 {
        write_for_a_while(&world, 20).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let expected = world.state().log.iter().filter(|change| change.key < SEEDED).count();
        assert!(matches!(world.state().disk.as_ref().unwrap().feeds["main.seeded"], FeedState::Loading { start: Some(_), .. }));
        let sent = live(&world);
        assert!(expected - sent < 5, "{sent} of {expected} changes of the other table are sent");
    }
    let begun = match &world.state().disk.as_ref().unwrap().feeds["main.seeded"] {
        FeedState::Loading { start: Some(start), .. } => super::world::index(start),
        other => panic!("{other:?}"),
    };
    assert!(world.state().pruned <= begun, "the source keeps its log from where the file was begun");
    wait_until_caught_up(&world, 31).await;
    run.drain().await;
    world.assert_order();
    assert!(10 < assert_file_came_first(&world));
    assert_eq!(world.repeats(), 0, "events of other tables are not sent again");
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_the_files_table_is_complete_and_no_other_goes_back() {
    let faults = Faults {
        source_connect: 6,
        source_acknowledge: 8,
        source_fill: 100,
        prefeed_scan: 12,
        prefeed_waited_for: 4,
        sink_submit: 40,
        sink_lose: 40,
        store_save: 8,
        ..Faults::default()
    };
    let mut changes = 0;
    for seed in 400..440 {
        let world = World::new(seed, 30, faults).seeded(120);
        for _ in 0..4 {
            let run = start_seeded(&world, (seed % 2 == 0).then_some(32 << 10));
            let transactions = world.state().random.0.u32(..60);
            write_for_a_while(&world, transactions).await;
            run.kill().await;
        }
        world.state().faults = Faults::default();
        let run = start_seeded(&world, None);
        write_for_a_while(&world, 20).await;
        wait_until_caught_up(&world, seed).await;
        run.drain().await;
        world.assert_order();
        changes += assert_file_came_first(&world);
    }
    assert!(50 < changes, "the file's table should change meanwhile: {changes}");
}
