//! Random statements of another process: the events must end in the same state as the table.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Captured, Database, table};
use crate::children::ended;
use crate::contract_source::{TIMEOUT, Taken, head, open, records};
use crate::session::{Session, encoders, prefix, scan};
use feedline::batch::Budget;
use feedline::checkpoint::{FeedState, ResumeToken};
use feedline::event::{FeedId, Operation};
use feedline::source::sqlite::{Connector, Log};
use feedline::source::{Prefeed, Resume, Slice, SourceConnector, ToRead};
use feedline::status::metrics::Metrics;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

const TABLE: [&str; 5] = [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b TEXT COLLATE NOCASE, c, up REFERENCES t (id) ON DELETE SET NULL ON UPDATE CASCADE)",
    "CREATE UNIQUE INDEX b_c ON t (b, c)",
    "CREATE UNIQUE INDEX some ON t (abs(c) DESC) WHERE b > 'p'",
    "CREATE TRIGGER nested AFTER INSERT ON t WHEN NEW.id % 7 = 0 BEGIN UPDATE OR IGNORE t SET c = c + 1 WHERE id = NEW.id - 1; END",
    "CREATE TRIGGER stamp AFTER UPDATE OF a ON t BEGIN UPDATE OR IGNORE t SET c = c + 0.25 WHERE id = NEW.id; END",
];

/// The same without foreign keys and triggers of the application. Then each event fits the events before it.
const PLAIN: [&str; 3] = ["CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b TEXT COLLATE NOCASE, c, up)", TABLE[1], TABLE[2]];

/// Schemas in which a row is replaced because of a value that a trigger does not see as it is stored: a default in place of NULL, a
/// computed column, an index whose expression or condition compares by affinity, a key that changes with a foreign key.
const ODD: [(&[&str], &[&str], bool); 7] = [
    (
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 5 UNIQUE, b TEXT COLLATE NOCASE, c NUMERIC NOT NULL DEFAULT '2', up)",
            "CREATE UNIQUE INDEX b_c ON t (b, c)",
        ],
        &["id"],
        true,
    ),
    (
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT, c, up, g AS (c * 2) STORED UNIQUE, v AS (coalesce(a, '') || b) VIRTUAL)",
            "CREATE UNIQUE INDEX computed ON t (v)",
        ],
        &["id"],
        true,
    ),
    (
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT COLLATE NOCASE, c NUMERIC, up TEXT)",
            "CREATE UNIQUE INDEX one ON t (c) WHERE a > 5",
            "CREATE UNIQUE INDEX two ON t (b = 'X', a) WHERE up < 5",
            "CREATE UNIQUE INDEX three ON t (a = 3, c = '2', b) WHERE b = 'Y'",
        ],
        &["id"],
        true,
    ),
    (
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT COLLATE NOCASE UNIQUE, c, up UNIQUE REFERENCES t (id) ON UPDATE CASCADE)"],
        &["id"],
        false,
    ),
    (
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b TEXT COLLATE NOCASE, c, up REFERENCES t (id) ON UPDATE CASCADE ON DELETE CASCADE)",
            "CREATE UNIQUE INDEX up_b ON t (up, b)",
        ],
        &["id"],
        false,
    ),
    (
        &[
            "CREATE TABLE t (id NOT NULL PRIMARY KEY, a UNIQUE, b TEXT COLLATE NOCASE, c, up REFERENCES t (id) ON DELETE SET NULL ON UPDATE CASCADE) WITHOUT ROWID",
        ],
        &["id"],
        false,
    ),
    (
        &[
            "CREATE TABLE t (id INTEGER UNIQUE, a NOT NULL DEFAULT 'z', b TEXT COLLATE NOCASE NOT NULL DEFAULT 'dd', c UNIQUE, up, PRIMARY KEY (a, b))",
        ],
        &["a", "b"],
        true,
    ),
];

/// Runs random statements. Arguments: path, seed, number of statements, seconds between two, one more conflict clause.
const WRITER: &str = r"
import random, sqlite3, sys, time
path, seed, count, pause, fail = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
chance = random.Random(seed)
c = sqlite3.connect(path, timeout=10, isolation_level=None)
c.execute('PRAGMA synchronous = OFF')
c.execute('PRAGMA foreign_keys = ' + chance.choice(['ON', 'OFF']))
def row():
    return (chance.choice([None, chance.randrange(12), chance.randrange(12)]), chance.choice([None, chance.randrange(8), 'a%d' % chance.randrange(8)]),
            chance.choice(['x', 'X', 'y', 'o', None]), chance.choice([None, 1, -1, 2, 3, 2.5]), None if chance.random() < .7 else chance.randrange(12))
for number in range(count):
    if chance.random() < .1: c.execute('PRAGMA recursive_triggers = ' + chance.choice(['ON', 'OFF']))
    conflict = chance.choice(['', ' OR REPLACE', ' OR REPLACE', ' OR IGNORE', fail, ' OR ABORT', ' OR ROLLBACK'])
    kind = chance.randrange(7)
    explicit = chance.random() < .2
    try:
        if explicit: c.execute('BEGIN')
        if kind < 3: c.execute('INSERT%s INTO t VALUES (?,?,?,?,?),(?,?,?,?,?)' % conflict, row() + row())
        elif kind == 3: c.execute('INSERT INTO t VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET c = excluded.c, b = excluded.b', row())
        elif kind == 4: c.execute('UPDATE%s t SET id = id + ?, a = ? WHERE id %% 3 = ?' % conflict, (chance.randrange(-2, 3), row()[1], chance.randrange(3)))
        elif kind == 5: c.execute('UPDATE%s t SET b = ?, c = ? WHERE id = ?' % conflict, (row()[2], row()[3], chance.randrange(12)))
        else: c.execute('DELETE FROM t WHERE id = ?', (chance.randrange(12),))
    except sqlite3.IntegrityError: pass
    if c.in_transaction: c.execute(chance.choice(['COMMIT', 'COMMIT', 'ROLLBACK']))
    if pause: time.sleep(pause)
";

/// The table's state as the events describe it.
#[derive(Default)]
struct State(BTreeMap<String, Value>);

impl State {
    /// With `strictly`, an event must fit the events before it. A nested statement's events come before those of its cause.
    fn apply(&mut self, taken: &Taken, strictly: bool) {
        let after = taken.field("after");
        let known = match taken.operation {
            Operation::Delete => self.0.remove(&taken.key),
            _ => self.0.insert(taken.key.clone(), after),
        };
        let contradicts = match taken.operation {
            Operation::Insert => known.is_some(),
            Operation::Update | Operation::Delete => known.is_none(),
            _ => false,
        };
        assert!(!strictly || !contradicts, "{} {} with {known:?} before", taken.brief(), taken.id);
    }
}

/// The table's rows now.
async fn table_now(connector: &mut Connector) -> BTreeMap<String, Value> {
    let rows = crate::contract_source::scan_all(connector, FeedId(0), 4096, false).await;
    rows.into_iter().map(|row| (row.key.clone(), row.field("after"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_random_statements_end_in_the_tables_state() {
    for seed in 1..=8 {
        let plain = seed % 2 == 0;
        let mut database = Database::new(if plain { &PLAIN } else { &TABLE[..4] });
        let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
        if !plain {
            // It is created after ours, so it runs before them.
            database.writer.run(&TABLE[4..]);
        }
        // OR FAIL keeps a row whose nested statement failed, and skips the later triggers: no trigger can log that.
        let fail = if plain { " OR FAIL" } else { "" };
        let mut writer = Command::new("python3");
        let status = writer.args(["-c", WRITER]).arg(&database.path).args([&seed.to_string(), "1500", "0", fail]).status().unwrap();
        assert!(status.success());
        let mut state = State::default();
        let events = captured.all(&mut connector).await;
        eprintln!("seed {seed}: {} events", events.len());
        assert!(events.len() > 500);
        for taken in &events {
            state.apply(taken, plain);
        }
        assert_eq!(state.0, table_now(&mut connector).await, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_odd_schemas_end_in_the_tables_state() {
    for (number, (schema, key, plain)) in ODD.iter().enumerate() {
        for seed in 1..=4 {
            let mut database = Database::new(schema);
            let (mut connector, captured) = database.established(vec![table("t", key)]).await;
            let mut writer = Command::new("python3");
            let status = writer.args(["-c", WRITER]).arg(&database.path).args([&seed.to_string(), "600", "0", ""]).status().unwrap();
            assert!(status.success());
            // Deletes without a trigger are logged at a connect, and when the log is trimmed.
            drop(captured.connect(&mut connector).await.unwrap());
            let mut state = State::default();
            for taken in &captured.all(&mut connector).await {
                state.apply(taken, *plain);
            }
            assert_eq!(state.0, table_now(&mut connector).await, "schema {number}, seed {seed}");
            database.writer.run(&["DELETE FROM t"]);
        }
    }
}

/// Reads the table in slices with live events between them, as the pipeline does, while somebody writes.
async fn scan_cut(
    connector: &mut Connector,
    captured: &Captured,
    state: &mut BTreeMap<String, Value>,
    ids: &mut Vec<String>,
) -> ResumeToken {
    let budget = Budget::new(64 * 1024, 4096);
    let resume = Resume { token: captured.begin.clone(), feeds: vec![FeedState::Pending], layouts: Vec::new() };
    let source = connector.connect(&captured.known, &resume).await.unwrap();
    let mut source = Session::new(source, &captured.feeds, &resume, encoders("shop", "sqlite", "shop.db"), Metrics::new("shop").source);
    let mut prefeed = connector.prefeed().await.unwrap();
    let (mut after, mut number) = (None, 0);
    let mut take = |records: Vec<Taken>| {
        for taken in records {
            let row = taken.field("after");
            if row.is_null() {
                state.remove(&taken.key)
            } else {
                state.insert(taken.key, row)
            };
            ids.push(taken.id);
        }
    };
    loop {
        number += 1;
        let cut = open(&mut prefeed, &[ToRead { feed: FeedId(0), after: after.clone() }]).await.token;
        loop {
            let mut out = budget.writer().await;
            let filled = source.fill(&mut out, Some(&cut)).await.unwrap();
            take(records(&out));
            if filled == feedline::source::Filled::Reached {
                break;
            }
        }
        if number == 1 {
            source.start(FeedId(0), &cut);
        }
        let mut slice = Slice { number, next_row: 0 };
        let mut out = budget.writer().await;
        let scanned = scan(&mut prefeed, &prefix::<Log>(&cut), FeedId(0), after.as_ref(), &mut slice, &mut out).await.unwrap();
        take(records(&out));
        prefeed.close().await.unwrap();
        after = scanned.after.or(after);
        if scanned.done {
            return source.token();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefeed_in_slices_beside_a_writer_ends_in_the_tables_state() {
    let mut database = Database::new(&TABLE);
    let many = "INSERT INTO t SELECT value, NULL, NULL, NULL, NULL FROM (WITH RECURSIVE c(value) AS (SELECT 100 UNION ALL SELECT value + 1 FROM c WHERE value < 900) SELECT value FROM c)";
    database.writer.run(&[many]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let mut writer = Command::new("python3");
    let mut child = writer.args(["-c", WRITER]).arg(&database.path).args(["99", "1500", "0.0005", ""]).spawn().unwrap();
    let (mut state, mut ids) = (BTreeMap::new(), Vec::new());
    let token = scan_cut(&mut connector, &captured, &mut state, &mut ids).await;
    let live_begins = ids.len();
    assert!(ended(&mut child).success());
    let end = head(&mut connector).await;
    let mut stream = captured.connect_at(&mut connector, &token).await.unwrap();
    let deadline = Instant::now() + TIMEOUT;
    for batch in stream.batches(&end).await {
        assert!(Instant::now() < deadline);
        for taken in batch.records {
            let row = taken.field("after");
            if row.is_null() {
                state.remove(&taken.key)
            } else {
                state.insert(taken.key, row)
            };
            ids.push(taken.id);
        }
    }
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "positions ascend over slices and live events");
    eprintln!("{live_begins} records with the prefeed, {} after it", ids.len() - live_begins);
    assert_eq!(state, table_now(&mut connector).await);
}
