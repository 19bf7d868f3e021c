//! Real servers that the tests start: see `tests/servers`.

#![allow(dead_code, reason = "the servers offer what some binary needs, not what each needs")]

#[path = "../servers/account.rs"]
pub(crate) mod account;
#[path = "../servers/certificates.rs"]
pub(crate) mod certificates;
#[path = "../servers/client.rs"]
pub(crate) mod client;
#[cfg(feature = "kafka")]
#[path = "../servers/forwarder.rs"]
pub(crate) mod forwarder;
#[cfg(feature = "kafka")]
#[path = "../servers/kafka.rs"]
pub(crate) mod kafka;
#[path = "../servers/line.rs"]
pub(crate) mod line;
#[path = "../servers/mongodb.rs"]
pub(crate) mod mongodb;
#[path = "../servers/mysql.rs"]
pub(crate) mod mysql;
#[path = "../servers/port.rs"]
pub(crate) mod port;
#[path = "../servers/postgres.rs"]
pub(crate) mod postgres;
#[path = "../servers/process.rs"]
pub(crate) mod process;
#[path = "../servers/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../servers/rethinkdb.rs"]
pub(crate) mod rethinkdb;

#[test]
fn mysql_comes_back_on_its_data_and_its_log_after_a_kill() {
    let mysql = mysql::MySql::start(&mysql::Options::default());
    let database = mysql.create_database("servers");
    mysql.sql(&database, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let files = mysql.sql("", "SHOW BINARY LOGS");
    mysql.kill();
    assert!(mysql.try_sql(&database, "SELECT 1").is_err());
    mysql.restart();
    assert_eq!(mysql.sql(&database, "SELECT id FROM t"), "1");
    assert!(mysql.sql("", "SHOW BINARY LOGS").starts_with(files.split('\t').next().unwrap()));
    assert_eq!(mysql.sql("", "SELECT @@binlog_format, @@binlog_row_metadata"), "ROW\tFULL");
}

#[test]
fn postgres_comes_back_on_its_data_after_a_kill() {
    let mut postgres = postgres::Postgres::start(&postgres::Options::default());
    let database = postgres.create_database("servers");
    postgres.psql(&database, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    postgres.kill();
    assert!(postgres.try_psql(&database, "SELECT 1").is_err());
    postgres.restart();
    assert_eq!(postgres.psql(&database, "SELECT id FROM t"), "1");
}

#[test]
fn postgres_asks_for_passwords_and_has_a_certificate() {
    let postgres = postgres::Postgres::shared();
    let user = postgres.create_user("servers", "it's", "REPLICATION");
    let ask = |password: &str, tls: &str| {
        let ca = postgres.ca_file();
        std::process::Command::new("psql")
            .args(["-w", "-Atc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"])
            .arg(format!("host=127.0.0.1 port={} user={user} dbname=postgres", postgres.port()))
            .env("PGPASSWORD", password)
            .env("PGSSLMODE", tls)
            .env("PGSSLROOTCERT", ca)
            .output()
            .expect("run psql")
    };
    let good = ask("it's", "verify-full");
    assert_eq!(String::from_utf8_lossy(&good.stdout).trim(), "t", "{}", String::from_utf8_lossy(&good.stderr));
    assert!(!ask("its", "verify-full").status.success());

    postgres.psql("postgres", &format!("GRANT tls_only TO {user}"));
    assert!(!ask("it's", "disable").status.success());
}

#[cfg(feature = "kafka")]
#[test]
fn kafka_keeps_its_records_through_a_kill() {
    use rdkafka::{
        ClientConfig,
        producer::{BaseProducer, BaseRecord, Producer as _},
    };
    use std::time::Duration;

    let mut kafka = kafka::Kafka::start(&[]);
    kafka.create_topic("t", 2, &[]);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().expect("create a producer");
    for (key, value) in [("a", Some("1")), ("b", Some("2")), ("a", None)] {
        let record = BaseRecord::to("t").key(key);
        let record = if let Some(value) = value { record.payload(value) } else { record };
        producer.send(record).map_err(|(error, _)| error).expect("send");
    }
    producer.flush(Duration::from_secs(10)).expect("flush");
    drop(producer);

    let before = kafka.read_topic("t");
    assert_eq!(before.len(), 3);
    assert_eq!(before.iter().filter(|record| record.value.is_none()).count(), 1);
    kafka.kill();
    kafka.restart();
    assert_eq!(kafka.read_topic("t"), before);
    assert_eq!(kafka.topics(), ["t"]);
}

#[test]
fn nothing_outlives_its_owner() {
    let directory = port::run_directory("sleep", None).expect("make a run directory");
    let server = process::Server::start(&directory, &["sleep", "1000"]);
    let pid = server.pid();
    assert!(server.runs());
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!directory.exists());
}
