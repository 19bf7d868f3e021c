//! The limits of the servers: a producer whose records are ready, and a reader that decodes nothing. Each runs in its own process, so that its
//! processor time can be measured.

use crate::{changefeed, servers::kafka::Kafka};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

/// Roughly the size of an event's body here.
const BODY_BYTES: usize = 560;

/// This program as the producer of this many records.
pub(crate) fn producer(bootstrap: &str, topic: &str, records: u32) -> Command {
    this(&["bare-producer", bootstrap, topic, &records.to_string()])
}

/// This program as the reader of a slot up to this position in the log.
pub(crate) fn reader(port: u16, database: &str, slot: &str, publication: &str, end: &str) -> Command {
    this(&["bare-reader", &port.to_string(), database, slot, publication, end])
}

fn this(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments);
    command
}

/// Runs as the producer or the reader that these arguments choose. Returns `false` if they choose none.
pub(crate) fn ran(arguments: &[String]) -> bool {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare-producer", bootstrap, topic, records] => produce(bootstrap, topic, records.parse().unwrap()),
        ["bare-reader", port, database, slot, publication, end] => read(port.parse().unwrap(), database, slot, publication, position(end)),
        ["bare-changefeed", port, table] => changefeed::follow(port.parse().unwrap(), table),
        _ => return false,
    }
    true
}

/// Sends records like feedline's, with its settings. The client waits for full batches: so it is fastest.
fn produce(bootstrap: &str, topic: &str, records: u32) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("max.in.flight.requests.per.connection", "2")
        .set("linger.ms", "200")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .create()
        .unwrap();
    let (body, deadline) = ([b'x'; BODY_BYTES], Instant::now() + Duration::from_mins(30));
    for number in 0..records {
        let (key, id) = (format!("{{\"id\":{number}}}"), format!("bench/00000001-00000000{number:08X}-1-0000000000000030"));
        let fields = [("feedline-id", id.as_str()), ("feedline-op", "insert"), ("feedline-table", "public.event")];
        let headers = fields.into_iter().fold(OwnedHeaders::new_with_capacity(3), |headers, (key, value)| {
            let value = Some(value);
            headers.insert(Header { key, value })
        });
        let mut record = BaseRecord::to(topic).key(&key).payload(&body).headers(headers);
        while let Err((_, refused)) = producer.send(record) {
            // The client's queue is full: its threads empty it.
            assert!(Instant::now() < deadline, "the client sends {records} records");
            std::thread::sleep(Duration::from_millis(1));
            record = refused;
        }
    }
    producer.flush(Duration::from_mins(5)).unwrap();
}

/// A position in the log, `0/16B3748`.
fn position(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

/// Reads only the heads of messages, to know the position in the log (PostgreSQL documentation, 55.4 and 55.7).
fn read(port: u16, database: &str, slot: &str, publication: &str, end: u64) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let startup = format!("user\0postgres\0database\0{database}\0replication\0database\0\0");
    let length = u32::try_from(startup.len() + 8).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), startup.as_bytes()].concat()).unwrap();
    let query = format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{publication}')\0");
    let length = u32::try_from(query.len() + 4).unwrap();
    let query = [&b"Q"[..], &length.to_be_bytes(), query.as_bytes()].concat();
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).unwrap();
        assert_ne!(count, 0, "the server ended the log");
        filled += count;
        let mut start = 0;
        while let Some(head) = buffer[start..filled].first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1;
            if filled - start < length {
                break;
            }
            let message = &buffer[start..start + length];
            match (head[0], message.get(5)) {
                (b'Z', _) => stream.write_all(&query).unwrap(),
                (b'E', _) => panic!("{}", String::from_utf8_lossy(message)),
                (b'd', Some(b'k')) => {
                    if end <= u64::from_be_bytes(message[6..14].try_into().unwrap()) {
                        return;
                    }
                    if message[22] == 1 {
                        // A status update without a position: 34 bytes after tag and length.
                        stream.write_all(&[&[b'd', 0, 0, 0, 38, b'r'][..], &[0; 33]].concat()).unwrap();
                    }
                }
                _ => {}
            }
            start += length;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

/// Lets the broker's virtual machine compile its code before anything is measured.
pub(crate) fn warm(kafka: &Kafka, records: u32) {
    let topic = Kafka::unique("warm");
    kafka.create_topic(&topic, 1, &[]);
    assert!(producer(&kafka.bootstrap(), &topic, records).status().unwrap().success());
    kafka.delete_topics(&[&topic]);
}
