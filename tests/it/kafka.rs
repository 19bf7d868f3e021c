//! The Kafka sink: with librdkafka's mock brokers, which can inject faults, and with real brokers.

use crate::contract_sink::{Builder, COMMITTED, DEADLINE, Settling, Spec, Subject, contract, feed, feeds, open};
use feedline::event::Operation;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::Feeds;
use feedline::net::secret::Secret;
use feedline::sink::kafka::{Connector, Error, Options, Session};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::Metrics;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

mod formats;
mod limits;
mod other_cluster;
mod preflight;
mod real;
mod recreated;

const TOPIC: &str = "shop.public.orders";

fn options(servers: &str) -> Options {
    Options::plain(servers, "shop")
}

fn connector(options: Options, feeds: Arc<Feeds>) -> Connector {
    let mut connector = Connector::new(options, Metrics::new("shop").sink);
    connector.select(feeds);
    connector
}

/// A record as a consumer receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Received {
    partition: i32,
    key: Option<String>,
    body: Option<String>,
    headers: Vec<(String, String)>,
    timestamp: Option<i64>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Reads all records of a topic, each partition to its end.
fn read(servers: &str, topic: &str) -> Vec<Received> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, i32::try_from(partition).unwrap(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut received, mut ended) = (Vec::new(), 0);
    let deadline = Instant::now() + DEADLINE;
    while ended < partitions {
        assert!(Instant::now() < deadline, "reading the topic takes too long");
        let message = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                ended += 1;
                continue;
            }
            Some(Err(error)) => panic!("{error}"),
            None => continue,
        };
        received.push(Received {
            partition: message.partition(),
            key: message.key().map(text),
            body: message.payload().map(text),
            headers: message
                .headers()
                .map(|headers| headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect())
                .unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
        });
    }
    received
}

/// A mock cluster with the topic of `orders`.
struct Mock(MockCluster<'static, DefaultProducerContext>);

impl Mock {
    fn new(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        Self(cluster)
    }

    fn options(&self) -> Options {
        options(&self.0.bootstrap_servers())
    }

    async fn session(&self) -> (Connector, Session) {
        let mut connector = connector(self.options(), feeds(&["orders"]));
        let session = open(&mut connector).await;
        (connector, session)
    }

    fn read(&self) -> Vec<Received> {
        read(&self.0.bootstrap_servers(), TOPIC)
    }
}

impl Subject for Mock {
    type Connector = Connector;

    fn connector(&self) -> Connector {
        Connector::new(self.options(), Metrics::new("shop").sink)
    }

    fn read_back(&self) -> Vec<(String, String)> {
        self.read().into_iter().map(|received| (received.key.unwrap(), received.body.unwrap())).collect()
    }
}

/// Submits one batch.
async fn submit(sink: &mut Session, builder: &mut Builder, settling: &Settling, records: &[Spec<'_>]) -> Result<(), Error> {
    let batch = builder.batch(records).await;
    let ack = settling.ack(&batch, 1);
    timeout(DEADLINE, sink.submit(batch, ack)).await.expect("submitted in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_the_contract() {
    contract(Mock::new(4), Mock::new(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_carry_key_headers_and_time_and_a_tombstone_repeats_its_deletes() {
    let (mock, mut builder, mut settling) = (Mock::new(3), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    let old = "{\"id\":1}";
    let new = "{\"id\":2}";
    let records = [
        Spec::insert("shop/1", old, "{\"op\":\"insert\"}"),
        Spec { operation: Operation::Delete, related: Some(new), tombstone: true, ..Spec::insert("shop/2", old, "{\"op\":\"delete\"}") },
        Spec { related: Some(old), ..Spec::insert("shop/3", new, "{\"op\":\"insert\",\"n\":2}") },
    ];
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    sink.close().await.unwrap();
    assert!(settling.next().await.confirmed);
    let received = mock.read();
    assert!(received.iter().all(|received| received.timestamp == Some(COMMITTED.millis())));
    let of = |id: &str| received.iter().filter(|received| received.headers[0] == ("feedline-id".into(), id.into())).collect::<Vec<_>>();
    let headers = |id: &str, op: &str, related: Option<(&str, &str)>| {
        let mut headers = vec![("feedline-id", id), ("feedline-op", op), ("feedline-table", "public.orders")];
        headers.extend(related);
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let [insert] = of("shop/1")[..] else { panic!("{received:?}") };
    assert_eq!((insert.key.as_deref(), insert.body.as_deref()), (Some(old), Some("{\"op\":\"insert\"}")));
    assert_eq!(insert.headers, headers("shop/1", "insert", None));
    let [delete, tombstone] = of("shop/2")[..] else { panic!("{received:?}") };
    assert_eq!(delete.body.as_deref(), Some("{\"op\":\"delete\"}"));
    assert_eq!(delete.headers, headers("shop/2", "delete", Some(("feedline-new-key", new))));
    assert_eq!(*tombstone, Received { body: None, ..delete.clone() });
    let [inserted] = of("shop/3")[..] else { panic!("{received:?}") };
    assert_eq!(inserted.headers, headers("shop/3", "insert", Some(("feedline-old-key", old))));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_can_be_left_out() {
    let (mock, mut builder, settling) = (Mock::new(1), Builder::new(), Settling::new());
    let mut connector = connector(Options { headers: false, ..mock.options() }, feeds(&["orders"]));
    let mut sink = open(&mut connector).await;
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "{}", "{}")]).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(mock.read()[0].headers, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_to_the_partition_that_java_chooses() {
    // Values of `Utils.murmur2` from Kafka's own test, UtilsTest.testMurmur2.
    let vectors: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    let (mock, mut builder, settling) = (Mock::new(97), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    let records = vectors.iter().map(|(key, _)| Spec::insert("shop/1", key, "{}")).collect::<Vec<_>>();
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    sink.close().await.unwrap();
    let received = mock.read();
    assert_eq!(received.len(), 6);
    for (key, hash) in &vectors {
        let found = received.iter().find(|received| received.key.as_deref() == Some(*key)).unwrap();
        assert_eq!(found.partition, (hash & i32::MAX) % 97, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_goes_to_every_partition_and_counts_as_one_record() {
    let (mock, mut builder, mut settling) = (Mock::new(5), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    let truncate = Spec { operation: Operation::Truncate, ..Spec::insert("shop/2", "null", "{\"op\":\"truncate\"}") };
    let records = [Spec::insert("shop/1", "{}", "{}"), truncate, Spec::insert("shop/3", "{}", "{}")];
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    sink.close().await.unwrap();
    assert!(settling.next().await.confirmed);
    settling.nothing_more();
    let received = mock.read();
    assert_eq!(received.len(), 7);
    let mut partitions: Vec<i32> =
        received.iter().filter(|received| received.key.as_deref() == Some("null")).map(|received| received.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2, 3, 4]);
    // The copies stay between the records around them.
    let of_key: Vec<&str> = received
        .iter()
        .filter(|one| one.partition == received.iter().find(|received| received.key.as_deref() == Some("{}")).unwrap().partition)
        .map(|received| &*received.headers[0].1)
        .collect();
    assert_eq!(of_key, ["shop/1", "shop/2", "shop/3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_of_the_broker_is_invisible() {
    let (mock, mut builder, mut settling) = (Mock::new(1), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    mock.0.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
    );
    for n in 0..10 {
        submit(&mut sink, &mut builder, &settling, &[Spec::insert(&format!("shop/{n}"), "{}", &n.to_string())]).await.unwrap();
    }
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert!(settling.take(10).await.values().all(|confirmed| *confirmed));
    let bodies: Vec<String> = mock.read().into_iter().filter_map(|received| received.body).collect();
    assert_eq!(bodies, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Mock brokers check no sequence numbers, like a broker that does not know the producer yet.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_sent_before_the_one_in_front_is_answered() {
    let (mock, mut builder, mut settling) = (Mock::new(1), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    mock.0.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    mock.0.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS]);
    for n in ["1", "2", "3"] {
        submit(&mut sink, &mut builder, &settling, &[Spec::insert(&format!("shop/{n}"), "{}", n)]).await.unwrap();
        // Long enough for a request of its own, but not for an answer.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mock.0.broker_round_trip_time(1, Duration::ZERO).unwrap();
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert!(settling.take(3).await.values().all(|confirmed| *confirmed));
    let bodies: Vec<String> = mock.read().into_iter().filter_map(|received| received.body).collect();
    assert_eq!(bodies, ["1", "2", "3"]);
}

/// Injects one delivery error, and returns the session's failure.
async fn failed_by(error: RDKafkaRespErr) -> Error {
    let (mock, mut builder, mut settling) = (Mock::new(1), Builder::new(), Settling::new());
    let (mut connector, mut sink) = mock.session().await;
    mock.0.request_errors(RDKafkaApiKey::Produce, &[error]);
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "{}", "1")]).await.unwrap();
    assert!(!settling.next().await.confirmed, "the ack is lost");
    let failure = sink.failure();
    assert_eq!(submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/2", "{}", "2")]).await.unwrap_err(), failure);
    assert!(!settling.next().await.confirmed, "a failed session accepts no further batch");
    drop(sink);
    // The next session delivers.
    let mut sink = open(&mut connector).await;
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "{}", "1"), Spec::insert("shop/2", "{}", "2")]).await.unwrap();
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert!(settling.next().await.confirmed);
    let bodies: Vec<String> = mock.read().into_iter().filter_map(|received| received.body).collect();
    assert_eq!(bodies, ["1", "2"]);
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_error_ends_the_session_with_its_class_and_code() {
    use RDKafkaRespErr as Is;
    for (error, fault, code) in [
        // Smaller requests are tried first.
        (Is::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Fault::Transient, Code::RecordsUnconfirmed),
        (Is::RD_KAFKA_RESP_ERR_INVALID_RECORD, Fault::Fatal, Code::RecordRefused),
        (Is::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Fault::Fatal, Code::SinkPrivilege),
        (Is::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, Fault::Fatal, Code::SinkPrivilege),
        (Is::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, Fault::Transient, Code::RecordsUnconfirmed),
    ] {
        let failure = failed_by(error).await;
        assert_eq!((failure.fault(), failure.code()), (fault, code), "{error:?}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_down_lose_nothing_and_repeat_nothing() {
    let (mock, mut builder, mut settling) = (Mock::new(1), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/0", "{}", "0")]).await.unwrap();
    assert!(settling.next().await.confirmed);
    mock.0.broker_down(-1).unwrap();
    for n in 1..50 {
        submit(&mut sink, &mut builder, &settling, &[Spec::insert(&format!("shop/{n}"), "{}", &n.to_string())]).await.unwrap();
    }
    // Longer than any retry of the client takes while a broker is reachable.
    assert!(timeout(Duration::from_secs(2), settling.next()).await.is_err(), "nothing is confirmed and nothing is lost");
    mock.0.broker_up(-1).unwrap();
    assert!(settling.take(49).await.values().all(|confirmed| *confirmed));
    sink.close().await.unwrap();
    let bodies: Vec<String> = mock.read().into_iter().filter_map(|received| received.body).collect();
    assert_eq!(bodies, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_waits_while_the_queue_is_full_and_can_be_cancelled() {
    let (mock, mut builder, mut settling) = (Mock::new(1), Builder::new(), Settling::new());
    let metrics = Metrics::new("shop");
    // The smallest queue holds a thousand messages.
    let mut connector = Connector::new(Options { queue_bytes: 1, ..mock.options() }, metrics.sink.clone());
    connector.select(feeds(&["orders"]));
    let mut sink = open(&mut connector).await;
    mock.0.broker_round_trip_time(-1, Duration::from_millis(300)).unwrap();
    let bodies: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
    let records: Vec<Spec<'_>> = bodies.iter().map(|body| Spec::insert(body, "{}", body)).collect();
    let batch = builder.batch(&records).await;
    {
        let first = sink.submit(Arc::clone(&batch), settling.ack(&batch, 1));
        tokio::pin!(first);
        assert!(timeout(Duration::from_millis(100), &mut first).await.is_err(), "it waits while the queue is full");
        assert_eq!(metrics.sink.blocked.get(), 1);
        timeout(DEADLINE, first).await.unwrap().unwrap();
    }
    assert_eq!(metrics.sink.blocked.get(), 0);
    assert!(settling.next().await.confirmed);
    assert_eq!(mock.read().into_iter().filter_map(|received| received.body).collect::<Vec<_>>(), bodies);
    // Cancelled halfway: the batch is lost, and its memory is given back.
    mock.0.broker_down(-1).unwrap();
    assert!(timeout(Duration::from_millis(200), sink.submit(Arc::clone(&batch), settling.ack(&batch, 2))).await.is_err());
    let settled = settling.next().await;
    assert_eq!((settled.attempt, settled.confirmed), (2, false));
    assert_eq!(metrics.sink.blocked.get(), 0);
    drop((sink, batch));
    let deadline = Instant::now() + DEADLINE;
    while builder.budget.used_bytes() != 0 {
        assert!(Instant::now() < deadline, "the client releases the batch");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_missing_topics_are_named_at_once_with_the_remedy() {
    let mock = Mock::new(1);
    let error = connector(mock.options(), feeds(&["orders", "customers", "items"])).establish().await.unwrap_err();
    let Error::TopicsMissing { topics, .. } = &error else { panic!("{error}") };
    assert_eq!(topics, &["shop.public.customers", "shop.public.items"]);
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::TopicMissing));
    let command = format!("kafka-topics.sh --bootstrap-server {} --create --topic shop.public.items", mock.0.bootstrap_servers());
    assert!(error.to_string().contains(&command), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_topic_name_is_refused_before_any_broker_is_asked() {
    let feeds = Arc::new(Feeds::new(vec![feed("naïve", "shop.public.naïve")]));
    let error = connector(options("127.0.0.1:1"), feeds).establish().await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::DestinationInvalid));
    assert!(error.to_string().contains("public.naïve"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_refused_before_it_is_sent() {
    let (mock, mut builder, mut settling) = (Mock::new(1), Builder::new(), Settling::new());
    let (_connector, mut sink) = mock.session().await;
    let body = "x".repeat(1_048_588);
    let error = submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/7", "{}", &body)]).await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::RecordTooLarge));
    for part in ["shop/7", "public.orders", TOPIC, "1048588", "max.message.bytes"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!settling.next().await.confirmed);
    // A slightly smaller one fits, and a record just below the limit of a batch does not stop others.
    let body = "x".repeat(1_048_000);
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/8", "{}", &body), Spec::insert("shop/9", "{}", "{}")]).await.unwrap();
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert!(settling.next().await.confirmed);
    assert_eq!(mock.read().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_a_transient_error() {
    let error = connector(options("127.0.0.1:1"), feeds(&["orders"])).establish().await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Transient, Code::SinkUnreachable));
    assert!(error.to_string().contains("127.0.0.1:1") && error.to_string().contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_settings_are_named_without_secrets() {
    let refused = |properties: &[(&str, &str)]| {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { properties, sasl_password: Some(Secret::new("hunter2".to_owned())), ..options("127.0.0.1:1") };
        async move { connector(options, feeds(&["orders"])).connect().await.err().unwrap() }
    };
    let error = refused(&[("security.protocol", "ssl"), ("ssl.ca.location", "/nonexistent/ca.pem")]).await;
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::SinkTls), "{error}");
    assert!(error.to_string().contains("ca"), "{error}");
    let error = refused(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "GSSAPI")]).await;
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::SinkConfiguration), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_sasl_mechanism_is_a_fatal_error() {
    let mock = Mock::new(1);
    let properties = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "feedline")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = Options { properties, sasl_password: Some(Secret::new("hunter2".to_owned())), ..mock.options() };
    let error = timeout(DEADLINE, connector(options, feeds(&["orders"])).establish()).await.unwrap().unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::SinkAuthentication), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_a_fatal_error() {
    let server = SelfSignedServer::start();
    let properties = BTreeMap::from([("security.protocol".to_owned(), "ssl".to_owned())]);
    let options = Options { properties, ..options(&server.address) };
    let error = timeout(DEADLINE, connector(options, feeds(&["orders"])).connect()).await.unwrap().err().unwrap();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::SinkTls), "{error}");
    assert!(error.to_string().contains("ssl.*"), "{error}");
}

/// A TLS server with a self-signed certificate.
struct SelfSignedServer {
    server: Child,
    address: String,
    directory: PathBuf,
}

impl SelfSignedServer {
    fn start() -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("self-signed-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let openssl = || {
            let mut command = Command::new("openssl");
            command.current_dir(&directory).stdin(Stdio::null()).stderr(Stdio::null());
            command
        };
        let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"];
        assert!(openssl().args(request).stdout(Stdio::null()).status().unwrap().success());
        let serve = ["s_server", "-accept", "127.0.0.1:0", "-key", "key.pem", "-cert", "cert.pem"];
        // It runs until its input is closed.
        let mut server = openssl().args(serve).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(server.stdout.as_mut().unwrap()).lines();
        let address = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
        Self { server, address, directory }
    }
}

impl Drop for SelfSignedServer {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}
