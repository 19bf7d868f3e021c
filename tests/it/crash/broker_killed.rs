//! RabbitMQ is killed at random times while others write. The program keeps running, and every row is compared as after its own kills.

use super::{
    checker::Checker,
    run::{Broker, Kept, MEMORY_BYTES, Plan, Run},
};
use crate::servers::{port::wait_for, rabbitmq::RabbitMq};
use std::{thread, time::Duration};

const ROWS_BEFORE: u32 = 2_000;
/// Transactions a second of each writer. A kill takes some ten seconds, most of them the broker's start, and what was written
/// meanwhile is on its way when the next one comes.
const RATE: u32 = 40;
/// How often the short form kills.
const KILLS: u32 = 2;

#[test]
fn rabbitmq_may_be_killed_with_a_classic_queue() {
    survive("killed_classic", "classic", Kept::File, Run::postgres);
}

#[test]
fn rabbitmq_may_be_killed_with_a_quorum_queue_and_the_checkpoint_in_another() {
    survive("killed_quorum", "quorum", Kept::Broker, Run::postgres);
}

#[test]
fn rabbitmq_may_be_killed_between_sqlite_and_a_quorum_queue() {
    survive("killed_sqlite", "quorum", Kept::File, Run::sqlite);
}

fn survive(name: &str, queue: &'static str, kept: Kept, run: fn(&str, Broker, Kept) -> Run) {
    let mut broker = RabbitMq::start(&[]);
    let mut run = run(name, Broker::RabbitMq { port: broker.port(), queue: Some(queue) }, kept);
    run.rate = RATE;
    let Plan { kills, seed, rows_before } = Plan::new(name, KILLS, ROWS_BEFORE);
    let mut random = fastrand::Rng::with_seed(seed);
    run.database.create(rows_before, seed);
    let mut feedline = run.feedline();
    feedline.start();
    feedline.wait_until_live();
    // A start may have waited for a transaction of somebody else.
    let source_errors_before = feedline.restarts("source_error");
    let writers = run.write(rows_before, seed);
    // RabbitMQ 3.10 writes down half a second later which log belongs to a new quorum queue: killed before, it makes an empty one.
    thread::sleep(Duration::from_secs(2));

    for _ in 0..kills {
        let confirmed = feedline.confirmed();
        wait_for("events flow", Duration::from_mins(2), || {
            feedline.assert_runs();
            (confirmed < feedline.confirmed()).then_some(())
        });
        // The times are random: it is killed at any moment, and stays away for any time.
        thread::sleep(Duration::from_millis(random.u64(50..3_000)));
        broker.kill();
        thread::sleep(Duration::from_millis(random.u64(..1_000)));
        broker.restart();
    }
    run.drain(&mut feedline, writers);
    let restarts = ["sink_error", "checkpoint_error", "source_error", "process"].map(|reason| (reason, feedline.restarts(reason)));
    let [(_, sink_errors), (_, checkpoint_errors), (_, source_errors), (_, starts)] = restarts;
    feedline.stop();
    assert!(u64::from(kills) <= sink_errors, "each kill ends a session: {restarts:?}");
    assert_eq!((source_errors, starts), (source_errors_before, 0), "the broker's end is nobody else's: {restarts:?}");
    assert!(checkpoint_errors == 0 || matches!(kept, Kept::Broker), "{restarts:?}");

    let checker = Checker {
        source: run.subject(),
        restarts: sink_errors,
        // What is in memory is sent again, and nothing else: the checkpoint is not read.
        repeated_bytes_max: u64::from(kills) * MEMORY_BYTES,
        // A classic queue writes messages of 4 KiB and more to a file of their own, sooner than the small ones before them.
        holes: queue == "classic",
        scans: false,
        late_reads: false,
        excepted: &[],
    };
    println!("{}: {restarts:?}\n{}", run.name, run.judge(&checker));
    run.clear();
}
