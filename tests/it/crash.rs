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
use crate::servers::{kafka::Kafka, port::wait_for, postgres::Postgres, rabbitmq::RabbitMq};
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
    survive(
        &directory,
        &Run {
            name: "crash_sqlite",
            schema: "main",
            source,
            writers: 2,
            database: Database::Sqlite(path),
            broker: Broker::Kafka,
            keeps: true,
        },
    );
}

#[test]
fn postgres_to_kafka_loses_nothing_however_often_it_is_killed() {
    postgres_survives("crash_postgres", Broker::Kafka, false);
}

#[test]
fn postgres_to_rabbitmq_loses_nothing_however_often_it_is_killed() {
    postgres_survives("crash_rabbitmq", Broker::RabbitMq, true);
}

fn postgres_survives(name: &'static str, broker: Broker, keeps: bool) {
    let directory = tempdir(name);
    let postgres = Postgres::shared();
    let database = postgres.create_database("crash");
    let source = format!(
        "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\n\
         tls = \"disable\"\nmanage = true",
        postgres.port(),
    );
    let psql = postgres.psql_command(&database);
    survive(&directory, &Run { name, schema: "public", source, writers: 3, database: Database::Postgres(psql), broker, keeps });
    postgres.psql("postgres", &format!("SELECT pg_drop_replication_slot('feedline_{name}')"));
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
    broker: Broker,
    /// Whether the broker keeps the checkpoint too.
    keeps: bool,
}

impl Run {
    /// Lines of the configuration's `[checkpoint]`.
    fn checkpoint(&self, directory: &Path) -> String {
        match self.broker {
            _ if !self.keeps => format!("kind = \"file\"\npath = \"{}\"", directory.join("checkpoint").display()),
            Broker::Kafka => "kind = \"kafka\"".to_owned(),
            Broker::RabbitMq => "kind = \"amqp\"".to_owned(),
        }
    }
}

/// Where it goes.
#[derive(Clone, Copy)]
enum Broker {
    /// A topic a table.
    Kafka,
    /// One queue for all tables, named as the run.
    RabbitMq,
}

impl Broker {
    /// Lines of the configuration's `[sink]`.
    fn sink(self, name: &str) -> String {
        match self {
            Self::Kafka => {
                let servers = Kafka::shared().bootstrap();
                format!("kind = \"kafka\"\nbootstrap_servers = \"{servers}\"\ncreate_topics = {{ partitions = 3, replication = 1 }}")
            }
            Self::RabbitMq => format!(
                "kind = \"amqp\"\nport = {}\ntls = \"disable\"\npassword = \"guest\"\n\
                 [[sink.queues]]\nname = \"{name}\"\nkeys = [\"#\"]\ntype = \"classic\"",
                RabbitMq::shared().port()
            ),
        }
    }

    /// Waits until the change that was written last is there.
    fn wait_for_last(self, run: &Run, feedline: &mut Feedline) {
        let ledger = format!("{}.{}.ledger", run.name, run.schema);
        wait_for("the last change arrives", Duration::from_mins(2), || {
            feedline.assert_runs();
            match self {
                Self::Kafka => {
                    let last = |record: &crate::servers::kafka::Record| record.key.as_deref() == Some(workload::LAST_KEY);
                    let kafka = Kafka::shared();
                    kafka.topics().contains(&ledger).then(|| kafka.read_topic(&ledger).iter().any(last))?.then_some(())
                }
                // 0 is said only when a look at the log's head proves it.
                Self::RabbitMq => (feedline.lag_seconds() == Some(0.0)).then_some(()),
            }
        });
    }

    /// What the checker looks at.
    fn source<'d>(self, run: &'d Run, directory: &Path) -> checker::Source<'d> {
        let database = &run.database;
        match self {
            Self::Kafka => checker::Source::Live {
                bootstrap: Kafka::shared().bootstrap(),
                topics: format!("{}.{}.", run.name, run.schema),
                database,
                save: directory.join("read"),
            },
            Self::RabbitMq => {
                let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", RabbitMq::shared().port());
                checker::Source::Queue { url, queue: run.name.to_owned(), database }
            }
        }
    }
}

fn survive(directory: &Path, run: &Run) {
    let Run { name, writers, database, broker, .. } = run;
    let kills: u32 = number("FEEDLINE_KILLS").unwrap_or(KILLS);
    let seed: u64 = number("FEEDLINE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("{name}: {kills} kills, FEEDLINE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let rows_before = number("FEEDLINE_ROWS").unwrap_or(ROWS_BEFORE);
    database.create(rows_before, seed);
    let configured = |rate: Option<String>| Feedline::new(directory, &configuration(run, directory, rate.as_deref()));
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
    broker.wait_for_last(run, &mut feedline);
    feedline.stop();

    let checker = Checker { source: broker.source(run, directory), restarts: kills + 1, duplicates_max: kills * REPEATED_A_KILL };
    let report = checker
        .check()
        .unwrap_or_else(|report| panic!("FEEDLINE_SEED={seed} FEEDLINE_KILLS={kills}, kept in {}: {report}", directory.display()));
    println!("{in_prefeed} of {kills} kills came before all rows were read\n{report}");

    // The long form plants bugs into what it read, too; the short one leaves that to the checker's own example.
    if KILLS < kills && matches!(broker, Broker::Kafka) {
        let saved = Checker { source: checker::Source::Saved(directory.join("read")), ..checker };
        assert_plants_are_seen(&saved);
    }
    fs::remove_dir_all(directory).expect("remove the run's files");
}

/// All tables of the source, to one broker.
fn configuration(run: &Run, directory: &Path, rate: Option<&str>) -> String {
    format!(
        "name = \"{}\"\n\
         [source]\n{}\n\
         [[feeds]]\ntables = [\"{}.*\"]\n\
         [sink]\n{}\n\
         [checkpoint]\n{}\n\
         [pipeline]\nmemory = \"8MiB\"\nprefeed_rate = \"{}\"\n",
        run.name,
        run.source,
        run.schema,
        run.broker.sink(run.name),
        run.checkpoint(directory),
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
