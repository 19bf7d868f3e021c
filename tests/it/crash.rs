//! The process is killed at random times while others write. Then every row and every record is compared by a checker that shares no code with
//! this program (`tests/checker`).
//!
//! `FEEDLINE_KILLS` sets how often it is killed (10), `FEEDLINE_SEED` repeats a run's times and writes, `FEEDLINE_ROWS` sets how many rows exist
//! before (20,000), `FEEDLINE_RATE` how fast they are read (`"2MiB/s"`).

mod broker_killed;
mod changefeed;
pub(crate) mod checker;
pub(crate) mod documents;
#[allow(dead_code, reason = "the benchmarks use more of it")]
pub(crate) mod feedline;
pub(crate) mod run;
mod server_killed;
mod unsaved;
pub(crate) mod workload;

use self::{
    checker::Checker,
    documents::Server,
    run::{Broker, Kept, MEMORY_BYTES, Plan, Run, tempdir},
    unsaved::Unsaved,
    workload::Database,
};
use std::{fs, thread, time::Duration};

/// Rows that are there before the changefeed, so that some kills fall into the prefeed.
const ROWS_BEFORE: u32 = 20_000;

/// How often the short form kills.
const KILLS: u32 = 10;

#[test]
fn sqlite_to_kafka_loses_nothing_however_often_it_is_killed() {
    survive(Run::sqlite("crash_sqlite", Broker::Kafka, Kept::Broker));
}

#[test]
fn postgres_to_kafka_loses_nothing_however_often_it_is_killed() {
    survive(Run::postgres("crash_postgres", Broker::Kafka, Kept::File));
}

#[test]
fn postgres_to_rabbitmq_loses_nothing_however_often_it_is_killed() {
    survive(Run::postgres("crash_classic", Broker::rabbitmq("classic"), Kept::Broker));
}

#[test]
fn mysql_to_kafka_loses_nothing_however_often_it_is_killed() {
    survive(Run::mysql("crash_mysql", Broker::Kafka, Kept::Broker));
}

#[test]
fn mysql_to_rabbitmq_loses_nothing_however_often_it_is_killed() {
    survive(Run::mysql("crash_mysql_queue", Broker::rabbitmq("quorum"), Kept::File));
}

#[test]
fn sqlite_to_a_quorum_queue_loses_nothing_however_often_it_is_killed() {
    survive(Run::sqlite("crash_quorum", Broker::rabbitmq("quorum"), Kept::File));
}

#[test]
fn mongodb_to_kafka_loses_nothing_however_often_it_is_killed() {
    survive(Run::mongodb("crash_mongodb", Broker::Kafka, Kept::File));
}

#[test]
fn mongodb_to_rabbitmq_loses_nothing_however_often_it_is_killed() {
    survive(Run::mongodb("crash_mongodb_queue", Broker::rabbitmq("quorum"), Kept::Broker));
}

#[test]
fn rethinkdb_to_kafka_loses_nothing_however_often_it_is_killed() {
    survive(Run::rethinkdb("crash_rethinkdb", Broker::Kafka));
}

#[test]
fn rethinkdb_to_rabbitmq_loses_nothing_however_often_it_is_killed() {
    survive(Run::rethinkdb("crash_rethinkdb_queue", Broker::rabbitmq("quorum")));
}

/// The checker itself: an honest example passes, and each planted bug is seen.
#[test]
fn the_checker_sees_planted_bugs() {
    let directory = tempdir("checker");
    checker::sample(&directory);
    let source = checker::Source::Saved(directory.clone());
    let checker =
        Checker { source, restarts: 1, repeated_bytes_max: 200_000, holes: false, scans: false, late_reads: false, excepted: &[] };
    checker.check().unwrap_or_else(|report| panic!("an honest example fails: {report}"));
    assert_eq!(assert_plants_are_seen(&checker), 0, "the example has a record for each bug");
    let with_holes = Checker { restarts: 2, holes: true, ..checker };
    with_holes.check_with(Some(checker::KEPT_IN_PART)).unwrap_or_else(|report| panic!("an honest broker fails: {report}"));
    for bug in ["dropped", "swapped", "early-ack", "rewritten"] {
        assert!(with_holes.check_with(Some(bug)).is_err(), "the checker does not see a planted bug: {bug}");
    }
    let narrow = Checker { repeated_bytes_max: 50_000, ..with_holes };
    assert!(narrow.check().unwrap_err().contains("repetitions"), "too much comes again");
    fs::remove_dir_all(directory).expect("remove the example");
}

fn survive(run: Run) {
    let server = if let Database::Documents(shop) = &run.database { Some(&shop.server) } else { None };
    let (is_scanned, is_surrogate) = (matches!(server, Some(Server::RethinkDb(_))), matches!(server, Some(Server::MongoDb(..))));
    // SecantusDB takes some hundred documents in a second.
    let Plan { kills, seed, rows_before } = Plan::new(&run.name, KILLS, if is_surrogate { ROWS_BEFORE / 5 } else { ROWS_BEFORE });
    let mut random = fastrand::Rng::with_seed(seed);
    run.database.create(rows_before, seed);
    let mut feedline = run.feedline();
    feedline.configure(&run.configuration(rate().as_deref()));
    let mut writers = run.write(rows_before, seed);
    let unsaved = Unsaved::watch(feedline.probe());

    let mut in_prefeed = 0;
    for kill in 0..kills {
        feedline.start();
        // The first fall into the prefeed, the others into what follows; some into the start, some long after. With a rate
        // that the rows take all the time for, all of them fall into the prefeed.
        if kill == kills / 3 && rate().is_none() {
            Run::wait_until_live(&mut feedline, &mut writers);
        }
        let life = Duration::from_millis(if random.bool() { random.u64(50..800) } else { random.u64(800..4_000) });
        thread::sleep(life);
        in_prefeed += u32::from(!feedline.is_live());
        feedline.kill();
    }
    let unsaved_bytes = unsaved.bytes_max();
    // What is left is read without a rate.
    feedline.configure(&run.configuration(None));
    feedline.start();
    run.drain(&mut feedline, writers);
    feedline.stop();

    // A kill repeats what was confirmed since the last checkpoint, and what was on its way.
    let repeated_bytes_max = unsaved_bytes + u64::from(kills) * MEMORY_BYTES;
    let checker = Checker {
        source: run.subject(),
        restarts: u64::from(kills) + 1,
        repeated_bytes_max,
        holes: false,
        scans: is_scanned,
        // SecantusDB's snapshots of several collections are not of one moment.
        late_reads: is_surrogate,
        excepted: if is_scanned { &["ledger"] } else { &[] },
    };
    println!("{}: {in_prefeed} of {kills} kills came before all rows were read\n{}", run.name, run.judge(&checker));

    // The long form plants bugs into what it read, too. The short one leaves that to the checker's own example, and a million rows would take
    // most of an hour.
    if KILLS < kills && rate().is_none() && !is_scanned && matches!(run.broker, Broker::Kafka) {
        let skipped = assert_plants_are_seen(&Checker { source: checker::Source::Saved(run.directory.join("read")), ..checker });
        println!("{}: {skipped} of {} bugs had no record to befall", run.name, checker::PLANTS.len());
    }
    run.clear();
}

/// How fast rows that are there before are read.
fn rate() -> Option<String> {
    std::env::var("FEEDLINE_RATE").ok()
}

/// How many could not be planted.
fn assert_plants_are_seen(checker: &Checker<'_>) -> usize {
    let is_skipped = |bug: &&&str| match checker.check_with(Some(bug)) {
        Ok(_) => panic!("the checker does not see a planted bug: {bug}"),
        Err(report) => report == checker::NOTHING_TO_PLANT,
    };
    checker::PLANTS.iter().filter(is_skipped).count()
}
