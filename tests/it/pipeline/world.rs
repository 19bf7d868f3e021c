//! The world around the engine: a database with its log, a broker with its messages, and a disk with a checkpoint.

use feedline::batch::Ack;
use feedline::checkpoint::{Checkpoint, ResumeToken};
use feedline::event::FeedId;
use feedline::fault::{Classify, Code, Fault};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Random numbers from one seed.
#[derive(Clone, Debug)]
pub struct Random(pub fastrand::Rng);

impl Random {
    pub fn one_in(&mut self, n: u32) -> bool {
        n != 0 && self.0.u32(..n) == 0
    }
}

/// How often each fault happens: one in so many calls; `0` is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub source_connect: u32,
    pub source_fill: u32,
    /// The part of the log that is proven to be intact ends before what was read.
    pub source_goes_back: u32,
    pub source_acknowledge: u32,
    pub source_head: u32,
    pub prefeed_scan: u32,
    pub prefeed_stuck: u32,
    /// Somebody waits for what the snapshot holds: the slice ends early.
    pub prefeed_waited_for: u32,
    /// The source loses all of its log when a session begins.
    pub gap: u32,
    /// Rows change, and the log does not show it.
    pub silent_change: u32,
    pub sink_connect: u32,
    pub sink_submit: u32,
    pub sink_lose: u32,
    /// How long the broker needs for each record.
    pub sink_record_time: Duration,
    /// A session that fails has learnt something for the next one.
    pub sink_learns: bool,
    /// The session confirms a batch and then fails.
    pub sink_confirm_and_fail: u32,
    /// The store does not answer. In half of these cases the checkpoint is saved.
    pub store_save: u32,
    /// Another process has taken over the checkpoint: the store accepts nothing more from this one.
    pub is_taken_over: bool,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("scripted fault of the {0:?} kind")]
pub struct Scripted(pub Fault);

impl Classify for Scripted {
    fn fault(&self) -> Fault {
        self.0
    }
    fn code(&self) -> Code {
        match self.0 {
            Fault::Gap => Code::SourceLogLost,
            Fault::Transient | Fault::Fatal => Code::SourceProtocol,
        }
    }
}

/// One change in the log. Each of two lanes has its own counter, so that tokens are only partially ordered.
#[derive(Clone, Debug)]
pub struct Change {
    pub lane: usize,
    pub key: u32,
    /// `None` deletes.
    pub value: Option<u32>,
    /// Whether it is the last of its transaction.
    pub last: bool,
}

/// A message as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub key: u32,
    pub value: Option<u32>,
    pub prefeed: bool,
}

impl Message {
    /// The key of a `reset`, which says that all rows are read again.
    pub const RESET: u32 = u32::MAX;
}

/// Keys from here on belong to the table whose rows come from a file, all others to the first table.
pub const SEEDED: u32 = 1_000_000;

/// The feed of the table to which the key belongs.
pub const fn feed_of(key: u32) -> FeedId {
    FeedId(if SEEDED <= key && key != Message::RESET { 1 } else { 0 })
}

#[derive(Debug)]
pub struct State {
    pub seed: u64,
    pub random: Random,
    pub faults: Faults,
    pub log: Vec<Change>,
    pub rows: BTreeMap<u32, u32>,
    /// The rows in the file.
    pub file: BTreeMap<u32, u32>,
    pub next_value: u32,
    /// Grows when rows change and the log does not show it.
    pub layout: u32,
    /// The broker that the address leads to.
    pub cluster: &'static str,
    /// How often a start made what the sink needs.
    pub established: u32,
    /// The messages that are durable in the broker.
    pub broker: Vec<Message>,
    pub disk: Option<Checkpoint>,
    /// How much of the log the source was told to be durable. It has deleted that part.
    pub pruned: usize,
    /// The earliest position to which a source went back.
    pub went_back: Option<usize>,
    /// Where the log continued after each loss.
    pub gaps: Vec<usize>,
    /// How many keep-alives the source got.
    pub acknowledged: u32,
    /// Since when a snapshot is held; `None` if there is none.
    pub held: Option<tokio::time::Instant>,
    /// The longest time for which a snapshot was held.
    pub held_longest: Duration,
    /// Acks of sessions that are over.
    pub late: Vec<(Ack, u32)>,
    pub known_ids: HashMap<String, Message>,
}

#[derive(Clone, Debug)]
pub struct World(Arc<Mutex<State>>);

/// The file of the second table's rows.
pub fn file(rows: u32) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seeded-{}-{rows}.jsonl", std::process::id()))
}

/// A position in the log, as the script's tokens spell it: how many changes of each lane lie before it.
pub fn token(log: &[Change], index: usize) -> ResumeToken {
    let lane = |lane| log[..index].iter().filter(|change| change.lane == lane).count();
    ResumeToken(format!("b:{},a:{}", lane(1), lane(0)).into())
}

/// The position that a token spells.
pub fn index(token: &ResumeToken) -> usize {
    token.0.split(',').map(|lane| lane[2..].parse::<usize>().unwrap()).sum()
}

impl World {
    pub fn new(seed: u64, rows: u32, faults: Faults) -> Self {
        let state = State {
            seed,
            random: Random(fastrand::Rng::with_seed(seed)),
            faults,
            log: Vec::new(),
            rows: (0..rows).map(|key| (key, key)).collect(),
            file: BTreeMap::new(),
            next_value: rows,
            layout: 0,
            cluster: "scripted",
            established: 0,
            broker: Vec::new(),
            disk: None,
            pruned: 0,
            went_back: None,
            gaps: Vec::new(),
            acknowledged: 0,
            held: None,
            held_longest: Duration::ZERO,
            late: Vec::new(),
            known_ids: HashMap::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The same, with a second table and a file with so many of its rows.
    pub fn seeded(self, rows: u32) -> Self {
        let lines: Vec<_> = (SEEDED..SEEDED + rows).map(|key| format!("{{\"id\":{key},\"value\":{key}}}")).collect();
        std::fs::write(file(rows), lines.join("\n")).unwrap();
        let mut state = self.state();
        state.file = (SEEDED..SEEDED + rows).map(|key| (key, key)).collect();
        let file = state.file.clone();
        state.rows.extend(file);
        drop(state);
        self
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits one transaction of a few changes. Every key is written; some are deleted, and some of those for good.
    pub fn write(&self) {
        let mut state = self.state();
        let changes = 1 + state.random.0.usize(..4);
        // A file does not contain changes from before its first row is sent.
        let is_begun = state.disk.as_ref().and_then(|disk| disk.feeds.get("main.seeded")?.since()).is_some();
        for change in 0..changes {
            let key = state.random.0.u32(..40);
            let key = if is_begun && state.random.one_in(3) { SEEDED + key } else { key };
            let lane = state.random.0.usize(..2);
            let delete = state.rows.contains_key(&key) && (key.is_multiple_of(7) || state.random.one_in(5));
            let value = if delete { None } else { Some(state.next_value) };
            state.next_value += 1;
            match value {
                Some(value) => state.rows.insert(key, value),
                None => state.rows.remove(&key),
            };
            state.log.push(Change { lane, key, value, last: change + 1 == changes });
        }
    }

    /// Perhaps changes one row and removes another, without a change in the log.
    pub fn change_silently(&self) {
        let mut state = self.state();
        let odds = state.faults.silent_change;
        if state.random.one_in(odds) {
            let keys = [state.random.0.u32(..40), state.random.0.u32(..40)];
            let value = state.next_value;
            state.next_value += 1;
            state.layout += 1;
            state.rows.remove(&keys[0]);
            state.rows.entry(keys[1]).and_modify(|row| *row = value);
        }
    }

    /// The message reaches the broker. Messages with the same id must be equal.
    pub fn deliver(&self, message: Message) {
        let mut state = self.state();
        if let Some(known) = state.known_ids.insert(message.id.clone(), message.clone()) {
            assert_eq!(known, message, "the same id, the same bytes");
        }
        state.broker.push(message);
    }

    /// Whether a reader ends on the tables' rows, if it keeps the highest position of each key and forgets at a reset what is not
    /// sent again.
    pub fn is_caught_up(&self) -> bool {
        let state = self.state();
        let mut rows: BTreeMap<u32, (String, Option<u32>)> = BTreeMap::new();
        for message in &state.broker {
            let row = rows.entry(message.key).or_insert_with(|| (message.id.clone(), message.value));
            if row.0 <= message.id {
                *row = (message.id.clone(), message.value);
            }
        }
        let reset = rows.remove(&Message::RESET).map(|(id, _)| id).unwrap_or_default();
        let read: BTreeMap<u32, u32> =
            rows.into_iter().filter(|(_, (id, _))| reset < *id).filter_map(|(key, (_, value))| Some((key, value?))).collect();
        read == state.rows
    }

    /// Asserts that the first message after each gap is a reset, if any message was sent before the gap.
    pub fn assert_resets(&self) {
        let state = self.state();
        for gap in &state.gaps {
            let position = format!("{gap:08}");
            let first = state.broker.iter().find(|message| position <= message.id);
            let is_begun = state.broker.iter().any(|message| message.id < position);
            let is_said = first.is_none_or(|first| first.key == Message::RESET);
            assert!(!is_begun || is_said, "{first:?} came first after the gap at {gap}");
        }
    }

    /// Asserts for each key that the messages, without repeated ones, are in the order of the log.
    pub fn assert_order(&self) {
        let state = self.state();
        let mut seen = BTreeSet::new();
        let mut newest: BTreeMap<u32, &str> = BTreeMap::new();
        for message in &state.broker {
            if seen.insert(&message.id) {
                let before = newest.insert(message.key, &message.id);
                assert!(before.is_none_or(|before| before < message.id.as_str()), "{} came after {before:?}", message.id);
            }
        }
    }

    /// How many messages the broker has more than once.
    pub fn repeats(&self) -> usize {
        let state = self.state();
        state.broker.len() - state.known_ids.len()
    }
}
