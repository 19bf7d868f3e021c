//! A shop of documents in the MongoDB or RethinkDB of the tests, and writers that change them.

use crate::servers::{mongodb::MongoDb, rethinkdb::RethinkDb};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// The tables of `tests/checker/shop.py` whose key is one field.
const TABLES: [&str; 4] = ["acct", "churn", "gone", "ledger"];
/// Those that writers change.
const CHANGED: [&str; 4] = ["acct", "acct", "churn", "gone"];

/// What the writers are told.
const WRITE: u8 = 0;
const SLOWLY: u8 = 1;
const END: u8 = 2;

/// What a writer does to a document. Its key is the field `id`.
enum Change {
    /// It is added, or replaces the one with its key.
    Put(&'static str, Value),
    Remove(&'static str, Value),
}

/// Where the documents are.
#[derive(Clone)]
pub(crate) enum Server {
    /// With the name of the database.
    MongoDb(Arc<MongoDb>, String),
    RethinkDb(Arc<RethinkDb>),
}

impl Server {
    fn create_table(&self, table: &str) {
        match self {
            Self::MongoDb(server, database) => server.create(database, table),
            Self::RethinkDb(server) => server.create_table(table, "id"),
        }
    }

    /// Adds the first documents of a table.
    fn fill(&self, table: &str, documents: &[Value]) {
        match self {
            Self::MongoDb(server, database) => {
                let documents: Vec<Value> = documents.iter().map(keyed_for_mongodb).collect();
                documents.chunks(500).for_each(|some| server.insert(database, table, some));
            }
            Self::RethinkDb(server) => documents.iter().for_each(|document| server.put(table, document)),
        }
    }

    /// Makes changes: in MongoDB in one transaction.
    fn change(&self, changes: &[Change]) {
        match self {
            Self::MongoDb(server, database) => {
                let command = |change: &Change| match change {
                    Change::Put(table, document) => {
                        let document = keyed_for_mongodb(document);
                        json!({"update": table, "updates": [{"q": {"_id": document["_id"]}, "u": document, "upsert": true}]})
                    }
                    Change::Remove(table, id) => json!({"delete": table, "deletes": [{"q": {"_id": id}, "limit": 1}]}),
                };
                server.transaction(database, &changes.iter().map(command).collect::<Vec<_>>());
            }
            Self::RethinkDb(server) => {
                for change in changes {
                    match change {
                        Change::Put(table, document) => server.put(table, document),
                        Change::Remove(table, id) => server.remove(table, id),
                    }
                }
            }
        }
    }

    fn documents(&self, table: &str) -> Vec<Value> {
        match self {
            Self::MongoDb(server, database) => {
                let reply = server.run(database, &json!({"find": table, "batchSize": 1_000_000, "singleBatch": true}));
                let mut documents = reply["cursor"]["firstBatch"].as_array().expect("the server shows documents").clone();
                for document in &mut documents {
                    let fields = document.as_object_mut().expect("a document has fields");
                    let id = fields.remove("_id").expect("a document has a key");
                    fields.insert("id".to_owned(), id);
                }
                documents
            }
            Self::RethinkDb(server) => server.documents(table).into_values().collect(),
        }
    }
}

/// MongoDB's key is the field `_id`.
fn keyed_for_mongodb(document: &Value) -> Value {
    let mut document = document.clone();
    let fields = document.as_object_mut().expect("a document has fields");
    let id = fields.remove("id").expect("a document has a key");
    fields.insert("_id".to_owned(), id);
    document
}

/// The shop.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) server: Server,
    /// Where its documents are written down for the checker.
    rows: PathBuf,
}

impl Shop {
    /// On this server. `rows` is a file that is to be written.
    pub(crate) fn new(server: Server, rows: PathBuf) -> Self {
        for table in TABLES {
            server.create_table(table);
        }
        Self { server, rows }
    }

    /// Makes the first documents.
    pub(crate) fn create(&self, rows: u32, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        for (table, ids) in first_ids(rows) {
            let documents: Vec<Value> = ids.map(|id| document(id, 1, &mut random)).collect();
            self.server.fill(table, &documents);
        }
        self.server.change(&[ledger("before", 1)]);
    }

    /// Writes the change by which the end is known.
    pub(crate) fn write_last(&self) {
        self.server.change(&[ledger("last", 1)]);
    }

    /// The file with the documents as they are now.
    pub(crate) fn written_down(&self) -> PathBuf {
        let rows: BTreeMap<_, Vec<Value>> = TABLES.iter().map(|table| (table, self.server.documents(table))).collect();
        fs::write(&self.rows, serde_json::to_string(&rows).expect("documents are JSON")).expect("write the documents down");
        self.rows.clone()
    }
}

/// The keys of the first documents, where so many are asked for.
fn first_ids(rows: u32) -> [(&'static str, std::ops::Range<u64>); 3] {
    let rows = u64::from(rows);
    let few = rows / 20;
    [("acct", 1..rows + 1), ("churn", rows + 1..rows + few + 1), ("gone", rows + few + 1..rows + 2 * few + 1)]
}

fn document(id: u64, version: u64, random: &mut fastrand::Rng) -> Value {
    let note = ["plain", "quote \" back \\ slash", "snow \u{2603} \u{1f600}", "nul \u{0}"][random.usize(..4)];
    let long = "x".repeat([0, 20, 3_000][random.usize(..3)]);
    json!({"id": id, "ver": version, "note": format!("{note}{long}"), "bal": random.i32(..)})
}

/// The row that says how many changes a transaction has, itself included.
fn ledger(id: &str, changes: usize) -> Change {
    Change::Put("ledger", json!({"id": id, "ver": 1, "changes": changes}))
}

/// Running writers.
pub(crate) struct Writers {
    told: Arc<AtomicU8>,
    running: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts so many, each of about so many transactions a second. Each owns its documents, and between them they own most of the first ones.
    pub(crate) fn start(shop: &Shop, count: u32, rate: u32, rows_before: u32, seed: u64) -> Self {
        let told = Arc::new(AtomicU8::new(WRITE));
        let start = |number: u32| {
            let mut writer = Writer::new(shop.server.clone(), number, seed);
            for (table, ids) in first_ids(rows_before) {
                // One share is nobody's: documents that are only read.
                let own = ids.filter(|id| id % u64::from(count + 1) == u64::from(number - 1)).map(|id| (id, 1));
                writer.own.entry(table).or_default().extend(own);
            }
            let told = Arc::clone(&told);
            thread::spawn(move || {
                loop {
                    let pause = Duration::from_secs(1) / rate;
                    match told.load(Ordering::Relaxed) {
                        END => return,
                        SLOWLY => thread::sleep(10 * pause),
                        _ => thread::sleep(pause),
                    }
                    writer.transaction();
                }
            })
        };
        let running = (2..count + 2).map(start).collect();
        Self { told, running }
    }

    /// Has them write at a tenth of their rate, or at all of it again.
    pub(crate) fn slow_down(&self, is_slow: bool) {
        self.told.store(if is_slow { SLOWLY } else { WRITE }, Ordering::Relaxed);
    }

    /// Lets each end its transaction.
    pub(crate) fn stop(&mut self) {
        self.told.store(END, Ordering::Relaxed);
        self.running.drain(..).for_each(|writer| writer.join().expect("a writer goes on"));
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.told.store(END, Ordering::Relaxed);
    }
}

struct Writer {
    server: Server,
    number: u32,
    random: fastrand::Rng,
    next: u64,
    transactions: u32,
    /// Key and version of its documents.
    own: BTreeMap<&'static str, Vec<(u64, u64)>>,
}

impl Writer {
    fn new(server: Server, number: u32, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(number.into()));
        Self { server, number, random, next: 0, transactions: 0, own: BTreeMap::new() }
    }

    fn insert(&mut self, table: &'static str, changes: &mut Vec<Change>) {
        self.next += 1;
        let id = u64::from(self.number) * 100_000_000 + self.next;
        self.own.entry(table).or_default().push((id, 1));
        changes.push(Change::Put(table, document(id, 1, &mut self.random)));
    }

    /// Changes one of its documents.
    fn change(&mut self, table: &'static str, changes: &mut Vec<Change>) {
        let own = self.own.entry(table).or_default();
        if own.is_empty() {
            return self.insert(table, changes);
        }
        let at = self.random.usize(..own.len());
        let (id, version) = own[at];
        match (table, self.random.u32(..100)) {
            ("churn", _) => {
                own[at].1 = 1;
                changes.extend([Change::Remove(table, json!(id)), Change::Put(table, document(id, 1, &mut self.random))]);
            }
            ("gone", 0..60) | (_, 0..10) => {
                own.swap_remove(at);
                changes.push(Change::Remove(table, json!(id)));
            }
            (_, 60..75) => self.insert(table, changes),
            _ => {
                own[at].1 = version + 1;
                changes.push(Change::Put(table, document(id, version + 1, &mut self.random)));
            }
        }
    }

    fn transaction(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..[1, 1, 3, 20][self.random.usize(..4)] {
            let table = CHANGED[self.random.usize(..CHANGED.len())];
            self.change(table, &mut changes);
        }
        self.transactions += 1;
        changes.push(ledger(&format!("{}-{}", self.number, self.transactions), changes.len() + 1));
        self.server.change(&changes);
    }
}
