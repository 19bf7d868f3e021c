//! The release binary between real servers, against what the servers themselves can do in the same run.
//!
//! Absolute rates belong to the machine; the ratios and the processor time an event are what to compare. `BENCH_QUICK=1`
//! makes everything ten times smaller, `BENCH_PAUSE_SECONDS` sets the length of the broker's silence.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    reason = "a benchmark uses a part of the test servers, and its unwraps are assertions"
)]

#[path = "../it/crash/feedline.rs"]
mod feedline;
#[path = "servers/kinds.rs"]
mod kinds;
#[path = "servers/limits.rs"]
mod limits;
#[path = "servers/meter.rs"]
mod meter;
mod servers {
    #[path = "../../servers/kafka.rs"]
    pub(crate) mod kafka;
    #[path = "../../servers/port.rs"]
    pub(crate) mod port;
    #[path = "../../servers/postgres.rs"]
    pub(crate) mod postgres;
    #[path = "../../servers/process.rs"]
    pub(crate) mod process;
}

use self::{
    kinds::{Bench, Shape},
    meter::{Drain, median},
};
use std::{fmt::Write as _, fs};

const ROUNDS: usize = 3;

fn main() {
    let quick = std::env::var_os("BENCH_QUICK").is_some();
    let scale = if quick { 10 } else { 1 };
    let bench = Bench::start();
    let mut table = String::from("| what | measured | against |\n|---|---|---|\n");

    for (name, shape) in [
        ("PostgreSQL to Kafka, 50,000 rows a transaction", Shape { transactions: 20, rows: 50_000 / scale }),
        ("PostgreSQL to Kafka, one row a transaction", Shape { transactions: 300_000 / scale, rows: 1 }),
    ] {
        let rounds: Vec<[f64; 4]> = (0..ROUNDS).map(|_| bench.drain(shape)).collect();
        let middle = |at: usize| median(rounds.iter().map(|round| round[at]).collect());
        let ratio = |over: usize| median(rounds.iter().map(|round| round[0] / round[over]).collect());
        row(
            &mut table,
            name,
            &format!("{:.0} events/s, {:.2} µs of processor each", middle(0), middle(1)),
            &format!("{:.2} x pg_recvlogical, {:.2} x a bare producer", ratio(2), ratio(3)),
        );
    }

    for readers in [2, 1] {
        let rounds: Vec<[f64; 3]> = (0..ROUNDS).map(|_| bench.prefeed(2_000_000 / scale, readers)).collect();
        let middle = |at: usize| median(rounds.iter().map(|round| round[at]).collect());
        row(
            &mut table,
            &format!("existing rows of PostgreSQL to Kafka, {readers} readers"),
            &format!("{:.0} rows/s, {:.2} µs of processor each", middle(0), middle(1)),
            &format!("{:.2} x COPY TO STDOUT", median(rounds.iter().map(|round| round[0] / round[2]).collect())),
        );
    }

    let drains: Vec<Drain> = (0..ROUNDS).map(|_| bench.drain_sqlite(300_000 / scale)).collect();
    row(
        &mut table,
        "SQLite to Kafka, 1,000 rows a transaction",
        &format!(
            "{:.0} events/s, {:.2} µs of processor each",
            median(drains.iter().map(Drain::rate).collect()),
            median(drains.iter().map(Drain::processor_us).collect()),
        ),
        "",
    );

    let steady = bench.latency(if quick { 5 } else { 30 });
    row(
        &mut table,
        "commit to an outside consumer, at 1,000 changes/s",
        &format!("p50 {:.1} ms, p99 {:.1} ms", steady.p50_ms, steady.p99_ms),
        &format!("{:.1} % of one processor, {} MB resident", steady.processor_percent, steady.resident_mb),
    );

    let pause = std::env::var("BENCH_PAUSE_SECONDS").map_or(if quick { 20 } else { 300 }, |text| text.parse().unwrap());
    let memory = bench.memory(1_000_000 / scale, pause);
    row(&mut table, "resident memory, highest", &format!("{} MB in one transaction of {} rows", memory.large_mb, 1_000_000 / scale), "");
    row(
        &mut table,
        "",
        &format!("{} MB while the broker is silent for {pause} s", memory.silent_mb),
        &format!("{} one-row transactions meanwhile", memory.transactions),
    );

    println!("\n{table}");
    let path = servers::port::target().join("bench.md");
    fs::write(&path, &table).unwrap();
    println!("written to {}", path.display());
}

fn row(table: &mut String, what: &str, measured: &str, against: &str) {
    println!("{what}: {measured} {against}");
    writeln!(table, "| {what} | {measured} | {against} |").unwrap();
}
