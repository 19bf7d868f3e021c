//! The checkpoint store in a RabbitMQ queue.

use super::{contract, in_rabbitmq, numbered, of_rabbitmq, persist, settled};
use crate::crash::feedline::Feedline;
use crate::servers::{port::wait_for, rabbitmq::RabbitMq};
use feedline::checkpoint::fencing::StampedCheckpoint;
use feedline::checkpoint::{Checkpoint, CheckpointStore};
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::amqp;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test]
async fn a_queue_fulfils_the_contract() {
    let options = in_rabbitmq(RabbitMq::shared());
    Box::pin(contract(|| of_rabbitmq(&options))).await;
}

/// While the first process' connection is open, the second waits. When it is cut and the second has written, the first stops.
#[tokio::test]
async fn the_owner_of_a_queue_keeps_others_out_until_its_connection_is_closed() {
    let broker = RabbitMq::shared();
    let options = in_rabbitmq(broker);
    let (mut first, mut second) = (of_rabbitmq(&options), of_rabbitmq(&options));
    first.load().await.unwrap();
    first.save(&numbered(1)).await.unwrap();
    let held = second.load().await.unwrap_err();
    assert_eq!((held.code(), held.fault()), (Code::SinkBusy, Fault::Transient), "{held}");
    assert!(held.to_string().contains(".checkpoint.lock"), "{held}");
    // The broker closes the first connection, as after two missed heartbeats.
    let name = format!("{}.checkpoint.lock", options.pipeline);
    let close = move || {
        let broker = RabbitMq::shared();
        let connections = broker.ctl(&["list_queues", "owner_pid", "name"]);
        let line = connections.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name} in {connections}")).to_owned();
        broker.ctl(&["close_connection", line.split('\t').next().unwrap(), "tested"]);
    };
    tokio::task::spawn_blocking(close).await.unwrap();
    assert_eq!(persist(async || second.load().await).await, Some(numbered(1)));
    second.save(&numbered(2)).await.unwrap();
    let cut = first.save(&numbered(99)).await.unwrap_err();
    assert_eq!(cut.fault(), Fault::Transient, "{cut}");
    let held = first.save(&numbered(99)).await.unwrap_err();
    assert_eq!(held.code(), Code::SinkBusy, "{held}");
    drop(second);
    let taken = settled(async || first.save(&numbered(99)).await).await.unwrap_err();
    assert_eq!((taken.code(), taken.fault()), (Code::CheckpointTaken, Fault::Fatal), "{taken}");
    drop(first);
    let mut third = of_rabbitmq(&options);
    assert_eq!(persist(async || third.load().await).await, Some(numbered(2)), "nothing of the first process was stored in between");
}

/// A queue drops a message that was returned too often. So a pipeline that waits for its source reads the checkpoint once.
#[tokio::test]
async fn waiting_for_a_start_does_not_exhaust_the_delivery_limit() {
    let destination = crate::amqp::destination::Destination::new(RabbitMq::shared(), &["#"], lapin::types::FieldTable::default());
    let options = amqp::Options { declare: false, ..destination.options() };
    let queue = format!("{}.checkpoint", destination.name);
    destination.with_channel(async move |channel: lapin::Channel| {
        let durable = lapin::options::QueueDeclareOptions { durable: true, ..lapin::options::QueueDeclareOptions::default() };
        let mut arguments = lapin::types::FieldTable::default();
        arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), lapin::types::AMQPValue::LongInt(5));
        channel.queue_declare(queue.as_str().into(), durable, arguments).await.unwrap();
    });
    let mut store = of_rabbitmq(&options);
    store.load().await.unwrap();
    store.save(&numbered(1)).await.unwrap();
    drop(store);
    let mut store = of_rabbitmq(&options);
    for _ in 0..20 {
        assert_eq!(persist(async || store.load().await).await, Some(numbered(1)));
    }
    drop(store);
    assert_eq!(amqp::checkpoint::Store::inspect(&options).await.unwrap(), Some(numbered(1)));
}

/// What another process wrote stays, even if its generation is lower. What this process wrote after it is removed.
#[tokio::test]
async fn a_checkpoint_of_another_process_is_kept_and_stops_the_writer() {
    let destination = crate::amqp::destination::Destination::new(RabbitMq::shared(), &["#"], lapin::types::FieldTable::default());
    let options = destination.options();
    let mut store = of_rabbitmq(&options);
    store.load().await.unwrap();
    for number in 1..=5 {
        store.save(&numbered(number)).await.unwrap();
    }
    let foreign = StampedCheckpoint { version: 1, generation: 2, writer: "another".to_owned(), checkpoint: numbered(77) };
    let (queue, bytes) = (format!("{}.checkpoint", destination.name), serde_json::to_vec(&foreign).unwrap());
    destination.with_channel(async move |channel: lapin::Channel| {
        channel.queue_purge(queue.as_str().into(), lapin::options::QueuePurgeOptions::default()).await.unwrap();
        let properties = lapin::BasicProperties::default().with_delivery_mode(2);
        let published = lapin::options::BasicPublishOptions::default();
        channel.basic_publish("".into(), queue.as_str().into(), published, &bytes, properties).await.unwrap();
    });
    let error = store.save(&numbered(6)).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::CheckpointTaken, Fault::Fatal), "{error}");
    drop(store);
    assert_eq!(inspect(&options).await, Some(numbered(77)));
}

async fn inspect(options: &amqp::Options) -> Option<Checkpoint> {
    persist(async || amqp::checkpoint::Store::inspect(options).await).await
}

/// If the lock is deleted by hand, the next save takes it again and checks who has written meanwhile.
#[tokio::test]
async fn a_deleted_lock_is_noticed() {
    let options = in_rabbitmq(RabbitMq::shared());
    let (mut first, mut second) = (of_rabbitmq(&options), of_rabbitmq(&options));
    first.load().await.unwrap();
    first.save(&numbered(1)).await.unwrap();
    let lock = format!("{}.checkpoint.lock", options.pipeline);
    let delete = move || {
        let queue = format!("rabbit_misc:r(<<\"/\">>, queue, <<\"{lock}\">>)");
        let call = format!("{{ok, Q}} = rabbit_amqqueue:lookup({queue}), rabbit_amqqueue:delete(Q, false, false, <<\"tested\">>).");
        RabbitMq::shared().ctl(&["eval", &call])
    };
    tokio::task::spawn_blocking(delete).await.unwrap();
    assert_eq!(persist(async || second.load().await).await, Some(numbered(1)));
    second.save(&numbered(2)).await.unwrap();
    let held = first.save(&numbered(99)).await.unwrap_err();
    assert_eq!((held.code(), held.fault()), (Code::SinkBusy, Fault::Transient), "{held}");
    second.save(&numbered(3)).await.unwrap();
    assert_eq!(inspect(&options).await, Some(numbered(3)), "nothing of the first process was stored in between");
}

/// An inspection finds a checkpoint at any time, never an older one than before, and does not disturb the writer.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_never_empty_while_it_is_written() {
    let options = in_rabbitmq(RabbitMq::shared());
    let mut store = of_rabbitmq(&options);
    store.load().await.unwrap();
    store.save(&numbered(1)).await.unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let inspecting = tokio::spawn({
        let (options, ended) = (options.clone(), Arc::clone(&ended));
        async move {
            let mut seen = vec![1];
            while !ended.load(Ordering::Relaxed) {
                let found = amqp::checkpoint::Store::inspect(&options).await.unwrap();
                seen.push(found.expect("it is never empty").slice);
            }
            seen
        }
    });
    for number in 2..400 {
        store.save(&numbered(number)).await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    let seen = inspecting.await.unwrap();
    assert!(10 < seen.len() && seen.is_sorted(), "{seen:?}");
    // Older ones that the inspection had hidden are removed with the next save.
    store.save(&numbered(400)).await.unwrap();
    store.save(&numbered(401)).await.unwrap();
    drop(store);
    let mut next = of_rabbitmq(&options);
    assert_eq!(persist(async || next.load().await).await, Some(numbered(401)));
    let queue = format!("{}.checkpoint", options.pipeline);
    // A quorum queue updates its count every few seconds.
    let counted = move || {
        let left = RabbitMq::shared().ctl(&["list_queues", "name", "messages"]);
        left.lines().any(|line| line.split_whitespace().eq([queue.as_str(), "1"])).then_some(())
    };
    tokio::task::spawn_blocking(|| wait_for("one message is left", Duration::from_secs(30), counted)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rabbitmq_keeps_what_it_confirmed() {
    let mut broker = tokio::task::spawn_blocking(|| RabbitMq::start(&[])).await.unwrap();
    let options = in_rabbitmq(&broker);
    let mut store = of_rabbitmq(&options);
    store.load().await.unwrap();
    store.save(&numbered(1)).await.unwrap();
    // RabbitMQ 3.10 stores half a second later which log belongs to a new quorum queue.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for kill in 1..=3 {
        store.save(&numbered(kill * 2)).await.unwrap();
        broker = tokio::task::spawn_blocking(move || {
            broker.kill();
            broker.restart();
            broker
        })
        .await
        .unwrap();
        persist(async || store.save(&numbered(kill * 2 + 1)).await).await;
        let seen = persist(async || amqp::checkpoint::Store::inspect(&options).await).await;
        assert_eq!(seen, Some(numbered(kill * 2 + 1)));
    }
}

#[tokio::test]
async fn an_unfit_queue_is_refused() {
    let broker = RabbitMq::shared();
    let options = amqp::Options { declare: false, ..in_rabbitmq(broker) };
    let error = of_rabbitmq(&options).load().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::CheckpointStoreUnfit, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("sink.declare"), "{error}");

    let destination = crate::amqp::destination::Destination::new(broker, &["#"], lapin::types::FieldTable::default());
    let (options, queue) = (destination.options(), format!("{}.checkpoint", destination.name));
    let name = queue.clone();
    let make = async move |channel: lapin::Channel| {
        let durable = lapin::options::QueueDeclareOptions { durable: true, ..lapin::options::QueueDeclareOptions::default() };
        channel.queue_declare(name.as_str().into(), durable, lapin::types::FieldTable::default()).await.unwrap();
        let published = lapin::options::BasicPublishOptions::default();
        channel.basic_publish("".into(), name.as_str().into(), published, b"hello", lapin::BasicProperties::default()).await.unwrap();
    };
    destination.with_channel(make);
    let error = of_rabbitmq(&options).load().await.unwrap_err();
    assert_eq!(error.code(), Code::CheckpointStoreUnfit, "a classic queue is not the one that feedline makes: {error}");
    // With `declare = false` any queue is accepted, but its content must still be a checkpoint.
    let options = amqp::Options { declare: false, ..options };
    let error = of_rabbitmq(&options).load().await.unwrap_err();
    assert_eq!(error.code(), Code::CheckpointCorrupt, "{error}");
    let mut store = of_rabbitmq(&options);
    assert!(persist(async || store.remove().await).await);
    store.save(&numbered(1)).await.unwrap();
    assert_eq!(store.load().await.unwrap(), Some(numbered(1)));
}

/// A pipeline whose checkpoint is moved from a file into the broker continues there, and repeats nothing.
#[test]
fn a_checkpoint_moves_from_a_file_into_the_broker() {
    let destination = crate::amqp::destination::Destination::new(RabbitMq::shared(), &["#"], lapin::types::FieldTable::default());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&destination.name);
    std::fs::create_dir_all(&directory).unwrap();
    let database = directory.join("shop.db");
    let execute = |sql: &str| rusqlite::Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    execute("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let with = |checkpoint: &str| {
        let configuration = format!(
            "name = \"{}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\n\
             password = \"guest\"\n[checkpoint]\n{checkpoint}\n",
            destination.name,
            database.display(),
            destination.port,
        );
        Feedline::new(&directory, &configuration)
    };
    let until = |feedline: &mut Feedline, count: usize| {
        feedline.start();
        wait_for("the events arrive", Duration::from_secs(30), || (destination.read().len() == count).then_some(()));
        feedline.stop();
    };
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.arg("checkpoint").args(arguments).arg("-c").arg(directory.join("feedline.toml")).output().unwrap()
    };
    let copy = directory.join("checkpoint.json");
    let restore = ["restore", copy.to_str().unwrap()];

    until(&mut with(&format!("path = \"{}\"", directory.join("checkpoint").display())), 2);
    std::fs::write(&copy, command(&["show", "--json"]).stdout).unwrap();
    let mut feedline = with("kind = \"amqp\"");
    assert_eq!(command(&["show"]).status.code(), Some(2), "there is no checkpoint yet");
    let restored = command(&restore);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(String::from_utf8_lossy(&command(&["show"]).stdout).contains("main.t: live"));
    assert_eq!(command(&restore).status.code(), Some(2), "an existing checkpoint is not overwritten");
    execute("INSERT INTO t VALUES (3)");
    until(&mut feedline, 3);

    let reset = command(&["reset", "--yes"]);
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    assert_eq!(command(&["show"]).status.code(), Some(2));
    for (text, said) in [("{\"name\": 1}", "show --json"), ("", "show --json")] {
        std::fs::write(&copy, text).unwrap();
        let refused = command(&restore);
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(said));
    }
    std::fs::remove_dir_all(directory).unwrap();
}
