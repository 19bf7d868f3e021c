//! The process is killed at random times while others write. Then the folded topic is compared with the collection, deletes included.
//!
//! `FEEDLINE_KILLS` sets how often it is killed (5), `FEEDLINE_SEED` repeats a run's times and writes.

use super::world::World;
use crate::crash::feedline::Feedline;
use crate::crash::run::{Plan, tempdir};
use crate::servers::kafka::Kafka;
use crate::servers::mongodb::MongoDb;
use crate::servers::port::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Documents that are there before, so that some kills fall into the prefeed.
const BEFORE: u32 = 3000;
/// How many keys the writers choose from.
const KEYS: u32 = 3500;

/// Writes until told to end: inserts, updates of a field and inside of one, replaces, deletes, and transactions.
fn write(server: &MongoDb, database: &str, seed: u64, is_over: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0_u32.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let id = random.u32(..KEYS);
        let change = |id: u32, kind: u32| match kind {
            0 => json!({"delete": "t", "deletes": [{"q": {"_id": id}, "limit": 1}]}),
            1 => json!({"update": "t", "updates": [{"q": {"_id": id}, "u": {"_id": id, "v": number}, "upsert": true}]}),
            2 => json!({"update": "t", "updates": [{"q": {"_id": id}, "u": {"$set": {"n.inner": number}}}]}),
            _ => {
                json!({"update": "t", "updates": [{"q": {"_id": id}, "u": {"$set": {"v": number, "text": "x".repeat(300)}}, "upsert": true}]})
            }
        };
        if random.u32(..10) == 0 {
            server.transaction(database, &[change(id, 1), change((id + 1) % KEYS, 0), change((id + 2) % KEYS, 3)]);
        } else {
            server.run(database, &change(id, random.u32(..5)));
        }
        std::thread::sleep(Duration::from_millis(random.u64(..20)));
    }
}

/// What a reader of the topic holds: the last state of each key. Panics where an event with the same id has other bytes. Updates are left out
/// of that: `SecantusDB` stores no images, it looks the document up.
fn folded(topic: &str) -> BTreeMap<String, Value> {
    let (mut state, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for record in Kafka::shared().read_topic(topic) {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let Some(value) = record.value.clone() else { continue };
        let event: Value = serde_json::from_slice(&value).unwrap();
        let id = record.header("feedline-id").unwrap().to_owned();
        if event["op"] != "update"
            && let Some(before) = seen.insert(id.clone(), value.clone())
        {
            assert_eq!(String::from_utf8(before), String::from_utf8(value), "{id} has two bodies");
        }
        match event["after"].clone() {
            Value::Null => state.remove(&key),
            after => state.insert(key, after),
        };
    }
    state
}

/// What the collection holds.
fn stored(world: &World) -> BTreeMap<String, Value> {
    let reply = world.run(&json!({"find": "t", "batchSize": 100_000, "singleBatch": true}));
    let documents = reply["cursor"]["firstBatch"].as_array().unwrap().clone();
    documents.into_iter().map(|document| (json!({"_id": document["_id"]}).to_string(), document)).collect()
}

#[test]
fn mongodb_to_kafka_loses_nothing_however_often_it_is_killed() {
    let world = World::alone(&[], &["t"]);
    let documents: Vec<Value> = (0..BEFORE).map(|id| json!({"_id": id, "v": 0, "n": {"inner": 0}})).collect();
    documents.chunks(500).for_each(|documents| world.insert("t", documents));
    let plan = Plan::new("crash_mongodb", 5, BEFORE);
    let name = "crash_mongodb";
    let directory = tempdir(name);
    let configuration = format!(
        "name = \"{name}\"\n[source]\nkind = \"mongodb\"\nport = {}\ndatabase = \"{}\"\ntls = \"disable\"\n\
         [[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\n\
         create_topics = {{ partitions = 3, replication = 1 }}\n[checkpoint]\nkind = \"file\"\npath = \"{}\"\n[pipeline]\nmemory = \"2MiB\"\n",
        world.server.port(),
        world.database,
        Kafka::shared().bootstrap(),
        directory.join("checkpoint").display(),
    );
    let mut feedline = Feedline::new(&directory, &configuration);
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|number| {
            let (is_over, database, server, seed) = (Arc::clone(&is_over), world.database.clone(), world.server, plan.seed + number);
            std::thread::spawn(move || write(server, &database, seed, &is_over))
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(plan.seed);
    for _ in 0..plan.kills {
        feedline.start();
        std::thread::sleep(Duration::from_millis(random.u64(200..4000)));
        feedline.kill();
    }
    feedline.start();
    feedline.wait_until_live();
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let topic = format!("{name}.{}.t", world.database);
    let expected = stored(&world);
    wait_for("the topic holds what the collection does", Duration::from_mins(5), || {
        feedline.assert_runs();
        std::thread::sleep(Duration::from_secs(1));
        (folded(&topic) == expected).then_some(())
    });
    feedline.stop();
    println!("{} kills, {} documents, {} records", plan.kills, expected.len(), Kafka::shared().read_topic(&topic).len());
    std::fs::remove_dir_all(&directory).unwrap();
}
