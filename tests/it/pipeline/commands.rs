//! Commands to a running pipeline, and what its status shows of them.

use super::broker::Message;
use super::faults::Faults;
use super::world::World;
use super::{Run, settings, start, start_with, wait_until_caught_up, write_for_a_while};
use feedline::fault::Code;
use feedline::feed::PrefeedKind;
use feedline::pipeline::{Command, Ending, Refused, Settings};
use feedline::status::metrics::State;
use feedline::status::{FeedPhase, Side, WaitFor};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

async fn started(world: &World) -> Run {
    let run = start(world, PrefeedKind::Snapshot);
    wait_until_caught_up(world, run.seed).await;
    sleep(SECOND).await;
    assert_eq!(run.status.read().state(), State::Live);
    run
}

/// Waits until the status is as wanted.
async fn until(run: &Run, wanted: impl FnMut(&feedline::status::Status) -> bool) {
    let mut status = run.status.subscribe();
    timeout(Duration::from_mins(1), status.wait_for(wanted)).await.expect("the status changes").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_pipeline_reads_nothing_keeps_its_sessions_and_loses_nothing() {
    let world = World::new(60, 30, Faults::default());
    let run = started(&world).await;
    run.handle.send(Command::Pause).await.unwrap();
    assert_eq!((run.status.read().state(), run.status.read().since()), (State::Paused, Instant::now()));
    sleep(SECOND).await;
    let sent = world.state().broker.messages.len();
    let keep_alives = world.state().acknowledged;
    write_for_a_while(&world, 100).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(world.state().broker.messages.len(), sent, "it read during the pause");
    assert!(keep_alives + 60 < world.state().acknowledged, "the source is kept alive");
    assert_eq!(run.metrics.restarts().values().sum::<u64>(), 0);
    assert_eq!(run.metrics.buffer_bytes.get(), 0, "no memory is given out");
    assert_eq!(run.status.read().live(Instant::now()), Ok(()));
    assert_eq!(run.status.read().ready(false, Instant::now()).unwrap_err(), "paused");
    assert_eq!(run.status.read().source.waiting.as_ref().map(|waiting| waiting.what), Some(WaitFor::Resume));
    let shown = run.metrics.render(&run.status.read(), Instant::now());
    assert!(shown.contains("feedline_pipeline_state{state=\"paused\",pipeline=\"scripted\"} 1\n"), "{shown}");
    run.handle.send(Command::Resume).await.unwrap();
    wait_until_caught_up(&world, 60).await;
    assert_eq!(run.status.read().state(), State::Live);
    assert_eq!(run.status.read().source.waiting, None);
    run.drain().await;
    assert_eq!(world.state().broker.repeats(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_pipeline_can_be_stopped() {
    let world = World::new(61, 5, Faults::default());
    let run = started(&world).await;
    run.handle.send(Command::Pause).await.unwrap();
    write_for_a_while(&world, 10).await;
    timeout(SECOND, run.drain()).await.expect("it stops");
    let run = started(&world).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_restarted_goes_on_at_once_and_repeats_nothing_that_is_confirmed() {
    let world = World::new(62, 5, Faults::default());
    let run = started(&world).await;
    for (restarts, side) in [(1, Side::Source), (2, Side::Sink)] {
        run.handle.send(Command::Restart(side)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(run.metrics.restarts()["requested"], restarts);
        assert_eq!(run.status.read().state(), State::Live, "it is connected again without a delay");
        world.write();
        wait_until_caught_up(&world, 62).await;
        // The last confirmations may be late.
        sleep(SECOND).await;
    }
    assert_eq!(run.metrics.restarts().values().sum::<u64>(), 2, "nothing failed");
    run.drain().await;
    assert_eq!(world.state().broker.repeats(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_the_wait_for_the_next_attempt() {
    for side in [Side::Source, Side::Sink] {
        let world = World::new(63, 5, Faults::default());
        let run = started(&world).await;
        world.state().faults = match side {
            Side::Source => Faults { source_fill: 1, source_connect: 1, ..Faults::default() },
            Side::Sink => Faults { sink_submit: 1, sink_connect: 1, ..Faults::default() },
        };
        world.write();
        let of_side = |status: &feedline::status::Status| match side {
            Side::Source => status.source.error.clone(),
            Side::Sink => status.sink.error.clone(),
        };
        let long = Duration::from_millis(400);
        until(&run, |status| {
            let next = of_side(status).and_then(|error| error.next_attempt);
            status.state() == State::Retrying && next.is_some_and(|next| Instant::now() + long < next)
        })
        .await;
        let shown = of_side(&run.status.read()).unwrap();
        assert!(shown.code == Code::SourceProtocol && !shown.is_over && shown.message.contains("scripted"), "{shown:?}");
        world.state().faults = Faults::default();
        run.handle.send(Command::Restart(side)).await.unwrap();
        timeout(long / 2, until(&run, |status| status.state() == State::Live)).await.expect("the attempt is made at once");
        let shown = of_side(&run.status.read()).unwrap();
        assert!(shown.is_over && shown.next_attempt.is_none(), "{shown:?}");
        assert_eq!(run.metrics.restarts()["requested"], 0, "no session was ended for it");
        run.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_read_again_after_a_reset_while_live_events_go_on() {
    let world = World::new(64, 30, Faults::default());
    let run = started(&world).await;
    write_for_a_while(&world, 20).await;
    wait_until_caught_up(&world, 64).await;
    let unknown = run.handle.send(Command::ReadAgain(vec!["main.rows".to_owned(), "main.nothing".to_owned()])).await;
    assert_eq!(unknown, Err(Refused::UnknownFeed("main.nothing".to_owned())));
    let before = world.state().broker.messages.len();
    run.handle.send(Command::ReadAgain(vec!["main.rows".to_owned()])).await.unwrap();
    write_for_a_while(&world, 50).await;
    until(&run, |status| status.state() == State::Live && status.feeds_pending() == Some(0)).await;
    wait_until_caught_up(&world, 64).await;
    {
        let state = world.state();
        let after = &state.broker.messages[before..];
        let reset = after.iter().position(Message::is_reset).expect("a reset");
        let rows = after[reset + 1..].iter().filter(|message| message.prefeed).count();
        assert!(20 <= rows, "{rows}");
        assert_eq!(after.iter().filter(|message| message.is_reset()).count(), 1, "the unknown feed changed nothing");
        assert!(after.iter().any(|message| !message.prefeed), "live events go on");
    }
    let feed = run.status.read().feeds.as_ref().unwrap()[0].clone();
    assert_eq!((&*feed.name, feed.phase), ("main.rows", FeedPhase::Live));
    assert!(50 <= feed.rows && feed.rows_expected.is_some(), "{feed:?}");
    assert_eq!(run.metrics.restarts().values().sum::<u64>(), 0);
    run.drain().await;
}

/// The request survives sessions that fail before the mark is handed over, and a crash after it is durable.
#[tokio::test(start_paused = true)]
async fn a_request_to_read_again_survives_failed_sessions_and_a_crash() {
    let faults = Faults { source_fill: 3, source_acknowledge: 3, sink_submit: 10, store_save: 5, ..Faults::default() };
    for seed in 640..650 {
        let world = World::new(seed, 30, Faults::default());
        let run = started(&world).await;
        world.state().faults = Faults { source_fill: 1, source_connect: 1, ..Faults::default() };
        world.write();
        sleep(Duration::from_secs(5)).await;
        run.handle.send(Command::ReadAgain(vec!["main.rows".to_owned()])).await.unwrap();
        sleep(SECOND).await;
        world.state().faults = faults;
        write_for_a_while(&world, 20).await;
        sleep(Duration::from_secs(20)).await;
        run.kill().await;
        world.state().faults = Faults::default();
        let run = start(&world, PrefeedKind::Snapshot);
        wait_until_caught_up(&world, seed).await;
        sleep(Duration::from_secs(5)).await;
        assert!(world.state().broker.messages.iter().any(Message::is_reset), "seed {seed}: it was not read again");
        run.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_does_not_run_refuses_commands_for_its_sides() {
    let world = World::new(65, 5, Faults { sink_connect: 1, ..Faults::default() });
    let run = start(&world, PrefeedKind::Snapshot);
    sleep(SECOND).await;
    for command in [Command::Restart(Side::Sink), Command::ReadAgain(Vec::new())] {
        assert_eq!(run.handle.send(command).await, Err(Refused::NotRunning));
    }
    assert_eq!(run.handle.send(Command::SetLogLevel("debug".to_owned())).await, Ok(()));
    assert_eq!(run.handle.send(Command::SetLogLevel("x".to_owned())).await, Err(Refused::LogLevel("no such level".to_owned())));
    // A pause begins with the run.
    run.handle.send(Command::Pause).await.unwrap();
    world.state().faults = Faults::default();
    until(&run, |status| status.state() == State::Paused).await;
    sleep(Duration::from_mins(1)).await;
    assert!(world.state().broker.messages.is_empty(), "it read during the pause");
    run.handle.send(Command::Resume).await.unwrap();
    wait_until_caught_up(&world, 65).await;
    let handle = run.handle.clone();
    run.drain().await;
    assert_eq!(handle.send(Command::Pause).await, Err(Refused::NotRunning), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn the_status_names_what_is_in_flight_and_what_is_waited_for() {
    let world = World::new(66, 0, Faults::default());
    let run = start_with(&world, Settings { shutdown_deadline: SECOND, ..settings(PrefeedKind::None) });
    sleep(SECOND).await;
    world.write();
    wait_until_caught_up(&world, 66).await;
    sleep(SECOND).await;
    {
        let status = run.status.read();
        assert_eq!((status.in_flight.records(), status.in_flight.bytes()), (0, 0));
        assert!(status.handed_over.is_some() && status.handed_over == status.durable, "all is durable: {status:?}");
    }
    world.state().faults.sink_connect = 1;
    world.state().faults.sink_submit = 1;
    for _ in 0..20_000 {
        world.write();
    }
    sleep(Duration::from_secs(30)).await;
    let records = {
        let status = run.status.read();
        assert_eq!(status.state(), State::Retrying);
        assert!(0 < status.in_flight.bytes() && status.in_flight.submitted() == 0, "{status:?}");
        assert!(status.handed_over != status.durable);
        assert_eq!(status.source.waiting.as_ref().map(|waiting| waiting.what), Some(WaitFor::Broker));
        assert!(status.sink.away_since.is_some() && status.source.away_since.is_none());
        status.in_flight.records()
    };
    run.stop.cancel();
    let ending = run.ending.await.unwrap();
    assert_eq!(ending, Ending::Deadline { unconfirmed: records }, "what waits in the channel is unconfirmed too");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_opened_is_waited_for_by_name() {
    let world = World::new(67, 30, Faults { prefeed_stuck: 1, ..Faults::default() });
    let run = start(&world, PrefeedKind::Snapshot);
    until(&run, |status| status.source.waiting.as_ref().is_some_and(|waiting| waiting.what == WaitFor::Snapshot)).await;
    assert_eq!(run.status.read().source.waiting.as_ref().unwrap().held_by.as_deref(), Some("the script"));
    world.state().faults = Faults::default();
    wait_until_caught_up(&world, 67).await;
    sleep(SECOND).await;
    assert_eq!(run.status.read().source.waiting, None);
    run.drain().await;
}
