//! MongoDB's change stream: feedline to Kafka beside the driver's bare stream, which takes each event's bytes and discards them.

use crate::{
    binlog::Speed,
    kinds::{Bench, carry, establish, unique},
    servers::{
        mongodb::{MongoDb, programs},
        port::target,
    },
};
use serde_json::{Value, json};
use std::process::Command;

/// Documents in one command.
const BATCH: u32 = 1_000;

/// Reads so many events from a cluster time on with `PyMongo`, and prints the events per second and the microseconds of processor time for each.
const BARE: &str = "
import sys, time
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import MongoClient
port, name, at, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
client = MongoClient('127.0.0.1', port, directConnection=True)
database = client.get_database(name, codec_options=CodecOptions(document_class=RawBSONDocument))
with database.watch(start_at_operation_time=Timestamp(at >> 32, at & 0xffffffff), batch_size=1000) as stream:
    stream.next()
    started, before = time.perf_counter(), time.process_time()
    for _ in range(count - 1):
        stream.next()
    print((count - 1) / (time.perf_counter() - started), (time.process_time() - before) * 1e6 / (count - 1))
";

/// One round: both read the same change stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) own: Speed,
    pub(crate) bare: Speed,
}

/// Rounds over a backlog of so many inserts.
pub(crate) fn drain(bench: &Bench, rounds: usize, documents: u32) -> Vec<Round> {
    let (server, database) = (MongoDb::start(&[]), unique());
    server.create(&database, "event");
    let mut pipelines: Vec<_> = (0..rounds)
        .map(|_| {
            let name = unique();
            let source = format!("kind = \"mongodb\"\nport = {}\ndatabase = \"{database}\"\ntls = \"disable\"", server.port());
            let mut feedline = bench.feedline(&name, &source, &format!("{database}.event"), "none", 2);
            establish(&mut feedline);
            (name, feedline)
        })
        .collect();
    let begun_at = server.run("admin", &json!({"hello": 1}))["operationTime"]["$timestamp"].as_u64().expect("the server tells its time");
    for first in (0..documents).step_by(BATCH as usize) {
        let some: Vec<Value> = (first..first + BATCH).map(document).collect();
        server.insert(&database, "event", &some);
    }
    let taken = pipelines.iter_mut().map(|(name, feedline)| {
        let bare = bare(&server, &database, begun_at, documents);
        let drain = carry(feedline, documents);
        bench.kafka.delete_topics(&[&format!("{name}.{database}.event")]);
        let round = Round { own: Speed { rate: drain.rate(), processor_us: drain.processor_us() }, bare };
        println!("{round:?}");
        round
    });
    taken.collect()
}

/// Six fields, 200 bytes.
fn document(id: u32) -> Value {
    let amount = format!("{}.{:02}", id % 100, id % 7);
    json!({"_id": id, "customer": id % 1_000, "status": "paid", "amount": amount, "note": "x".repeat(160), "sent_us": 0})
}

fn bare(server: &MongoDb, database: &str, begun_at: u64, documents: u32) -> Speed {
    let mut client = Command::new("python3");
    client.args(["-c", BARE, &server.port().to_string(), database, &begun_at.to_string(), &documents.to_string()]);
    let output = client.env("PYTHONPATH", programs()).current_dir(target()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = said.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    Speed { rate: figures[0], processor_us: figures[1] }
}
