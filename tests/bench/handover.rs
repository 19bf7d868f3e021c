//! What the engine costs by itself: a source that copies one event again and again, a sink that confirms at once. Room,
//! channel, ledger and books are the real ones.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark's unwraps are assertions")]

use feedline::batch::{Batch, BatchWriter, Ending};
use feedline::change::{FeedId, Head, Operation, Operations, Timestamp};
use feedline::checkpoint::{Checkpoint, CheckpointStore, Identity, ResumeToken, ScanPosition};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::pattern::TablePattern;
use feedline::feed::resolve::FeedRule;
use feedline::feed::{Feeds, PrefeedKind, Table};
use feedline::foresight::Foresight;
use feedline::metrics::Metrics;
use feedline::pipeline::health::Health;
use feedline::pipeline::{OnGap, Pipeline, Settings};
use feedline::receipt::Receipt;
use feedline::restart::RestartPolicy;
use feedline::route::Template;
use feedline::sink::{Sink, SinkConnector};
use feedline::source::{
    Catalogue, Cut, Filled, Opened, Prefeed, Probe, Renewed, Resume, Scanned, Sighting, Slice, Source, SourceConnector, ToRead,
};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;
const EVENTS: u64 = 5_000_000;
const KEY: &[u8] = br#"{"id":1234567}"#;
const BODY: [u8; 560] = [b'x'; 560];

#[tokio::main]
async fn main() {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round().await);
    }
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (rate, processor_us) = rounds[ROUNDS / 2];
    println!("| hand-over alone, events of 560 bytes | {rate:.0} events/s, {processor_us:.3} µs of processor each | |");
}

/// Events a second, and microseconds of processor time for each.
async fn round() -> (f64, f64) {
    let confirmed = Arc::new(AtomicU64::new(0));
    let rule = FeedRule {
        tables: vec![TablePattern::parse("event").unwrap()],
        operations: Operations::ALL,
        prefeed: PrefeedKind::None,
        stage: 1,
        key: None,
        route: None,
    };
    let settings = Settings {
        name: "bench".into(),
        configuration: "1".to_owned(),
        rules: vec![rule],
        route: Template::parse("{name}.{schema}.{table}").unwrap(),
        default_schema: "main",
        memory_bytes: 32 << 20,
        checkpoint_interval: Duration::from_millis(500),
        shutdown_deadline: Duration::from_secs(20),
        prefeed_slice: Duration::from_mins(1),
        prefeed_bytes_per_second: None,
        takeover_timeout: Duration::from_secs(1),
        on_gap: OnGap::Stop,
        accept_config_change: false,
        restart: RestartPolicy::default(),
    };
    let sink = Willing { confirmed: Arc::clone(&confirmed) };
    let pipeline = Pipeline::new(settings, Endless, sink, Memory(None), Metrics::new("bench"), Arc::new(Health::default()));
    let stop = CancellationToken::new();
    let (started, before) = (Instant::now(), processor());
    let running = tokio::spawn(pipeline.run(stop.clone()));
    while confirmed.load(Ordering::Relaxed) < EVENTS {
        assert!(!running.is_finished(), "the pipeline ended by itself");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (took, used) = (started.elapsed(), processor() - before);
    let carried = u32::try_from(confirmed.load(Ordering::Relaxed)).unwrap();
    stop.cancel();
    running.await.unwrap();
    (f64::from(carried) / took.as_secs_f64(), used * 1e6 / f64::from(carried))
}

/// Seconds of processor time of this process, proc(5).
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Classify for Never {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }
    fn code(&self) -> Code {
        Code::SourceProtocol
    }
}

struct Endless;

struct Log(u64);

impl Source for Log {
    type Error = Never;
    fn sightings(&mut self) -> Vec<Sighting> {
        Vec::new()
    }

    const HEARTBEAT: Duration = Duration::from_secs(10);

    async fn fill(&mut self, out: &mut BatchWriter, _until: Option<&ResumeToken>) -> Result<Filled, Never> {
        tokio::task::yield_now().await;
        while !out.is_full() {
            let timestamp = Timestamp::now();
            for _ in 0..100 {
                self.0 += 1;
                let mut record = out.begin(Head { feed: FeedId(0), operation: Operation::Insert, timestamp });
                let mut number = itoa::Buffer::new();
                record.arena().extend_from_slice(number.format(self.0).as_bytes());
                record.end_id();
                record.arena().extend_from_slice(KEY);
                record.end_key();
                record.arena().extend_from_slice(&BODY);
                record.end(Ending::Closed, false).map_err(|_| Never)?;
            }
        }
        Ok(Filled::Full)
    }

    fn token(&self) -> ResumeToken {
        ResumeToken(self.0.to_string().into())
    }

    fn start(&mut self, _feed: FeedId, _start: &ResumeToken) {}

    async fn acknowledge(&mut self, _durable: Option<&ResumeToken>) -> Result<(), Never> {
        Ok(())
    }
}

impl SourceConnector for Endless {
    type Source = Log;
    type Prefeed = Nothing;
    type Probe = Nothing;
    type Error = Never;

    async fn catalogue(&mut self) -> Result<Catalogue, Never> {
        let key: Arc<str> = "id".into();
        let table = Table {
            schema: "main".into(),
            name: "event".into(),
            primary_key: vec![key.clone()],
            columns: vec![key],
            leaves_values_out: false,
        };
        Ok(Catalogue { database: "bench".into(), tables: vec![table] })
    }
    async fn identity(&mut self) -> Result<Identity, Never> {
        Ok(Identity::new())
    }
    async fn recognize(&mut self, _known: &Identity) -> Result<(), Never> {
        Ok(())
    }

    fn select(&mut self, _feeds: Arc<Feeds>) {}
    async fn verify(&mut self) -> Result<(), Vec<Never>> {
        Ok(())
    }
    async fn foresee(&mut self) -> Result<Foresight, Never> {
        Ok(Foresight::default())
    }

    async fn unclaimed(&mut self) -> Result<(), Never> {
        Ok(())
    }
    async fn resumable(&mut self, _known: &Identity, _resume: &Resume) -> Result<(), Never> {
        Ok(())
    }
    async fn establish(&mut self) -> Result<ResumeToken, Never> {
        Ok(ResumeToken("0".into()))
    }
    async fn connect(&mut self, _known: &Identity, _resume: &Resume) -> Result<Log, Never> {
        Ok(Log(0))
    }
    async fn renew(&mut self, _known: &Identity, lost: &Resume) -> Result<Renewed, Never> {
        Ok(Renewed { token: lost.token.clone(), feeds: Vec::new() })
    }

    fn skips(&self, _stored: &ResumeToken, _token: &ResumeToken) -> Result<bool, Never> {
        Ok(false)
    }
    async fn prefeed(&mut self) -> Result<Nothing, Never> {
        Ok(Nothing)
    }
    async fn probe(&mut self) -> Result<Nothing, Never> {
        Ok(Nothing)
    }
    async fn detach(&mut self) -> Result<Vec<String>, Never> {
        Ok(Vec::new())
    }
}

struct Nothing;

impl Prefeed for Nothing {
    type Error = Never;
    const SLICE_MAX: Duration = Duration::from_secs(1);

    async fn reset(&mut self, _feed: FeedId, _cut: &Cut, _slice: &mut Slice, _out: &mut BatchWriter) -> Result<(), Never> {
        Err(Never)
    }

    async fn load(
        &mut self,
        _feed: FeedId,
        _cut: &Cut,
        _after: Option<&ScanPosition>,
        _slice: &mut Slice,
        _out: &mut BatchWriter,
    ) -> Result<Scanned, Never> {
        Err(Never)
    }

    async fn open(&mut self, _feeds: &[ToRead], _within: Duration) -> Result<Opened, Never> {
        Err(Never)
    }
    async fn scan(&mut self, _: FeedId, _: Option<&ScanPosition>, _: &mut Slice, _: &mut BatchWriter) -> Result<Scanned, Never> {
        Err(Never)
    }
    async fn is_waited_for(&mut self) -> Result<bool, Never> {
        Ok(false)
    }
    async fn close(&mut self) -> Result<(), Never> {
        Ok(())
    }
    async fn expected_rows(&mut self, _feed: FeedId) -> Result<Option<u64>, Never> {
        Ok(None)
    }
}

impl Probe for Nothing {
    type Error = Never;

    async fn head(&mut self, _confirmed: &ResumeToken) -> Result<feedline::source::Head, Never> {
        Ok(feedline::source::Head::default())
    }
}

struct Willing {
    confirmed: Arc<AtomicU64>,
}

struct Session(Arc<AtomicU64>);

impl Sink for Session {
    type Error = Never;

    async fn submit(&mut self, batch: Arc<Batch>, receipt: Receipt) -> Result<(), Never> {
        // One by one, as a client's delivery reports come.
        for _ in 0..batch.len() {
            receipt.confirm(1);
        }
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
    fn failure(&mut self) -> Never {
        Never
    }
    async fn close(self) -> Result<(), Never> {
        Ok(())
    }
}

impl SinkConnector for Willing {
    type Sink = Session;
    type Error = Never;

    fn select(&mut self, _feeds: Arc<Feeds>) {}
    async fn identity(&mut self) -> Result<Identity, Never> {
        Ok(Identity::from([("broker".to_owned(), "willing".to_owned())]))
    }
    async fn verify(&mut self) -> Result<Identity, Never> {
        self.identity().await
    }
    async fn foresee(&mut self) -> Result<feedline::foresight::Foresight, Never> {
        Ok(feedline::foresight::Foresight::default())
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Never> {
        Ok((Session(Arc::clone(&self.confirmed)), self.verify().await?))
    }
}

struct Memory(Option<Checkpoint>);

impl CheckpointStore for Memory {
    type Error = Never;

    async fn load(&mut self) -> Result<Option<Checkpoint>, Never> {
        Ok(self.0.clone())
    }
    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Never> {
        self.0 = Some(checkpoint.clone());
        Ok(())
    }
    async fn remove(&mut self) -> Result<bool, Never> {
        Ok(self.0.take().is_some())
    }
}
