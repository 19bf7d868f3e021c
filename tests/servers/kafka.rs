//! Apache Kafka: one node, with broker and controller in one process (KRaft).

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers as _,
};

use super::{
    port::{self, wait_for},
    process::{Server, log},
};

const START_LIMIT: Duration = Duration::from_mins(3);
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A running broker.
#[derive(Debug)]
pub(crate) struct Kafka {
    server: Option<Server>,
    directory: PathBuf,
    settings: Vec<(&'static str, &'static str)>,
    port: u16,
    /// The port at which users must authenticate. At the other port everything is allowed.
    guarded_port: Option<u16>,
    /// The port for clients behind a forwarder, and the port that they are told to connect to.
    outside: Option<(u16, u16)>,
    cluster_id: String,
}

/// One record, as a reader received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the epoch, as the producer set it.
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    /// None in a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The header's value, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        std::str::from_utf8(value).ok()
    }
}

impl Kafka {
    /// The broker that the tests of this process share: topics, groups and transactional ids have unique names.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Starts a separate broker. `settings` override those of all test brokers in `server.properties`.
    pub(crate) fn start(settings: &[(&'static str, &'static str)]) -> Self {
        let directory = port::run_directory("kafka", None).expect("make a run directory");
        let cluster_id = URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes());
        let mut kafka =
            Self { server: None, directory, settings: settings.to_vec(), port: 0, guarded_port: None, outside: None, cluster_id };
        kafka.launch(None);
        kafka
    }

    /// Starts a separate broker with a second port, at which clients are told to connect to another address.
    pub(crate) fn start_behind(advertised: u16) -> Self {
        Self::start_behind_with(advertised, &[])
    }

    /// The same with settings, as for [`Self::start`].
    pub(crate) fn start_behind_with(advertised: u16, settings: &[(&'static str, &'static str)]) -> Self {
        let directory = port::run_directory("kafka", None).expect("make a run directory");
        let cluster_id = URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes());
        let protocols = ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT");
        let settings = std::iter::once(protocols).chain(settings.iter().copied()).collect();
        let outside = Some((port::free(), advertised));
        let mut kafka = Self { server: None, directory, settings, port: 0, guarded_port: None, outside, cluster_id };
        kafka.launch(None);
        kafka
    }

    /// The second port of a broker that has one for clients behind a forwarder.
    pub(crate) fn outside_port(&self) -> u16 {
        self.outside.expect("the broker is behind something").0
    }

    /// Starts a separate broker with a second port, where the user `poor` with the password `secret` may do what [`Self::grant`]
    /// grants.
    pub(crate) fn start_guarded() -> Self {
        const USERS: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required user_poor=\"secret\";";
        let directory = port::run_directory("kafka", None).expect("make a run directory");
        let cluster_id = URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes());
        let settings = vec![
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.sasl_plaintext.plain.sasl.jaas.config", USERS),
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:ANONYMOUS"),
        ];
        let mut kafka = Self { server: None, directory, settings, port: 0, guarded_port: Some(port::free()), outside: None, cluster_id };
        kafka.launch(None);
        kafka
    }

    /// The address at which users must authenticate.
    pub(crate) fn guarded_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.guarded_port.expect("the broker is guarded"))
    }

    /// Grants a user these operations on a topic.
    pub(crate) fn grant(&self, user: &str, operations: &[&str], topic: &str) {
        let class_path = format!("{}/*", port::target().join("servers/kafka-4.1.1").display());
        let mut command = Command::new("java");
        command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.args(["-cp", &class_path, "org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.bootstrap(), "--add"]);
        command.args(["--allow-principal", &format!("User:{user}"), "--topic", topic]);
        command.args(operations.iter().flat_map(|operation| ["--operation", operation]));
        let granted = command.stdin(Stdio::null()).output().expect("run java: run tests/setup");
        assert!(granted.status.success(), "grant: {}", String::from_utf8_lossy(&granted.stderr));
    }

    /// The broker's address, for `bootstrap.servers`.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The broker's port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process id of its virtual machine.
    pub(crate) fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// The identifier of this cluster.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Everything that the broker has logged.
    pub(crate) fn log(&self) -> String {
        log(&self.directory)
    }

    /// A topic's name that no other test of this broker has.
    pub(crate) fn unique(prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a topic, whose settings are pairs such as `("cleanup.policy", "compact")`.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("create an admin client");
        let made = block_on(admin.create_topics([&topic], &AdminOptions::new()));
        made.expect("ask for a topic").remove(0).unwrap_or_else(|(name, code)| panic!("create {name}: {code}"));
        self.await_topic(name, partitions);
    }

    /// Removes topics: for a benchmark that would fill the disk.
    pub(crate) fn delete_topics(&self, names: &[&str]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("create an admin client");
        block_on(admin.delete_topics(names, &AdminOptions::new())).expect("ask for the topics' removal");
    }

    /// The names of all topics but the broker's own.
    pub(crate) fn topics(&self) -> Vec<String> {
        let consumer: BaseConsumer = self.client().create().expect("create a consumer");
        let metadata = consumer.fetch_metadata(None, ASK_LIMIT).expect("fetch metadata");
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| !name.starts_with("__")).collect()
    }

    /// Reads a topic from its start to its present end, as a `read_committed` reader: partition by partition, each in the order of its
    /// offsets. It makes no consumer group.
    pub(crate) fn read_topic(&self, topic: &str) -> Vec<Record> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("create a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), ASK_LIMIT).expect("fetch metadata");
        let mut assignment = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("the beginning is an offset");
        }
        consumer.assign(&assignment).expect("assign partitions");

        let mut records = Vec::new();
        let mut open = assignment.count();
        while open > 0 {
            match consumer.poll(ASK_LIMIT) {
                Some(Ok(message)) => records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message
                        .headers()
                        .into_iter()
                        .flat_map(|headers| headers.iter())
                        .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                        .collect(),
                }),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("read {topic}: {error}"),
                None => panic!("read {topic}: nothing for {ASK_LIMIT:?}"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// SIGKILL. What was acknowledged is in the page cache and survives.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("the broker runs").kill();
    }

    /// Starts it again after [`Self::kill`], on the same port and data.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "the broker still runs");
        self.launch(Some(self.port));
    }

    /// SIGSTOP: connections stay open, and nothing is answered. The kernel still accepts new ones.
    pub(crate) fn pause(&self) {
        self.running().pause();
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.running().resume();
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("the broker runs")
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.bootstrap()).set("log_level", "0");
        client
    }

    /// The answer to the creation comes before every request can be served.
    fn await_topic(&self, name: &str, partitions: i32) {
        let consumer: BaseConsumer = self.client().create().expect("create a consumer");
        wait_for("the topic has leaders", START_LIMIT, || {
            let metadata = consumer.fetch_metadata(Some(name), ASK_LIMIT).ok()?;
            let topic = metadata.topics().first()?;
            let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
            (topic.error().is_none() && led == usize::try_from(partitions).ok()?).then_some(())
        });
    }

    fn launch(&mut self, port: Option<u16>) {
        let libs = port::fetched("kafka", "4.1.1", &[]);
        let class_path = format!("{}/*", libs.display());
        let properties = self.directory.join("server.properties").display().to_string();

        for _ in 0..5 {
            self.port = port.unwrap_or_else(port::free);
            fs::write(&properties, self.properties(port::free())).expect("write server.properties");
            if !self.directory.join("data").exists() {
                self.format(&class_path, &properties);
            }
            #[rustfmt::skip]
            let command = [
                "java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &class_path, "kafka.Kafka", &properties,
            ];
            let server = Server::start(&self.directory, &command);
            let ready = wait_for("Kafka answers", START_LIMIT, || {
                if !server.runs() {
                    return Some(false);
                }
                self.is_itself().then_some(true)
            });
            if ready {
                self.server = Some(server);
                return;
            }
            server.kill();
        }
        panic!("Kafka does not start: {}", self.log());
    }

    /// Whether a broker answers there, and is this one.
    fn is_itself(&self) -> bool {
        if !port::answers(self.port) {
            return false;
        }
        let admin: Result<AdminClient<DefaultClientContext>, _> = self.client().create();
        admin.is_ok_and(|admin| admin.inner().fetch_cluster_id(Duration::from_secs(2)).as_deref() == Some(&self.cluster_id))
    }

    /// Makes the data directory. Kafka's tool takes seconds of a core, and what it makes differs by its identifiers alone: it runs once.
    fn format(&self, class_path: &str, properties: &str) {
        static BOOTSTRAP: OnceLock<Vec<u8>> = OnceLock::new();
        let data = self.directory.join("data");
        let bootstrap = data.join("bootstrap.checkpoint");
        let records = BOOTSTRAP.get_or_init(|| {
            self.run_format(class_path, properties);
            fs::read(&bootstrap).expect("read what the tool made")
        });
        // The smallest ones are reserved.
        let directory_id = URL_SAFE_NO_PAD.encode(fastrand::u128(1 << 64..).to_be_bytes());
        let identifiers = format!("version=1\nnode.id=1\ncluster.id={}\ndirectory.id={directory_id}\n", self.cluster_id);
        fs::create_dir_all(&data).expect("make the data directory");
        fs::write(bootstrap, records).expect("write the first records of the metadata");
        fs::write(data.join("meta.properties"), identifiers).expect("write the identifiers");
    }

    fn run_format(&self, class_path: &str, properties: &str) {
        let formatted = Command::new("java")
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path, "kafka.tools.StorageTool", "format"])
            .args([&format!("--cluster-id={}", self.cluster_id), "-c", properties])
            .stdin(Stdio::null())
            .output()
            .expect("run java: run tests/setup");
        assert!(formatted.status.success(), "format: {}", String::from_utf8_lossy(&formatted.stderr));
    }

    fn properties(&self, controller: u16) -> String {
        let (port, data) = (self.port, self.directory.join("data"));
        let guarded = self.guarded_port.map(|port| format!(",SASL_PLAINTEXT://127.0.0.1:{port}")).unwrap_or_default();
        let (outside, advertised) = self
            .outside
            .map(|(port, advertised)| [port, advertised].map(|port| format!(",OUTSIDE://127.0.0.1:{port}")))
            .unwrap_or_default()
            .into();
        let mut lines = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{guarded}{outside}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{guarded}{advertised}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             log.dirs={data}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n\
             log.segment.bytes=67108864\n",
            data = data.display(),
        );
        for (name, value) in &self.settings {
            writeln!(lines, "{name}={value}").expect("a String takes everything");
        }
        lines
    }
}

/// Waits for a future that librdkafka's threads complete.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("build a runtime").block_on(future)
}

/// Whether the broker refused because it has no such topic.
pub(crate) fn is_unknown_topic(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
}
