//! What the engine relies on in every source: one suite of tests, run for each backend with its [`Workload`].

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use crate::session::{prefix, scan};
use feedline::batch::Budget;
use feedline::checkpoint::{FeedState, Identity, ResumeToken};
use feedline::event::{FeedId, Operation, Operations};
use feedline::fault::{Classify, Fault};
use feedline::feed::{Feed, Feeds, PrefeedKind, feed_name};
use feedline::source::{Cut, Filled, Opened, Prefeed, Resume, Slice, SourceConnector, ToRead};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod refusal;
mod stream;
mod workload;

pub(crate) use refusal::{Refusal, assert_found, verify};
pub(crate) use stream::{Batch, Stream, Taken, records};
pub(crate) use workload::{RowChange, Workload, sql};

/// How long a test waits for what must happen.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

/// A feed of a table, with this key.
pub(crate) fn feed(schema: &str, table: &str, key: &[&str], operations: Operations) -> Feed {
    Feed {
        id: FeedId(0),
        name: feed_name(schema, table),
        schema: schema.into(),
        table: table.into(),
        operations,
        prefeed: PrefeedKind::Snapshot,
        stage: 1,
        key: key.iter().map(|name| Arc::from(*name)).collect(),
        columns: Vec::new(),
        leaves_values_out: false,
        destinations: std::array::from_fn(|_| table.into()),
    }
}

pub(crate) fn feeds(list: Vec<Feed>) -> Arc<Feeds> {
    Arc::new(Feeds::new(list))
}

/// A resume in which every feed is live from `start` on.
pub(crate) fn live(token: &ResumeToken, start: &ResumeToken, feeds: usize) -> Resume {
    Resume { token: token.clone(), feeds: vec![FeedState::Live { start: start.clone() }; feeds], layouts: Vec::new() }
}

/// Opens a snapshot over these feeds. Nothing may hold it up.
pub(crate) async fn open<P: Prefeed>(prefeed: &mut P, feeds: &[ToRead]) -> Cut {
    match prefeed.open(feeds, Duration::from_secs(30)).await.expect("a snapshot opens") {
        Opened::Cut(cut) => cut,
        Opened::Blocked { by } => panic!("{by} holds it up"),
    }
}

/// A position in the log behind everything that is committed.
pub(crate) async fn head<C: SourceConnector>(connector: &mut C) -> ResumeToken {
    let mut prefeed = connector.prefeed().await.expect("the prefeed opens");
    let cut = open(&mut prefeed, &[]).await;
    prefeed.close().await.expect("it closes");
    cut.token
}

/// Reads a table's rows as the prefeed does, in batches of a given size; with `reopen`, each batch under a new snapshot.
pub(crate) async fn scan_all<C: SourceConnector>(connector: &mut C, feed: FeedId, batch_bytes: usize, reopen: bool) -> Vec<Taken> {
    let budget = Budget::new(batch_bytes * 4, batch_bytes);
    let mut prefeed = connector.prefeed().await.expect("the prefeed opens");
    let mut positions = prefix::<C::Source>(&open(&mut prefeed, &[ToRead { feed, after: None }]).await.token);
    let mut slice = Slice { number: 1, next_row: 0 };
    let (mut after, mut rows) = (None, Vec::new());
    loop {
        let mut out = budget.writer().await;
        let scanning = scan(&mut prefeed, &positions, feed, after.as_ref(), &mut slice, &mut out);
        let scanned = tokio::time::timeout(4 * TIMEOUT, scanning).await.expect("rows are read in time").expect("rows are read");
        assert_eq!(scanned.rows, out.records().len() as u64);
        rows.extend(records(&out));
        after = scanned.after.or(after);
        if scanned.done {
            prefeed.close().await.expect("it closes");
            return rows;
        }
        if reopen {
            positions = prefix::<C::Source>(&open(&mut prefeed, &[ToRead { feed, after: after.clone() }]).await.token);
            slice = Slice { number: slice.number + 1, next_row: 0 };
        }
    }
}

/// A database with two captured tables, `contract_a` and `contract_b`.
pub(crate) struct Fixture<W: Workload> {
    pub(crate) workload: W,
    connector: W::Connector,
    feeds: Arc<Feeds>,
    begin: ResumeToken,
    known: Identity,
}

impl<W: Workload> Fixture<W> {
    /// Makes two tables and captures them.
    pub(crate) async fn new(mut workload: W, operations: Operations) -> Self {
        workload.create("contract_a");
        workload.create("contract_b");
        let (schema, key) = (workload.schema(), [workload.key()]);
        let feeds = feeds(vec![feed(schema, "contract_a", &key, operations), feed(schema, "contract_b", &key, operations)]);
        let mut connector = workload.connector();
        connector.select(Arc::clone(&feeds));
        verify(&mut connector).await.expect("the tables can be followed");
        let begin = connector.establish().await.expect("the log is made");
        let known = connector.identity().await.expect("the source is known");
        Self { workload, connector, feeds, begin, known }
    }

    async fn connect(&mut self, resume: &Resume, batch_bytes: usize) -> Stream<<W::Connector as SourceConnector>::Source> {
        let begun = Instant::now();
        loop {
            // The last session may not have ended yet.
            match self.connector.connect(&self.known, resume).await {
                Err(error) if error.fault() == Fault::Transient && begun.elapsed() < TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                connected => return Stream::new(connected.expect("the log opens"), &self.feeds, resume, batch_bytes),
            }
        }
    }

    /// Everything in the log.
    pub(crate) async fn read_all(&mut self) -> Vec<Taken> {
        let end = head(&mut self.connector).await;
        let resume = self.live(&self.begin);
        let mut stream = self.connect(&resume, 64 * 1024).await;
        all(&stream.batches(&end).await)
    }

    fn live(&self, token: &ResumeToken) -> Resume {
        live(token, &self.begin, self.feeds.len())
    }

    /// Inserts, updates, key changes and deletes on both tables, some of them in one transaction.
    fn write(&mut self, first: u32, rows: u32) {
        for id in first..first + rows {
            let table = if id % 3 == 0 { "contract_b" } else { "contract_a" };
            let insert = RowChange { old: None, new: Some((id, format!("row {id}"))) };
            let update = RowChange { old: Some(id), new: Some((id, format!("changed {id}"))) };
            let rekey = RowChange { old: Some(id), new: Some((id + 100_000, format!("row {id}"))) };
            let delete = RowChange { old: Some(id), new: None };
            let transactions = match id % 4 {
                0 => vec![vec![insert], vec![update]],
                1 => vec![vec![insert, update, delete]],
                2 => vec![vec![insert], vec![rekey]],
                _ => vec![vec![insert]],
            };
            for writes in &transactions {
                self.workload.write(table, writes);
            }
        }
    }
}

fn all(batches: &[Batch]) -> Vec<Taken> {
    batches.iter().flat_map(|batch| batch.records.clone()).collect()
}

pub(crate) async fn resuming_equals_continuing<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::ALL).await;
    fixture.write(1, 40);
    let end = head(&mut fixture.connector).await;
    let resume = fixture.live(&fixture.begin);
    let mut stream = fixture.connect(&resume, 2048).await;
    let batches = stream.batches(&end).await;
    drop(stream);
    assert!(batches.len() > 10, "small batches: {}", batches.len());
    assert!(batches[..batches.len() - 1].iter().all(|batch| batch.filled != Filled::Reached));
    let whole = all(&batches);
    let mut before = 0;
    for batch in &batches {
        before += batch.records.len();
        let resume = fixture.live(&batch.token);
        let mut stream = fixture.connect(&resume, 16 * 1024).await;
        let rest = all(&stream.batches(&end).await);
        // The same ids and the same bytes, and not one record more or less.
        assert_eq!(rest, whole[before..], "resumed after {before} records");
    }
}

pub(crate) async fn a_cancelled_fill_loses_nothing<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::ALL).await;
    fixture.write(1, 40);
    let end = head(&mut fixture.connector).await;
    let resume = fixture.live(&fixture.begin);
    let mut stream = fixture.connect(&resume, 4096).await;
    let whole = all(&stream.batches(&end).await);
    drop(stream);
    for polls in [0, 1, 2, 5] {
        let mut stream = fixture.connect(&resume, 2048).await;
        let (mut batches, deadline) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
        loop {
            assert!(Instant::now() < deadline, "the end is not reached");
            let batch = stream.cancelled(&end, polls).await;
            let reached = batch.filled == Filled::Reached;
            batches.push(batch);
            if reached {
                break;
            }
        }
        assert_eq!(all(&batches), whole, "dropped after {polls} polls");
    }
}

pub(crate) async fn the_limit_is_exact<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::ALL).await;
    let resume = fixture.live(&fixture.begin);
    let mut stream = fixture.connect(&resume, 64 * 1024).await;
    fixture.write(1, 6);
    let cut = head(&mut fixture.connector).await;
    fixture.write(7, 6);
    let before = all(&stream.batches(&cut).await);
    // Behind the `@` a source notes a proof of the position, which is not part of it.
    let position = |token: &ResumeToken| token.0.split('@').next().map(str::to_owned);
    assert_eq!(position(&stream.source.token()), position(&cut));
    let again = stream.batch(Some(&cut)).await.expect("a reached limit stays reached");
    assert!(again.records.is_empty() && again.filled == Filled::Reached);
    let end = head(&mut fixture.connector).await;
    let after = all(&stream.batches(&end).await);
    assert!(!before.is_empty() && !after.is_empty());
    drop(stream);
    // The same where the log beyond the limit was there before the session, so that nothing but a later change shows that it is reached.
    let mut stream = fixture.connect(&resume, 64 * 1024).await;
    assert_eq!(all(&stream.batches(&cut).await), before);
    assert_eq!(position(&stream.source.token()), position(&cut), "a lower token would go back behind rows that were sent at the cut");
    assert_eq!(all(&stream.batches(&end).await), after);
    // Exactly what was written before the cut came before it.
    let key = fixture.workload.key();
    let row = |taken: &Taken| serde_json::from_str::<serde_json::Value>(&taken.key).unwrap()[key].as_u64().unwrap() % 100_000;
    assert!(before.iter().all(|taken| row(taken) < 7) && after.iter().all(|taken| row(taken) >= 7));
    // A limit at the end of the log is reached without waiting for the next change.
    let idle = head(&mut fixture.connector).await;
    assert_eq!(stream.batch(Some(&idle)).await.expect("the source goes on").filled, Filled::Reached);
}

pub(crate) async fn a_feed_begins_at_its_start<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::ALL).await;
    fixture.write(1, 8);
    let cut = head(&mut fixture.connector).await;
    fixture.write(9, 8);
    let end = head(&mut fixture.connector).await;
    let pending = Resume { token: fixture.begin.clone(), feeds: vec![FeedState::Pending; 2], layouts: Vec::new() };
    let mut stream = fixture.connect(&pending, 64 * 1024).await;
    assert_eq!(all(&stream.batches(&end).await), [], "nothing of a pending feed is published");
    assert_ne!(stream.source.token(), fixture.begin, "and the token moves past it");
    drop(stream);
    let mut stream = fixture.connect(&pending, 64 * 1024).await;
    stream.source.start(FeedId(1), &cut);
    let started = all(&stream.batches(&end).await);
    drop(stream);
    let resume = fixture.live(&fixture.begin);
    let mut stream = fixture.connect(&resume, 64 * 1024).await;
    let before = all(&stream.batches(&cut).await).len();
    let after = all(&stream.batches(&end).await);
    assert!(before > 0);
    let expected: Vec<_> = after.into_iter().filter(|taken| taken.feed == FeedId(1)).collect();
    assert!(!expected.is_empty());
    assert_eq!(started, expected);
}

pub(crate) async fn the_mask_leaves_operations_out<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::from_bits(1).expect("insert")).await;
    fixture.write(1, 12);
    let taken = fixture.read_all().await;
    // The insert of a key change belongs to an update, and the mask is asked about the update.
    let expected: Vec<_> = (1..=12).map(|id| format!(r#"insert {{"id":{id}}}"#)).collect();
    assert_eq!(taken.iter().map(Taken::brief).collect::<Vec<_>>(), expected);
}

pub(crate) async fn acknowledging_loses_nothing<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::ALL).await;
    fixture.write(1, 24);
    let end = head(&mut fixture.connector).await;
    let resume = fixture.live(&fixture.begin);
    let mut stream = fixture.connect(&resume, 2048).await;
    let mut tokens = Vec::new();
    let (mut taken, deadline) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
    loop {
        assert!(Instant::now() < deadline, "the end is not reached");
        let batch = stream.batch(Some(&end)).await.expect("the source goes on");
        // Two batches behind: what is in flight may have to be read again.
        tokens.push((taken.len() + batch.records.len(), batch.token.clone()));
        taken.extend(batch.records);
        if let Some((_, durable)) = tokens.iter().rev().nth(2) {
            stream.source.acknowledge(Some(durable)).await.expect("the source takes it");
        }
        if batch.filled == Filled::Reached {
            break;
        }
    }
    let (at, durable) = tokens[tokens.len().checked_sub(3).expect("many batches")].clone();
    // Time for the source to remove what was acknowledged: nothing in the port shows when it has.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(stream);
    let resume = fixture.live(&durable);
    let mut stream = fixture.connect(&resume, 64 * 1024).await;
    assert_eq!(all(&stream.batches(&end).await), taken[at..]);
}

pub(crate) async fn rows_and_changes_make_one_state<W: Workload>(workload: W) {
    let mut fixture = Fixture::new(workload, Operations::ALL).await;
    fixture.write(1, 30);
    let rows = scan_all(&mut fixture.connector, FeedId(0), 1024, false).await;
    let resumed = scan_all(&mut fixture.connector, FeedId(0), 1024, true).await;
    let keys = |rows: &[Taken]| rows.iter().map(Taken::brief).collect::<Vec<_>>();
    assert!(rows.len() > 10 && rows.iter().all(|row| row.operation == Operation::Read));
    assert_eq!(keys(&rows), keys(&resumed), "each row once, in the same order, whether resumed or not");
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id) && resumed.windows(2).all(|pair| pair[0].id < pair[1].id));
    // The log, read from its beginning, ends with the same rows, byte for byte.
    let mut state = BTreeMap::new();
    for taken in fixture.read_all().await.into_iter().filter(|taken| taken.feed == FeedId(0) && taken.body.is_some()) {
        let after = taken.field("after");
        if after.is_null() {
            state.remove(&taken.key)
        } else {
            state.insert(taken.key, after)
        };
    }
    let read: BTreeMap<_, _> = rows.iter().map(|row| (row.key.clone(), row.field("after"))).collect();
    assert_eq!(state, read);
}

/// Makes a test of each function, with a workload of its own.
macro_rules! suite {
    ($workload:expr) => {
        crate::contract_source::suite!($workload; resuming_equals_continuing, a_cancelled_fill_loses_nothing, the_limit_is_exact,
            a_feed_begins_at_its_start, the_mask_leaves_operations_out, acknowledging_loses_nothing, rows_and_changes_make_one_state);
    };
    ($workload:expr; $($name:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::contract_source::$name($workload).await;
            }
        )*
    };
}
pub(crate) use suite;
