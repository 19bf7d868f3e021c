//! MariaDB or MySQL is killed at random times while others write, also while existing rows are read. The program keeps running, and every row
//! is compared as after its own kills.

use super::{
    checker::Checker,
    run::{Broker, Kept, MEMORY_BYTES, Plan, Run},
    workload::Writers,
};
use crate::servers::{
    mysql::{MySql, Options},
    port::wait_for,
};
use std::{thread, time::Duration};

/// How often the short form kills.
const KILLS: u32 = 3;
const ROWS_BEFORE: u32 = 10_000;
/// How many writers there are between two kills. They end with the server, and others come with keys of their own.
const WRITERS: u32 = 3;

#[test]
fn mysql_may_be_killed() {
    // A server that is restarted has what it has answered for.
    let settings = vec![("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")];
    let server = MySql::start(&Options { settings, ..Options::default() });
    let run = Run::mysql_on(&server, "killed_mysql", Broker::Kafka, Kept::File);
    let Plan { kills, seed, rows_before } = Plan::new(&run.name, KILLS, ROWS_BEFORE);
    let mut random = fastrand::Rng::with_seed(seed);
    run.database.create(rows_before, seed);
    let mut feedline = run.feedline();
    feedline.start();
    let mut writers = run.write(rows_before, seed);
    for kill in 0..kills {
        // The first fall into the prefeed.
        if kills / 3 < kill {
            Run::wait_until_live(&mut feedline, &mut writers);
        }
        thread::sleep(Duration::from_millis(random.u64(100..3_000)));
        feedline.assert_runs();
        server.kill();
        writers.abandon();
        thread::sleep(Duration::from_millis(random.u64(..1_000)));
        server.restart();
        let confirmed = feedline.confirmed();
        writers = Writers::fresh(&run.database, 100 + WRITERS * kill, WRITERS, run.rate, seed);
        wait_for("it reads again", Duration::from_mins(2), || (confirmed < feedline.confirmed()).then_some(()));
    }
    run.drain(&mut feedline, writers);
    let restarts = ["source_error", "sink_error", "source_gap", "process"].map(|reason| feedline.restarts(reason));
    feedline.stop();
    assert!(0 < restarts[0], "{restarts:?}");
    assert_eq!(restarts[1..], [0, 0, 0], "the server's end is nobody else's: {restarts:?}");
    let checker = Checker {
        source: run.subject(),
        restarts: u64::from(kills),
        // Rows of a slice that broke off are read again.
        repeated_bytes_max: u64::from(kills) * MEMORY_BYTES,
        holes: false,
        scans: false,
        late_reads: false,
        excepted: &[],
    };
    println!("{}: {restarts:?}\n{}", run.name, run.judge(&checker));
    run.clear();
}
