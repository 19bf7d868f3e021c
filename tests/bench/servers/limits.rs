//! What the servers' own tools do with the same work.

use crate::{
    meter::timed,
    servers::{kafka::Kafka, postgres::Postgres},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use std::{process::Command, time::Duration};

/// How long `pg_recvlogical` takes to read a slot up to the log's end, throwing everything away.
pub(crate) fn recvlogical(postgres: &Postgres, database: &str, slot: &str, publication: &str) -> Duration {
    let end = postgres.psql(database, "SELECT pg_current_wal_insert_lsn()");
    timed(|| {
        let status = Command::new("pg_recvlogical")
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &postgres.port().to_string(), "-d", database])
            .args(["--slot", slot, "--start", "-o", "proto_version=1", "-o", &format!("publication_names={publication}")])
            .args(["-F", "0", "-f", "/dev/null", "--no-loop", "--endpos", &end])
            .status()
            .unwrap();
        assert!(status.success(), "pg_recvlogical: {status}");
    })
}

/// How long the server takes to print the table, for nobody.
pub(crate) fn copy(postgres: &Postgres, database: &str) -> Duration {
    timed(|| {
        let mut psql = postgres.psql_command(database);
        let status = psql.args(["-c", "COPY event TO STDOUT"]).stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "COPY: {status}");
    })
}

/// How long a bare producer takes for so many records of an event's size.
pub(crate) fn producer(kafka: &Kafka, records: u32) -> Duration {
    let topic = Kafka::unique("bare");
    kafka.create_topic(&topic, 3, &[]);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .create()
        .unwrap();
    let body = vec![b'x'; 560];
    let took = timed(|| {
        for number in 0..records {
            let key = format!("{{\"id\":{number}}}");
            let mut record = BaseRecord::to(&topic).key(&key).payload(&body);
            while let Err((_, refused)) = producer.send(record) {
                // The client's own queue is full: its thread empties it.
                std::thread::yield_now();
                record = refused;
            }
        }
        producer.flush(Duration::from_mins(2)).unwrap();
    });
    kafka.delete_topics(&[&topic]);
    took
}
