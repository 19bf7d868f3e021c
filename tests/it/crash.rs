//! The process is killed at random, again and again, while others write; then every row and every record is compared
//! by a checker that shares nothing with this program (`tests/checker`).
//!
//! `FEEDLINE_KILLS` says how often (10), `FEEDLINE_SEED` repeats a run's moments and writes, `FEEDLINE_ROWS` how many rows there
//! are before (20,000), `FEEDLINE_RATE` how fast they are read (`"2MiB/s"`).

mod checker;
#[allow(dead_code, reason = "the benchmarks ask more of it")]
pub(crate) mod feedline;
mod workload;

use self::{
    checker::Checker,
    feedline::Feedline,
    workload::{Database, Writers},
};
use crate::servers::{kafka::Kafka, port::wait_for, postgres::Postgres};
use std::{fs, path::Path, thread, time::Duration};

/// Rows that are there before the changefeed, so that some kills fall into the prefeed.
const ROWS_BEFORE: u32 = 20_000;

/// How often the short form kills.
const KILLS: u32 = 10;

/// How much may come again after one kill: what is published in a checkpoint's interval while a backlog is caught up
/// with, and the room in flight.
const REPEATED_A_KILL: u32 = 20_000;

#[test]
fn sqlite_to_kafka_loses_nothing_however_often_it_is_killed() {
    let directory = tempdir("crash-sqlite");
    let path = directory.join("shop.db");
    let source = format!("kind = \"sqlite\"\npath = \"{}\"", path.display());
    // One database file takes one writer at a time; a second one makes them wait for each other.
    survive(&directory, &Run { name: "crash_sqlite", schema: "main", source, writers: 2, database: Database::Sqlite(path) });
}

#[test]
fn postgres_to_kafka_loses_nothing_however_often_it_is_killed() {
    let directory = tempdir("crash-postgres");
    let postgres = Postgres::shared();
    let database = postgres.create_database("crash");
    let source = format!(
        "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\n\
         tls = \"disable\"\nmanage = true",
        postgres.port(),
    );
    let psql = postgres.psql_command(&database);
    survive(&directory, &Run { name: "crash_postgres", schema: "public", source, writers: 3, database: Database::Postgres(psql) });
    postgres.psql("postgres", "SELECT pg_drop_replication_slot('feedline_crash_postgres')");
}

/// The checker itself: an honest example passes, and each planted bug is seen.
#[test]
fn the_checker_sees_planted_bugs() {
    let directory = tempdir("checker");
    checker::sample(&directory);
    let checker = Checker { source: checker::Source::Saved(directory.clone()), restarts: 1, duplicates_max: 100 };
    checker.check().unwrap_or_else(|report| panic!("an honest example fails: {report}"));
    assert_plants_are_seen(&checker);
    fs::remove_dir_all(directory).expect("remove the example");
}

/// What is killed, and what is written meanwhile.
struct Run {
    name: &'static str,
    schema: &'static str,
    /// Lines of the configuration's `[source]`.
    source: String,
    writers: u32,
    database: Database,
}

fn survive(directory: &Path, run: &Run) {
    let Run { name, schema, writers, database, .. } = run;
    let kills: u32 = number("FEEDLINE_KILLS").unwrap_or(KILLS);
    let seed: u64 = number("FEEDLINE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("{name}: {kills} kills, FEEDLINE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let kafka = Kafka::shared();
    let rows_before = number("FEEDLINE_ROWS").unwrap_or(ROWS_BEFORE);
    database.create(rows_before, seed);
    let configured = |rate: Option<String>| Feedline::new(directory, &configuration(run, directory, &kafka.bootstrap(), rate.as_deref()));
    let mut feedline = configured(rate());
    let writers = Writers::start(database, *writers, rows_before, seed);

    let mut in_prefeed = 0;
    for kill in 0..kills {
        feedline.start();
        // The first fall into the prefeed, the others into what follows; some into the start, some long after. With a rate
        // that the rows take all the time for, all of them fall into the prefeed.
        if kill == kills / 3 && rate().is_none() {
            feedline.wait_until_live();
        }
        let life = Duration::from_millis(if random.bool() { random.u64(50..800) } else { random.u64(800..4_000) });
        thread::sleep(life);
        in_prefeed += u32::from(!feedline.is_live());
        feedline.kill();
    }
    // What is left is read without a rate.
    feedline = configured(None);
    feedline.start();
    feedline.wait_until_live();
    writers.stop();
    database.write_last();
    let ledger = format!("{name}.{schema}.ledger");
    wait_for("the last change arrives", Duration::from_mins(2), || {
        feedline.assert_runs();
        let last = |record: &crate::servers::kafka::Record| record.key.as_deref() == Some(workload::LAST_KEY);
        kafka.topics().contains(&ledger).then(|| kafka.read_topic(&ledger).iter().any(last))?.then_some(())
    });
    feedline.stop();

    let checker = Checker {
        source: checker::Source::Live { bootstrap: kafka.bootstrap(), topics: format!("{name}."), database, save: directory.join("read") },
        restarts: kills + 1,
        duplicates_max: kills * REPEATED_A_KILL,
    };
    let report = checker
        .check()
        .unwrap_or_else(|report| panic!("FEEDLINE_SEED={seed} FEEDLINE_KILLS={kills}, kept in {}: {report}", directory.display()));
    println!("{in_prefeed} of {kills} kills came before all rows were read\n{report}");

    // The long form plants bugs into what it read, too; the short one leaves that to the checker's own example.
    if KILLS < kills {
        let saved = Checker { source: checker::Source::Saved(directory.join("read")), ..checker };
        assert_plants_are_seen(&saved);
    }
    fs::remove_dir_all(directory).expect("remove the run's files");
}

/// All tables of the source, to topics of three partitions.
fn configuration(run: &Run, directory: &Path, bootstrap: &str, rate: Option<&str>) -> String {
    format!(
        "name = \"{}\"\n\
         [source]\n{}\n\
         [[feeds]]\ntables = [\"{}.*\"]\n\
         [sink]\nkind = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n\
         create_topics = {{ partitions = 3, replication = 1 }}\n\
         [checkpoint]\nkind = \"file\"\npath = \"{}\"\n\
         [pipeline]\nmemory = \"8MiB\"\nprefeed_rate = \"{}\"\n",
        run.name,
        run.source,
        run.schema,
        directory.join("checkpoint").display(),
        rate.unwrap_or("unlimited"),
    )
}

/// How fast rows that are there before are read.
fn rate() -> Option<String> {
    std::env::var("FEEDLINE_RATE").ok()
}

fn assert_plants_are_seen(checker: &Checker) {
    for bug in checker::PLANTS {
        assert!(checker.check_with(Some(bug)).is_err(), "the checker does not see a planted bug: {bug}");
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("make a directory for the run");
    directory
}
