//! The RabbitMQ sink: an event that no queue took never counts as delivered.

mod checkpoint_queue;
mod dead_letters;
pub mod destination;
mod faults;
mod formats;
mod logins;
mod ordering;
mod preflight;
mod refusals;
mod retries;
mod secure;
mod slow;

use crate::contract_sink::{Builder, COMMITTED, DEADLINE, Settling, Spec, contract, feeds, open};
use crate::crash::feedline::Feedline;
use crate::servers::port::wait_for;
use crate::servers::rabbitmq::RabbitMq;
use destination::{Destination, header};
use feedline::event::Operation;
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::amqp::{Connector, Error, Options};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::Metrics;
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The routing key of every event of `contract_sink`'s feed.
const KEY: &str = "shop.public.orders";

fn connector(options: Options) -> Connector {
    let mut connector = Connector::new(options, Metrics::new("shop").sink);
    connector.select(feeds(&["orders"]));
    connector
}

#[tokio::test]
async fn the_sink_contract_holds() {
    let destination = || Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    contract(destination(), destination()).await;
}

#[tokio::test]
async fn an_event_has_its_properties_and_headers() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let delete = Spec { operation: Operation::Delete, related: Some("{\"id\":2}"), ..Spec::insert("shop/1", "{\"id\":1}", "{\"v\":1}") };
    let read = Spec { operation: Operation::Read, ..Spec::insert("shop/2", "{\"id\":3}", "{\"v\":1,\"op\":\"read\"}") };
    let batch = builder.batch(&[delete, read]).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    session.close().await.unwrap();
    let seen = destination.read();
    let [delete, read] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((delete.routing_key.as_str(), delete.body.as_str()), (KEY, "{\"v\":1}"));
    let properties = &delete.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.message_id()).as_deref(), Some("shop/1"));
    assert_eq!(text(properties.kind()).as_deref(), Some("delete"));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(text(properties.app_id()).as_deref(), Some("feedline"));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.timestamp(), Some(u64::try_from(COMMITTED.0).unwrap() / 1_000_000));
    assert_eq!(header(&delete.headers, "feedline-table").as_deref(), Some("public.orders"));
    assert_eq!(header(&delete.headers, "feedline-key").as_deref(), Some("{\"id\":1}"));
    assert_eq!(header(&delete.headers, "feedline-new-key").as_deref(), Some("{\"id\":2}"));
    assert_eq!(*read.properties.timestamp(), None, "existing rows have no commit time");
}

/// Batches of ten events, numbered from 0.
async fn batches(builder: &mut Builder, count: usize) -> Vec<Arc<feedline::batch::Batch>> {
    let mut batches = Vec::new();
    for batch in 0..count {
        let ids: Vec<String> = (0..10).map(|record| format!("shop/{:06}", batch * 10 + record)).collect();
        let specs: Vec<Spec<'_>> = ids.iter().map(|id| Spec::insert(id, "{\"id\":1}", "{}")).collect();
        batches.push(builder.batch(&specs).await);
    }
    batches
}

/// Submits batches until the session fails, and returns its error.
async fn until_failure(
    session: &mut <Connector as SinkConnector>::Sink,
    settling: &mut Settling,
    builder: &mut Builder,
    count: usize,
) -> Error {
    for batch in batches(builder, count).await {
        if let Err(error) = timeout(DEADLINE, session.submit(Arc::clone(&batch), settling.ack(&batch, 1))).await.unwrap() {
            return error;
        }
    }
    while timeout(DEADLINE, settling.next()).await.unwrap().confirmed {}
    session.failure()
}

/// A cluster is identified by its name. One of another name gets nothing, even while the pipeline runs, until an operator accepts it.
#[test]
fn a_cluster_of_another_name_behind_the_address_gets_nothing() {
    let broker = RabbitMq::start(&[]);
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("renamed-{}", destination.name));
    std::fs::create_dir_all(&directory).unwrap();
    let database = directory.join("shop.db");
    let execute = |sql: &str| rusqlite::Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    execute("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    let configuration = format!(
        "name = \"{}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"amqp\"\nport = {}\n\
         tls = \"disable\"\npassword = \"guest\"\n[checkpoint]\npath = \"{}\"\n",
        destination.name,
        database.display(),
        destination.port,
        directory.join("checkpoint").display(),
    );
    let mut feedline = Feedline::new(&directory, &configuration);
    let arrived =
        |count: usize| wait_for("the events arrive", Duration::from_secs(30), || (destination.read().len() == count).then_some(()));
    feedline.start();
    arrived(1);
    feedline.wait_until_live();
    broker.ctl(&["set_cluster_name", "another"]);
    broker.ctl(&["close_all_connections", "tested"]);
    // Nothing is sent meanwhile.
    let (status, log) = feedline.wait_for_end();
    assert_eq!(status, Some(70), "{log}");
    assert!(log.contains("FL3900") && log.contains("another") && log.contains("accept-sink"), "{log}");
    execute("INSERT INTO t VALUES (2)");
    arrived(1);
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        channel.exchange_delete(name.as_str().into(), lapin::options::ExchangeDeleteOptions::default()).await.unwrap();
    });
    feedline.start();
    assert_eq!(feedline.wait_for_end().0, Some(70), "a new start is refused too");
    assert!(!broker.ctl(&["list_exchanges", "name"]).lines().any(|line| line == destination.name), "nothing is declared there");
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..lapin::options::ExchangeDeclareOptions::default() };
        channel.exchange_declare(name.as_str().into(), lapin::ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
        channel
            .queue_bind(
                name.as_str().into(),
                name.as_str().into(),
                "#".into(),
                lapin::options::QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    });

    let mut accept = std::process::Command::new(env!("CARGO_BIN_EXE_feedline"));
    let accepted = accept.args(["checkpoint", "accept-sink", "-c"]).arg(directory.join("feedline.toml")).output().unwrap();
    assert!(accepted.status.success() && String::from_utf8_lossy(&accepted.stderr).contains("rabbitmq_cluster"), "{accepted:?}");
    feedline.start();
    arrived(2);
    feedline.stop();
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn an_event_that_no_queue_takes_never_counts_as_delivered() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let error = until_failure(&mut session, &mut settling, &mut builder, 5).await;
    assert_eq!((error.code(), error.fault()), (Code::EventUnroutable, Fault::Fatal), "{error}");
    assert!(error.to_string().contains(KEY) && error.to_string().contains("shop/000000"), "{error}");
    drop(session);
    assert!(settling.so_far().iter().all(|settled| !settled.confirmed));
    assert!(destination.read().is_empty());
}

#[tokio::test]
async fn a_removed_binding_stops_the_session_before_an_event_is_lost() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let name = destination.name.clone();
    let mut confirmed = 0;
    let mut removed = false;
    let error = loop {
        let batch = batches(&mut builder, 1).await.remove(0);
        if let Err(error) = session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await {
            break error;
        }
        if !settling.next().await.confirmed {
            break session.failure();
        }
        confirmed += 10;
        if confirmed == 200 && !std::mem::replace(&mut removed, true) {
            let name = name.clone();
            destination.with_channel(async move |channel| {
                channel.queue_unbind(name.as_str().into(), name.as_str().into(), "#".into(), FieldTable::default()).await.unwrap();
            });
        }
    };
    assert_eq!(error.code(), Code::EventUnroutable, "{error}");
    assert_eq!((confirmed, destination.read().len()), (200, 200));
}

#[tokio::test]
async fn a_deleted_exchange_ends_the_session_and_loses_no_event() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        channel.exchange_delete(name.as_str().into(), lapin::options::ExchangeDeleteOptions::default()).await.unwrap();
    });
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let error = until_failure(&mut session, &mut settling, &mut builder, 3).await;
    assert_eq!(error.fault(), Fault::Transient, "{error}");
    drop(session);
    // The next session declares it again; nothing is bound to it, and the error says so.
    let mut session = open(&mut connector).await;
    let mut settling = Settling::new();
    let error = until_failure(&mut session, &mut settling, &mut builder, 3).await;
    assert_eq!(error.code(), Code::EventUnroutable, "{error}");
}

/// Runs `rabbitmqctl` without blocking the session.
async fn ctl(broker: &Arc<RabbitMq>, arguments: &'static [&'static str]) {
    let broker = Arc::clone(broker);
    tokio::task::spawn_blocking(move || broker.ctl(arguments)).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_blocks_publishers_is_waited_for() {
    let broker = Arc::new(RabbitMq::start(&[]));
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let metrics = Metrics::new("shop").sink;
    let mut connector = Connector::new(destination.options(), metrics.clone());
    connector.select(feeds(&["orders"]));
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    ctl(&broker, &["set_vm_memory_high_watermark", "0.00001"]).await;
    let all = batches(&mut builder, 2).await;
    for batch in &all {
        timeout(DEADLINE, session.submit(Arc::clone(batch), settling.ack(batch, 1))).await.unwrap().unwrap();
    }
    let blocked = async {
        while metrics.blocked.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, blocked).await.expect("the broker blocks publishers");
    // Long enough for a broker that blocks nobody to confirm.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(settling.so_far().is_empty(), "neither confirmed nor lost");
    ctl(&broker, &["set_vm_memory_high_watermark", "0.6"]).await;
    assert!(settling.take(2).await.values().all(|confirmed| *confirmed));
    assert_eq!(metrics.blocked.get(), 0);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_connection_closed_by_an_operator_is_a_transient_fault() {
    let broker = Arc::new(RabbitMq::start(&[]));
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    ctl(&broker, &["close_all_connections", "for the test"]).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let error = until_failure(&mut session, &mut settling, &mut builder, 3).await;
    assert_eq!(error.fault(), Fault::Transient, "{error}");
}
