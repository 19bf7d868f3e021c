//! The workloads: backlogs, a steady stream, one huge transaction, a stopped broker.

use crate::{
    feedline::Feedline,
    limits,
    meter::{self, Drain},
    servers::{
        delay::Delay,
        kafka::Kafka,
        port::{run_directory, wait_for},
        postgres::{Options, Postgres},
    },
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How a backlog is written.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) transactions: u32,
    pub(crate) rows: u32,
}

pub(crate) struct Steady {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) processor_percent: f64,
    pub(crate) resident_mb: u64,
}

pub(crate) struct Memory {
    pub(crate) large_mb: u64,
    pub(crate) silent_mb: u64,
    pub(crate) transactions: u64,
}

pub(crate) const LIMIT: Duration = Duration::from_mins(10);

/// Six columns, 200 bytes.
pub(crate) const TABLE: &str =
    "CREATE TABLE event (id bigint PRIMARY KEY, customer int, status text, amount numeric(12,2), note text, sent_us bigint)";
pub(crate) const VALUES: &str = "g, g % 1000, 'paid', (g % 10000) / 100.0, repeat(md5(g::text), 5)";
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1e6)::bigint";

pub(crate) struct Bench {
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    /// The broker's other address, from which answers may be delayed.
    pub(crate) delay: Delay,
    pub(crate) directory: PathBuf,
}

/// A pipeline with its own database, topic and directory.
struct Pipeline {
    name: String,
    database: String,
    feedline: Feedline,
}

impl Bench {
    pub(crate) fn start() -> Self {
        let delay = Delay::new();
        let kafka = Kafka::start_behind_with(delay.port(), &[("log.retention.bytes", "2000000000")]);
        delay.lead_to(kafka.outside_port());
        let settings = vec![("shared_buffers", "1GB"), ("max_wal_size", "16GB"), ("synchronous_commit", "off"), ("autovacuum", "off")];
        Self {
            postgres: Postgres::start(&Options { settings, ..Options::default() }),
            kafka,
            delay,
            directory: run_directory("bench", None).unwrap(),
        }
    }

    /// Existing rows read by this many sessions: rate and processor time, and the rate of `COPY ... TO STDOUT` of the same table.
    pub(crate) fn prefeed(&self, rows: u32, readers: u32) -> [f64; 3] {
        let name = unique();
        let database = self.with_rows(rows);
        let copied = limits::copy(&self.postgres, &database);
        let mut feedline = self.feedline(&name, &self.source(&database), "public.event", "snapshot", readers);
        let ours = carry(&mut feedline, rows);
        drop(feedline);
        self.remove(&name, &database);
        [ours.rate(), ours.processor_us(), f64::from(rows) / copied.as_secs_f64()]
    }

    /// A database with a table of this many rows.
    pub(crate) fn with_rows(&self, rows: u32) -> String {
        let database = self.postgres.create_database("bench");
        self.postgres.psql(&database, TABLE);
        self.postgres.psql(&database, &format!("INSERT INTO event SELECT {VALUES}, 0 FROM generate_series(1, {rows}) g"));
        // A separate command: it cannot run in one transaction with others.
        self.postgres.psql(&database, "VACUUM ANALYZE event");
        database
    }

    pub(crate) fn drain_sqlite(&self, rows: u32) -> Drain {
        let name = unique();
        let path = self.sqlite(&name);
        let source = format!("kind = \"sqlite\"\npath = \"{}\"", path.display());
        let mut feedline = self.feedline(&name, &source, "main.event", "none", 2);
        establish(&mut feedline);
        Self::fill_sqlite(&path, rows);
        let drain = carry(&mut feedline, rows);
        self.kafka.delete_topics(&[&format!("{name}.main.event")]);
        drain
    }

    /// An empty SQLite database.
    pub(crate) fn sqlite(&self, name: &str) -> PathBuf {
        let path = self.directory.join(format!("{name}.db"));
        run_sqlite(
            &path,
            "PRAGMA journal_mode = WAL; \
             CREATE TABLE event (id INTEGER PRIMARY KEY, customer INTEGER, status TEXT, amount TEXT, note TEXT, sent_us INTEGER)",
        );
        path
    }

    /// Writes this many rows, 1,000 per transaction.
    pub(crate) fn fill_sqlite(path: &Path, rows: u32) {
        let transactions = (0..rows / 1_000).map(|transaction| {
            let first = transaction * 1_000;
            format!(
                "BEGIN; INSERT INTO event WITH RECURSIVE n(g) AS (SELECT {first} UNION ALL SELECT g + 1 FROM n WHERE g < {first} + 999) \
                 SELECT g, g % 1000, 'paid', (g % 10000) / 100.0, substr(hex(randomblob(80)), 1, 160), 0 FROM n; COMMIT;"
            )
        });
        run_sqlite(path, &transactions.collect::<String>());
    }

    pub(crate) fn latency(&self, seconds: u32) -> Steady {
        let mut pipeline = self.pipeline();
        pipeline.feedline.start();
        pipeline.feedline.wait_until_live();
        let topic = format!("{}.public.event", pipeline.name);
        let steady = self.arrivals(&topic, pipeline.feedline.pid(), seconds, |count| self.write_steadily(&pipeline.database, count));
        pipeline.feedline.stop();
        drop(pipeline.feedline);
        self.remove(&pipeline.name, &pipeline.database);
        steady
    }

    /// Consumes what a writer writes at 1,000 rows a second, and compares the time at which each was written with that of its arrival.
    pub(crate) fn arrivals(&self, topic: &str, pid: u32, seconds: u32, write: impl FnOnce(u32) + Send) -> Steady {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.bootstrap())
            .set("group.id", topic)
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "5")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..3 {
            partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&partitions).unwrap();

        // The first second warms up.
        let count = (seconds + 1) * 1_000;
        let (mut latencies, mut before) = (Vec::new(), Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| write(count));
            let deadline = Instant::now() + LIMIT;
            for number in 0..count {
                if number == 1_000 {
                    before = meter::processor(pid);
                }
                let message = loop {
                    assert!(Instant::now() < deadline, "the events arrive");
                    if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                        break message.unwrap();
                    }
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3;
                let event: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                if number >= 1_000 {
                    latencies.push(now - event["after"]["sent_us"].as_f64().unwrap() / 1e3);
                }
            }
        });
        let used = meter::processor(pid).saturating_sub(before);
        latencies.sort_by(f64::total_cmp);
        let at = |share: usize| latencies[(latencies.len() * share / 100).min(latencies.len() - 1)];
        let processor_percent = used.as_secs_f64() * 100.0 / f64::from(seconds);
        Steady { p50_ms: at(50), p99_ms: at(99), processor_percent, resident_mb: meter::resident_mb(pid) }
    }

    /// Writes this many rows: every 10 ms ten transactions of one row, each with the time at which it was written.
    pub(crate) fn write_steadily(&self, database: &str, count: u32) {
        let mut writer = self.postgres.psql_command(database).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut statements = writer.stdin.take().unwrap();
        // Otherwise the server shows a commit to its walsenders up to 200 ms later.
        writeln!(statements, "SET synchronous_commit = on;").unwrap();
        let started = Instant::now();
        for number in 0..count {
            if number % 10 == 0 {
                let due = started + Duration::from_millis(u64::from(number));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            writeln!(statements, "INSERT INTO event SELECT {VALUES}, {NOW} FROM generate_series({number}, {number}) g;").unwrap();
            statements.flush().unwrap();
        }
        drop(statements);
        assert!(writer.wait().unwrap().success());
    }

    pub(crate) fn memory(&self, rows: u32, pause_seconds: u64) -> Memory {
        let mut pipeline = self.pipeline();
        pipeline.feedline.start();
        pipeline.feedline.wait_until_live();
        let pid = pipeline.feedline.pid();
        let insert = format!("INSERT INTO event SELECT {VALUES}, 0 FROM generate_series(1, {rows}) g");
        self.postgres.psql(&pipeline.database, &insert);
        wait_for("the large transaction arrives", LIMIT, || (pipeline.feedline.confirmed() >= u64::from(rows)).then_some(()));
        let large_mb = meter::peak_mb(pid).unwrap();

        meter::forget_peak(pid);
        self.kafka.pause();
        self.postgres.psql(&pipeline.database, "CREATE SEQUENCE one START 100000000");
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(pause_seconds) {
            let some = format!(
                "DO $$ BEGIN FOR t IN 1..1000 LOOP INSERT INTO event SELECT {VALUES}, 0 FROM (SELECT nextval('one') g) s; COMMIT; \
                 END LOOP; PERFORM pg_sleep(0.5); END $$"
            );
            self.postgres.psql(&pipeline.database, &some);
        }
        let transactions: u64 = self.postgres.psql(&pipeline.database, "SELECT last_value - 99999999 FROM one").parse().unwrap();
        let silent_mb = meter::peak_mb(pid).unwrap();
        self.kafka.resume();
        let all = u64::from(rows) + transactions;
        wait_for("what was written meanwhile arrives", LIMIT, || (pipeline.feedline.confirmed() >= all).then_some(()));
        pipeline.feedline.stop();
        drop(pipeline.feedline);
        self.remove(&pipeline.name, &pipeline.database);
        Memory { large_mb, silent_mb, transactions }
    }

    /// A pipeline over an empty table, whose slot is made.
    fn pipeline(&self) -> Pipeline {
        let name = unique();
        let database = self.postgres.create_database("bench");
        self.postgres.psql(&database, TABLE);
        let mut feedline = self.feedline(&name, &self.source(&database), "public.event", "none", 2);
        establish(&mut feedline);
        Pipeline { name, database, feedline }
    }

    /// Lines of a configuration's `[source]`.
    pub(crate) fn source(&self, database: &str) -> String {
        format!(
            "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\n\
             tls = \"disable\"\nmanage = true",
            self.postgres.port()
        )
    }

    pub(crate) fn feedline(&self, name: &str, source: &str, table: &str, prefeed: &str, readers: u32) -> Feedline {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).unwrap();
        let configuration = format!(
            "name = \"{name}\"\n[source]\n{source}\n[[feeds]]\ntables = [\"{table}\"]\nprefeed = \"{prefeed}\"\n\
             [sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = {{ partitions = 3, replication = 1 }}\n\
             [checkpoint]\nkind = \"file\"\npath = \"{}\"\n[pipeline]\nprefeed_readers = {readers}\n",
            self.kafka.bootstrap(),
            directory.join("checkpoint").display(),
        );
        Feedline::new(&directory, &configuration)
    }

    /// A pipeline whose sink is a file: the cost of a broker's client is left out. `tables` may be a pattern.
    pub(crate) fn to_file(&self, name: &str, source: &str, tables: &str) -> Feedline {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).unwrap();
        let configuration = format!(
            "name = \"{name}\"\n[source]\n{source}\n[[feeds]]\ntables = [\"{tables}\"]\n[sink]\nkind = \"file\"\npath = \"{}\"\n\
             [checkpoint]\nkind = \"file\"\npath = \"{}\"\n",
            directory.join("out").display(),
            directory.join("checkpoint").display(),
        );
        Feedline::new(&directory, &configuration)
    }

    /// Frees the disk.
    pub(crate) fn remove(&self, name: &str, database: &str) {
        self.kafka.delete_topics(&[&format!("{name}.public.event")]);
        self.forget(name, database);
    }

    /// The same without topics.
    pub(crate) fn forget(&self, name: &str, database: &str) {
        fs::remove_dir_all(self.directory.join(name)).ok();
        let slots = format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{database}'");
        // A walsender releases its slot slightly later than its client ends.
        wait_for("the slots are free", LIMIT, || self.postgres.try_psql(database, &slots).ok());
        self.postgres.psql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        self.postgres.psql("postgres", "CHECKPOINT");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("remove {}: {error}", self.directory.display());
        }
    }
}

fn run_sqlite(path: &Path, statements: &str) {
    let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1], timeout=60); d.executescript(sys.argv[2])";
    assert!(Command::new("python3").args(["-c", script]).arg(path).arg(statements).status().unwrap().success());
}

/// Runs once without rows, so that slot, publication, triggers and topics exist.
pub(crate) fn establish(feedline: &mut Feedline) {
    feedline.start();
    feedline.wait_until_live();
    feedline.stop();
}

/// Carries a backlog. It is measured from the first confirmation that is seen to the last.
pub(crate) fn carry(feedline: &mut Feedline, events: u32) -> Drain {
    feedline.start();
    let pid = feedline.pid();
    let first = wait_for("the backlog begins to move", LIMIT, || Some(feedline.confirmed()).filter(|confirmed| *confirmed > 0));
    let (started, before) = (Instant::now(), meter::processor(pid));
    wait_for("the backlog is carried", LIMIT, || (feedline.confirmed() >= u64::from(events)).then_some(()));
    let carried = u32::try_from(u64::from(events) - first).unwrap();
    let drain = Drain { events: f64::from(carried), took: started.elapsed(), processor: meter::processor(pid).saturating_sub(before) };
    feedline.stop();
    drain
}

pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("bench{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
