//! The release binary between real servers, against what the servers themselves can do in the same run.
//!
//! Absolute rates belong to the machine; the ratios and the processor time an event are what to compare. `BENCH_QUICK=1`
//! makes everything ten times smaller, `BENCH_PAUSE_SECONDS` sets the length of the broker's silence, and `BENCH_ONLY=prefeed,beside`
//! takes only those measurements.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    reason = "a benchmark uses a part of the test servers, and its unwraps are assertions"
)]

#[path = "servers/beside.rs"]
mod beside;
#[path = "../it/crash/feedline.rs"]
mod feedline;
#[path = "servers/kinds.rs"]
mod kinds;
#[path = "servers/limits.rs"]
mod limits;
#[path = "servers/meter.rs"]
mod meter;
#[path = "servers/rabbit.rs"]
mod rabbit;
mod servers {
    #[path = "../../servers/certificates.rs"]
    pub(crate) mod certificates;
    #[path = "../../servers/kafka.rs"]
    pub(crate) mod kafka;
    #[path = "../../servers/port.rs"]
    pub(crate) mod port;
    #[path = "../../servers/postgres.rs"]
    pub(crate) mod postgres;
    #[path = "../../servers/process.rs"]
    pub(crate) mod process;
    #[path = "../../servers/rabbitmq.rs"]
    pub(crate) mod rabbitmq;
}

use self::{
    beside::Tables,
    kinds::{Bench, Shape},
    meter::{Drain, median},
};
use std::{fmt::Write as _, fs};

const ROUNDS: usize = 3;

/// Measures at this scale: everything is so many times smaller.
type Measure = fn(&Bench, u32, &mut Table);

/// The measurements by name, in the order in which they are taken.
const MEASUREMENTS: [(&str, Measure); 7] = [
    ("drain", drain),
    ("prefeed", prefeed),
    ("beside", beside),
    ("tables", tables),
    ("sqlite", sqlite),
    ("steady", steady),
    ("rabbitmq", rabbitmq),
];

/// What was measured, as Markdown.
struct Table(String);

impl Table {
    fn row(&mut self, what: &str, measured: &str, against: &str) {
        println!("{what}: {measured} {against}");
        writeln!(self.0, "| {what} | {measured} | {against} |").unwrap();
    }
}

fn main() {
    let scale = if std::env::var_os("BENCH_QUICK").is_some() { 10 } else { 1 };
    let only = std::env::var("BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only.split(',').any(|one| one == name));
    let bench = Bench::start();
    let mut table = Table(String::from("| what | measured | against |\n|---|---|---|\n"));
    for (_, measure) in MEASUREMENTS.iter().filter(|(name, _)| wanted(name)) {
        measure(&bench, scale, &mut table);
    }
    println!("\n{}", table.0);
    let path = servers::port::target().join("bench.md");
    fs::write(&path, &table.0).unwrap();
    println!("written to {}", path.display());
}

/// The median of one figure over all rounds.
fn middle<T>(rounds: &[T], of: impl Fn(&T) -> f64) -> f64 {
    median(rounds.iter().map(of).collect())
}

fn drain(bench: &Bench, scale: u32, table: &mut Table) {
    for (name, shape) in [
        ("PostgreSQL to Kafka, 50,000 rows a transaction", Shape { transactions: 20, rows: 50_000 / scale }),
        ("PostgreSQL to Kafka, one row a transaction", Shape { transactions: 300_000 / scale, rows: 1 }),
    ] {
        let rounds: Vec<[f64; 4]> = (0..ROUNDS).map(|_| bench.drain(shape)).collect();
        let ratio = |over: usize| middle(&rounds, |round| round[0] / round[over]);
        table.row(
            name,
            &format!("{:.0} events/s, {:.2} µs of processor each", middle(&rounds, |round| round[0]), middle(&rounds, |round| round[1])),
            &format!("{:.2} x pg_recvlogical, {:.2} x a bare producer", ratio(2), ratio(3)),
        );
    }
}

fn prefeed(bench: &Bench, scale: u32, table: &mut Table) {
    for readers in [2, 1] {
        let rounds: Vec<[f64; 3]> = (0..ROUNDS).map(|_| bench.prefeed(2_000_000 / scale, readers)).collect();
        table.row(
            &format!("existing rows of PostgreSQL to Kafka, {readers} readers"),
            &format!("{:.0} rows/s, {:.2} µs of processor each", middle(&rounds, |round| round[0]), middle(&rounds, |round| round[1])),
            &format!("{:.2} x COPY TO STDOUT", middle(&rounds, |round| round[0] / round[2])),
        );
    }
}

fn beside(bench: &Bench, scale: u32, table: &mut Table) {
    for (what, open_seconds) in [("", 0), (", a transaction open for 60 s", 60)] {
        let beside = bench.beside(10_000_000 / scale, open_seconds);
        table.row(
            &format!("live events beside existing rows{what}"),
            &format!("{:.0} events/s, p50 {:.0} ms, longest {:.0} ms", beside.live_per_second, beside.p50_ms, beside.longest_ms),
            &format!("{:.0} rows/s meanwhile", beside.rows_per_second),
        );
    }
}

fn tables(bench: &Bench, scale: u32, table: &mut Table) {
    let shape = Shape { transactions: 1_000 / scale, rows: 1_000 };
    let [one, many] = [1, 1_000].map(|tables| (0..ROUNDS).map(|_| bench.tables(tables, shape)).collect::<Vec<_>>());
    let processor = |rounds: &[Tables]| middle(rounds, |round| round.drain.processor_us());
    let rate = |rounds: &[Tables]| middle(rounds, |round| round.drain.rate());
    table.row(
        "PostgreSQL with 1,000 tables of 20 rows to a file",
        &format!(
            "live {:.2} s after the first start, {:.2} s after the next; {:.2} µs of processor an event",
            middle(&many, |round| round.first_start_seconds),
            middle(&many, |round| round.next_start_seconds),
            processor(&many)
        ),
        &format!("{:.2} x the processor of one table, {:.2} x its rate", processor(&many) / processor(&one), rate(&many) / rate(&one)),
    );
}

fn sqlite(bench: &Bench, scale: u32, table: &mut Table) {
    let drains: Vec<Drain> = (0..ROUNDS).map(|_| bench.drain_sqlite(300_000 / scale)).collect();
    let measured =
        format!("{:.0} events/s, {:.2} µs of processor each", middle(&drains, Drain::rate), middle(&drains, Drain::processor_us));
    table.row("SQLite to Kafka, 1,000 rows a transaction", &measured, "");
}

fn rabbitmq(bench: &Bench, scale: u32, table: &mut Table) {
    let broker = servers::rabbitmq::RabbitMq::start(&[("vm_memory_high_watermark.relative", "0.6")]);
    let events = 100_000 / scale;
    for queue in ["classic", "quorum"] {
        let shape = Shape { transactions: events / 1_000, rows: 1_000 };
        for (source, rounds) in [
            ("PostgreSQL", (0..ROUNDS).map(|_| bench.rabbit_postgres(&broker, shape, queue)).collect::<Vec<_>>()),
            ("SQLite", (0..ROUNDS).map(|_| bench.rabbit_sqlite(&broker, events, queue)).collect()),
        ] {
            table.row(
                &format!("{source} to RabbitMQ, a durable {queue} queue"),
                &format!(
                    "{:.0} events/s, {:.2} µs of processor each",
                    middle(&rounds, |round| round.drain.rate()),
                    middle(&rounds, |round| round.drain.processor_us())
                ),
                &format!("{:.2} x frames written by hand", middle(&rounds, |round| round.drain.rate() / round.bare_rate)),
            );
        }
        let [p50, p99] = bench.rabbit_latency(&broker, if scale == 1 { 30 } else { 5 }, queue);
        let what = format!("commit to an outside consumer of a {queue} queue, at 1,000 changes/s");
        table.row(&what, &format!("p50 {p50:.1} ms, p99 {p99:.1} ms"), "");
    }
}

fn steady(bench: &Bench, scale: u32, table: &mut Table) {
    let steady = bench.latency(if scale == 1 { 30 } else { 5 });
    table.row(
        "commit to an outside consumer, at 1,000 changes/s",
        &format!("p50 {:.1} ms, p99 {:.1} ms", steady.p50_ms, steady.p99_ms),
        &format!("{:.1} % of one processor, {} MB resident", steady.processor_percent, steady.resident_mb),
    );
    let pause = std::env::var("BENCH_PAUSE_SECONDS").map_or(if scale == 1 { 300 } else { 20 }, |text| text.parse().unwrap());
    let memory = bench.memory(1_000_000 / scale, pause);
    let large = format!("{} MB in one transaction of {} rows", memory.large_mb, 1_000_000 / scale);
    table.row("resident memory, highest", &large, "");
    table.row(
        "",
        &format!("{} MB while the broker is silent for {pause} s", memory.silent_mb),
        &format!("{} one-row transactions meanwhile", memory.transactions),
    );
}
