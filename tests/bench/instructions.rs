//! Instructions and allocations per event, counted by callgrind and by the allocator: the counts are the same on a busy machine and on an idle one.
//!
//! They are compared with the figures beside this file. `BENCH_WRITE=1` records new ones; see docs/performance.md.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    reason = "a benchmark uses a part of the test servers, and its unwraps are assertions"
)]

#[path = "instructions/allocations.rs"]
mod allocations;
#[path = "instructions/callgrind.rs"]
mod callgrind;
#[path = "instructions/encode.rs"]
mod encode;
#[path = "handover/engine.rs"]
mod engine;
#[path = "instructions/figures.rs"]
mod figures;
#[path = "instructions/submit.rs"]
mod submit;
mod servers {
    #[path = "../../servers/account.rs"]
    pub(crate) mod account;
    #[path = "../../servers/certificates.rs"]
    pub(crate) mod certificates;
    #[path = "../../servers/client.rs"]
    pub(crate) mod client;
    #[path = "../../servers/mysql.rs"]
    pub(crate) mod mysql;
    #[path = "../../servers/port.rs"]
    pub(crate) mod port;
    #[path = "../../servers/postgres.rs"]
    pub(crate) mod postgres;
    #[path = "../../servers/process.rs"]
    pub(crate) mod process;
}

use encode::Shape;
use figures::Figures;
use servers::{
    mysql::{self, MySql},
    postgres::{self, Postgres},
};
use std::{cell::Cell, pin::Pin, process::ExitCode};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// What is measured: by name, the argument that chooses it in the process that callgrind watches, and how it is called.
const MEASURED: [(&str, &str); 6] = [
    ("hand-over from source to confirmation, 560 bytes", "hand-over"),
    ("a PostgreSQL row from the socket to its JSON event, 1,000 rows a transaction", "encode-large"),
    ("the same, one row a transaction", "encode-single"),
    ("a MariaDB row from the socket to its JSON event, 1,000 rows a transaction", "mariadb-large"),
    ("a MariaDB row, one row a transaction", "mariadb-single"),
    ("submitting an event to Kafka's client, with headers", "submit"),
];

const LARGE: Shape = Shape { transactions: 50, rows: 1_000 };
const SINGLE: Shape = Shape { transactions: 20_000, rows: 1 };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [what, postgres, mariadb] = &arguments[..] {
        carry(what, postgres.parse().unwrap(), mariadb.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let postgres = Postgres::start(&postgres::Options { settings: vec![("autovacuum", "off")], ..postgres::Options::default() });
    let mariadb = MySql::start(&mysql::Options::default());
    let ports = [postgres.port(), mariadb.port()].map(|port| port.to_string());
    let counted = MEASURED.map(|(name, what)| (name.to_owned(), callgrind::count(&[what, &ports[0], &ports[1]])));
    if figures::allocates(&counted) {
        println!("an event allocates: on the way from the socket to the broker's client it must not");
        return ExitCode::FAILURE;
    }
    Figures::new(&counted).judge()
}

/// Carries some events, and prints how many, and how often the measured thread has allocated meanwhile.
fn carry(what: &str, postgres: u16, mariadb: u16) {
    // One thread, so that all that is to be counted happens below `counted`.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let events = match what {
        "hand-over" => {
            let mut carried = 0;
            counted(&runtime, Box::pin(async { carried = engine::carry(200_000).await }));
            carried
        }
        "encode-large" => encode::postgres::carry(&runtime, postgres, LARGE),
        "encode-single" => encode::postgres::carry(&runtime, postgres, SINGLE),
        "mariadb-large" => encode::mysql::carry(&runtime, mariadb, LARGE),
        "mariadb-single" => encode::mysql::carry(&runtime, mariadb, SINGLE),
        "submit" => submit::carry(&runtime, 20_000),
        other => panic!("nothing is called {other}"),
    };
    println!("{events} {}", ALLOCATED.get());
}

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// Only what this runs is counted: callgrind gets its name.
#[inline(never)]
fn counted(runtime: &Runtime, work: Pin<Box<dyn Future<Output = ()> + '_>>) {
    let before = allocations::count();
    runtime.block_on(work);
    ALLOCATED.set(allocations::count() - before);
}
