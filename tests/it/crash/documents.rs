//! A shop of documents in the RethinkDB of this process, and writers that change them.

use crate::servers::rethinkdb::RethinkDb;
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

/// The shop.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) server: Arc<RethinkDb>,
    /// Where its documents are written down for the checker.
    rows: PathBuf,
}

impl Shop {
    /// Of a new server. `rows` is a file that is to be written.
    pub(crate) fn new(rows: PathBuf) -> Self {
        let server = RethinkDb::start();
        TABLES.iter().for_each(|table| server.create_table(table, "id"));
        Self { server: Arc::new(server), rows }
    }

    /// Makes the first documents.
    pub(crate) fn create(&self, rows: u32, seed: u64) {
        let mut writer = Writer { shop: self.clone(), number: 1, random: fastrand::Rng::with_seed(seed), next: 0, ledger: 0 };
        for (table, count) in [("acct", rows), ("churn", rows / 20), ("gone", rows / 20)] {
            (0..count).for_each(|_| writer.insert(table));
        }
        self.put_ledger("before", 1);
    }

    /// Writes the change by which the end is known.
    pub(crate) fn write_last(&self) {
        self.put_ledger("last", 1);
    }

    fn put_ledger(&self, id: &str, changes: u32) {
        self.server.put("ledger", &json!({"id": id, "ver": 1, "changes": changes}));
    }

    /// The file with the documents as they are now.
    pub(crate) fn written_down(&self) -> PathBuf {
        let rows: BTreeMap<_, Vec<Value>> =
            TABLES.iter().map(|table| (table, self.server.documents(table).into_values().collect())).collect();
        fs::write(&self.rows, serde_json::to_string(&rows).expect("documents are JSON")).expect("write the documents down");
        self.rows.clone()
    }
}

/// Running writers.
pub(crate) struct Writers {
    told: Arc<AtomicU8>,
    running: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts so many, each of about so many transactions a second. All change all documents.
    pub(crate) fn start(shop: &Shop, count: u32, rate: u32, seed: u64) -> Self {
        let told = Arc::new(AtomicU8::new(WRITE));
        let start = |number: u32| {
            let random = fastrand::Rng::with_seed(seed.wrapping_add(number.into()));
            let mut writer = Writer { shop: shop.clone(), number, random, next: 0, ledger: 0 };
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
    shop: Shop,
    number: u32,
    random: fastrand::Rng,
    next: u64,
    ledger: u32,
}

impl Writer {
    fn document(&mut self, id: u64, version: u64) -> Value {
        let note = ["plain", "quote \" back \\ slash", "snow \u{2603} \u{1f600}", "nul \u{0}"][self.random.usize(..4)];
        let long = "x".repeat([0, 20, 3_000][self.random.usize(..3)]);
        json!({"id": id, "ver": version, "note": format!("{note}{long}"), "bal": self.random.i32(..)})
    }

    fn insert(&mut self, table: &str) {
        self.next += 1;
        let document = self.document(u64::from(self.number) * 100_000_000 + self.next, 1);
        self.shop.server.put(table, &document);
    }

    /// Changes a document of somebody.
    fn change(&mut self, table: &str) {
        let choice = self.random.u64(..);
        let Some(known) = self.shop.server.nth(table, choice) else { return self.insert(table) };
        let id = known["id"].as_u64().expect("ids are numbers");
        match (table, self.random.u32(..100)) {
            ("churn", _) => {
                self.shop.server.remove(table, &known["id"]);
                let again = self.document(id, 1);
                self.shop.server.put(table, &again);
            }
            ("gone", 0..60) | (_, 0..10) => self.shop.server.remove(table, &known["id"]),
            (_, 60..75) => self.insert(table),
            _ => {
                let changed = self.document(id, known["ver"].as_u64().expect("versions are numbers") + 1);
                self.shop.server.put(table, &changed);
            }
        }
    }

    fn transaction(&mut self) {
        let changes = [1, 1, 3, 20][self.random.usize(..4)];
        for _ in 0..changes {
            let table = CHANGED[self.random.usize(..CHANGED.len())];
            self.change(table);
        }
        self.ledger += 1;
        self.shop.put_ledger(&format!("{}-{}", self.number, self.ledger), changes);
    }
}
