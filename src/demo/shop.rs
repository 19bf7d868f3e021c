//! The application of the demonstration: a shop that writes to a SQLite database and does not know of feedline.

use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const CUSTOMERS: &[(&str, &str)] = &[
    ("Ada Lovelace", "London"),
    ("Alan Turing", "Wilmslow"),
    ("Grace Hopper", "New York"),
    ("Emmy Noether", "Erlangen"),
    ("Edsger Dijkstra", "Nuenen"),
    ("Barbara Liskov", "Boston"),
];
const CITIES: &[&str] = &["Paris", "Lisbon", "Kyoto", "Oslo", "Vienna", "Quito"];
const ITEMS: &[(&str, u32)] = &[("teapot", 1890), ("lantern", 4250), ("compass", 2799), ("notebook", 650)];
const ORDERS: u32 = 8;

/// Number of rows that exist before the pipeline starts.
pub(super) const EXISTING: u64 = (CUSTOMERS.len() + ITEMS.len()) as u64 + ORDERS as u64;

/// The tables; each has a topic.
pub(super) const TABLES: [&str; 3] = ["customers", "orders", "stock"];

/// Creates the database with some rows.
pub(super) fn create_database(path: &Path) -> rusqlite::Result<()> {
    let mut database = open(path)?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
         CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers (id), item TEXT NOT NULL,
                              status TEXT NOT NULL, total TEXT NOT NULL);
         CREATE TABLE stock (item TEXT PRIMARY KEY, left INTEGER NOT NULL);",
    )?;
    let transaction = database.transaction()?;
    for (name, city) in CUSTOMERS {
        transaction.execute("INSERT INTO customers (name, city) VALUES (?1, ?2)", params![name, city])?;
    }
    for (item, _) in ITEMS {
        transaction.execute("INSERT INTO stock (item, left) VALUES (?1, ?2)", params![item, fastrand::u32(60..99)])?;
    }
    for _ in 0..ORDERS {
        place_order(&transaction)?;
    }
    transaction.commit()
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(5))?;
    Ok(database)
}

fn place_order(database: &Connection) -> rusqlite::Result<&'static str> {
    let (item, cents) = ITEMS[fastrand::usize(..ITEMS.len())];
    let cents = cents * fastrand::u32(1..4);
    database.execute(
        "INSERT INTO orders (customer, item, status, total) SELECT id, ?1, 'new', ?2 FROM customers ORDER BY random() LIMIT 1",
        params![item, format!("{}.{:02}", cents / 100, cents % 100)],
    )?;
    Ok(item)
}

/// The open shop, on its own thread.
pub(super) struct Shop {
    close: Sender<()>,
    thread: JoinHandle<rusqlite::Result<u64>>,
}

impl Shop {
    /// Opens the shop. It changes about `rate` rows per second.
    pub(super) fn open(path: &Path, rate: u32) -> std::io::Result<Self> {
        let (close, closed) = channel();
        let path = path.to_owned();
        let thread = std::thread::Builder::new().name("demo-shop".to_owned()).spawn(move || trade(&path, rate, &closed))?;
        Ok(Self { close, thread })
    }

    /// Closes the shop. Returns the number of rows that it changed.
    pub(super) fn close(self) -> rusqlite::Result<u64> {
        drop(self.close);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Changes rows until `closed` is disconnected.
fn trade(path: &Path, rate: u32, closed: &Receiver<()>) -> rusqlite::Result<u64> {
    let mut database = open(path)?;
    let mut changed = 0;
    let pause = Duration::from_secs(1) / rate.max(1);
    let mut wait = Duration::ZERO;
    loop {
        match closed.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(changed),
        }
        let rows = change_rows(&mut database)?;
        changed += u64::from(rows);
        // At random intervals.
        wait = pause.mul_f64(f64::from(rows) * (0.5 + fastrand::f64()));
    }
}

/// Runs one transaction. Returns the number of rows that it changed.
fn change_rows(database: &mut Connection) -> rusqlite::Result<u32> {
    let transaction = database.transaction()?;
    let advance = "UPDATE orders SET status = CASE status WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'shipped' ELSE 'delivered' END
                   WHERE id = (SELECT id FROM orders WHERE status <> 'delivered' ORDER BY random() LIMIT 1)";
    let rows = match fastrand::u32(..100) {
        0..35 => {
            let item = place_order(&transaction)?;
            1 + transaction.execute("UPDATE stock SET left = iif(left > 3, left - 1, 99) WHERE item = ?1", [item])?
        }
        35..80 => transaction.execute(advance, [])?,
        80..90 => transaction.execute(
            "UPDATE customers SET city = ?1 WHERE id = (SELECT id FROM customers WHERE city <> ?1 ORDER BY random() LIMIT 1)",
            [CITIES[fastrand::usize(..CITIES.len())]],
        )?,
        _ => transaction.execute("DELETE FROM orders WHERE id = (SELECT id FROM orders ORDER BY status <> 'delivered', id LIMIT 1)", [])?,
    };
    transaction.commit()?;
    Ok(u32::try_from(rows).unwrap_or(u32::MAX))
}
