//! The programs that carry a backlog: feedline, a peer, and those that show the limits.

use crate::{
    bare,
    feedline::Feedline,
    kinds::{Bench, LIMIT, Shape, TABLE, VALUES, establish, unique},
    meter::{self, Used},
    servers::{
        port::{fetched, run_directory, wait_for},
        process::Server,
    },
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// The version of the peer. The script in its folder downloads it.
pub(crate) const DEBEZIUM: &str = "3.6.1.Final";

/// A program that carries a backlog, or does a part of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Feedline,
    Debezium,
    Recvlogical,
    Reader,
    Producer,
}

impl Who {
    pub(crate) const ALL: [Self; 5] = [Self::Feedline, Self::Debezium, Self::Recvlogical, Self::Reader, Self::Producer];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Feedline => "feedline",
            Self::Debezium => "Debezium",
            Self::Recvlogical => "pg_recvlogical",
            Self::Reader => "a reader that decodes nothing",
            Self::Producer => "a bare producer",
        }
    }

    /// Whether it sends anything to the broker.
    pub(crate) const fn sends(self) -> bool {
        matches!(self, Self::Feedline | Self::Debezium | Self::Producer)
    }
}

/// The result of one program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Events per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time per event: its own, the database's, the broker's.
    pub(crate) own_us: f64,
    pub(crate) database_us: f64,
    pub(crate) broker_us: f64,
    /// The highest resident memory; `None` if the process ended before it was read.
    pub(crate) memory_mb: Option<u64>,
    /// Key and value of one of its records.
    pub(crate) record_bytes: Option<usize>,
}

impl Run {
    fn between(first: &Used, last: &Used, memory_mb: Option<u64>) -> Self {
        let events = f64::from(last.carried - first.carried);
        let each = |of: fn(&Used) -> Duration| of(last).saturating_sub(of(first)).as_secs_f64() * 1e6 / events;
        Self {
            rate: events / (last.at - first.at).as_secs_f64(),
            own_us: each(|used| used.own),
            database_us: each(|used| used.database),
            broker_us: each(|used| used.broker),
            memory_mb,
            record_bytes: None,
        }
    }
}

/// Rows that wait in the log, for each program.
pub(crate) struct Backlog<'b> {
    bench: &'b Bench,
    name: String,
    database: String,
    feedline: Feedline,
    bootstrap: String,
    events: u32,
    /// Where the log ends.
    end: String,
}

impl<'b> Backlog<'b> {
    /// Makes a slot for each program, then writes the rows.
    pub(crate) fn write(bench: &'b Bench, shape: Shape, bootstrap: &str) -> Self {
        let (name, database) = (unique(), bench.postgres.create_database("bench"));
        bench.postgres.psql(&database, TABLE);
        for topic in topics(&name) {
            bench.kafka.create_topic(&topic, 1, &[]);
        }
        let mut feedline = feedline(bench, &name, &database, bootstrap);
        establish(&mut feedline);
        for slot in ["peer", "plain", "bare"] {
            bench.postgres.psql(&database, &format!("SELECT pg_create_logical_replication_slot('{slot}_{name}', 'pgoutput')"));
        }
        let Shape { transactions, rows } = shape;
        bench.postgres.psql(
            &database,
            &format!(
                "DO $$ BEGIN FOR t IN 0..{transactions} - 1 LOOP \
                 INSERT INTO event SELECT {VALUES}, 0 FROM generate_series(t * {rows}, (t + 1) * {rows} - 1) g; COMMIT; \
                 END LOOP; END $$"
            ),
        );
        let end = bench.postgres.psql(&database, "SELECT pg_current_wal_insert_lsn()");
        Self { bench, name, database, feedline, bootstrap: bootstrap.to_owned(), events: transactions * rows, end }
    }

    /// Lets a program carry it, once the server has finished with the one before.
    pub(crate) fn carried_by(&mut self, who: Who) -> Run {
        let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
        wait_for("no slot is in use", LIMIT, || (self.bench.postgres.psql("postgres", active) == "0").then_some(()));
        let [ours, peers, bare] = topics(&self.name);
        match who {
            Who::Feedline => {
                self.feedline.start();
                let run = self.watch(&ours, self.feedline.pid());
                self.feedline.stop();
                run
            }
            Who::Debezium => {
                let peer = self.debezium();
                self.watch(&peers, peer.pid())
            }
            Who::Producer => {
                let mut producer = Running(bare::producer(&self.bootstrap, &bare, self.events).spawn().unwrap());
                let run = self.watch(&bare, producer.0.id());
                assert!(producer.0.wait().unwrap().success());
                Run { memory_mb: None, ..run }
            }
            Who::Recvlogical => self.whole(&mut self.recvlogical()),
            Who::Reader => {
                let (slot, publication) = (format!("bare_{}", self.name), self.publication());
                self.whole(&mut bare::reader(self.bench.postgres.port(), &self.database, &slot, &publication, &self.end))
            }
        }
    }

    /// Frees the disk.
    pub(crate) fn remove(self) {
        let Self { bench, name, database, feedline, .. } = self;
        drop(feedline);
        bench.kafka.delete_topics(&topics(&name).each_ref().map(String::as_str));
        bench.forget(&name, &database);
    }

    fn publication(&self) -> String {
        format!("feedline_{}", self.name)
    }

    /// From the first fifth, when every process has started and its code is compiled, to the end, as the topic shows it.
    fn watch(&self, topic: &str, pid: u32) -> Run {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.bench.kafka.bootstrap()).set("group.id", topic);
        let consumer: BaseConsumer = client.create().unwrap();
        let until = |count: u32| {
            let deadline = Instant::now() + LIMIT;
            loop {
                // It panics if the process has ended.
                let own = meter::processor(pid);
                // A broker that gets no processor time may lead no partition for a moment.
                let end = consumer.fetch_watermarks(topic, 0, Duration::from_secs(30)).map(|(_, end)| end);
                if let Some(carried) = end.iter().filter_map(|end| u32::try_from(*end).ok()).find(|carried| count <= *carried) {
                    return self.used(own, carried);
                }
                assert!(Instant::now() < deadline, "{end:?} of {count} records are in {topic}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let (first, last) = (until(self.events / 5), until(self.events));
        let run = Run::between(&first, &last, meter::peak_mb(pid));
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&partitions).unwrap();
        let record = consumer.poll(Duration::from_secs(30)).unwrap().unwrap();
        Run { record_bytes: Some(record.key().map_or(0, <[u8]>::len) + record.payload().map_or(0, <[u8]>::len)), ..run }
    }

    /// A program's run until it ends.
    fn whole(&self, command: &mut Command) -> Run {
        let first = self.used(meter::children(), 0);
        let status = command.status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
        Run::between(&first, &self.used(meter::children(), self.events), None)
    }

    fn used(&self, own: Duration, carried: u32) -> Used {
        let (database, broker) = (meter::family(self.bench.postgres.pid()), meter::processor(self.bench.kafka.pid()));
        Used { at: Instant::now(), own, database, broker, carried }
    }

    fn recvlogical(&self) -> Command {
        let mut command = Command::new("pg_recvlogical");
        command
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.bench.postgres.port().to_string(), "-d", &self.database])
            .args(["--slot", &format!("plain_{}", self.name), "--start", "-o", "proto_version=1"])
            .args(["-o", &format!("publication_names={}", self.publication())])
            .args(["-F", "0", "-f", "/dev/null", "--no-loop", "--endpos", &self.end]);
        command
    }

    /// Debezium's engine in a virtual machine as Kafka Connect's start script makes it, which is how it is mostly run; batches and queue
    /// are five times as large as by default, records without schemas, numbers as text: all of that is to its advantage.
    fn debezium(&self) -> Server {
        let (directory, programs) = (run_directory("debezium", None).unwrap(), fetched("debezium", DEBEZIUM, &[]));
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let connector = write("connector.properties", self.connector(&directory));
        let producer = write(
            "producer.properties",
            format!(
                "bootstrap.servers={}\nacks=all\nenable.idempotence=true\nbatch.size=1000000\nbuffer.memory=67108864\n",
                self.bootstrap
            ),
        );
        let class_path = format!("{0}:{0}/*", programs.display());
        #[rustfmt::skip]
        let command = [
            "java", "-Xms256M", "-Xmx2G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp", &class_path, "Peer", &connector, &producer,
        ];
        Server::start(&directory, &command)
    }

    fn connector(&self, directory: &Path) -> String {
        let (name, port) = (&self.name, self.bench.postgres.port());
        format!(
            "name=peer\n\
             connector.class=io.debezium.connector.postgresql.PostgresConnector\n\
             offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore\n\
             offset.storage.file.filename={}\n\
             offset.flush.interval.ms=1000\n\
             database.hostname=127.0.0.1\n\
             database.port={port}\n\
             database.user=postgres\n\
             database.password=none\n\
             database.dbname={}\n\
             topic.prefix=peer_{name}\n\
             table.include.list=public.event\n\
             plugin.name=pgoutput\n\
             slot.name=peer_{name}\n\
             publication.name={}\n\
             publication.autocreate.mode=disabled\n\
             snapshot.mode=no_data\n\
             decimal.handling.mode=string\n\
             converter.schemas.enable=false\n\
             max.batch.size=10240\n\
             max.queue.size=40960\n",
            directory.join("offsets").display(),
            self.database,
            self.publication(),
        )
    }
}

/// The topic to which feedline, the peer or the bare producer writes.
fn topics(name: &str) -> [String; 3] {
    [format!("{name}.public.event"), format!("peer_{name}.public.event"), format!("bare_{name}")]
}

fn feedline(bench: &Bench, name: &str, database: &str, bootstrap: &str) -> Feedline {
    let directory = bench.directory.join(name);
    fs::create_dir_all(&directory).unwrap();
    let configuration = format!(
        "name = \"{name}\"\n[source]\n{}\n[[feeds]]\ntables = [\"public.event\"]\nprefeed = \"none\"\n\
         [sink]\nkind = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n[checkpoint]\nkind = \"file\"\npath = \"{}\"\n",
        bench.source(database),
        directory.join("checkpoint").display(),
    );
    Feedline::new(&directory, &configuration)
}

/// A process that is killed if the measurement fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if nothing failed.
        let _ended = (self.0.kill(), self.0.wait());
    }
}
