//! RethinkDB fails in every way that it has, and the process is killed between, while others write. A changefeed has no memory: what was
//! not received must be found by the scan that follows, deletes too.

use super::{
    checker::Checker,
    documents::{Server, Shop},
    run::{Broker, MEMORY_BYTES, Plan, Run},
    unsaved::Unsaved,
    workload::Database,
};
use crate::servers::rethinkdb::RethinkDb;
use std::{thread, time::Duration};

/// How often the short form kills.
const KILLS: u32 = 10;
const ROWS_BEFORE: u32 = 3_000;

#[test]
fn rethinkdb_may_fail_in_every_way_between_kills() {
    let run = Run::rethinkdb("crash_changefeed", Broker::Kafka);
    let Database::Documents(Shop { server: Server::RethinkDb(server), .. }) = &run.database else { unreachable!("it is RethinkDB's run") };
    let Plan { kills, seed, rows_before } = Plan::new(&run.name, KILLS, ROWS_BEFORE);
    let mut random = fastrand::Rng::with_seed(seed);
    run.database.create(rows_before, seed);
    let mut feedline = run.feedline();
    let mut writers = run.write(rows_before, seed);
    let unsaved = Unsaved::watch(feedline.probe());
    for kill in 0..kills {
        feedline.start();
        if kill == kills / 3 {
            Run::wait_until_live(&mut feedline, &mut writers);
        }
        for _ in 0..random.u32(..4) {
            thread::sleep(Duration::from_millis(random.u64(..1_000)));
            fail(server, &mut random);
        }
        thread::sleep(Duration::from_millis(random.u64(50..800)));
        feedline.kill();
    }
    let unsaved_bytes = unsaved.bytes_max();
    feedline.start();
    run.drain(&mut feedline, writers);
    let counted = ["source_scans_total", "source_scan_differences_total", "source_overflows_total"];
    let counted = counted.map(|metric| (metric, feedline.count(&format!("feedline_{metric}"), "")));
    feedline.stop();
    let checker = Checker {
        source: run.subject(),
        restarts: u64::from(kills) + 1,
        repeated_bytes_max: unsaved_bytes + u64::from(kills) * MEMORY_BYTES,
        holes: false,
        scans: true,
        late_reads: false,
        excepted: &["ledger"],
    };
    println!("{}: {counted:?}\n{}", run.name, run.judge(&checker));
    run.clear();
}

/// One fault, after which the server goes on.
fn fail(server: &RethinkDb, random: &mut fastrand::Rng) {
    let table = ["acct", "churn", "gone", "ledger"][random.usize(..4)];
    match random.u32(..5) {
        // The queue of a changefeed overflows.
        0 => {
            server.hold(true);
            thread::sleep(Duration::from_millis(random.u64(..1_500)));
            server.hold(false);
        }
        // The table is resharded.
        1 => server.abort_feeds(table),
        // The server is restarted, and its primaries come late.
        2 => {
            server.kill();
            thread::sleep(Duration::from_millis(random.u64(..500)));
            server.lack_a_primary(random.u32(..6));
            server.restart();
        }
        // What was shown last is lost with its memory.
        3 => {
            server.lose_power(random.usize(..30));
            server.restart();
        }
        // It says nothing for a while.
        _ => {
            server.freeze(true);
            thread::sleep(Duration::from_millis(random.u64(..1_500)));
            server.freeze(false);
        }
    }
}
