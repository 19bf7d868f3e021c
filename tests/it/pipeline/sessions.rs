//! Successive sessions with the broker: which broker is refused, what is sent again, and how soon.

use super::faults::Faults;
use super::world::World;
use super::{Run, start, wait_until_caught_up, write_for_a_while};
use feedline::checkpoint::LastExit;
use feedline::fault::{Code, Exit};
use feedline::feed::PrefeedKind;
use feedline::pipeline::{Command, Ending};
use feedline::status::metrics::RestartReason;
use feedline::status::metrics::lag::lag_seconds;
use feedline::status::{Side, WaitFor};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn another_broker_behind_the_address_is_refused() {
    let world = World::new(15, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 15).await;
    run.drain().await;
    world.state().disk.as_mut().unwrap().sink.insert("broker".to_owned(), "another".to_owned());
    let Ending::Failed(failure) = start(&world, PrefeedKind::Snapshot).ending.await.unwrap() else {
        panic!("a foreign broker is accepted")
    };
    assert_eq!(failure.code, Code::SinkForeign);
}

#[tokio::test(start_paused = true)]
async fn another_broker_that_appears_during_a_run_receives_nothing() {
    let world = World::new(17, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 17).await;
    let sent = {
        let mut state = world.state();
        state.cluster = "another";
        state.faults.sink_submit = 1;
        state.broker.messages.len()
    };
    world.write();
    let ended = tokio::time::timeout(Duration::from_mins(1), run.ending).await.expect("the run ends");
    let Ending::Failed(failure) = ended.unwrap() else { panic!("a foreign broker is accepted") };
    assert_eq!((failure.code, failure.code.exit()), (Code::SinkForeign, Exit::Gap), "{failure}");
    assert_eq!(world.state().broker.messages.len(), sent, "another broker received events from the middle of the stream");
    assert_eq!(world.state().disk.as_ref().unwrap().last_exit, LastExit::Running, "the checkpoint may be in the other broker");
}

/// A run that has delivered everything but the last transaction, which the sink does not accept; and the number of messages in
/// the broker.
async fn cut_off(seed: u64) -> (World, Run, usize) {
    let world = World::new(seed, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, seed).await;
    let sent = world.state().broker.messages.len();
    world.state().faults.sink_submit = 1;
    world.write();
    let failed = async {
        while run.metrics.restarts()["sink_error"] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), failed).await.expect("the session fails");
    (world, run, sent)
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_replaced_while_it_was_cut_off_sends_nothing_more() {
    let (world, run, sent) = cut_off(20).await;
    // It still has unsent records, and the broker is back. But another process has taken over.
    world.state().faults = Faults { is_taken_over: true, ..Faults::default() };
    let ended = tokio::time::timeout(Duration::from_mins(1), run.ending).await.expect("the run ends");
    assert!(matches!(ended.unwrap(), Ending::Failed(_)));
    assert_eq!(world.state().broker.messages.len(), sent, "records were sent after another process had taken over");
}

/// Otherwise two instances could wait for each other for ever, one with the sink and one with the store.
#[tokio::test(start_paused = true)]
async fn a_session_is_closed_while_the_checkpoint_cannot_be_saved() {
    let (world, run, sent) = cut_off(21).await;
    world.state().faults = Faults { store_save: 1, ..Faults::default() };
    let attempts = || run.metrics.attempts(RestartReason::SinkError);
    let (before, restarts) = (attempts(), run.metrics.restarts()["sink_error"]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(before + 2 <= attempts(), "the session was kept: {}", attempts());
    assert_eq!(run.metrics.restarts()["sink_error"], restarts, "it is one outage");
    assert_eq!(world.state().broker.messages.len(), sent, "it sent without owning the checkpoint");
    world.state().faults = Faults::default();
    wait_until_caught_up(&world, 21).await;
}

/// If each session learns something, the delay between sessions does not grow.
#[tokio::test(start_paused = true)]
async fn after_a_session_that_has_learnt_the_next_one_follows_soon() {
    let mut restarts = Vec::new();
    for sink_learns in [false, true] {
        let world = World::new(19, 0, Faults::default());
        let run = start(&world, PrefeedKind::None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.state().faults = Faults { sink_submit: 1, sink_learns, ..Faults::default() };
        world.write();
        tokio::time::sleep(Duration::from_secs(10)).await;
        restarts.push(run.metrics.restarts()["sink_error"]);
        run.ending.abort();
    }
    assert!(restarts[0] < 25 && 45 < restarts[1], "{restarts:?}");
}

/// What a session confirmed before it failed is not sent again, and the delay before the next session does not grow.
#[tokio::test(start_paused = true)]
async fn what_was_confirmed_before_a_failure_counts() {
    let world = World::new(18, 0, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.state().faults.sink_confirm_and_fail = 1;
    let begun = tokio::time::Instant::now();
    for _ in 0..30 {
        world.write();
        wait_until_caught_up(&world, 18).await;
    }
    assert!(run.metrics.restarts()["sink_error"] >= 20, "{:?}", run.metrics.restarts());
    assert!(begun.elapsed() < Duration::from_secs(15), "each session made progress: {:?}", begun.elapsed());
    world.state().faults = Faults::default();
    run.drain().await;
    assert_eq!(world.state().broker.repeats(), 0, "confirmed records were sent again");
}

/// The log may be proven only up to a position before the one that was handed over. A session that begins there is not told what was durable
/// before, and neither is the next one, if that session has handed over nothing.
#[tokio::test(start_paused = true)]
async fn a_source_that_goes_back_is_not_told_of_a_position_before_it_reaches_it_again() {
    for fails in [0, 1] {
        let world = World::new(26, 5, Faults::default());
        let run = start(&world, PrefeedKind::Snapshot);
        write_for_a_while(&world, 20).await;
        wait_until_caught_up(&world, 26).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.state().faults = Faults { source_goes_back: 1, source_acknowledge: fails, ..Faults::default() };
        run.handle.send(Command::Restart(Side::Source)).await.unwrap();
        let went_back = async {
            while world.state().went_back.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), went_back).await.expect("it goes back");
        world.state().faults = Faults::default();
        tokio::time::sleep(Duration::from_secs(5)).await;
        write_for_a_while(&world, 20).await;
        wait_until_caught_up(&world, 26).await;
        run.drain().await;
    }
}

fn lag(run: &Run) -> Option<f64> {
    lag_seconds(&run.status.read().lag(), Instant::now())
}

/// A pipeline that is caught up, and has lost the broker.
async fn without_broker(seed: u64) -> (World, Run) {
    let world = World::new(seed, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, seed).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.state().faults.sink_connect = 1;
    run.handle.send(Command::Restart(Side::Sink)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!run.status.read().sink.is_connected());
    (world, run)
}

/// A busy database whose published tables are quiet must not keep its log for a broker that is away.
#[tokio::test(start_paused = true)]
async fn progress_without_events_is_saved_while_the_broker_is_away() {
    let (world, run) = without_broker(27).await;
    for _ in 0..300 {
        world.write_elsewhere();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let end = world.state().log.len();
    assert_eq!(world.state().pruned, end, "the source keeps log that nothing needs");
    assert_eq!(lag(&run), Some(0.0), "no event is missing");
    // A stop needs no broker then.
    let stopped = Instant::now();
    run.drain().await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    world.state().faults = Faults::default();
    start(&world, PrefeedKind::Snapshot).drain().await;
    assert_eq!(world.state().broker.repeats(), 0);
}

/// An event needs the broker, and what follows it waits with it.
#[tokio::test(start_paused = true)]
async fn nothing_behind_an_event_that_the_broker_does_not_have_is_forgotten() {
    let (world, run) = without_broker(29).await;
    let end = world.state().log.len();
    world.write();
    world.write_elsewhere();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.state().pruned, end, "an event that the broker does not have is forgotten");
    assert!(lag(&run).is_some_and(|lag| 25.0 < lag), "{:?}", lag(&run));
    world.state().faults = Faults::default();
    wait_until_caught_up(&world, 29).await;
    run.drain().await;
    assert_eq!(world.state().broker.repeats(), 0);
}

/// Lag is about events: a checkpoint that cannot be saved has a metric and an alert of its own.
#[tokio::test(start_paused = true)]
async fn a_save_that_hangs_is_named_and_is_no_lag() {
    let world = World::new(28, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 28).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.state().faults.store_hangs = true;
    let saved = world.state().disk.as_ref().unwrap().token.clone();
    write_for_a_while(&world, 20).await;
    wait_until_caught_up(&world, 28).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.state().disk.as_ref().unwrap().token, saved);
    assert_eq!(lag(&run), Some(0.0), "the broker has everything");
    run.handle.send(Command::Restart(Side::Sink)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(run.status.read().sink.waiting.as_ref().map(|waiting| waiting.what), Some(WaitFor::Checkpoint));
    let reason = run.status.read().ready(false, Instant::now()).unwrap_err();
    assert!(reason.contains("the checkpoint has been being saved for"), "{reason}");
    world.state().faults = Faults::default();
    write_for_a_while(&world, 20).await;
    wait_until_caught_up(&world, 28).await;
    assert_eq!(run.status.read().sink.waiting, None);
    run.drain().await;
    assert_eq!(world.state().broker.repeats(), 0);
}
