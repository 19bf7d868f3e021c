//! Rows of a real PostgreSQL server, read and written down as events.

use crate::counted;
use feedline::{
    batch::Budget,
    batch::Seq,
    checkpoint::{FeedState, Progress},
    event::{FeedId, Operation, Operations},
    feed::{Feed, Feeds, PrefeedKind, feed_name},
    format::{Encoders, Envelope, Format},
    net::{RequireAuth, TlsMode, Trust},
    source::{
        Emission, Emitter, Resume, Source as _, SourceConnector as _,
        postgres::{Connector, Log, OnAddedDefault, Options, SameServer, Token},
    },
    status::metrics::Metrics,
};
use std::{process::Command, sync::Arc};
use tokio::runtime::Runtime;

const TABLE: &str =
    "CREATE TABLE event (id bigint PRIMARY KEY, customer int, status text, amount numeric(12,2), note text, sent_us bigint)";

/// Reads a number of transactions of a number of rows each. All are written before the first is read: the count depends on how much
/// arrives at once, and callgrind is slower than the server.
pub(crate) fn carry(runtime: &Runtime, port: u16, transactions: u64, rows: u64) -> u64 {
    let database = format!("rows_{rows}");
    psql(port, "postgres", &format!("CREATE DATABASE {database}"));
    psql(port, &database, TABLE);
    let mut connector = connector(port, &database);
    let (identity, token) = runtime.block_on(async { (connector.identity().await.unwrap(), connector.establish().await.unwrap()) });
    let write = format!(
        "DO $$ BEGIN FOR t IN 0..{transactions} - 1 LOOP \
         INSERT INTO event SELECT g, g % 1000, 'paid', (g % 10000) / 100.0, repeat(md5(g::text), 5), 0 \
         FROM generate_series(t * {rows}, (t + 1) * {rows} - 1) g; COMMIT; END LOOP; END $$"
    );
    psql(port, &database, &write);
    let resume = Resume { token: token.clone(), feeds: vec![FeedState::Live { start: token }], layouts: Vec::new() };
    let mut log = runtime.block_on(connector.connect(&identity, &resume)).unwrap();
    let envelope = Envelope { name: "bench".into(), backend: "postgres", database: database.into(), tombstones: false };
    let encoders = Encoders::new(Format::Json(Arc::new(envelope)));
    let mut emission = Emission::new(encoders, feeds(), &resume.feeds, Metrics::new("bench").source).unwrap();
    counted(runtime, Box::pin(read(&mut log, &mut emission, transactions * rows)));
    transactions * rows
}

/// Reads batch after batch, as the engine does.
async fn read(log: &mut Log, emission: &mut Emission<Token>, events: u64) {
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

fn connector(port: u16, database: &str) -> Connector {
    let options = Options {
        host: "127.0.0.1".to_owned(),
        port,
        user: "postgres".to_owned(),
        password: None,
        database: database.to_owned(),
        trust: Trust { mode: TlsMode::Disable, section: "source", ..Trust::default() },
        slot: database.to_owned(),
        publication: database.to_owned(),
        manage: true,
        prefeed_readers: 1,
        require_auth: RequireAuth::Scram,
        on_added_default: OnAddedDefault::Prefeed,
        pipeline: "bench".into(),
        server: SameServer::default(),
    };
    let mut connector = Connector::new(options, Metrics::new("bench").source);
    connector.select(feeds());
    connector
}

/// The feed of the one table.
pub(crate) fn feeds() -> Arc<Feeds> {
    Arc::new(Feeds::new(vec![Feed {
        id: FeedId(0),
        name: feed_name("public", "event"),
        schema: "public".into(),
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

fn psql(port: u16, database: &str, statements: &str) {
    let ran = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "-d", database])
        .args(["-c", statements])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{statements}: {}", String::from_utf8_lossy(&ran.stderr));
}
