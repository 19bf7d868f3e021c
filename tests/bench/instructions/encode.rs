//! Rows of a real server's log, read and written down as events.

pub(crate) mod mysql;
pub(crate) mod postgres;

use crate::counted;
use feedline::{
    batch::{Budget, Seq},
    checkpoint::{FeedState, Progress},
    event::{FeedId, Operation, Operations},
    feed::{Feed, Feeds, PrefeedKind, feed_name},
    format::{Encoders, Envelope, Format},
    source::{Emission, Emitter, Resume, Source, SourceConnector},
    status::metrics::Metrics,
};
use std::{process::Command, sync::Arc};
use tokio::runtime::Runtime;

/// How many transactions of how many rows each.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) transactions: u64,
    pub(crate) rows: u64,
}

impl Shape {
    const fn events(self) -> u64 {
        self.transactions * self.rows
    }
}

/// Reads what `write` writes. All is written before the first row is read: the count depends on how much arrives at once, and callgrind is
/// slower than the server.
fn carry<C: SourceConnector>(runtime: &Runtime, mut connector: C, source: (&'static str, &str), shape: Shape, write: impl FnOnce()) -> u64 {
    let (backend, schema) = source;
    let feeds = feeds(schema);
    connector.select(Arc::clone(&feeds));
    let (identity, token) = runtime.block_on(async { (connector.identity().await.unwrap(), connector.establish().await.unwrap()) });
    write();
    let resume = Resume { token: token.clone(), feeds: vec![FeedState::Live { start: token }], layouts: vec![None] };
    let mut log = runtime.block_on(connector.connect(&identity, &resume)).unwrap();
    let envelope = Envelope { name: "bench".into(), backend, database: "bench".into(), tombstones: false };
    let encoders = Encoders::new(Format::Json(Arc::new(envelope)));
    let mut emission = Emission::new(encoders, feeds, &resume.feeds, Metrics::new("bench").source).unwrap();
    counted(runtime, Box::pin(read(&mut log, &mut emission, shape.events())));
    shape.events()
}

/// Reads batch after batch, as the engine does.
async fn read<S: Source>(log: &mut S, emission: &mut Emission<S::Token>, events: u64) {
    let budget = Budget::new(8 << 20, 1 << 20);
    let (mut read, mut open) = (0, None);
    while read < events {
        let mut out = budget.writer().await;
        if let Some(open) = open.take() {
            out.adopt(&open);
        }
        log.fill(&mut Emitter::new(emission, &mut out), None).await.unwrap();
        let (batch, rest) = out.seal(Seq(1), Progress::live(log.progress(emission).token));
        (read, open) = (read + batch.len() as u64, rest);
    }
    assert_eq!(read, events);
}

/// The feed of the one table.
pub(crate) fn feeds(schema: &str) -> Arc<Feeds> {
    Arc::new(Feeds::new(vec![Feed {
        id: FeedId(0),
        name: feed_name(schema, "event"),
        schema: schema.into(),
        table: "event".into(),
        operations: Operations::ALL,
        prefeed: PrefeedKind::None,
        stage: 1,
        key: vec!["id".into()],
        columns: Vec::new(),
        leaves_values_out: false,
        destinations: std::array::from_fn::<_, { Operation::ALL.len() }, _>(|_| "bench.public.event".into()),
    }]))
}

/// Runs a client to its end.
fn run(client: &mut Command) {
    let ran = client.output().unwrap();
    assert!(ran.status.success(), "{client:?}: {}", String::from_utf8_lossy(&ran.stderr));
}
