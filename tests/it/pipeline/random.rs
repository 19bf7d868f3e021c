//! Everything at once: each seed draws feeds, faults, commands, stops and crashes. The broker checks every message ([`super::broker`]), the
//! store every checkpoint ([`super::sink`]); at the end each reader has its table. `FEEDLINE_SEED=n` repeats one seed.

use super::faults::Faults;
use super::world::{TABLES, World, file};
use super::{Run, settings, start_with, write_for_a_while};
use feedline::checkpoint::FeedState;
use feedline::event::Operations;
use feedline::feed::PrefeedKind;
use feedline::feed::Selection;
use feedline::feed::resolve::FeedRule;
use feedline::pipeline::{Command, Ending, OnGap, Refused, Settings};
use feedline::status::{Side, WaitFor};
use std::num::NonZeroU64;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is confirmed is durable after so long: an interval between checkpoints, and two saves of 8 ms.
const DURABLE_WITHIN: Duration = Duration::from_millis(120);
/// The longest for which a snapshot may be held.
const HELD_MAX: Duration = Duration::from_secs(2);
/// Without faults, all is sent within this time.
const SETTLED_WITHIN: Duration = Duration::from_mins(10);

/// A world, a pipeline in it, and what happens to both.
struct Model {
    seed: u64,
    random: fastrand::Rng,
    world: World,
    /// By table.
    prefeeds: Vec<PrefeedKind>,
    settings: Settings,
    faults: Faults,
    run: Run,
    /// Whether no feed is left out.
    is_complete: bool,
    /// Tables that are to be read again: each with the number of messages at the command.
    asked: Vec<(usize, usize)>,
    seen: Seen,
}

/// How often something happened.
#[derive(Debug, Default)]
struct Seen {
    crashes: usize,
    restarts: u64,
    repeats: usize,
    reread: usize,
    full_memory: usize,
    silent_changes: u32,
    gaps: usize,
    went_back: usize,
    waiters: u32,
    live_after_file: usize,
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_nothing_is_lost_too_early_or_out_of_order() {
    let one = std::env::var("FEEDLINE_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let mut all = Seen::default();
    for seed in one.map_or(0..100, |seed| seed..seed + 1) {
        eprintln!("seed {seed}");
        let mut model = Model::draw(seed);
        for _ in 0..model.random.usize(5..25) {
            model.act().await;
        }
        let seen = model.end().await;
        all.crashes += seen.crashes;
        all.restarts += seen.restarts;
        all.repeats += seen.repeats;
        all.reread += seen.reread;
        all.full_memory += seen.full_memory;
        all.silent_changes += seen.silent_changes;
        all.gaps += seen.gaps;
        all.went_back += seen.went_back;
        all.waiters += seen.waiters;
        all.live_after_file += seen.live_after_file;
    }
    assert!(one.is_some() || all.is_enough(), "{all:?}");
}

impl Seen {
    /// Whether all seeds together have met everything often.
    const fn is_enough(&self) -> bool {
        let failures = 100 < self.crashes && 100 < self.restarts && 100 < self.repeats && 20 < self.full_memory;
        let log = 20 < self.silent_changes && 5 < self.gaps && 5 < self.went_back;
        failures && log && 20 < self.reread && 20 < self.waiters && 50 < self.live_after_file
    }
}

impl Model {
    fn draw(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(seed, random.u32(..120), Faults::default());
        let mut prefeeds = vec![PrefeedKind::Snapshot];
        for table in 1..random.usize(1..=TABLES.len()) {
            let rows = random.u32(1..120);
            let prefeed = match random.u8(..4) {
                0 => PrefeedKind::None,
                1 => PrefeedKind::File(file(table, rows).into()),
                _ => PrefeedKind::Snapshot,
            };
            world = if matches!(prefeed, PrefeedKind::File(_)) { world.with_file(rows) } else { world.with_table(rows) };
            prefeeds.push(prefeed);
        }
        let rules = prefeeds.iter().zip(TABLES).map(|(prefeed, table)| rule(table, prefeed, random.u8(1..4))).collect();
        let is_read = prefeeds.iter().all(PrefeedKind::is_read);
        let settings = Settings {
            rules,
            memory_bytes: random.choice([128 << 10, 256 << 10]).unwrap(),
            prefeed_slice: random.choice([Duration::from_millis(20), Duration::from_mins(1)]).unwrap(),
            prefeed_bytes_per_second: random.choice([None, None, NonZeroU64::new(8 << 10), NonZeroU64::new(64 << 10)]).unwrap(),
            on_gap: if is_read { OnGap::Prefeed } else { OnGap::Stop },
            ..settings(PrefeedKind::Snapshot)
        };
        let faults = draw_faults(&mut random, is_read);
        world.state().faults = faults;
        let run = start_with(&world, settings.clone());
        Self { seed, random, world, prefeeds, settings, faults, run, is_complete: true, asked: Vec::new(), seen: Seen::default() }
    }

    /// One thing that may happen to a pipeline.
    async fn act(&mut self) {
        match self.random.u8(..12) {
            0..4 => write_for_a_while(&self.world, self.random.u32(..40)).await,
            4 => self.pause().await,
            5 => self.restart_side().await,
            6 => self.read_again().await,
            7 => self.broker_away().await,
            8 => self.others_away().await,
            9 => self.crash().await,
            10 => {
                self.stop().await;
                self.run = self.start_again();
            }
            _ => sleep(Duration::from_millis(self.random.u64(..3_000))).await,
        }
        self.assert_runs().await;
    }

    async fn assert_runs(&mut self) {
        let seed = self.seed;
        let ended = if self.run.ending.is_finished() { Some((&mut self.run.ending).await) } else { None };
        assert!(ended.is_none(), "seed {seed}: {ended:?}");
    }

    async fn send(&mut self, command: Command) -> Result<(), Refused> {
        let answer = self.run.handle.send(command).await;
        self.assert_runs().await;
        answer
    }

    async fn pause(&mut self) {
        self.send(Command::Pause).await.unwrap();
        write_for_a_while(&self.world, self.random.u32(..10)).await;
        self.restart_side().await;
        self.send(Command::Resume).await.unwrap();
    }

    async fn restart_side(&mut self) {
        let side = self.random.choice([Side::Source, Side::Sink]).unwrap();
        let restarted = self.send(Command::Restart(side)).await;
        assert!(matches!(restarted, Ok(()) | Err(Refused::NotRunning)), "{restarted:?}");
    }

    async fn read_again(&mut self) {
        let table = self.random.usize(..self.prefeeds.len());
        let messages = self.world.state().broker.messages.len();
        match self.send(Command::ReadAgain(vec![format!("main.{}", TABLES[table])])).await {
            Ok(()) if matches!(self.world.state().durable(table), Some(FeedState::Live { .. })) => self.asked.push((table, messages)),
            Ok(()) | Err(Refused::NotRunning | Refused::UnknownFeed(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// The broker takes nothing, until all memory is full of what is written.
    async fn broker_away(&mut self) {
        self.world.state().faults = Faults { sink_connect: 1, sink_submit: 1, ..self.faults };
        for _ in 0..self.random.u32(..400) {
            self.world.write();
        }
        sleep(Duration::from_millis(self.random.u64(..20_000))).await;
        let waits = self.run.status.read().source.waiting.as_ref().is_some_and(|waiting| waiting.what == WaitFor::Broker);
        self.seen.full_memory += usize::from(waits);
        self.world.state().faults = self.faults;
    }

    async fn others_away(&mut self) {
        let source = Faults { source_connect: 1, source_fill: 1, ..self.faults };
        let store = Faults { store_save: 1, ..self.faults };
        self.world.state().faults = self.random.choice([source, store]).unwrap();
        write_for_a_while(&self.world, self.random.u32(..20)).await;
        self.world.state().faults = self.faults;
    }

    async fn crash(&mut self) {
        self.seen.crashes += 1;
        self.end_of_process();
        self.world.state().broker.assert_saved(DURABLE_WITHIN);
        self.run.ending.abort();
        assert!((&mut self.run.ending).await.unwrap_err().is_cancelled(), "seed {}: it ended by itself", self.seed);
        self.run = self.start_again();
    }

    /// Ends the process in order. Not all may be delivered then.
    async fn stop(&mut self) {
        self.end_of_process();
        self.run.stop.cancel();
        let ending = (&mut self.run.ending).await.unwrap();
        assert!(matches!(ending, Ending::Drained | Ending::Deadline { .. }), "seed {}: {ending:?}", self.seed);
    }

    fn end_of_process(&mut self) {
        self.seen.restarts += self.run.metrics.restarts().values().sum::<u64>();
        self.asked.clear();
    }

    /// Starts with the stored checkpoint, perhaps without one of the feeds.
    fn start_again(&mut self) -> Run {
        let mut settings = self.settings.clone();
        let left_out = self.random.usize(..3 * self.prefeeds.len());
        self.is_complete = !self.prefeeds.get(left_out).is_some_and(PrefeedKind::is_read) || self.prefeeds.len() == 1;
        if !self.is_complete {
            settings.rules.remove(left_out);
        }
        start_with(&self.world, settings)
    }

    /// Ends the faults, and asserts that all is delivered.
    async fn end(mut self) -> Seen {
        self.faults = Faults::default();
        self.world.state().faults = self.faults;
        if !self.is_complete {
            self.stop().await;
            self.run = start_with(&self.world, self.settings.clone());
        }
        write_for_a_while(&self.world, 10).await;
        let begun = Instant::now();
        while !self.is_settled() {
            self.assert_runs().await;
            assert!(begun.elapsed() < SETTLED_WITHIN, "seed {}: {}", self.seed, self.unsettled());
            sleep(Duration::from_millis(50)).await;
        }
        self.end_of_process();
        self.run.drain().await;
        self.world.assert_resets();
        let state = self.world.state();
        assert!(state.held_longest < HELD_MAX, "seed {}: a snapshot was held for {:?}", self.seed, state.held_longest);
        self.seen.repeats = state.broker.repeats();
        self.seen.reread = state.broker.messages.iter().filter(|message| message.is_reset()).count();
        assert!(state.disk.as_ref().unwrap().former.is_empty(), "seed {}: every feed is published", self.seed);
        self.seen.went_back = usize::from(state.went_back.is_some());
        (self.seen.silent_changes, self.seen.gaps, self.seen.waiters) = (state.layouts.iter().sum(), state.gaps.len(), state.waiters);
        drop(state);
        let files = (0..self.prefeeds.len()).filter(|table| matches!(self.prefeeds[*table], PrefeedKind::File(_)));
        self.seen.live_after_file = files.map(|table| self.world.assert_file_came_first(table)).sum();
        self.seen
    }

    /// What is durable, for a failed test.
    fn unsettled(&self) -> String {
        let state = self.world.state();
        let disk = state.disk.as_ref().map(|disk| (&disk.token, &disk.feeds));
        format!("of {} changes: {disk:?}, asked for {:?}", state.log.len(), self.asked)
    }

    /// Whether every reader has its table, all is durable, and what was asked for is done.
    fn is_settled(&self) -> bool {
        let state = self.world.state();
        let is_live = |table| matches!(state.durable(table), Some(FeedState::Live { .. }));
        let resets = |table| state.broker.messages.iter().rposition(|message| message.is_reset() && message.table == table);
        let is_done = |(table, asked): &(usize, usize)| resets(*table).is_some_and(|reset| *asked <= reset);
        let end = state.disk.as_ref().and_then(|disk| disk.token.as_ref()).map(super::world::index);
        let is_durable = end == Some(state.log.len()) && (0..self.prefeeds.len()).all(is_live) && self.asked.iter().all(is_done);
        drop(state);
        is_durable && self.world.is_caught_up()
    }
}

fn rule(table: &str, prefeed: &PrefeedKind, stage: u8) -> FeedRule {
    let tables = Selection::parse(&[table]).unwrap();
    FeedRule { tables, operations: Operations::ALL, prefeed: prefeed.clone(), stage: stage.into(), key: None, route: None }
}

/// Draws which faults there are, and how often.
fn draw_faults(random: &mut fastrand::Rng, may_lose_log: bool) -> Faults {
    let mut one_in = |odds: u32| if random.bool() { random.u32(odds..4 * odds) } else { 0 };
    Faults {
        source_connect: one_in(4),
        source_acknowledge: one_in(5),
        source_fill: one_in(40),
        source_head: one_in(3),
        source_goes_back: one_in(8),
        prefeed_scan: one_in(8),
        prefeed_stuck: one_in(8),
        prefeed_waited_for: one_in(4),
        gap: if may_lose_log { one_in(3) } else { 0 },
        silent_change: one_in(2),
        sink_connect: one_in(4),
        sink_submit: one_in(20),
        sink_lose: one_in(20),
        sink_confirm_and_fail: one_in(20),
        store_save: one_in(5),
        ..Faults::default()
    }
}
