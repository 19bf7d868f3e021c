//! Many tables in one pipeline, and live events beside the reading of existing rows.

use crate::{
    kinds::{Bench, Shape, carry, unique},
    meter::{self, Drain},
    servers::port::wait_for,
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use std::{
    io::Write as _,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const LIMIT: Duration = Duration::from_mins(10);

/// Live events while existing rows are read.
pub(crate) struct Beside {
    pub(crate) live_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) longest_ms: f64,
    pub(crate) rows_per_second: f64,
}

/// A pipeline over many tables, or over one.
pub(crate) struct Tables {
    pub(crate) first_start_seconds: f64,
    pub(crate) next_start_seconds: f64,
    pub(crate) drain: Drain,
}

impl Bench {
    /// A start with this many tables of 20 rows each until all are live, and a backlog of transactions with rows in all of them.
    pub(crate) fn tables(&self, tables: u32, shape: Shape) -> Tables {
        let name = unique();
        let database = self.postgres.create_database("bench");
        self.postgres.psql(
            &database,
            &format!(
                "DO $$ BEGIN FOR t IN 0..{tables} - 1 LOOP \
                 EXECUTE format('CREATE TABLE t_%s (id bigint PRIMARY KEY, customer int, status text, amount numeric(12,2), note text)', t); \
                 EXECUTE format('INSERT INTO t_%s SELECT g, 1, ''paid'', 1.5, ''x'' FROM generate_series(-20, -1) g', t); \
                 COMMIT; END LOOP; END $$"
            ),
        );
        let mut feedline = self.to_file(&name, &self.source(&database), "public.t_*");
        let mut live_after = || {
            let started = Instant::now();
            feedline.start();
            feedline.wait_until_live();
            let took = started.elapsed().as_secs_f64();
            feedline.stop();
            took
        };
        let (first_start_seconds, next_start_seconds) = (live_after(), live_after());
        let Shape { transactions, rows } = shape;
        let of_each = rows / tables;
        self.postgres.psql(
            &database,
            &format!(
                "DO $$ BEGIN FOR x IN 0..{transactions} - 1 LOOP FOR t IN 0..{tables} - 1 LOOP \
                 EXECUTE format('INSERT INTO t_%s SELECT g, g %% 1000, ''paid'', (g %% 10000) / 100.0, repeat(md5(g::text), 5) \
                 FROM generate_series(%s, %s) g', t, x * {of_each}, (x + 1) * {of_each} - 1); END LOOP; COMMIT; END LOOP; END $$"
            ),
        );
        let drain = carry(&mut feedline, transactions * rows);
        drop(feedline);
        self.remove(&name, &database);
        Tables { first_start_seconds, next_start_seconds, drain }
    }

    /// 1,000 live rows per second in one table while this many rows of another are read. A transaction stays open for a number of seconds:
    /// no snapshot can be opened meanwhile.
    pub(crate) fn beside(&self, rows: u32, open_seconds: u32) -> Beside {
        let name = unique();
        let database = self.with_rows(rows);
        self.postgres.psql(&database, "CREATE TABLE live (id bigint PRIMARY KEY, sent_us bigint)");
        let feeds = format!("{}\n[[feeds]]\ntables = [\"public.live\"]\nprefeed = \"none\"", self.source(&database));
        let mut feedline = self.feedline(&name, &feeds, "public.event", "snapshot", 2);
        let topic = format!("{name}.public.live");
        self.kafka.create_topic(&topic, 1, &[]);
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.kafka.bootstrap()).set("group.id", &topic).create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&partitions).unwrap();
        let mut writer = self.postgres.psql_command(&database).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut statements = writer.stdin.take().unwrap();
        feedline.start();
        wait_for("the first rows", LIMIT, || (feedline.confirmed() > 0).then_some(()));
        let open = format!("BEGIN; CREATE TABLE other (id int); SELECT pg_sleep({open_seconds}); COMMIT");
        let mut other = self.postgres.psql_command(&database).args(["-c", &open]).stdout(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        let (mut latencies, mut written, mut finished) = (Vec::new(), 0_u32, None);
        while finished.is_none() || latencies.len() < written as usize {
            assert!(started.elapsed() < LIMIT, "the events arrive");
            if finished.is_none() {
                let due = u32::try_from(started.elapsed().as_millis()).unwrap();
                if written < due {
                    let now = "(extract(epoch FROM clock_timestamp()) * 1e6)::bigint";
                    writeln!(statements, "INSERT INTO live SELECT g, {now} FROM generate_series({written}, {due} - 1) g;").unwrap();
                    statements.flush().unwrap();
                    written = due;
                }
                finished = feedline.is_live().then(|| started.elapsed());
            }
            while let Some(message) = consumer.poll(Duration::from_millis(5)) {
                let event: serde_json::Value = serde_json::from_slice(message.unwrap().payload().unwrap()).unwrap();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3;
                latencies.push(now - event["after"]["sent_us"].as_f64().unwrap() / 1e3);
            }
        }
        drop(statements);
        assert!(writer.wait().unwrap().success() && other.wait().unwrap().success());
        let took = finished.unwrap().as_secs_f64();
        feedline.stop();
        self.kafka.delete_topics(&[&topic]);
        drop(feedline);
        self.remove(&name, &database);
        latencies.sort_by(f64::total_cmp);
        Beside {
            live_per_second: f64::from(written) / took,
            p50_ms: meter::median(latencies.clone()),
            longest_ms: *latencies.last().unwrap(),
            rows_per_second: f64::from(rows) / took,
        }
    }
}
