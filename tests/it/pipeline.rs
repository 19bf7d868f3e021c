//! The engine with scripted ports, under paused time: whatever fails, nothing is lost, too early or out of order.

mod broker;
mod commands;
mod faults;
mod file;
mod ledger;
mod random;
mod resets;
mod sessions;
mod sink;
mod slices;
mod source;
mod world;

use faults::Faults;
use feedline::checkpoint::LastExit;
use feedline::event::{Operations, Timestamp};
use feedline::fault::{Code, Exit, Fault};
use feedline::feed::PrefeedKind;
use feedline::feed::Selection;
use feedline::feed::resolve::FeedRule;
use feedline::feed::route::Template;
use feedline::pipeline::restart::RestartPolicy;
use feedline::pipeline::{Ending, Handle, OnGap, Pipeline, Settings};
use feedline::status::Publisher;
use feedline::status::metrics::{Metrics, RestartReason};
use sink::{CheckedStore, ScriptSinkConnector};
use source::ScriptConnector;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use world::World;

fn settings(prefeed: PrefeedKind) -> Settings {
    let on_gap = if prefeed.is_read() { OnGap::Prefeed } else { OnGap::Stop };
    let rule =
        FeedRule { tables: Selection::parse(&["rows"]).unwrap(), operations: Operations::ALL, prefeed, stage: 1, key: None, route: None };
    Settings {
        name: "scripted".into(),
        configuration: "1".to_owned(),
        rules: vec![rule],
        route: Template::parse("{name}.{schema}.{table}").unwrap(),
        format: crate::session::encoders("scripted", "script", "world").format().clone(),
        default_schema: "main".into(),
        memory_bytes: 256 << 10,
        checkpoint_interval: Duration::from_millis(100),
        shutdown_deadline: Duration::from_secs(20),
        prefeed_slice: Duration::from_mins(1),
        prefeed_bytes_per_second: None,
        takeover_timeout: Duration::from_secs(90),
        on_gap,
        accept_config_change: false,
        restart: RestartPolicy { delay_max: Duration::from_secs(1), ..RestartPolicy::default() },
    }
}

/// Longer than the run of any test: one that hangs fails its test.
const RUN_MAX: Duration = Duration::from_hours(2);

struct Run {
    seed: u64,
    ending: tokio::task::JoinHandle<Ending>,
    stop: CancellationToken,
    metrics: Metrics,
    status: Publisher,
    handle: Handle,
}

impl Run {
    /// Stops it, and asserts that everything was delivered.
    async fn drain(self) {
        self.stop.cancel();
        assert_eq!(self.ending.await.unwrap(), Ending::Drained, "seed {}", self.seed);
    }

    /// Kills the process between two instructions, so that no part of it does anything more. It must have run until then.
    async fn kill(self) {
        self.ending.abort();
        assert!(self.ending.await.unwrap_err().is_cancelled(), "seed {}: it ended by itself", self.seed);
    }
}

fn start(world: &World, prefeed: PrefeedKind) -> Run {
    start_with(world, settings(prefeed))
}

fn start_with(world: &World, settings: Settings) -> Run {
    world.state().broker.begin_process();
    let stop = CancellationToken::new();
    let metrics = Metrics::new("scripted");
    let status = Publisher::default();
    let sink = ScriptSinkConnector(world.clone());
    let store = CheckedStore(world.clone());
    let set_level = |level: &str| if level == "debug" { Ok(()) } else { Err("no such level".to_owned()) };
    let pipeline = Pipeline::new(settings, ScriptConnector(world.clone()), sink, store, metrics.clone(), status.clone(), Some(set_level));
    let handle = pipeline.handle();
    let running = tokio::time::timeout(RUN_MAX, pipeline.run(stop.clone()));
    let ending = tokio::spawn(async { running.await.expect("the run ends") });
    Run { seed: world.state().seed, ending, stop, metrics, status, handle }
}

async fn write_for_a_while(world: &World, transactions: u32) {
    for _ in 0..transactions {
        world.write();
        let pause = world.state().random.0.u64(..20);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn wait_until_caught_up(world: &World, seed: u64) {
    for _ in 0..10_000 {
        if world.is_caught_up() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("seed {seed}: the broker never caught up: {:?}", world.state().broker.messages.len());
}

#[tokio::test(start_paused = true)]
async fn without_faults_each_event_arrives_once_and_in_order() {
    let world = World::new(1, 30, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    write_for_a_while(&world, 200).await;
    wait_until_caught_up(&world, 1).await;
    run.drain().await;
    assert_eq!(world.state().broker.repeats(), 0);
    assert!(world.state().broker.messages.iter().any(|message| message.prefeed));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_while_rows_wait_for_the_broker_loses_none_of_them() {
    for seed in 300..340 {
        let world = World::new(seed, 300, Faults { sink_connect: 1, source_acknowledge: 3, ..Faults::default() });
        let run = start(&world, PrefeedKind::Snapshot);
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.state().faults = Faults::default();
        wait_until_caught_up(&world, seed).await;
        run.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_without_a_prefeed_begins_at_the_end_of_the_log() {
    let world = World::new(7, 30, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    write_for_a_while(&world, 50).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.drain().await;
    let state = world.state();
    assert_eq!(state.broker.messages.len(), state.log.len());
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_and_a_clean_stop_leave_lag_at_zero_and_nothing_to_repeat() {
    let world = World::new(9, 10, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    write_for_a_while(&world, 20).await;
    wait_until_caught_up(&world, 9).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(run.status.read().lag().caught_up);
    assert_eq!(run.status.read().ready(false, tokio::time::Instant::now()), Ok(()));
    run.drain().await;
    let sent = world.state().broker.messages.len();
    let again = start(&world, PrefeedKind::Snapshot);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(again.metrics.restarts()["process"], 0);
    again.drain().await;
    assert_eq!(world.state().broker.messages.len(), sent);
}

/// The values of the lag and of this series.
fn shown(run: &Run, name: &str) -> (Option<f64>, Option<f64>) {
    let text = run.metrics.render(&run.status.read(), tokio::time::Instant::now());
    let value = |name: &str| text.lines().find(|line| line.starts_with(name)).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap());
    (value("feedline_lag_seconds"), value(name))
}

/// A process that starts while the broker is away shows its lag and its attempts, and nothing that it does not know.
#[tokio::test(start_paused = true)]
async fn a_start_without_a_broker_shows_its_lag_and_counts_as_one_restart() {
    let world = World::new(22, 5, Faults::default());
    for (restarts, known_seconds) in [(1, 0.0), (2, 600.0)] {
        world.state().faults.sink_connect = 1;
        let run = start(&world, PrefeedKind::Snapshot);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(run.metrics.restarts().values().sum::<u64>(), restarts, "an outage is one restart");
        assert!(30 < run.metrics.attempts(RestartReason::SourceError), "by their code the script's faults are the source's");
        let (lag, _) = shown(&run, "feedline_lag_seconds");
        let expected = 60.0 + known_seconds;
        assert!((expected - 1.0..expected + 60.0).contains(&lag.unwrap()), "{lag:?}, not {expected}");
        for (name, value) in
            [("feedline_source_connected", Some(0.0)), ("feedline_sink_connected", None), ("feedline_prefeed_tables", None)]
        {
            assert_eq!(shown(&run, name).1, value, "{name}");
        }
        world.state().faults.sink_connect = 0;
        wait_until_caught_up(&world, 22).await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        let (lag, saved) = shown(&run, "feedline_checkpoint_timestamp_seconds");
        assert_eq!(lag, Some(0.0));
        assert!(saved.unwrap() > 1e9);
        for (name, value) in
            [("feedline_source_connected", 1.0), ("feedline_sink_connected", 1.0), ("feedline_prefeed_tables_pending", 0.0)]
        {
            assert_eq!(shown(&run, name).1, Some(value), "{name}");
        }
        run.drain().await;
        let mut state = world.state();
        let disk = state.disk.as_mut().unwrap();
        let before = Timestamp(Timestamp::now().0 - 600_000_000);
        assert!(before.0 < disk.caught_up_at.unwrap().0, "the last time without lag is kept");
        (disk.committed_at, disk.caught_up_at) = (Some(before), Some(before));
    }
}

/// While the head cannot be read, the lag counts from the last time that it was, and the values read with the head are absent.
#[tokio::test(start_paused = true)]
async fn without_the_head_the_lag_rises() {
    let world = World::new(23, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 23).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(shown(&run, "feedline_source_clock_offset_seconds"), (Some(0.0), Some(0.0)));
    world.state().faults.source_head = 1;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let (lag, offset) = shown(&run, "feedline_source_clock_offset_seconds");
    assert!((55.0..=66.0).contains(&lag.unwrap()) && offset.is_none(), "{lag:?} {offset:?}");
    world.state().faults.source_head = 0;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(shown(&run, "feedline_source_clock_offset_seconds"), (Some(0.0), Some(0.0)));
    run.drain().await;
}

/// An idle pipeline that starts again shows no lag at first, not the time since its last event, and then 0.
#[tokio::test(start_paused = true)]
async fn a_restart_does_not_show_the_age_of_the_last_event_as_lag() {
    let world = World::new(24, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 24).await;
    run.drain().await;
    world.state().disk.as_mut().unwrap().committed_at = Some(Timestamp(Timestamp::now().0 - 1_689_000_000));
    world.state().disk.as_mut().unwrap().caught_up_at = None;
    world.state().faults.source_head = 1;
    let run = start(&world, PrefeedKind::Snapshot);
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shown(&run, "feedline_lag_seconds").0, None);
    }
    // If the head cannot be read, the lag is an upper bound.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(1_689.0 < shown(&run, "feedline_lag_seconds").0.unwrap());
    world.state().faults.source_head = 0;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(shown(&run, "feedline_lag_seconds").0, Some(0.0));
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_shows_that_it_drains_and_that_it_has_stopped() {
    let world = World::new(25, 0, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.state().faults.sink_submit = 1;
    write_for_a_while(&world, 50).await;
    assert_eq!(shown(&run, "feedline_pipeline_state{state=\"draining\"").1, Some(0.0));
    run.stop.cancel();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(shown(&run, "feedline_pipeline_state{state=\"draining\"").1, Some(1.0));
    world.state().faults = Faults::default();
    let (status, metrics) = (run.status.clone(), run.metrics.clone());
    run.drain().await;
    assert_eq!(status.read().state(), feedline::status::metrics::State::Stopped);
    assert!(metrics.restarts()["process"] == 0);
}

#[tokio::test(start_paused = true)]
async fn a_gap_stops_the_pipeline_and_keeps_its_checkpoint() {
    let world = World::new(11, 10, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    write_for_a_while(&world, 20).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    run.ending.abort();
    drop(run.ending.await);
    let beyond = world.state().log.len() + 5;
    write_for_a_while(&world, 10).await;
    world.state().pruned = beyond;
    let before = world.state().disk.clone().unwrap().token;
    let run = start(&world, PrefeedKind::None);
    let Ending::Failed(failure) = run.ending.await.unwrap() else { panic!("a gap is a failure") };
    let shown = run.status.read().ended_by.clone().unwrap();
    assert_eq!((shown.code, shown.message.as_str(), shown.next_attempt), (failure.code, failure.message.as_str(), None));
    assert_eq!((failure.code, failure.fault), (Code::SourceLogLost, Fault::Gap));
    assert_eq!(Ending::Failed(failure).exit(), Exit::Gap);
    let disk = world.state().disk.clone().unwrap();
    assert_eq!((disk.token, disk.last_exit), (before, LastExit::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_an_outage_ends_at_the_deadline_and_loses_nothing() {
    let world = World::new(12, 0, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.state().faults.sink_submit = 1;
    write_for_a_while(&world, 50).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.stop.cancel();
    let ending = run.ending.await.unwrap();
    assert!(matches!(ending, Ending::Deadline { unconfirmed } if unconfirmed > 0), "{ending:?}");
    world.state().faults = Faults::default();
    let run = start(&world, PrefeedKind::None);
    wait_until_caught_up(&world, 12).await;
    run.drain().await;
    assert_eq!(world.state().disk.as_ref().unwrap().restarts["process"], 0, "a stop at the deadline is not a crash");
}

#[tokio::test(start_paused = true)]
async fn an_outage_fills_the_memory_budget_and_the_keep_alive_continues() {
    let world = World::new(13, 0, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.state().faults.sink_connect = 1;
    world.state().faults.sink_submit = 1;
    for _ in 0..30 {
        for _ in 0..400 {
            world.write();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let used = run.metrics.buffer_bytes.get();
    assert!(used > 128 << 10 && used <= 256 << 10, "{used}");
    let keep_alives = world.state().acknowledged;
    assert!(keep_alives > 25, "the source got only {keep_alives} keep-alives in 30 s");
    assert!(run.status.read().live(tokio::time::Instant::now()).is_ok());
    assert!(run.status.read().ready(false, tokio::time::Instant::now()).is_err());
    let lag = feedline::status::metrics::lag::lag_seconds(&run.status.read().lag(), tokio::time::Instant::now());
    assert!(lag.is_some());
    world.state().faults = Faults::default();
    wait_until_caught_up(&world, 13).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_pipeline_with_its_message() {
    let world = World::new(14, 5, Faults::default());
    let run = start(&world, PrefeedKind::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.state().pruned = usize::MAX;
    world.write();
    let ending = run.ending.await.unwrap();
    assert!(matches!(&ending, Ending::Crashed { message } if message.contains("told to forget")), "{ending:?}");
    assert_eq!(ending.exit(), Exit::Crash);
    assert_eq!(world.state().disk.as_ref().unwrap().last_exit, LastExit::Running);
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_is_refused_until_it_is_accepted() {
    let world = World::new(16, 5, Faults::default());
    let run = start(&world, PrefeedKind::Snapshot);
    wait_until_caught_up(&world, 16).await;
    run.drain().await;
    world.state().disk.as_mut().unwrap().configuration = "another".to_owned();
    let established = world.state().established;
    let Ending::Failed(failure) = start(&world, PrefeedKind::Snapshot).ending.await.unwrap() else {
        panic!("a changed configuration is accepted")
    };
    assert_eq!((failure.code, failure.code.exit()), (Code::CheckpointConfiguration, Exit::Configuration));
    assert_eq!(world.state().established, established, "nothing is made for a start that is refused");
}
