//! A scripted source: bursts, pauses, open transactions, and faults at any point.

use super::faults::Scripted;
use super::world::{Change, TABLES, World, index, keys, table, table_of, token};
use feedline::checkpoint::{Identity, Layout, ResumeToken, ScanPosition};
use feedline::event::{Cell, Column, ColumnKind, FeedId, Operation, Relation, Row, RowError, Timestamp};
use feedline::fault::Fault;
use feedline::feed::{Catalogue, Feed, Feeds, Table, TableName};
use feedline::preflight::Findings;
use feedline::source::{
    Cut, Emission, Emitter, Filled, HandedOver, LogToken, Opened, Prefeed, Probe, Renewed, Reread, Resume, RowEmitter, Scanned, Source,
    SourceConnector, SourceProgress, TableChange, ToRead,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub struct ScriptConnector(pub World);

pub struct ScriptSource {
    world: World,
    /// The next change to be written.
    next: usize,
    /// Where the transaction begins that is being read.
    transaction: Option<usize>,
    /// Whether a keep-alive came since the tables were looked at.
    looks: bool,
    /// The feeds, with the layout of each that was reported last.
    feeds: Arc<Feeds>,
    reported: Vec<Option<Layout>>,
}

pub struct ScriptPrefeed {
    world: World,
    rows: BTreeMap<u32, u32>,
}

pub struct ScriptProbe(World);

/// A position in the script's log: how many changes lie before it.
#[derive(Clone, Copy, Debug)]
pub struct Position(usize);

impl LogToken for Position {
    type Error = Scripted;
    type Change = usize;

    fn parse(token: &ResumeToken) -> Result<Self, Scripted> {
        Ok(Self(index(token)))
    }

    fn is_before(&self, other: &Self) -> bool {
        self.0 < other.0
    }

    fn admits(&self, change: usize) -> bool {
        self.0 <= change
    }

    fn position_prefix(&self) -> String {
        format!("{:08}", self.0)
    }
}

/// A row of either table; only its key where the value is absent.
#[derive(Clone, Copy)]
struct ScriptRow {
    key: u32,
    value: Option<u32>,
}

impl Row for ScriptRow {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        visit(Cell::Integer(&self.key.to_string()))?;
        match self.value {
            Some(value) => visit(Cell::Integer(&value.to_string())),
            None => visit(Cell::Absent),
        }
    }
}

/// The definition of a feed's table.
fn relation(feed: &Feed) -> Relation {
    let column = |name: &str, key| Column::new(name, ColumnKind::Any, key);
    Relation { feed: feed.id, schema: "main".into(), table: feed.table.clone(), columns: vec![column("id", true), column("value", false)] }
}

impl Source for ScriptSource {
    type Error = Scripted;
    type Token = Position;
    const HEARTBEAT: Duration = Duration::from_secs(1);

    async fn fill(&mut self, out: &mut Emitter<'_, Position>, until: Option<&Position>) -> Result<Filled, Scripted> {
        let limit = until.map(|until| until.0);
        loop {
            let end = self.world.state().log.len().min(limit.unwrap_or(usize::MAX));
            if self.next < end {
                break;
            }
            if limit == Some(self.next) {
                return Ok(Filled::Reached);
            }
            // A transaction is written at once, so one that has begun can be read to its end.
            if limit.is_some_and(|limit| limit < self.next) {
                if self.transaction.is_none() {
                    return Ok(Filled::Reached);
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        loop {
            // A cancellation may come between any two changes.
            tokio::task::yield_now().await;
            let Some((first, change)) = self.next_change()? else { return Ok(Filled::Drained) };
            if limit == Some(self.next) {
                return Ok(Filled::Reached);
            }
            let now = Timestamp::now();
            if self.transaction.replace(first).is_none() {
                out.begin(format!("{first:08}").as_bytes(), now, &first.to_string(), HandedOver::Nothing);
            }
            self.write(&change, ordinal(first, self.next), out).await;
            self.next += 1;
            if change.last {
                out.commit();
                self.transaction = None;
                if limit.is_some_and(|limit| limit < self.next) {
                    return Ok(Filled::Reached);
                }
            }
            if out.is_full() {
                return Ok(Filled::Full);
            }
        }
    }

    fn progress(&mut self, written: &Emission<Position>) -> SourceProgress {
        let closed = self.closed(written);
        let token = token(&self.world.state().log, closed);
        SourceProgress { token, table_changes: self.table_changes() }
    }

    async fn acknowledge(&mut self, durable: Option<&Position>, written: &Emission<Position>) -> Result<(), Scripted> {
        let closed = self.closed(written);
        let mut state = self.world.state();
        let known = state.disk.as_ref().and_then(|checkpoint| checkpoint.token.as_ref()).map_or(0, index);
        let told = durable.map_or(0, |durable| durable.0);
        assert!(told <= known, "the source is told of {told} before the checkpoint holds more than {known} (I1)");
        assert!(told <= closed, "the source is told of {told}, but a new session would begin at {closed} at the latest");
        state.pruned = state.pruned.max(told);
        state.acknowledged += 1;
        self.looks = true;
        let odds = state.faults.source_acknowledge;
        if state.random.one_in(odds) { Err(Scripted(Fault::Transient)) } else { Ok(()) }
    }
}

/// The ordinal of a change in the transaction that begins at `first`.
const fn ordinal(first: usize, change: usize) -> u64 {
    10 * (change - first) as u64
}

impl ScriptSource {
    /// The next change, and where its transaction begins.
    fn next_change(&self) -> Result<Option<(usize, Change)>, Scripted> {
        let mut state = self.world.state();
        let faults = state.faults;
        if state.random.one_in(faults.source_fill) {
            return Err(Scripted(Fault::Transient));
        }
        assert!(state.pruned <= self.next, "the source was told to forget changes that are still to be read");
        let first = state.log[..self.next].iter().rposition(|change| change.last).map_or(0, |last| last + 1);
        Ok(state.log.get(self.next).map(|change| (first, change.clone())))
    }

    async fn write(&self, change: &Change, ordinal: u64, out: &mut Emitter<'_, Position>) {
        let row = ScriptRow { key: change.key, value: change.value };
        let operation = if change.value.is_some() { Operation::Update } else { Operation::Delete };
        let Some(feed) = self.feeds.of_table("main", TABLES[table_of(change.key)]) else { return out.skip(operation) };
        let definition = out.prepare(&relation(feed)).await.expect("rows of the script are JSON");
        let Some(admitted) = out.admit(&definition, operation, self.next, ordinal) else { return };
        let written = if change.value.is_some() { admitted.update(None, row) } else { admitted.delete(row, None) };
        written.expect("rows of the script fit");
    }

    /// All changes before it are in closed records, or are not published.
    fn closed(&self, written: &Emission<Position>) -> usize {
        let Some(first) = self.transaction else { return self.next };
        written.inside(ordinal(first, self.next)).map_or(first, |inside| first + usize::try_from(inside.ordinal / 10).unwrap())
    }

    /// Looks at the tables after each keep-alive.
    fn table_changes(&mut self) -> Vec<TableChange> {
        if !std::mem::take(&mut self.looks) {
            return Vec::new();
        }
        self.world.change_silently();
        let layouts = self.world.state().layouts;
        let changed = self.feeds.iter().zip(&mut self.reported).filter_map(|(feed, reported)| {
            let layout = Layout(layouts[table(&feed.table)].to_string().into());
            let before = reported.replace(layout.clone());
            let reread = before.as_ref().map(|_| Reread { reset: true, reason: "the script says so".to_owned() });
            (before.as_ref() != Some(&layout)).then_some(TableChange { feed: feed.id, layout, reread })
        });
        changed.collect()
    }
}

impl ScriptPrefeed {
    fn fail_perhaps(&self) -> Result<(), Scripted> {
        let mut state = self.world.state();
        let faults = state.faults;
        if state.random.one_in(faults.prefeed_scan) { Err(Scripted(Fault::Transient)) } else { Ok(()) }
    }
}

impl Prefeed for ScriptPrefeed {
    type Error = Scripted;
    const SLICE_MAX: Duration = Duration::from_millis(40);

    async fn open(&mut self, _feeds: &[ToRead], within: Duration) -> Result<Opened, Scripted> {
        let stuck = {
            let mut state = self.world.state();
            let faults = state.faults;
            state.random.one_in(faults.prefeed_stuck)
        };
        if stuck {
            tokio::time::sleep(within).await;
            return Ok(Opened::Blocked { by: "the script".to_owned() });
        }
        let mut state = self.world.state();
        state.held = Some(tokio::time::Instant::now());
        self.rows = state.rows.clone();
        Ok(Opened::Cut(Cut { token: token(&state.log, state.log.len()), opened_at: Timestamp::now() }))
    }

    /// Gives a few rows that follow `after`.
    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Scripted> {
        tokio::time::sleep(Duration::from_millis(15)).await;
        self.fail_perhaps()?;
        let feeds = Arc::clone(&self.world.state().feeds);
        let feed = feeds.get(feed);
        let encoder = out.prepare(&relation(feed)).await.expect("rows of the script are JSON");
        let keys = keys(table(&feed.table));
        let from = after.map_or(keys.start, |after| after.0.parse::<u32>().unwrap() + 1);
        let mut scanned = Scanned { after: None, done: true };
        for (key, value) in self.rows.range(from..keys.end) {
            if out.written() == 6 {
                scanned.done = false;
                break;
            }
            out.write(&encoder, ScriptRow { key: *key, value: Some(*value) }).expect("rows of the script fit");
            scanned.after = Some(ScanPosition(key.to_string().into()));
        }
        Ok(scanned)
    }

    async fn is_waited_for(&mut self) -> Result<bool, Scripted> {
        let mut state = self.world.state();
        let odds = state.faults.prefeed_waited_for;
        let is_waited_for = state.random.one_in(odds);
        state.waiters += u32::from(is_waited_for);
        Ok(is_waited_for)
    }

    async fn close(&mut self) -> Result<(), Scripted> {
        let mut state = self.world.state();
        if let Some(since) = state.held.take() {
            state.held_longest = state.held_longest.max(since.elapsed());
        }
        self.rows.clear();
        Ok(())
    }

    async fn expected_rows(&mut self, _feed: FeedId) -> Result<Option<u64>, Scripted> {
        Ok(Some(self.world.state().rows.len() as u64))
    }
}

impl Probe for ScriptProbe {
    type Error = Scripted;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<feedline::status::LogHead, Scripted> {
        let mut state = self.0.state();
        let fails = state.faults.source_head;
        if state.random.one_in(fails) {
            return Err(Scripted(Fault::Transient));
        }
        let caught_up = state.log.len() <= index(confirmed);
        Ok(feedline::status::LogHead { caught_up, clock_offset_seconds: Some(0.0), ..Default::default() })
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Scripted> {
        Ok(Vec::new())
    }
}

impl SourceConnector for ScriptConnector {
    type Source = ScriptSource;
    type Prefeed = ScriptPrefeed;
    type Probe = ScriptProbe;
    type Error = Scripted;

    async fn catalogue(&mut self) -> Result<Catalogue, Scripted> {
        let key: Arc<str> = "id".into();
        let table = |name: &str| Table {
            schema: "main".into(),
            name: name.into(),
            primary_key: vec![key.clone()],
            columns: vec![key.clone(), "value".into()],
            leaves_values_out: false,
        };
        Ok(Catalogue { database: "world".into(), tables: TABLES.map(table).to_vec(), views: Vec::new() })
    }

    async fn identity(&mut self) -> Result<Identity, Scripted> {
        Ok(Identity::new())
    }

    async fn recognize(&mut self, _known: &Identity) -> Result<(), Scripted> {
        Ok(())
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.0.state().feeds = feeds;
    }

    async fn preflight(&mut self) -> Result<Findings, Scripted> {
        Ok(Findings::default())
    }

    async fn establish(&mut self) -> Result<ResumeToken, Scripted> {
        let state = self.0.state();
        Ok(token(&state.log, state.log.len()))
    }

    async fn connect(&mut self, _known: &Identity, resume: &Resume) -> Result<ScriptSource, Scripted> {
        let mut next = index(&resume.token);
        let mut state = self.0.state();
        let faults = state.faults;
        if state.random.one_in(faults.source_connect) {
            return Err(Scripted(Fault::Transient));
        }
        if state.random.one_in(faults.gap) {
            state.pruned = state.log.len();
        }
        if next < state.pruned {
            return Err(Scripted(Fault::Gap));
        }
        if state.random.one_in(faults.source_goes_back) {
            let is_between = |position: &usize| *position == 0 || state.log[position - 1].last;
            next = (state.pruned..=next).rev().take(9).filter(is_between).last().unwrap_or(next);
            state.went_back = Some(state.went_back.map_or(next, |earlier| earlier.min(next)));
            state.broker.go_back(next);
        }
        let (feeds, reported) = (Arc::clone(&state.feeds), resume.layouts.clone());
        Ok(ScriptSource { world: self.0.clone(), next, transaction: None, looks: false, feeds, reported })
    }

    async fn renew(&mut self, _known: &Identity, _lost: &Resume) -> Result<Renewed, Scripted> {
        let mut state = self.0.state();
        let position = state.log.len();
        state.gaps.push(position);
        Ok(Renewed { token: token(&state.log, state.log.len()), feeds: state.feeds.iter().map(|feed| feed.id).collect() })
    }

    async fn prefeed(&mut self) -> Result<ScriptPrefeed, Scripted> {
        Ok(ScriptPrefeed { world: self.0.clone(), rows: BTreeMap::new() })
    }

    async fn probe(&mut self) -> Result<ScriptProbe, Scripted> {
        Ok(ScriptProbe(self.0.clone()))
    }
}
