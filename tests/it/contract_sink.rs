//! The contract of every sink: each record is confirmed once, in order per key, and a lost session reports its batches as lost.

use feedline::batch::{Ack, Batch, Budget, Ending, Seq, Settled};
use feedline::checkpoint::{Progress, ResumeToken};
use feedline::event::{FeedId, Head, Operation, Operations, Timestamp};
use feedline::feed::{Feed, Feeds, PrefeedKind, feed_name};
use feedline::format::{Envelope, Format};
use feedline::sink::{Sink, SinkConnector};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything may take before a test gives up on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A sink under test, and a second way to read what arrived there.
pub(crate) trait Subject {
    type Connector: SinkConnector;
    /// A new connector for the same sink.
    fn connector(&self) -> Self::Connector;
    /// The feed whose records go there.
    fn feeds(&self) -> Arc<Feeds> {
        feeds(&["orders"])
    }
    /// Every event that arrived, as `key` and `body`, in the order of its partition.
    fn read_back(&self) -> Vec<(String, String)>;
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec<'s> {
    pub(crate) feed: FeedId,
    pub(crate) operation: Operation,
    pub(crate) id: &'s str,
    pub(crate) key: &'s str,
    pub(crate) related: Option<&'s str>,
    pub(crate) body: &'s str,
    pub(crate) tombstone: bool,
    pub(crate) committed: Timestamp,
}

impl<'s> Spec<'s> {
    pub(crate) const fn insert(id: &'s str, key: &'s str, body: &'s str) -> Self {
        Self { feed: FeedId(0), operation: Operation::Insert, id, key, related: None, body, tombstone: false, committed: COMMITTED }
    }
}

/// The record time of every record that is built here.
pub(crate) const COMMITTED: Timestamp = Timestamp(1_700_000_000_123_456);

/// The format of records whose headers are not compared.
pub(crate) fn json() -> Format {
    Format::Json(Arc::new(Envelope { name: "shop".into(), backend: "postgres", database: "shop".into(), tombstones: true }))
}

/// Feeds of these tables, each with the topic of its name.
pub(crate) fn feeds(tables: &[&str]) -> Arc<Feeds> {
    Arc::new(Feeds::new(tables.iter().map(|table| feed(table, &format!("shop.public.{table}"))).collect()))
}

pub(crate) fn feed(table: &str, topic: &str) -> Feed {
    Feed {
        id: FeedId(0),
        name: feed_name("public", table),
        schema: "public".into(),
        table: table.into(),
        operations: Operations::ALL,
        prefeed: PrefeedKind::None,
        stage: 1,
        key: vec!["id".into()],
        columns: Vec::new(),
        leaves_values_out: false,
        destinations: std::array::from_fn(|_| topic.into()),
    }
}

/// Builds batches as the pipeline does.
pub(crate) struct Builder {
    pub(crate) budget: Budget,
    next: Seq,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { budget: Budget::new(64 << 20, 1 << 20), next: Seq(1) }
    }

    pub(crate) async fn batch(&mut self, records: &[Spec<'_>]) -> Arc<Batch> {
        let mut writer = self.budget.writer().await;
        for spec in records {
            let mut record = writer.begin(Head { feed: spec.feed, operation: spec.operation, timestamp: spec.committed });
            record.arena().extend_from_slice(spec.id.as_bytes());
            record.end_id();
            record.arena().extend_from_slice(spec.key.as_bytes());
            record.end_key();
            if let Some(related) = spec.related {
                record.arena().extend_from_slice(related.as_bytes());
                record.end_related_key();
            }
            record.arena().extend_from_slice(spec.body.as_bytes());
            record.end(Ending::Closed, spec.tombstone).unwrap();
        }
        let seq = self.next;
        self.next = seq.next();
        let (batch, open) = writer.seal(seq, Progress::live(ResumeToken(seq.0.to_string().into())));
        assert!(open.is_none());
        Arc::new(batch)
    }
}

/// Collects the results of acks.
pub(crate) struct Settling {
    sender: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
}

impl Settling {
    pub(crate) fn new() -> Self {
        let (sender, settled) = mpsc::unbounded_channel();
        Self { sender, settled }
    }

    pub(crate) fn ack(&self, batch: &Batch, attempt: u32) -> Ack {
        Ack::new(batch.seq(), attempt, u32::try_from(batch.len()).unwrap(), self.sender.clone())
    }

    pub(crate) async fn next(&mut self) -> Settled {
        timeout(DEADLINE, self.settled.recv()).await.expect("an ack settles in time").unwrap()
    }

    /// The next results, by batch.
    pub(crate) async fn take(&mut self, count: usize) -> BTreeMap<Seq, bool> {
        let mut taken = BTreeMap::new();
        for _ in 0..count {
            let settled = self.next().await;
            assert_eq!(taken.insert(settled.seq, settled.confirmed), None, "settled twice");
        }
        taken
    }

    pub(crate) fn nothing_more(&mut self) {
        assert_eq!(self.settled.try_recv().ok(), None);
    }

    /// What has settled by now.
    pub(crate) fn so_far(&mut self) -> Vec<Settled> {
        std::iter::from_fn(|| self.settled.try_recv().ok()).collect()
    }
}

pub(crate) async fn open<C: SinkConnector>(connector: &mut C) -> C::Sink {
    timeout(DEADLINE, connector.connect()).await.expect("opened in time").unwrap_or_else(|error| panic!("{error}")).0
}

const BATCHES: usize = 20;
const RECORDS: usize = 50;
const KEYS: usize = 7;

/// Batches over few keys; each body is its number in the whole.
async fn numbered(builder: &mut Builder) -> Vec<Arc<Batch>> {
    let mut batches = Vec::new();
    for batch in 0..BATCHES {
        let texts: Vec<(String, String, String)> = (0..RECORDS)
            .map(|record| batch * RECORDS + record)
            .map(|n| (format!("shop/{n:08}"), format!("{{\"id\":{}}}", n % KEYS), format!("{{\"key\":{},\"n\":{n}}}", n % KEYS)))
            .collect();
        let specs: Vec<Spec<'_>> = texts.iter().map(|(id, key, body)| Spec::insert(id, key, body)).collect();
        batches.push(builder.batch(&specs).await);
    }
    batches
}

/// The numbers that arrived for each key, in order.
fn numbers(events: &[(String, String)]) -> BTreeMap<usize, Vec<usize>> {
    let mut keys: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (_, body) in events {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let number = |name: &str| usize::try_from(body[name].as_u64().unwrap()).unwrap();
        keys.entry(number("key")).or_default().push(number("n"));
    }
    keys
}

fn expected() -> BTreeMap<usize, Vec<usize>> {
    (0..KEYS).map(|key| (key, (0..BATCHES * RECORDS).filter(|n| n % KEYS == key).collect())).collect()
}

/// Checks the whole contract.
pub(crate) async fn contract(subject: impl Subject, fresh: impl Subject) {
    each_record_is_confirmed_once_and_in_order(&subject).await;
    a_dropped_session_loses_and_a_new_one_delivers_all_in_order(&fresh).await;
}

async fn each_record_is_confirmed_once_and_in_order(subject: &impl Subject) {
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let mut connector = subject.connector();
    connector.select(subject.feeds());
    let first = connector.establish().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(connector.establish().await.unwrap_or_else(|error| panic!("{error}")), first, "the same sink has the same identity");
    assert_eq!(connector.recognize(&first).await.unwrap_or_else(|error| panic!("{error}")), first, "and is known without being changed");
    let mut sink = open(&mut connector).await;
    let batches = numbered(&mut builder).await;
    for batch in &batches {
        timeout(DEADLINE, sink.submit(Arc::clone(batch), settling.ack(batch, 1))).await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    // After the close no ack settles.
    let settled = settling.so_far();
    assert_eq!(settled.len(), BATCHES, "close waits for every batch");
    assert!(settled.iter().all(|settled| settled.confirmed));
    assert_eq!(numbers(&subject.read_back()), expected());
    drop(batches);
    assert_eq!(builder.budget.used_bytes(), 0, "a confirmed batch holds no memory");
}

async fn a_dropped_session_loses_and_a_new_one_delivers_all_in_order(subject: &impl Subject) {
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let mut connector = subject.connector();
    connector.select(subject.feeds());
    let mut sink = open(&mut connector).await;
    let batches = numbered(&mut builder).await;
    for batch in &batches {
        timeout(DEADLINE, sink.submit(Arc::clone(batch), settling.ack(batch, 1))).await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }
    drop(sink);
    let first = settling.take(BATCHES).await;
    let arrived = numbers(&subject.read_back());
    for (batch, (seq, confirmed)) in first.iter().enumerate() {
        assert_eq!(seq.0, batch as u64 + 1);
        for n in (batch * RECORDS..(batch + 1) * RECORDS).filter(|_| *confirmed) {
            assert!(arrived[&(n % KEYS)].contains(&n), "{n} was confirmed and is not there");
        }
    }
    // Go back to the first batch that is not confirmed.
    let from = first.values().position(|confirmed| !confirmed).unwrap_or(BATCHES);
    let mut sink = open(&mut connector).await;
    for batch in &batches[from..] {
        timeout(DEADLINE, sink.submit(Arc::clone(batch), settling.ack(batch, 2))).await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    assert!(settling.take(BATCHES - from).await.values().all(|confirmed| *confirmed));
    settling.nothing_more();
    for (key, mut numbers) in numbers(&subject.read_back()) {
        let all = expected().remove(&key).unwrap();
        assert_eq!(numbers.last(), all.last(), "the last event of a key is its state");
        // First deliveries are in order; what was repeated is older than what had been seen by then.
        let mut newest = None;
        numbers.retain(|n| newest < Some(*n) && newest.replace(*n) != Some(*n));
        assert_eq!(numbers, all);
    }
}
