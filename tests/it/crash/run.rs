//! A pipeline from a database that others write to, to a broker; and the check of the result.

use super::{
    checker::{self, Checker},
    documents::{Server, Shop},
    feedline::Feedline,
    workload::{Database, Writers},
};
use crate::servers::{
    kafka::Kafka, mongodb::MongoDb, mysql::MySql, port::wait_for, postgres::Postgres, rabbitmq::RabbitMq, rethinkdb::RethinkDb,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// The memory budget, from the source's socket to the broker's confirmation.
pub(crate) const MEMORY_BYTES: u64 = 2 << 20;

/// Transactions a second of each writer, where nothing else is said: less than a build without optimization carries on a busy machine, or
/// rows that are there before would wait for ever behind what is written meanwhile.
const RATE: u32 = if cfg!(debug_assertions) { 25 } else { 60 };

/// How long it may take to catch up with what was written during all outages of a long run.
const BACKLOG_LIMIT: Duration = Duration::from_mins(15);

/// Where it goes.
#[derive(Clone, Copy)]
pub(crate) enum Broker {
    /// A topic a table.
    Kafka,
    /// One queue for all tables, named as the run, on the broker at this port; made with this type, or bound by the test.
    RabbitMq { port: u16, queue: Option<&'static str> },
}

impl Broker {
    /// RabbitMQ as all tests share it.
    pub(crate) fn rabbitmq(queue: &'static str) -> Self {
        Self::RabbitMq { port: RabbitMq::shared().port(), queue: Some(queue) }
    }

    /// Lines of the configuration's `[sink]`.
    fn sink(self, name: &str, more: &str) -> String {
        match self {
            Self::Kafka => {
                let servers = Kafka::shared().bootstrap();
                format!(
                    "kind = \"kafka\"\nbootstrap_servers = \"{servers}\"\ncreate_topics = {{ partitions = 3, replication = 1 }}\n{more}"
                )
            }
            Self::RabbitMq { port, queue } => {
                let queue = queue.map(|kind| format!("[[sink.queues]]\nname = \"{name}\"\nkeys = [\"#\"]\ntype = \"{kind}\""));
                let queue = queue.unwrap_or_default();
                format!("kind = \"amqp\"\nport = {port}\ntls = \"disable\"\npassword = \"guest\"\n{more}\n{queue}")
            }
        }
    }
}

/// Where the checkpoint lies.
#[derive(Clone, Copy)]
pub(crate) enum Kept {
    File,
    Broker,
}

/// One pipeline: what it reads, what is written meanwhile, and where it goes.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) broker: Broker,
    pub(crate) database: Database,
    /// More lines of the configuration's `[sink]`.
    pub(crate) sink: &'static str,
    /// Transactions a second of each writer.
    pub(crate) rate: u32,
    schema: String,
    /// Lines of the configuration's `[source]`.
    source: String,
    writers: u32,
    kept: Kept,
}

impl Run {
    pub(crate) fn sqlite(name: &str, broker: Broker, kept: Kept) -> Self {
        let directory = tempdir(name);
        let path = directory.join("shop.db");
        let source = format!("kind = \"sqlite\"\npath = \"{}\"", path.display());
        // One database file takes one writer at a time; a second one makes them wait for each other.
        Self {
            name: name.to_owned(),
            directory,
            broker,
            database: Database::Sqlite(path),
            sink: "",
            rate: RATE,
            schema: "main".to_owned(),
            source,
            writers: 2,
            kept,
        }
    }

    pub(crate) fn postgres(name: &str, broker: Broker, kept: Kept) -> Self {
        let postgres = Postgres::shared();
        let database = postgres.create_database("crash");
        let source = format!(
            "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\n\
             tls = \"disable\"\nmanage = true",
            postgres.port(),
        );
        let database = Database::Postgres(postgres.psql_command(&database));
        let (name, directory) = (name.to_owned(), tempdir(name));
        Self { name, directory, broker, database, sink: "", rate: RATE, schema: "public".to_owned(), source, writers: 3, kept }
    }

    pub(crate) fn mysql(name: &str, broker: Broker, kept: Kept) -> Self {
        Self::mysql_on(MySql::shared(), name, broker, kept)
    }

    /// From this server.
    pub(crate) fn mysql_on(server: &MySql, name: &str, broker: Broker, kept: Kept) -> Self {
        let schema = server.create_database("crash");
        let source = format!(
            "kind = \"mysql\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"root\"\ndatabase = \"{schema}\"\ntls = \"disable\"",
            server.port(),
        );
        let database = Database::MySql(server.client(&schema));
        let (name, directory) = (name.to_owned(), tempdir(name));
        Self { name, directory, broker, database, sink: "", rate: RATE, schema, source, writers: 3, kept }
    }

    pub(crate) fn mongodb(name: &str, broker: Broker, kept: Kept) -> Self {
        let (name, directory, schema) = (name.to_owned(), tempdir(name), "shop".to_owned());
        let server = Arc::new(MongoDb::start(&[]));
        let source = format!("kind = \"mongodb\"\nport = {}\ndatabase = \"{schema}\"\ntls = \"disable\"", server.port());
        let shop = Shop::new(Server::MongoDb(server, schema.clone()), directory.join("documents.json"));
        Self { name, directory, broker, database: Database::Documents(shop), sink: "", rate: RATE, schema, source, writers: 3, kept }
    }

    pub(crate) fn rethinkdb(name: &str, broker: Broker) -> Self {
        let (name, directory) = (name.to_owned(), tempdir(name));
        let server = Arc::new(RethinkDb::start());
        let source = format!(
            "kind = \"rethinkdb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\ndatabase = \"test\"\ntls = \"disable\"\n\
             store = \"{}\"\nqueue_size = 100",
            server.port(),
            directory.join("store").display(),
        );
        let database = Database::Documents(Shop::new(Server::RethinkDb(server), directory.join("documents.json")));
        Self { name, directory, broker, database, sink: "", rate: RATE, schema: "test".to_owned(), source, writers: 3, kept: Kept::File }
    }

    /// All tables of the source, to the broker.
    pub(crate) fn configuration(&self, prefeed_rate: Option<&str>) -> String {
        format!(
            "name = \"{}\"\n\
             [source]\n{}\n\
             [[feeds]]\ntables = [\"{}.*\"]\n\
             [sink]\n{}\n\
             [checkpoint]\n{}\n\
             [pipeline]\nmemory = \"{MEMORY_BYTES}B\"\nprefeed_rate = \"{}\"\n",
            self.name,
            self.source,
            self.schema,
            self.broker.sink(&self.name, self.sink),
            self.checkpoint(),
            prefeed_rate.unwrap_or("unlimited"),
        )
    }

    /// Its process, not started yet.
    pub(crate) fn feedline(&self) -> Feedline {
        Feedline::new(&self.directory, &self.configuration(None))
    }

    /// Starts the writers, which own most of the rows that are there before.
    pub(crate) fn write(&self, rows_before: u32, seed: u64) -> Writers {
        Writers::start(&self.database, self.writers, self.rate, rows_before, seed)
    }

    /// Waits until all tables are read. On a busy machine a broker may take no more than is written: rows that were there before would wait
    /// behind that for ever, as docs/prefeed.md says. Then the writers are slowed down until those have come.
    pub(crate) fn wait_until_live(feedline: &mut Feedline, writers: &mut Writers) {
        const BEHIND_SECONDS: f64 = 20.0;
        let mut is_slow = false;
        feedline.wait_until_live_while(|feedline| {
            if !is_slow && feedline.lag_seconds().is_some_and(|lag| BEHIND_SECONDS < lag) {
                is_slow = true;
                writers.slow_down(true);
            }
        });
        if is_slow {
            writers.slow_down(false);
        }
    }

    /// Lets the writers end, and waits until everything that was written is confirmed.
    pub(crate) fn drain(&self, feedline: &mut Feedline, mut writers: Writers) {
        Self::wait_until_live(feedline, &mut writers);
        writers.stop();
        // Nothing that is older is missing: the lag is an upper bound, and 0 only where a look at the log's head proves it.
        let has_all = |feedline: &mut Feedline, since: Instant| {
            feedline.assert_runs();
            let lag = feedline.lag_seconds();
            lag.is_some_and(|lag| lag == 0.0 || lag + 1.0 < since.elapsed().as_secs_f64())
        };
        let written = Instant::now();
        wait_for("all changes are confirmed", BACKLOG_LIMIT, || has_all(feedline, written).then_some(()));
        let confirmed = feedline.confirmed();
        self.database.write_last();
        let written = Instant::now();
        wait_for("the last change is confirmed", Duration::from_mins(2), || {
            (has_all(feedline, written) && confirmed < feedline.confirmed()).then_some(())
        });
    }

    /// What the checker looks at.
    pub(crate) fn subject(&self) -> checker::Source<'_> {
        let (database, save) = (&self.database, self.directory.join("read"));
        match self.broker {
            Broker::Kafka => {
                let topics = format!("{}.{}.", self.name, self.schema);
                checker::Source::Live { bootstrap: Kafka::shared().bootstrap(), topics, database, save }
            }
            Broker::RabbitMq { port, .. } => {
                let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
                checker::Source::Queue { url, queue: self.name.clone(), database, save }
            }
        }
    }

    /// The checker's report; panics where a promise is broken, and leaves the run's files.
    pub(crate) fn judge(&self, checker: &Checker<'_>) -> String {
        checker.check().unwrap_or_else(|report| panic!("{}, kept in {}: {report}", self.name, self.directory.display()))
    }

    /// Removes what it leaves.
    pub(crate) fn clear(self) {
        if matches!(self.database, Database::Postgres(_)) {
            Postgres::shared().psql("postgres", &format!("SELECT pg_drop_replication_slot('feedline_{}')", self.name));
        }
        fs::remove_dir_all(&self.directory).expect("remove the run's files");
    }

    /// Lines of the configuration's `[checkpoint]`.
    fn checkpoint(&self) -> String {
        match (self.kept, self.broker) {
            (Kept::File, _) => format!("kind = \"file\"\npath = \"{}\"", self.directory.join("checkpoint").display()),
            (Kept::Broker, Broker::Kafka) => "kind = \"kafka\"".to_owned(),
            (Kept::Broker, Broker::RabbitMq { .. }) => "kind = \"amqp\"".to_owned(),
        }
    }
}

/// How often something is killed, and what chance is made of: `FEEDLINE_KILLS`, `FEEDLINE_SEED`.
pub(crate) struct Plan {
    pub(crate) kills: u32,
    pub(crate) seed: u64,
    pub(crate) rows_before: u32,
}

impl Plan {
    /// The numbers of the environment, or else these.
    pub(crate) fn new(name: &str, kills: u32, rows_before: u32) -> Self {
        let kills = number("FEEDLINE_KILLS").unwrap_or(kills);
        let seed = number("FEEDLINE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        println!("{name}: {kills} kills, FEEDLINE_SEED={seed}");
        Self { kills, seed, rows_before: number("FEEDLINE_ROWS").unwrap_or(rows_before) }
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

pub(crate) fn tempdir(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("make a directory for the run");
    directory
}
