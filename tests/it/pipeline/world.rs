//! The world around the engine: a database with its log, a broker, and a disk with a checkpoint.

use super::broker::{Begins, Broker, Message};
use super::faults::{Faults, Random};
use feedline::batch::Ack;
use feedline::checkpoint::{Checkpoint, FeedState, ResumeToken};
use feedline::feed::{Feeds, PrefeedKind};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The tables. The keys of the second begin at [`TABLE`], those of the third at twice that, and so on.
pub const TABLES: [&str; 4] = ["rows", "seeded", "more", "other"];
/// How many keys a table may have.
pub const TABLE: u32 = 1_000_000;
/// The first key of the table `seeded`, whose rows come from a file in some tests.
pub const SEEDED: u32 = TABLE;
/// So many keys of each table are written to.
const WRITTEN: u32 = 40;

/// The table to which the key belongs, as an index into [`TABLES`].
pub const fn table_of(key: u32) -> usize {
    (key / TABLE) as usize
}

/// The keys that a table may have.
pub fn keys(table: usize) -> Range<u32> {
    let first = TABLE * u32::try_from(table).unwrap();
    first..first + TABLE
}

/// The state of a table's feed in a checkpoint.
pub fn state_of(checkpoint: &Checkpoint, table: usize) -> Option<&FeedState> {
    checkpoint.feeds.get(&*format!("main.{}", TABLES[table]))
}

/// The table of this name.
pub fn table(name: &str) -> usize {
    TABLES.iter().position(|table| *table == name).unwrap()
}

/// One change in the log. Each of two lanes has its own counter, so that tokens are only partially ordered.
#[derive(Clone, Debug)]
pub struct Change {
    /// How many changes of each lane come before it.
    before: [usize; 2],
    lane: usize,
    pub key: u32,
    /// `None` deletes.
    pub value: Option<u32>,
    /// Whether it is the last of its transaction.
    pub last: bool,
}

#[derive(Debug)]
pub struct State {
    pub seed: u64,
    pub random: Random,
    pub faults: Faults,
    /// The feeds that the pipeline has.
    pub feeds: Arc<Feeds>,
    /// How many of the tables are written to.
    pub tables: usize,
    pub log: Vec<Change>,
    pub rows: BTreeMap<u32, u32>,
    /// Where the log has the newest change of each key.
    pub changed_at: BTreeMap<u32, usize>,
    /// The rows in the files.
    pub file: BTreeMap<u32, u32>,
    pub next_value: u32,
    /// Each grows when rows of its table change and the log does not show it.
    pub layouts: [u32; TABLES.len()],
    /// The broker that the address leads to.
    pub cluster: &'static str,
    /// How often a start made what the sink needs.
    pub established: u32,
    pub broker: Broker,
    pub disk: Option<Checkpoint>,
    /// The store has asserted that the broker has all changes before it that are published.
    pub checked: usize,
    /// How much of the log the source was told to be durable. It has deleted that part.
    pub pruned: usize,
    /// The earliest position to which a source went back.
    pub went_back: Option<usize>,
    /// Where the log continued after each loss.
    pub gaps: Vec<usize>,
    /// How many keep-alives the source got.
    pub acknowledged: u32,
    /// Since when a snapshot is held; `None` if there is none.
    pub held: Option<Instant>,
    /// The longest time for which a snapshot was held.
    pub held_longest: Duration,
    /// How often somebody waited for a snapshot.
    pub waiters: u32,
    /// Acks of sessions that are over.
    pub late: Vec<(Ack, u32)>,
}

#[derive(Clone, Debug)]
pub struct World(Arc<Mutex<State>>);

/// The file of a table's rows.
pub fn file(table: usize, rows: u32) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{}-{rows}.jsonl", TABLES[table], std::process::id()))
}

/// A position in the log, as the script's tokens spell it: how many changes of each lane lie before it.
pub fn token(log: &[Change], index: usize) -> ResumeToken {
    let [a, b] = log[..index].last().map_or([0; 2], |last| {
        let mut before = last.before;
        before[last.lane] += 1;
        before
    });
    ResumeToken(format!("b:{b},a:{a}").into())
}

/// The position that a token spells.
pub fn index(token: &ResumeToken) -> usize {
    token.0.split(',').map(|lane| lane[2..].parse::<usize>().unwrap()).sum()
}

impl World {
    /// A world with one table of so many rows.
    pub fn new(seed: u64, rows: u32, faults: Faults) -> Self {
        // The delays before the engine's attempts come from here.
        fastrand::seed(seed);
        let state = State {
            seed,
            random: Random(fastrand::Rng::with_seed(seed)),
            faults,
            feeds: Arc::default(),
            tables: 1,
            log: Vec::new(),
            rows: (0..rows).map(|key| (key, key)).collect(),
            changed_at: BTreeMap::new(),
            file: BTreeMap::new(),
            next_value: rows,
            layouts: [0; TABLES.len()],
            cluster: "scripted",
            established: 0,
            broker: Broker::default(),
            disk: None,
            checked: 0,
            pruned: 0,
            went_back: None,
            gaps: Vec::new(),
            acknowledged: 0,
            held: None,
            held_longest: Duration::ZERO,
            waiters: 0,
            late: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Adds the next table, with so many rows.
    pub fn with_table(self, rows: u32) -> Self {
        let mut state = self.state();
        let keys = keys(state.tables).take(rows as usize);
        state.tables += 1;
        state.rows.extend(keys.map(|key| (key, key)));
        drop(state);
        self
    }

    /// Adds the next table, and a file with its rows.
    pub fn with_file(self, rows: u32) -> Self {
        let world = self.with_table(rows);
        let mut state = world.state();
        let table = state.tables - 1;
        let keys = keys(table).take(rows as usize);
        let lines: Vec<_> = keys.clone().map(|key| format!("{{\"id\":{key},\"value\":{key}}}")).collect();
        std::fs::write(file(table, rows), lines.join("\n")).unwrap();
        state.file.extend(keys.map(|key| (key, key)));
        drop(state);
        world
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits one transaction of a few changes. Every key is written; some are deleted, and some of those for good.
    pub fn write(&self) {
        let state = &mut *self.state();
        let tables: Vec<_> = (0..state.tables).filter(|table| state.is_writable(*table)).collect();
        let changes = 1 + state.random.0.usize(..4);
        for change in 0..changes {
            let table = tables[state.random.0.usize(..tables.len())];
            let key = keys(table).start + state.random.0.u32(..WRITTEN);
            let lane = state.random.0.usize(..2);
            let delete = state.rows.contains_key(&key) && (key.is_multiple_of(7) || state.random.one_in(5));
            let value = if delete { None } else { Some(state.next_value) };
            state.next_value += 1;
            match value {
                Some(value) => state.rows.insert(key, value),
                None => state.rows.remove(&key),
            };
            state.changed_at.insert(key, state.log.len());
            state.append(key, value, lane, change + 1 == changes);
        }
    }

    /// Commits a change of a table that no feed publishes.
    pub fn write_elsewhere(&self) {
        let state = &mut *self.state();
        let key = keys(TABLES.len() - 1).start;
        let value = Some(state.next_value);
        state.next_value += 1;
        state.append(key, value, 0, true);
    }

    /// Perhaps changes one row and removes another, without a change in the log.
    pub fn change_silently(&self) {
        let state = &mut *self.state();
        let read: Vec<_> = state.feeds.iter().filter(|feed| feed.prefeed.is_read()).map(|feed| table(&feed.table)).collect();
        if !read.is_empty() && state.random.one_in(state.faults.silent_change) {
            let table = read[state.random.0.usize(..read.len())];
            let first = keys(table).start;
            let keys = [first + state.random.0.u32(..WRITTEN), first + state.random.0.u32(..WRITTEN)];
            let value = state.next_value;
            state.next_value += 1;
            state.layouts[table] += 1;
            state.rows.remove(&keys[0]);
            state.rows.entry(keys[1]).and_modify(|row| *row = value);
        }
    }

    /// The message reaches the broker.
    pub fn deliver(&self, message: Message) {
        let state = &mut *self.state();
        let (durable, slice) = (state.durable(message.table).cloned(), state.disk.as_ref().map_or(0, |disk| disk.slice));
        state.broker.arrive(message, durable.as_ref(), slice);
    }

    /// Whether a reader of the broker has the rows of each table.
    pub fn is_caught_up(&self) -> bool {
        let state = self.state();
        (0..state.tables).all(|table| state.is_read(table))
    }

    /// Asserts that a table's file came before the table's live events. Returns how many of these came after it.
    pub fn assert_file_came_first(&self, table: usize) -> usize {
        let state = self.state();
        let messages: Vec<_> = state.broker.messages.iter().filter(|message| message.table == table).collect();
        let first_live = messages.iter().position(|message| !message.prefeed).unwrap_or(messages.len());
        let rows: BTreeSet<_> = messages[..first_live].iter().map(|message| message.key).collect();
        let in_file = state.file.keys().filter(|key| table_of(**key) == table);
        let missing: Vec<_> = in_file.filter(|key| !rows.contains(key)).collect();
        assert!(missing.is_empty(), "the first live event of the table came before rows {missing:?} of its file");
        messages.len() - first_live
    }

    /// Asserts that the first message of each feed after each gap is a reset, if any message of it was sent before the gap.
    pub fn assert_resets(&self) {
        let state = self.state();
        for (table, gap) in (0..state.tables).flat_map(|table| state.gaps.iter().map(move |gap| (table, gap))) {
            let position = format!("{gap:08}");
            let mut of_table = state.broker.messages.iter().filter(|message| message.table == table);
            let is_begun = of_table.clone().any(|message| message.id < position);
            let first = of_table.find(|message| position <= message.id);
            assert!(!is_begun || first.is_none_or(Message::is_reset), "{first:?} came first after the gap at {gap}");
        }
    }
}

impl State {
    /// Appends a change to the log.
    fn append(&mut self, key: u32, value: Option<u32>, lane: usize, last: bool) {
        let before = self.log.last().map_or([0; 2], |last| std::array::from_fn(|lane| last.before[lane] + usize::from(lane == last.lane)));
        self.log.push(Change { before, lane, key, value, last });
    }

    /// The state of a table's feed in the durable checkpoint.
    pub fn durable(&self, table: usize) -> Option<&FeedState> {
        state_of(self.disk.as_ref()?, table)
    }

    /// A file does not contain changes from before its first row is sent.
    fn is_writable(&self, table: usize) -> bool {
        let has_file = self.file.range(keys(table)).next().is_some();
        !has_file || self.durable(table).is_some_and(|state| state.since().is_some())
    }

    /// Whether a reader has the table's rows. Without a prefeed these are the rows that changed since the feed began.
    fn is_read(&self, table: usize) -> bool {
        let feed = self.feeds.of_table("main", TABLES[table]);
        let reader = self.broker.reader(table);
        let begins = if feed.is_some_and(|feed| feed.prefeed == PrefeedKind::None) { reader.begins() } else { Begins::WithAllRows };
        let is_sent = |key: &u32| match begins {
            Begins::Never => false,
            Begins::At(start) => self.changed_at.get(key).is_some_and(|changed| start <= *changed),
            Begins::WithAllRows => true,
        };
        self.rows.range(keys(table)).filter(|(key, _)| is_sent(key)).eq(reader.rows())
    }
}
