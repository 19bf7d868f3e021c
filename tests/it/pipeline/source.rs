//! A scripted source: bursts, pauses, open transactions, and faults at any point.

use super::world::{Message, SEEDED, Scripted, World, feed_of, index, token};
use feedline::batch::{BatchWriter, Ending};
use feedline::checkpoint::{FeedState, Identity, Layout, ResumeToken, ScanPosition};
use feedline::event::{FeedId, Head, Operation, Timestamp};
use feedline::fault::Fault;
use feedline::feed::{Catalogue, Feeds, Table};
use feedline::preflight::Findings;
use feedline::source::{
    Cut, Filled, Opened, Prefeed, Probe, Renewed, Reread, Resume, Scanned, Slice, Source, SourceConnector, TableChange, ToRead,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub struct ScriptConnector(pub World);

pub struct ScriptSource {
    world: World,
    /// The next change to be written.
    next: usize,
    /// All transactions before it are complete.
    closed: usize,
    /// For each feed, from where on its events are published.
    starts: [Option<usize>; 2],
    /// The layout that was reported last.
    reported: Option<Layout>,
    is_published: bool,
}

pub struct ScriptPrefeed {
    world: World,
    rows: BTreeMap<u32, u32>,
    cut: usize,
}

pub struct ScriptProbe(World);

/// The id of a live event sorts after that of a prefeed row at the same position.
pub fn write(out: &mut BatchWriter, message: &Message, ending: Ending) {
    let operation = match (message.prefeed, message.value) {
        (true, _) => Operation::Read,
        (false, Some(_)) => Operation::Update,
        (false, None) => Operation::Delete,
    };
    let mut record = out.begin(Head { feed: feed_of(message.key), operation, timestamp: Timestamp::now() });
    record.arena().extend_from_slice(message.id.as_bytes());
    record.end_id();
    record.arena().extend_from_slice(message.key.to_string().as_bytes());
    record.end_key();
    let value = message.value.map_or_else(|| "gone".to_owned(), |value| value.to_string());
    record.arena().extend_from_slice(value.as_bytes());
    record.end(ending, false).unwrap();
}

impl Source for ScriptSource {
    type Error = Scripted;
    const HEARTBEAT: Duration = Duration::from_secs(1);

    async fn fill(&mut self, out: &mut BatchWriter, until: Option<&ResumeToken>) -> Result<Filled, Scripted> {
        let limit = until.map(index);
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
                if self.closed == self.next {
                    return Ok(Filled::Reached);
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        loop {
            // A cancellation may come between any two changes.
            tokio::task::yield_now().await;
            let mut state = self.world.state();
            let faults = state.faults;
            if state.random.one_in(faults.source_fill) {
                return Err(Scripted(Fault::Transient));
            }
            assert!(state.pruned <= self.next, "the source was told to forget changes that are still to be read");
            let Some(change) = state.log.get(self.next).cloned() else { return Ok(Filled::Drained) };
            drop(state);
            if limit == Some(self.next) {
                return Ok(Filled::Reached);
            }
            if self.starts[feed_of(change.key).index()].is_some_and(|start| start <= self.next) {
                out.close(|_| ());
                let id = format!("{:08}-1", self.next);
                write(out, &Message { id, key: change.key, value: change.value, prefeed: false }, Ending::Open);
            }
            self.closed = self.next;
            self.next += 1;
            if change.last {
                out.close(|_| ());
                self.closed = self.next;
                if limit.is_some_and(|limit| limit < self.next) {
                    return Ok(Filled::Reached);
                }
            }
            if out.is_full() {
                return Ok(Filled::Full);
            }
        }
    }

    fn token(&self) -> ResumeToken {
        token(&self.world.state().log, self.closed)
    }

    fn start(&mut self, feed: FeedId, start: &ResumeToken) {
        self.starts[feed.index()] = Some(index(start));
    }

    async fn acknowledge(&mut self, durable: Option<&ResumeToken>) -> Result<(), Scripted> {
        let mut state = self.world.state();
        let known = state.disk.as_ref().and_then(|checkpoint| checkpoint.token.as_ref()).map_or(0, index);
        let told = durable.map_or(0, index);
        assert!(told <= known, "the source is told of {told} before the checkpoint holds more than {known} (I1)");
        assert!(told <= self.closed, "the source is told of {told}, but a new session would begin at {} at the latest", self.closed);
        state.pruned = state.pruned.max(told);
        state.acknowledged += 1;
        let odds = state.faults.source_acknowledge;
        if state.random.one_in(odds) { Err(Scripted(Fault::Transient)) } else { Ok(()) }
    }

    fn table_changes(&mut self) -> Vec<TableChange> {
        if !self.is_published {
            return Vec::new();
        }
        self.world.change_silently();
        let layout = Layout(self.world.state().layout.to_string().into());
        let before = self.reported.replace(layout.clone());
        if before.as_ref() == Some(&layout) {
            return Vec::new();
        }
        let reread = before.map(|_| Reread { reset: true, reason: "the script says so".to_owned() });
        vec![TableChange { feed: FeedId(0), layout, reread }]
    }
}

impl ScriptPrefeed {
    fn fail_perhaps(&self) -> Result<(), Scripted> {
        let mut state = self.world.state();
        let faults = state.faults;
        if state.random.one_in(faults.prefeed_scan) { Err(Scripted(Fault::Transient)) } else { Ok(()) }
    }
}

/// Writes a few rows that follow `after`.
fn send_some(rows: &BTreeMap<u32, u32>, cut: usize, after: Option<&ScanPosition>, slice: &mut Slice, out: &mut BatchWriter) -> Scanned {
    let from = after.map_or(0, |after| after.0.parse::<u32>().unwrap() + 1);
    let mut scanned = Scanned { after: None, rows: 0, done: true };
    for (key, value) in rows.range(from..) {
        if scanned.rows == 6 {
            scanned.done = false;
            break;
        }
        let id = format!("{cut:08}-0-{:06}{:09}", slice.number, slice.next_row);
        write(out, &Message { id, key: *key, value: Some(*value), prefeed: true }, Ending::Closed);
        slice.next_row += 1;
        scanned.rows += 1;
        scanned.after = Some(ScanPosition(key.to_string().into()));
    }
    scanned
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
        self.rows = state.rows.range(..SEEDED).map(|(key, value)| (*key, *value)).collect();
        self.cut = state.log.len();
        Ok(Opened::Cut(Cut { token: token(&state.log, self.cut), opened_at: Timestamp::now() }))
    }

    async fn reset(&mut self, _feed: FeedId, _cut: &Cut, slice: &mut Slice, out: &mut BatchWriter) -> Result<(), Scripted> {
        let row = slice.take_row();
        let id = format!("{:08}-0-{:06}{row:09}", self.cut, slice.number);
        write(out, &Message { id, key: Message::RESET, value: None, prefeed: true }, Ending::Closed);
        Ok(())
    }

    async fn load(
        &mut self,
        _feed: FeedId,
        cut: &Cut,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Scripted> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.fail_perhaps()?;
        let file = self.world.state().file.clone();
        Ok(send_some(&file, index(&cut.token), after, slice, out))
    }

    async fn scan(
        &mut self,
        _feed: FeedId,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Scripted> {
        tokio::time::sleep(Duration::from_millis(15)).await;
        self.fail_perhaps()?;
        Ok(send_some(&self.rows, self.cut, after, slice, out))
    }

    async fn is_waited_for(&mut self) -> Result<bool, Scripted> {
        Ok(false)
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
        Ok(Catalogue { database: "world".into(), tables: ["rows", "seeded"].map(table).to_vec(), own_table_prefix: "_feedline_" })
    }

    async fn identity(&mut self) -> Result<Identity, Scripted> {
        Ok(Identity::new())
    }

    async fn recognize(&mut self, _known: &Identity) -> Result<(), Scripted> {
        Ok(())
    }

    fn select(&mut self, _feeds: Arc<Feeds>) {}

    async fn verify(&mut self) -> Result<(), Vec<Scripted>> {
        Ok(())
    }

    async fn preflight(&mut self) -> Result<Findings, Scripted> {
        Ok(Findings::default())
    }

    async fn unclaimed(&mut self) -> Result<(), Scripted> {
        Ok(())
    }

    async fn resumable(&mut self, _known: &Identity, _resume: &Resume) -> Result<(), Scripted> {
        Ok(())
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
        }
        let start = |feed: usize| resume.feeds.get(feed).and_then(FeedState::start).map(index);
        let starts = [start(0), start(1)];
        let reported = resume.layouts.first().cloned().flatten();
        Ok(ScriptSource { world: self.0.clone(), next, closed: next, starts, reported, is_published: !resume.feeds.is_empty() })
    }

    async fn renew(&mut self, _known: &Identity, _lost: &Resume) -> Result<Renewed, Scripted> {
        let mut state = self.0.state();
        let position = state.log.len();
        state.gaps.push(position);
        Ok(Renewed { token: token(&state.log, state.log.len()), feeds: vec![FeedId(0)] })
    }

    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Scripted> {
        Ok(index(stored) < index(token))
    }

    async fn prefeed(&mut self) -> Result<ScriptPrefeed, Scripted> {
        Ok(ScriptPrefeed { world: self.0.clone(), rows: BTreeMap::new(), cut: 0 })
    }

    async fn probe(&mut self) -> Result<ScriptProbe, Scripted> {
        Ok(ScriptProbe(self.0.clone()))
    }

    async fn detach(&mut self) -> Result<Vec<String>, Scripted> {
        Ok(Vec::new())
    }
}
