//! A source that copies one event again and again, a sink that confirms at once, and the real engine between them.

use feedline::batch::{Ack, Batch};
use feedline::checkpoint::{Checkpoint, CheckpointStore, Identity, ResumeToken, ScanPosition};
use feedline::event::{Cell, Column, ColumnKind, FeedId, Operation, Operations, Relation, Row, RowError, Timestamp};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::resolve::FeedRule;
use feedline::feed::route::Template;
use feedline::feed::{Catalogue, Feeds, PrefeedKind, Selection, Table, TableName};
use feedline::format::{Envelope, Format};
use feedline::pipeline::restart::RestartPolicy;
use feedline::pipeline::{OnGap, Pipeline, Settings};
use feedline::preflight::Findings;
use feedline::sink::{Sink, SinkConnector};
use feedline::source::{
    Definition, Emission, Emitter, Filled, LogToken, Opened, Prefeed, Probe, Renewed, Resume, RowEmitter, Scanned, Source, SourceConnector,
    SourceProgress, ToRead,
};
use feedline::status::Publisher;
use feedline::status::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Makes an event as large as one of a table with several columns.
const NOTE: &str = match std::str::from_utf8(&[b'x'; 300]) {
    Ok(note) => note,
    Err(_) => unreachable!(),
};

/// Carries this many events, or a few more. Returns how many.
pub(crate) async fn carry(events: u64) -> u64 {
    let (confirmed, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let sink = Confirming { confirmed: Arc::clone(&confirmed), events, stop: stop.clone() };
    let pipeline = Pipeline::new(settings(), Endless, sink, Memory(None), Metrics::new("bench"), Publisher::default(), None);
    pipeline.run(stop).await;
    let carried = confirmed.load(Ordering::Relaxed);
    assert!(events <= carried, "the pipeline ended by itself");
    carried
}

fn settings() -> Settings {
    let rule = FeedRule {
        tables: Selection::parse(&["event"]).unwrap(),
        operations: Operations::ALL,
        prefeed: PrefeedKind::None,
        stage: 1,
        key: None,
        route: None,
    };
    Settings {
        name: "bench".into(),
        configuration: "1".to_owned(),
        rules: vec![rule],
        route: Template::parse("{name}.{schema}.{table}").unwrap(),
        format: Format::Json(Arc::new(Envelope { name: "bench".into(), backend: "bench", database: "bench".into(), tombstones: false })),
        default_schema: "main".into(),
        memory_bytes: 32 << 20,
        checkpoint_interval: Duration::from_millis(500),
        shutdown_deadline: Duration::from_secs(20),
        prefeed_slice: Duration::from_mins(1),
        prefeed_bytes_per_second: None,
        takeover_timeout: Duration::from_secs(1),
        on_gap: OnGap::Stop,
        accept_config_change: false,
        restart: RestartPolicy::default(),
    }
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

struct Log {
    number: u64,
    definition: Option<Definition>,
}

impl Source for Log {
    type Error = Never;
    type Token = Number;

    const HEARTBEAT: Duration = Duration::from_secs(10);

    async fn fill(&mut self, out: &mut Emitter<'_, Number>, _until: Option<&Number>) -> Result<Filled, Never> {
        tokio::task::yield_now().await;
        let definition = match &self.definition {
            Some(definition) => definition.clone(),
            None => self.definition.insert(out.prepare(&relation()).await.map_err(|_| Never)?).clone(),
        };
        while !out.is_full() {
            let timestamp = Timestamp::now();
            for _ in 0..100 {
                self.number += 1;
                let mut prefix = *b"0000000000000000";
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(self.number).as_bytes();
                prefix[16 - digits.len()..].copy_from_slice(digits);
                out.go_to(&prefix, timestamp);
                if let Some(admitted) = out.admit(&definition, Operation::Insert, self.number, 0) {
                    admitted.insert(Wide).map_err(|_| Never)?;
                }
            }
        }
        Ok(Filled::Full)
    }

    fn progress(&mut self, _written: &Emission<Number>) -> SourceProgress {
        SourceProgress { token: ResumeToken(self.number.to_string().into()), table_changes: Vec::new() }
    }

    async fn acknowledge(&mut self, _durable: Option<&Number>, _written: &Emission<Number>) -> Result<(), Never> {
        Ok(())
    }
}

/// The number of an event.
#[derive(Clone, Copy)]
struct Number(u64);

impl LogToken for Number {
    type Error = Never;
    type Change = u64;

    fn parse(token: &ResumeToken) -> Result<Self, Never> {
        token.0.parse().map(Self).map_err(|_| Never)
    }

    fn is_before(&self, other: &Self) -> bool {
        self.0 < other.0
    }

    fn admits(&self, number: u64) -> bool {
        self.0 <= number
    }

    fn position_prefix(&self) -> String {
        format!("{:016}", self.0)
    }
}

/// A row of some hundred bytes.
#[derive(Clone, Copy)]
struct Wide;

impl Row for Wide {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        visit(Cell::Integer("1234567"))?;
        visit(Cell::Text(NOTE))
    }
}

fn relation() -> Relation {
    let column = |name: &str, key| Column::new(name, ColumnKind::Any, key);
    Relation { feed: FeedId(0), schema: "main".into(), table: "event".into(), columns: vec![column("id", true), column("note", false)] }
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
        Ok(Catalogue { database: "bench".into(), tables: vec![table], views: Vec::new() })
    }
    async fn identity(&mut self) -> Result<Identity, Never> {
        Ok(Identity::new())
    }
    async fn recognize(&mut self, _known: &Identity) -> Result<(), Never> {
        Ok(())
    }

    fn select(&mut self, _feeds: Arc<Feeds>) {}
    async fn preflight(&mut self) -> Result<Findings, Never> {
        Ok(Findings::default())
    }

    async fn establish(&mut self) -> Result<ResumeToken, Never> {
        Ok(ResumeToken("0".into()))
    }
    async fn connect(&mut self, _known: &Identity, _resume: &Resume) -> Result<Log, Never> {
        Ok(Log { number: 0, definition: None })
    }
    async fn renew(&mut self, _known: &Identity, lost: &Resume) -> Result<Renewed, Never> {
        Ok(Renewed { token: lost.token.clone(), feeds: Vec::new() })
    }

    async fn prefeed(&mut self) -> Result<Nothing, Never> {
        Ok(Nothing)
    }
    async fn probe(&mut self) -> Result<Nothing, Never> {
        Ok(Nothing)
    }
}

struct Nothing;

impl Prefeed for Nothing {
    type Error = Never;
    const SLICE_MAX: Duration = Duration::from_secs(1);

    async fn open(&mut self, _feeds: &[ToRead], _within: Duration) -> Result<Opened, Never> {
        Err(Never)
    }
    async fn scan(&mut self, _: FeedId, _: Option<&ScanPosition>, _: &mut RowEmitter<'_>) -> Result<Scanned, Never> {
        Err(Never)
    }
    async fn close(&mut self) -> Result<(), Never> {
        Ok(())
    }
}

impl Probe for Nothing {
    type Error = Never;

    async fn head(&mut self, _confirmed: &ResumeToken) -> Result<feedline::status::LogHead, Never> {
        Ok(feedline::status::LogHead::default())
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Never> {
        Ok(Vec::new())
    }
}

/// Confirms all, and stops the pipeline when it has confirmed enough.
#[derive(Clone)]
struct Confirming {
    confirmed: Arc<AtomicU64>,
    events: u64,
    stop: CancellationToken,
}

struct Session(Confirming);

impl Sink for Session {
    type Error = Never;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Never> {
        // One by one, as a client's delivery reports come.
        for _ in 0..batch.len() {
            ack.confirm(1);
        }
        let records = batch.len() as u64;
        if self.0.events <= self.0.confirmed.fetch_add(records, Ordering::Relaxed) + records {
            self.0.stop.cancel();
        }
        Ok(())
    }
    fn failure(&mut self) -> Never {
        Never
    }
    async fn close(self) -> Result<(), Never> {
        Ok(())
    }
}

impl SinkConnector for Confirming {
    type Sink = Session;
    type Error = Never;

    fn select(&mut self, _feeds: Arc<Feeds>) {}
    async fn recognize(&mut self, known: &Identity) -> Result<Identity, Never> {
        Ok(known.clone())
    }
    async fn establish(&mut self) -> Result<Identity, Never> {
        Ok(Identity::from([("broker".to_owned(), "confirming".to_owned())]))
    }
    async fn preflight(&mut self) -> Result<Findings, Never> {
        Ok(Findings::default())
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Never> {
        Ok((Session(self.clone()), self.establish().await?))
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
