//! The release binary between real servers, compared in one run with a peer and with the limits of the servers.
//!
//! Absolute rates depend on the machine; compare the ratios and the processor time per event. `BENCH_QUICK=1` makes everything ten times
//! smaller, `BENCH_ROUNDS` sets how often a backlog is drained, `BENCH_PAUSE_SECONDS` how long the broker is stopped,
//! `BENCH_ONLY=prefeed,beside` takes only those measurements, and `BENCH_WRITE=1` writes the results into the documents.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    reason = "a benchmark uses a part of the test servers, and its unwraps are assertions"
)]

#[path = "servers/bare.rs"]
mod bare;
#[path = "servers/beside.rs"]
mod beside;
#[path = "servers/binlog.rs"]
mod binlog;
#[path = "servers/change_stream.rs"]
mod change_stream;
#[path = "servers/changefeed.rs"]
mod changefeed;
#[path = "servers/contestants.rs"]
mod contestants;
#[path = "servers/drain.rs"]
mod drain;
#[path = "../it/crash/feedline.rs"]
mod feedline;
#[path = "servers/kinds.rs"]
mod kinds;
#[path = "servers/limits.rs"]
mod limits;
#[path = "servers/machine.rs"]
mod machine;
#[path = "servers/meter.rs"]
mod meter;
#[path = "servers/rabbit.rs"]
mod rabbit;
#[path = "servers/report.rs"]
mod report;
mod servers {
    #[path = "../../servers/account.rs"]
    pub(crate) mod account;
    #[path = "../../servers/certificates.rs"]
    pub(crate) mod certificates;
    #[path = "../../servers/client.rs"]
    pub(crate) mod client;
    #[path = "../../servers/delay.rs"]
    pub(crate) mod delay;
    #[path = "../../servers/kafka.rs"]
    pub(crate) mod kafka;
    #[path = "../../servers/mongodb.rs"]
    pub(crate) mod mongodb;
    #[path = "../../servers/mysql.rs"]
    pub(crate) mod mysql;
    #[path = "../../servers/port.rs"]
    pub(crate) mod port;
    #[path = "../../servers/postgres.rs"]
    pub(crate) mod postgres;
    #[path = "../../servers/process.rs"]
    pub(crate) mod process;
    #[path = "../../servers/rabbitmq.rs"]
    pub(crate) mod rabbitmq;
    #[path = "../../servers/rethinkdb.rs"]
    pub(crate) mod rethinkdb;
}

use self::{
    beside::Tables,
    binlog::{Binlog, Round},
    changefeed::EACH_US,
    kinds::{Bench, Shape},
    meter::{Drain, median},
    report::Said,
};

const ROUNDS: usize = 3;

/// Measures with everything this many times smaller.
type Measure = fn(&Bench, u32, &mut Said);

/// The measurements by name, in the order in which they are taken.
const MEASUREMENTS: [(&str, Measure); 10] = [
    ("drain", drain),
    ("prefeed", prefeed),
    ("beside", beside),
    ("tables", tables),
    ("sqlite", sqlite),
    ("mysql", mysql),
    ("mongodb", mongodb),
    ("rethinkdb", rethinkdb),
    ("steady", steady),
    ("rabbitmq", rabbitmq),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if bare::ran(&arguments) {
        return;
    }
    let is_asked = |name: &str| std::env::var_os(name).is_some();
    let scale = if is_asked("BENCH_QUICK") { 10 } else { 1 };
    let only = std::env::var("BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only.split(',').any(|one| one == name));
    let bench = Bench::start();
    // The results of a quick run are not recorded.
    let is_kept = is_asked("BENCH_WRITE") && scale == 1;
    let mut said = Said::default();
    said.page.push_str(&machine::described(&bench));
    said.publish("machine", is_kept);
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| wanted(name)) {
        let mut said = Said::default();
        measure(&bench, scale, &mut said);
        said.publish(name, is_kept);
    }
}

/// The median of one figure over all rounds.
fn middle<T>(rounds: &[T], of: impl Fn(&T) -> f64) -> f64 {
    median(rounds.iter().map(of).collect())
}

fn drain(bench: &Bench, scale: u32, said: &mut Said) {
    report::drain(&drain::run(bench, drain::rounds(scale != 1), scale), said);
}

fn prefeed(bench: &Bench, scale: u32, said: &mut Said) {
    for readers in [2, 1] {
        let rounds: Vec<[f64; 3]> = (0..ROUNDS).map(|_| bench.prefeed(2_000_000 / scale, readers)).collect();
        let ratio = middle(&rounds, |round| round[0] / round[2]);
        said.row(
            &format!("existing rows of PostgreSQL to Kafka, {readers} readers"),
            &format!("{:.0} rows/s, {:.2} µs of processor each", middle(&rounds, |round| round[0]), middle(&rounds, |round| round[1])),
            &format!("{ratio:.2} x COPY TO STDOUT"),
        );
        said.ratio(&format!(
            "Existing rows of PostgreSQL to Kafka, {readers} reader{}: {ratio:.2} times the rate of `COPY ... TO STDOUT`, whose output is discarded.",
            if readers == 1 { "" } else { "s" },
        ));
    }
}

fn beside(bench: &Bench, scale: u32, said: &mut Said) {
    for (what, open_seconds) in [("", 0), (", a transaction open for 60 s", 60)] {
        let beside = bench.beside(10_000_000 / scale, open_seconds);
        said.row(
            &format!("live events beside existing rows{what}"),
            &format!("{:.0} events/s, p50 {:.0} ms, longest {:.0} ms", beside.live_per_second, beside.p50_ms, beside.longest_ms),
            &format!("{:.0} rows/s meanwhile", beside.rows_per_second),
        );
    }
}

fn tables(bench: &Bench, scale: u32, said: &mut Said) {
    let shape = Shape { transactions: 1_000 / scale, rows: 1_000 };
    let [one, many] = [1, 1_000].map(|tables| (0..ROUNDS).map(|_| bench.tables(tables, shape)).collect::<Vec<_>>());
    let processor = |rounds: &[Tables]| middle(rounds, |round| round.drain.processor_us());
    let rate = |rounds: &[Tables]| middle(rounds, |round| round.drain.rate());
    let (dearer, faster) = (processor(&many) / processor(&one), rate(&many) / rate(&one));
    said.row(
        "PostgreSQL with 1,000 tables of 20 rows to a file",
        &format!(
            "live {:.2} s after the first start, {:.2} s after the next; {:.2} µs of processor an event",
            middle(&many, |round| round.first_start_seconds),
            middle(&many, |round| round.next_start_seconds),
            processor(&many)
        ),
        &format!("{dearer:.2} x the processor of one table, {faster:.2} x its rate"),
    );
    said.ratio(&format!("1,000 tables instead of one: {dearer:.2} times the processor time an event, {faster:.2} times the rate."));
}

fn sqlite(bench: &Bench, scale: u32, said: &mut Said) {
    let drains: Vec<Drain> = (0..ROUNDS).map(|_| bench.drain_sqlite(300_000 / scale)).collect();
    let measured =
        format!("{:.0} events/s, {:.2} µs of processor each", middle(&drains, Drain::rate), middle(&drains, Drain::processor_us));
    said.row("SQLite to Kafka, 1,000 rows a transaction", &measured, "");
}

fn mysql(bench: &Bench, scale: u32, said: &mut Said) {
    let binlog = Binlog::start(bench);
    for (what, shape) in [
        ("50,000 rows a transaction", Shape { transactions: 20, rows: 50_000 / scale }),
        ("30 rows a transaction", Shape { transactions: 20_000 / scale, rows: 30 }),
        ("one row a transaction", Shape { transactions: 300_000 / scale, rows: 1 }),
    ] {
        let rounds = binlog.drain(ROUNDS, shape);
        let of = |figure: fn(&Round) -> f64| Round::middle(&rounds, figure);
        let (copied, decoded) = (of(|round| round.own.rate / round.copied.rate), of(|round| round.own.rate / round.decoded.rate));
        let [own_us, copied_us, decoded_us] =
            [of(|round| round.own.processor_us), of(|round| round.copied.processor_us), of(|round| round.decoded.processor_us)];
        said.row(
            &format!("MariaDB to Kafka, {what}"),
            &format!("{:.0} events/s, {own_us:.2} µs of processor each", of(|round| round.own.rate)),
            &format!("{copied:.2} x `mariadb-binlog` ({copied_us:.2} µs), {decoded:.2} x `mariadb-binlog -v` ({decoded_us:.2} µs)"),
        );
        said.ratio(&format!(
            "MariaDB to Kafka, {what}: {decoded:.2} times the rate of `mariadb-binlog -v`, which decodes the rows, {copied:.2} times that of \
             `mariadb-binlog`, which does not; the output of both is discarded."
        ));
    }
    let steady = binlog.latency(if scale == 1 { 30 } else { 5 });
    said.row(
        "MariaDB: commit to an outside consumer, at 1,000 changes/s",
        &format!("p50 {:.1} ms, p99 {:.1} ms", steady.p50_ms, steady.p99_ms),
        &format!("{:.1} % of one processor, {} MB resident", steady.processor_percent, steady.resident_mb),
    );
    let rows = 1_000_000 / scale;
    let [transaction, row] = binlog.memory(rows);
    said.row(
        "MariaDB: resident memory, highest",
        &format!("{transaction} MB in one transaction of {rows} rows, {row} MB with a row of 40 MB"),
        "",
    );
}

fn mongodb(bench: &Bench, scale: u32, said: &mut Said) {
    let rounds = change_stream::drain(bench, ROUNDS, 20_000 / scale);
    let of = |figure: fn(&change_stream::Round) -> f64| middle(&rounds, figure);
    let (ratio, bare_us) = (of(|round| round.own.rate / round.bare.rate), of(|round| round.bare.processor_us));
    said.row(
        "MongoDB (SecantusDB) to Kafka",
        &format!("{:.0} events/s, {:.2} µs of processor each", of(|round| round.own.rate), of(|round| round.own.processor_us)),
        &format!("{ratio:.2} x PyMongo's bare stream ({bare_us:.2} µs)"),
    );
    said.ratio(&format!(
        "MongoDB to Kafka: {ratio:.2} times the rate of the bare change stream of MongoDB's driver for Python, whose events are discarded. \
         SecantusDB stands for MongoDB, and is the limit of both."
    ));
}

fn rethinkdb(bench: &Bench, scale: u32, said: &mut Said) {
    let rounds = [0, EACH_US].map(|each| (0..ROUNDS).map(|_| changefeed::round(bench, 200_000 / scale, each)).collect::<Vec<_>>());
    changefeed::report(&rounds, said);
}

fn rabbitmq(bench: &Bench, scale: u32, said: &mut Said) {
    let broker = servers::rabbitmq::RabbitMq::start(&[("vm_memory_high_watermark.relative", "0.6")]);
    let events = 100_000 / scale;
    for queue in ["classic", "quorum"] {
        let shape = Shape { transactions: events / 1_000, rows: 1_000 };
        for (source, rounds) in [
            ("PostgreSQL", (0..ROUNDS).map(|_| bench.rabbit_postgres(&broker, shape, queue)).collect::<Vec<_>>()),
            ("SQLite", (0..ROUNDS).map(|_| bench.rabbit_sqlite(&broker, events, queue)).collect()),
        ] {
            let ratio = middle(&rounds, |round| round.drain.rate() / round.bare_rate);
            said.row(
                &format!("{source} to RabbitMQ, a durable {queue} queue"),
                &format!(
                    "{:.0} events/s, {:.2} µs of processor each",
                    middle(&rounds, |round| round.drain.rate()),
                    middle(&rounds, |round| round.drain.processor_us())
                ),
                &format!("{ratio:.2} x frames written by hand"),
            );
            said.ratio(&format!(
                "{source} to RabbitMQ, confirmed and persistent: {ratio:.2} times the rate of the same messages as frames written by hand to a {queue} queue."
            ));
        }
        let [p50, p99] = bench.rabbit_latency(&broker, if scale == 1 { 30 } else { 5 }, queue);
        let what = format!("commit to an outside consumer of a {queue} queue, at 1,000 changes/s");
        said.row(&what, &format!("p50 {p50:.1} ms, p99 {p99:.1} ms"), "");
    }
}

fn steady(bench: &Bench, scale: u32, said: &mut Said) {
    let steady = bench.latency(if scale == 1 { 30 } else { 5 });
    said.row(
        "commit to an outside consumer, at 1,000 changes/s",
        &format!("p50 {:.1} ms, p99 {:.1} ms", steady.p50_ms, steady.p99_ms),
        &format!("{:.1} % of one processor, {} MB resident", steady.processor_percent, steady.resident_mb),
    );
    let pause = std::env::var("BENCH_PAUSE_SECONDS").map_or(if scale == 1 { 300 } else { 20 }, |text| text.parse().unwrap());
    let memory = bench.memory(1_000_000 / scale, pause);
    let large = format!("{} MB in one transaction of {} rows", memory.large_mb, 1_000_000 / scale);
    said.row("resident memory, highest", &large, "");
    said.row(
        "",
        &format!("{} MB while the broker is silent for {pause} s", memory.silent_mb),
        &format!("{} one-row transactions meanwhile", memory.transactions),
    );
}
