//! A file as the prefeed of one table, with live events of another.

use super::faults::Faults;
use super::world::{SEEDED, World, file};
use super::{Run, settings, start_with, wait_until_caught_up, write_for_a_while};
use feedline::checkpoint::FeedState;
use feedline::feed::PrefeedKind;
use feedline::feed::Selection;
use feedline::feed::resolve::FeedRule;
use std::num::NonZeroU64;
use std::time::Duration;

/// Starts with two feeds: a table that is read, and in a later stage one whose rows come from a file.
fn start_seeded(world: &World, bytes_per_second: Option<u64>) -> Run {
    let mut settings = settings(PrefeedKind::Snapshot);
    settings.prefeed_bytes_per_second = bytes_per_second.and_then(NonZeroU64::new);
    let rule = &settings.rules[0];
    let rows = u32::try_from(world.state().file.len()).unwrap();
    let prefeed = PrefeedKind::File(file(1, rows).into());
    let tables = Selection::parse(&["seeded"]).unwrap();
    let seeded = FeedRule { tables, operations: rule.operations, prefeed, stage: 2, key: None, route: None };
    settings.rules.push(seeded);
    start_with(world, settings)
}

/// The number of live messages of the other table in the broker.
fn live(world: &World) -> usize {
    world.state().broker.messages.iter().filter(|message| message.key < SEEDED && !message.prefeed).count()
}

#[tokio::test(start_paused = true)]
async fn other_tables_continue_while_a_file_is_sent() {
    let world = World::new(31, 30, Faults::default()).with_file(600);
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
    assert!(10 < world.assert_file_came_first(1));
    assert_eq!(world.state().broker.repeats(), 0, "events of other tables are not sent again");
}
