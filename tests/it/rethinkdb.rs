//! The RethinkDB source, against a scripted server that speaks as a real one was recorded to.

use crate::contract_source::{self, Stream, TIMEOUT, Taken, feed, feeds, head, live, scan_all, verify};
use crate::servers::rethinkdb::RethinkDb;
use feedline::checkpoint::{Identity, ResumeToken};
use feedline::event::{FeedId, Operations};
use feedline::fault::{Classify as _, Code, Fault};
use feedline::feed::Feeds;
use feedline::net::{TlsMode, Trust, secret::Secret};
use feedline::source::rethinkdb::{Connector, Error, FeedEnd, Log, LogProbe, Options};
use feedline::source::{Prefeed as _, Probe as _, SourceConnector as _};
use feedline::status::metrics::Metrics;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

mod contract;
mod crashes;
mod documents;
mod faults;
mod identity;
mod login;
mod restarts;

/// A server, and the file of a store that ends with it.
pub(crate) struct World {
    pub(crate) server: RethinkDb,
    store: PathBuf,
}

impl World {
    pub(crate) fn new(tables: &[&str]) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let store = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rethinkdb-{}-{made}.store", std::process::id()));
        let server = RethinkDb::start();
        for table in tables {
            server.create_table(table, "id");
        }
        Self { server, store }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            host: "127.0.0.1".to_owned(),
            port: self.server.port(),
            user: "admin".to_owned(),
            password: None,
            database: "test".to_owned(),
            trust: Trust { mode: TlsMode::Disable, ca_file: None, client: None, section: "source" },
            store: self.store.clone(),
            store_log_max_bytes: 1 << 30,
            queue_size: 1000,
            pipeline: "shop".into(),
        }
    }

    /// A connector as a new process would make one.
    pub(crate) fn connector(&self) -> Connector {
        connector(self.options())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        remove(&self.store);
    }
}

/// Removes a store, which is there only if the test came so far.
fn remove(store: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{suffix}", store.display())));
    }
}

fn connector(options: Options) -> Connector {
    Connector::new(options, Metrics::new("shop").source)
}

/// A pipeline's source side over one table.
pub(crate) struct Side {
    pub(crate) connector: Connector,
    feeds: Arc<Feeds>,
    known: Identity,
    begin: ResumeToken,
}

impl Side {
    /// A first start.
    async fn first(world: &World, table: &str) -> Self {
        Self::started(world.connector(), table).await
    }

    /// The same with this connector.
    async fn started(connector: Connector, table: &str) -> Self {
        let mut side = Self::with(connector, table);
        verify(&mut side.connector).await.expect("the table can be followed");
        side.connector.unclaimed().await.expect("nothing is there");
        side.begin = side.connector.establish().await.expect("the store is made");
        side.known = side.connector.identity().await.expect("the database is known");
        assert!(!side.known.is_empty());
        side
    }

    fn process(world: &World, table: &str) -> Self {
        Self::with(world.connector(), table)
    }

    fn with(mut connector: Connector, table: &str) -> Self {
        let feeds = feeds(vec![feed("test", table, &["id"], Operations::ALL)]);
        connector.select(Arc::clone(&feeds));
        Self { connector, feeds, known: Identity::new(), begin: ResumeToken("".into()) }
    }

    /// The next process of the same pipeline.
    fn next(self, world: &World, table: &str) -> Self {
        let Self { known, begin, connector, .. } = self;
        drop(connector);
        Self { known, begin, ..Self::process(world, table) }
    }

    /// Opens the log at a token.
    async fn connect(&mut self, token: &ResumeToken) -> Stream<Log> {
        let resume = live(token, &self.begin, 1);
        let log = self.connector.connect(&self.known, &resume).await.expect("the log opens");
        Stream::new(log, &self.feeds, &resume, 64 * 1024)
    }

    /// Folds the log from a token on into the state of a reader.
    async fn fold(&mut self, from: &ResumeToken, state: &mut BTreeMap<String, Value>) -> ResumeToken {
        let end = head(&mut self.connector).await;
        let mut stream = self.connect(from).await;
        for batch in stream.batches(&end).await {
            batch.records.iter().for_each(|taken| take(state, taken));
        }
        end
    }
}

/// Takes an event as a reader does that keeps rows by key.
fn take(state: &mut BTreeMap<String, Value>, taken: &Taken) {
    let after = taken.field("after");
    if after.is_null() {
        state.remove(&taken.key)
    } else {
        state.insert(taken.key.clone(), after)
    };
}

/// What a reader of everything holds.
fn expected(world: &World, table: &str) -> BTreeMap<String, Value> {
    world.server.documents(table).into_values().map(|document| (json!({"id": document["id"]}).to_string(), document)).collect()
}

/// Waits until the store holds what the table does, and returns what a reader holds then.
async fn caught_up(
    side: &mut Side,
    world: &World,
    table: &str,
    from: &ResumeToken,
    mut state: BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    let (mut at, deadline) = (from.clone(), Instant::now() + TIMEOUT);
    loop {
        at = side.fold(&at, &mut state).await;
        if state == expected(world, table) {
            return state;
        }
        assert!(Instant::now() < deadline, "{state:?} is not {:?}", expected(world, table));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The rows that a reader has after the prefeed.
async fn rows(side: &mut Side) -> BTreeMap<String, Value> {
    let mut state = BTreeMap::new();
    scan_all(&mut side.connector, FeedId(0), 4096, false).await.iter().for_each(|row| take(&mut state, row));
    state
}

fn fill(world: &World, ids: std::ops::Range<u32>, note: &str) {
    ids.for_each(|id| world.server.put("t", &json!({"id": id, "note": note})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_first_then_each_change_with_its_document() {
    let world = World::new(&["t5"]);
    for id in 1..=5 {
        world.server.put("t5", &json!({"id": id, "v": 10 * id}));
    }
    let mut side = Side::first(&world, "t5").await;
    world.server.settle("t5");
    let mut prefeed = side.connector.prefeed().await.unwrap();
    assert_eq!(prefeed.expected_rows(FeedId(0)).await.unwrap(), Some(5));
    let rows = scan_all(&mut side.connector, FeedId(0), 1024, true).await;
    let read: Vec<_> = rows.iter().map(|row| row.field("after")).collect();
    assert_eq!(read, (1..=5).map(|id| json!({"id": id, "v": 10 * id})).collect::<Vec<_>>());
    let cut = head(&mut side.connector).await;
    world.server.put("t5", &json!({"id": 6, "v": 60}));
    world.server.put("t5", &json!({"id": 6, "nested": {"a": [1, 2, {"b": null}]}, "v": 61}));
    world.server.put("t5", &json!({"id": 6, "w": "x"}));
    world.server.remove("t5", &json!(6));
    let mut stream = side.connect(&cut).await;
    let taken = stream.take(4).await;
    assert_eq!(
        taken.iter().map(Taken::brief).collect::<Vec<_>>(),
        ["insert {\"id\":6}", "update {\"id\":6}", "update {\"id\":6}", "delete {\"id\":6}"]
    );
    assert_eq!(taken[1].field("before"), json!({"id": 6, "v": 60}));
    assert_eq!(taken[2].field("after"), json!({"id": 6, "w": "x"}), "a field that is gone is not in the event");
    assert_eq!(taken[3].field("before"), json!({"id": 6, "w": "x"}));
    // The same events, byte for byte, as a process writes them that saw none of the rows before.
    let mut side = side.next(&world, "t5");
    let mut stream = side.connect(&cut).await;
    assert_eq!(stream.take(4).await, taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_problem_is_found_before_the_start() {
    let world = World::new(&["orders"]);
    world.server.create_table("other", "name");
    let missing = feed("test", "nope", &["id"], Operations::ALL);
    let keyed = feed("test", "other", &["id"], Operations::ALL);
    let mut connector = world.connector();
    connector.select(feeds(vec![feed("test", "orders", &["id"], Operations::ALL), missing, keyed]));
    let errors = verify(&mut connector).await.unwrap_err();
    contract_source::assert_found(&errors, &[(Code::TableChanged, &["test.nope"]), (Code::TableKeyless, &["test.other", "\"name\""])]);
    let catalogue = connector.catalogue().await.unwrap();
    let tables: Vec<_> = catalogue.tables.iter().map(|table| (&*table.schema, &*table.name, &*table.primary_key[0])).collect();
    assert_eq!(tables, [("test", "orders", "id"), ("test", "other", "name")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_is_caught_up_only_while_the_server_is_heard() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    let mut probe = side.connector.probe().await.unwrap();
    wait_until_caught_up(&mut probe, &side.begin).await;
    world.server.put("t", &json!({"id": 1}));
    world.server.settle("t");
    assert!(!probe.head(&side.begin).await.unwrap().caught_up, "a change is not confirmed");
    let end = head(&mut side.connector).await;
    wait_until_caught_up(&mut probe, &end).await;
    world.server.freeze(true);
    assert!(!probe.head(&end).await.unwrap().caught_up, "it has not answered");
    world.server.freeze(false);
    wait_until_caught_up(&mut probe, &end).await;
    world.server.kill();
    let deadline = Instant::now() + TIMEOUT;
    while probe.head(&end).await.unwrap().caught_up {
        assert!(Instant::now() < deadline, "nobody sees what changes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Stores a frame only when it is let: nobody may take the log's end for the server's meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_received_and_not_stored_is_not_caught_up() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    let mut probe = side.connector.probe().await.unwrap();
    wait_until_caught_up(&mut probe, &side.begin).await;
    for id in 0..3 {
        let end = head(&mut side.connector).await;
        let lock = rusqlite::Connection::open(&world.store).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        world.server.put("t", &json!({"id": id}));
        let found = probe.head(&end).await.unwrap();
        assert!(!found.caught_up && found.reached_at.is_some(), "{found:?}");
        drop(lock);
        world.server.settle("t");
        assert!(!probe.head(&end).await.unwrap().caught_up);
        wait_until_caught_up(&mut probe, &head(&mut side.connector).await).await;
    }
}

/// A reader is never at the end of such a log. That it was at an earlier end bounds how far it is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_written_to_all_the_time_has_a_bounded_lag() {
    let world = Arc::new(World::new(&["t"]));
    let mut side = Side::first(&world, "t").await;
    let mut probe = side.connector.probe().await.unwrap();
    wait_until_caught_up(&mut probe, &side.begin).await;
    let (ended, written) = (Arc::new(AtomicU32::new(0)), Arc::clone(&world));
    let is_ended = Arc::clone(&ended);
    let writer = std::thread::spawn(move || {
        for id in 0.. {
            written.server.put("t", &json!({"id": id % 100, "version": id}));
            std::thread::sleep(Duration::from_millis(1));
            if is_ended.load(Ordering::Relaxed) == 1 {
                break;
            }
        }
    });
    let deadline = Instant::now() + TIMEOUT;
    for round in 0..3 {
        let since = tokio::time::Instant::now();
        // The log goes on between these two looks.
        loop {
            let confirmed = head(&mut side.connector).await;
            let found = probe.head(&confirmed).await.unwrap();
            if found.reached_at.is_some_and(|reached_at| since <= reached_at) {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {found:?}");
        }
    }
    ended.store(1, Ordering::Relaxed);
    writer.join().unwrap();
}

async fn wait_until_caught_up(probe: &mut LogProbe, at: &ResumeToken) {
    let deadline = Instant::now() + TIMEOUT;
    while !probe.head(at).await.unwrap().caught_up {
        assert!(Instant::now() < deadline, "nothing is behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
