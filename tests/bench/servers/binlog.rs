//! The log of MariaDB: feedline to Kafka beside `mariadb-binlog`, which reads the same log over the network and whose output is discarded:
//! once as the log's bytes in base64, once with the rows decoded (`-v`). Memory and latency of feedline.

use crate::{
    feedline::Feedline,
    kinds::{Bench, LIMIT, Shape, Steady, establish, unique},
    meter::{self, median},
    servers::{
        mysql::{MySql, Options},
        port::wait_for,
    },
};
use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Six columns, 200 bytes.
const TABLE: &str = "CREATE TABLE event (id bigint PRIMARY KEY, customer int, status varchar(20), amount decimal(12,2), note varchar(200), \
     sent_us bigint)";

/// Events per second, and microseconds of processor time per event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    pub(crate) rate: f64,
    pub(crate) processor_us: f64,
}

/// One round: all of them on the same log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) own: Speed,
    /// `mariadb-binlog`, which copies the log's bytes.
    pub(crate) copied: Speed,
    /// The same with `-v`, which decodes the rows.
    pub(crate) decoded: Speed,
}

impl Round {
    /// The median of a figure of several rounds.
    pub(crate) fn middle(rounds: &[Self], of: impl Fn(&Self) -> f64) -> f64 {
        median(rounds.iter().map(of).collect())
    }
}

/// A MariaDB server beside the others.
pub(crate) struct Binlog<'b> {
    bench: &'b Bench,
    server: MySql,
}

impl<'b> Binlog<'b> {
    pub(crate) fn start(bench: &'b Bench) -> Self {
        let settings = vec![("innodb_buffer_pool_size", "1G"), ("max_allowed_packet", "1G"), ("max_binlog_size", "1G")];
        Self { bench, server: MySql::start(&Options { settings, ..Options::default() }) }
    }

    /// A backlog that both read in turns.
    pub(crate) fn drain(&self, rounds: usize, shape: Shape) -> Vec<Round> {
        let database = self.server.create_database("bench");
        self.server.sql(&database, TABLE);
        let mut pipelines: Vec<_> = (0..rounds).map(|_| self.established(&database)).collect();
        self.server.sql("", "FLUSH BINARY LOGS");
        let file = self.server.sql("", "SHOW MASTER STATUS");
        let file = file.split('\t').next().unwrap();
        self.write(&database, shape);
        let events = shape.transactions * shape.rows;
        let mut taken = Vec::new();
        for (name, feedline) in &mut pipelines {
            let copied = self.print(file, events, &[]);
            let decoded = self.print(file, events, &["--base64-output=decode-rows", "--verbose"]);
            let drain = crate::kinds::carry(feedline, events);
            self.bench.kafka.delete_topics(&[&format!("{name}.{database}.event")]);
            let round = Round { own: Speed { rate: drain.rate(), processor_us: drain.processor_us() }, copied, decoded };
            println!("{round:?}");
            taken.push(round);
        }
        self.server.sql("", &format!("DROP DATABASE {database}"));
        taken
    }

    /// The highest resident memory in megabytes while one transaction of so many rows is carried, and while a row of 40 MB is.
    pub(crate) fn memory(&self, rows: u32) -> [u64; 2] {
        let database = self.server.create_database("bench");
        self.server.sql(&database, &format!("{TABLE}; CREATE TABLE large (id int PRIMARY KEY, body longblob)"));
        let mut feedline = self.bench.to_file(&unique(), &self.source(&database), &format!("{database}.*"));
        feedline.start();
        feedline.wait_until_live();
        let pid = feedline.pid();
        self.write(&database, Shape { transactions: 1, rows });
        let arrived = |count: u64| wait_for("the rows arrive", LIMIT, || (count <= feedline.confirmed()).then_some(()));
        arrived(u64::from(rows));
        let large_transaction = meter::peak_mb(pid).unwrap();
        meter::forget_peak(pid);
        self.server.sql(&database, "INSERT INTO large VALUES (1, repeat('x', 40000000))");
        arrived(u64::from(rows) + 1);
        let large_row = meter::peak_mb(pid).unwrap();
        feedline.stop();
        self.server.sql("", &format!("DROP DATABASE {database}"));
        [large_transaction, large_row]
    }

    /// From commit to an outside consumer, at 1,000 changes a second.
    pub(crate) fn latency(&self, seconds: u32) -> Steady {
        let database = self.server.create_database("bench");
        self.server.sql(&database, TABLE);
        let (name, mut feedline) = self.established(&database);
        feedline.start();
        feedline.wait_until_live();
        let topic = format!("{name}.{database}.event");
        let steady = self.bench.arrivals(&topic, feedline.pid(), seconds, |count| self.write_steadily(&database, count));
        feedline.stop();
        self.bench.kafka.delete_topics(&[&topic]);
        self.server.sql("", &format!("DROP DATABASE {database}"));
        steady
    }

    /// A pipeline whose checkpoint is at the end of the log.
    fn established(&self, database: &str) -> (String, Feedline) {
        let name = unique();
        let mut feedline = self.bench.feedline(&name, &self.source(database), &format!("{database}.event"), "none", 2);
        establish(&mut feedline);
        (name, feedline)
    }

    fn source(&self, database: &str) -> String {
        let port = self.server.port();
        format!("kind = \"mysql\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"root\"\ndatabase = \"{database}\"\ntls = \"disable\"")
    }

    fn write(&self, database: &str, Shape { transactions, rows }: Shape) {
        // What is measured is how the log is read, not how it is written.
        self.server.sql("", "SET GLOBAL sync_binlog = 0; SET GLOBAL innodb_flush_log_at_trx_commit = 0");
        let statements = format!(
            "CREATE PROCEDURE fill() BEGIN DECLARE t INT DEFAULT 0; WHILE t < {transactions} DO \
             INSERT INTO event SELECT t * {rows} + seq, seq % 1000, 'paid', (seq % 10000) / 100.0, repeat(md5(seq), 5), 0 FROM seq_0_to_{}; \
             SET t = t + 1; END WHILE; END",
            rows - 1
        );
        let mut client = self.server.client(database).args(["--delimiter=//"]).stdin(Stdio::piped()).spawn().unwrap();
        client.stdin.take().unwrap().write_all(format!("{statements}// CALL fill()// DROP PROCEDURE fill//").as_bytes()).unwrap();
        assert!(client.wait().unwrap().success());
        self.server.sql("", "SET GLOBAL sync_binlog = 1; SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    }

    /// Every 10 ms ten transactions of one row, each with the time at which it was written.
    fn write_steadily(&self, database: &str, count: u32) {
        let mut client = self.server.client(database).stdin(Stdio::piped()).spawn().unwrap();
        let mut statements = client.stdin.take().unwrap();
        self.server.sql("", "SET GLOBAL sync_binlog = 0; SET GLOBAL innodb_flush_log_at_trx_commit = 0");
        let started = Instant::now();
        for number in 0..count {
            if number % 10 == 0 {
                let due = started + Duration::from_millis(u64::from(number));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            writeln!(
                statements,
                "INSERT INTO event VALUES ({number}, {number} % 1000, 'paid', 1.5, repeat(md5({number}), 5), \
                 floor(unix_timestamp(sysdate(6)) * 1000000));"
            )
            .unwrap();
            statements.flush().unwrap();
        }
        drop(statements);
        assert!(client.wait().unwrap().success());
        self.server.sql("", "SET GLOBAL sync_binlog = 1; SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    }

    /// `mariadb-binlog` with these options, from this file to the end of the log.
    fn print(&self, file: &str, events: u32, options: &[&str]) -> Speed {
        let (before, started) = (meter::children(), Instant::now());
        let status = Command::new("mariadb-binlog")
            .args(["--no-defaults", "--skip-ssl", "--read-from-remote-server", "--host=127.0.0.1", "--user=root", "--to-last-log"])
            .args(options)
            .args([&format!("--port={}", self.server.port()), file])
            .stdout(fs::File::create("/dev/null").unwrap())
            .status()
            .unwrap();
        assert!(status.success(), "mariadb-binlog: {status}");
        let (processor, took) = (meter::children().saturating_sub(before), started.elapsed());
        Speed { rate: f64::from(events) / took.as_secs_f64(), processor_us: processor.as_secs_f64() * 1e6 / f64::from(events) }
    }
}
