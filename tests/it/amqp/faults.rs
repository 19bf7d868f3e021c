//! Faults of a broker while the whole program runs and other clients write to the source. After each fault the checker of `crash::`
//! verifies that both sides hold the same tables, with the events of each key in order.
//!
//! `FEEDLINE_ALARM_SECONDS` sets how far the lag rises while memory is short (default 8); `FEEDLINE_FAULT` selects one fault by its name.

use super::destination::Destination;
use crate::crash::checker::Checker;
use crate::crash::feedline::Feedline;
use crate::crash::run::{Broker, Kept, MEMORY_BYTES, Run};
use crate::servers::port::wait_for;
use crate::servers::rabbitmq::RabbitMq;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use std::time::Duration;

const ROWS_BEFORE: u32 = 400;
const LIMIT: Duration = Duration::from_mins(2);

/// A fault, and the pipeline's setup for it.
struct Fault {
    name: &'static str,
    /// More lines of `[sink]`.
    sink: &'static str,
    queue: Queue,
    bring: fn(&mut World<'_>),
    /// Rules of the checker that do not hold under this fault.
    excepted: &'static [&'static str],
}

/// Who declares the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// The pipeline, in each session.
    Configured,
    /// An operator, with these bindings.
    Made(&'static [&'static str]),
    /// An operator. At the end the events are moved to the queue that the checker reads.
    Moved,
}

const ALL: Queue = Queue::Made(&["#"]);
/// One binding per table.
const TABLES: Queue =
    Queue::Made(&["main.acct.*", "main.composite.*", "main.moved.*", "main.wide.*", "main.churn.*", "main.gone.*", "main.ledger.*"]);

/// A queue that refuses one event and takes the next lacks an event until it is sent again. With `per_key` that never happens within a
/// key.
const FAULTS: &[Fault] = &[
    Fault { name: "fault_binding", sink: "", queue: ALL, bring: a_binding_is_removed, excepted: &[] },
    Fault {
        name: "fault_letters",
        sink: "on_unpublishable = \"dead_letter\"",
        queue: TABLES,
        bring: a_binding_is_removed_and_letters_are_kept,
        excepted: &[],
    },
    Fault { name: "fault_exchange", sink: "", queue: ALL, bring: an_exchange_is_deleted, excepted: &[] },
    Fault { name: "fault_exchange_made", sink: "", queue: Queue::Configured, bring: an_exchange_is_deleted_and_made_again, excepted: &[] },
    Fault { name: "fault_full", sink: "", queue: Queue::Moved, bring: a_queue_is_full, excepted: &["rewinds", "order"] },
    Fault { name: "fault_full_keys", sink: "ordering = \"per_key\"", queue: Queue::Moved, bring: a_queue_is_full, excepted: &["rewinds"] },
    Fault { name: "fault_connections", sink: "", queue: ALL, bring: connections_are_closed, excepted: &[] },
    Fault { name: "fault_channels", sink: "", queue: ALL, bring: channels_are_closed, excepted: &[] },
    Fault { name: "fault_alarm", sink: "", queue: ALL, bring: memory_is_short, excepted: &[] },
];

/// How many messages a queue holds that is full.
const FULL: usize = 100;

#[test]
fn each_fault_of_a_broker_ends_on_equal_tables() {
    let broker = RabbitMq::start(&[]);
    let only = std::env::var("FEEDLINE_FAULT").ok();
    for fault in FAULTS.iter().filter(|fault| only.as_deref().is_none_or(|name| name == fault.name)) {
        survive(&broker, fault);
    }
}

fn survive(broker: &RabbitMq, fault: &Fault) {
    let queue = (fault.queue == Queue::Configured).then_some("quorum");
    let mut run = Run::sqlite(fault.name, Broker::RabbitMq { port: broker.port(), queue }, Kept::File);
    run.sink = fault.sink;
    run.database.create(ROWS_BEFORE, 1);
    let destination = Destination { port: broker.port(), name: fault.name.to_owned() };
    match fault.queue {
        Queue::Configured => {}
        Queue::Made(keys) => make(&destination, &destination.name, keys),
        Queue::Moved => {
            make(&destination, &full(&destination), &["#"]);
            // A limit set on a fuller queue would drop the messages above it.
            limit(broker, &destination, 1_000_000);
            make(&destination, &destination.name, &[]);
        }
    }
    let mut feedline = run.feedline();
    feedline.start();
    feedline.wait_until_live();
    let writers = run.write(ROWS_BEFORE, 1);
    let mut world = World { broker, destination, feedline, starts: 1 };
    world.wait_for_events();
    (fault.bring)(&mut world);
    world.wait_for_events();
    run.drain(&mut world.feedline, writers);
    let restarts = world.feedline.restarts("sink_error") + world.starts;
    assert_eq!((world.feedline.restarts("process"), world.feedline.restarts("source_error")), (0, 0), "{}", fault.name);
    world.feedline.stop();
    if fault.queue == Queue::Moved {
        move_messages(&world.destination, usize::MAX);
    }
    let checker = Checker {
        source: run.subject(),
        restarts,
        repeated_bytes_max: restarts * MEMORY_BYTES,
        holes: false,
        scans: false,
        late_reads: false,
        excepted: fault.excepted,
    };
    println!("{}: {restarts} restarts\n{}", fault.name, run.judge(&checker));
    run.clear();
}

struct World<'b> {
    broker: &'b RabbitMq,
    destination: Destination,
    feedline: Feedline,
    starts: u64,
}

impl World<'_> {
    /// Waits until the broker has confirmed events that are written from now on.
    fn wait_for_events(&mut self) {
        let before = self.feedline.confirmed();
        self.wait_until("events flow", |feedline| before + 100 < feedline.confirmed());
    }

    fn wait_until(&mut self, condition: &str, is_met: impl Fn(&Feedline) -> bool) {
        wait_for(condition, LIMIT, || {
            self.feedline.assert_runs();
            is_met(&self.feedline).then_some(())
        });
    }

    /// Waits until the sink has restarted `total` times.
    fn wait_for_restarts(&mut self, total: u64) {
        self.wait_until("the sink starts again", |feedline| total <= feedline.restarts("sink_error"));
    }

    /// Waits until feedline stops with the expected error, repairs the broker, and starts feedline again.
    fn repair_after_stop(&mut self, repair: impl FnOnce(&Destination)) {
        let (status, log) = self.feedline.wait_for_end();
        assert_eq!(status, Some(71), "{log}");
        assert!(log.contains("FL3203") && log.contains(&self.destination.name), "{log}");
        repair(&self.destination);
        self.feedline.start();
        self.starts += 1;
        self.feedline.wait_until_live();
    }
}

fn a_binding_is_removed(world: &mut World<'_>) {
    unbind(&world.destination, "#");
    world.repair_after_stop(|destination| bind(destination, &destination.name, "#"));
}

fn a_binding_is_removed_and_letters_are_kept(world: &mut World<'_>) {
    let letters = format!("{}.dead_letter", world.destination.name);
    // The dead letters go into the same queue, so that it receives every event.
    let name = world.destination.name.clone();
    world.destination.with_channel(async move |channel| {
        let (queue, exchange) = (name.as_str().into(), letters.as_str().into());
        channel.queue_bind(queue, exchange, "".into(), QueueBindOptions::default(), FieldTable::default()).await.unwrap();
    });
    unbind(&world.destination, "main.acct.*");
    world.wait_until("dead letters are sent", |feedline| 50 < feedline.count("feedline_dead_letters_total", "reason=\"unroutable\""));
    bind(&world.destination, &world.destination.name, "main.acct.*");
    assert_eq!(world.feedline.restarts("sink_error"), 0, "the session goes on");
}

fn an_exchange_is_deleted(world: &mut World<'_>) {
    delete_exchange(&world.destination);
    // The next session declares the exchange again, and nothing is bound to it.
    world.repair_after_stop(|destination| bind(destination, &destination.name, "#"));
}

fn an_exchange_is_deleted_and_made_again(world: &mut World<'_>) {
    delete_exchange(&world.destination);
    world.wait_for_restarts(1);
}

fn a_queue_is_full(world: &mut World<'_>) {
    limit(world.broker, &world.destination, FULL);
    let refuses = |feedline: &Feedline| feedline.count("feedline_sink_blocked", "") == 1;
    world.wait_until("the queue refuses", refuses);
    // Empty the queue until it is full again.
    let sent = world.feedline.count("feedline_sink_events_total", "");
    // More than once: the queue may take less than a batch, and only whole batches are counted.
    let destination = world.destination.clone();
    world.wait_until("events are taken again", |feedline| {
        move_messages(&destination, 2 * FULL);
        sent < feedline.count("feedline_sink_events_total", "")
    });
    world.wait_until("it is full again", refuses);
    world.broker.ctl(&["clear_policy", "full"]);
    world.wait_until("all are taken", |feedline| !refuses(feedline));
    assert_eq!(world.feedline.restarts("sink_error"), 0, "a full queue is waited for within a session");
}

fn connections_are_closed(world: &mut World<'_>) {
    world.broker.ctl(&["close_all_connections", "for the test"]);
    world.wait_for_restarts(1);
}

fn channels_are_closed(world: &mut World<'_>) {
    // Closes the channels alone, as after an error on a channel: the connections stay.
    let close = "[Connection ! {channel_exit, 1, {amqp_error, resource_error, \"for the test\", none}} \
                 || Connection <- rabbit_networking:connections()].";
    world.broker.ctl(&["eval", close]);
    world.wait_for_restarts(1);
}

fn memory_is_short(world: &mut World<'_>) {
    let seconds: u32 = std::env::var("FEEDLINE_ALARM_SECONDS").map_or(8, |seconds| seconds.parse().unwrap());
    let restarts = world.feedline.restarts("sink_error");
    world.broker.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    world.wait_until("the broker blocks", |feedline| feedline.count("feedline_sink_blocked", "") == 1);
    let readiness = |feedline: &Feedline| feedline.probe().get("/readyz").unwrap();
    world.wait_until("readiness says why", |feedline| {
        let answer = readiness(feedline);
        answer.starts_with("HTTP/1.1 503") && answer.contains("\"reason\":") && answer.contains("feedline_sink_blocked is 1")
    });
    world.wait_until("the lag rises", |feedline| feedline.lag_seconds().is_some_and(|lag| f64::from(seconds) < lag));
    assert_eq!(world.feedline.count("feedline_sink_blocked", ""), 1);
    assert_eq!(world.feedline.count("feedline_pipeline_state", "state=\"live\""), 1);
    assert_eq!(world.feedline.restarts("sink_error"), restarts, "waiting is no fault");
    world.broker.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    world.wait_for_events();
    assert_eq!(world.feedline.count("feedline_sink_blocked", ""), 0);
    assert_eq!(world.feedline.restarts("sink_error"), restarts, "no session was ended");
    world.wait_until("it is ready again", |feedline| readiness(feedline).starts_with("HTTP/1.1 200"));
}

/// The queue that gets full. The checker reads another one.
fn full(destination: &Destination) -> String {
    format!("{}_full", destination.name)
}

/// Sets how many messages the full queue holds before it refuses more.
fn limit(broker: &RabbitMq, destination: &Destination, messages: usize) {
    let policy = format!("{{\"max-length\": {messages}, \"overflow\": \"reject-publish\"}}");
    broker.ctl(&["set_policy", "--apply-to", "queues", "full", &format!("^{}$", full(destination)), &policy]);
}

/// Declares the exchange, a queue, and its bindings.
fn make(destination: &Destination, queue: &str, keys: &[&str]) {
    let (exchange, name) = (destination.name.clone(), queue.to_owned());
    destination.with_channel(async move |channel| {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange.as_str().into(), lapin::ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.as_str().into(), durable, FieldTable::default()).await.unwrap();
    });
    for key in keys {
        bind(destination, queue, key);
    }
}

fn bind(destination: &Destination, queue: &str, key: &str) {
    let (exchange, queue, key) = (destination.name.clone(), queue.to_owned(), key.to_owned());
    destination.with_channel(async move |channel| {
        let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
        channel.queue_bind(queue, exchange, key.as_str().into(), QueueBindOptions::default(), FieldTable::default()).await.unwrap();
    });
}

fn unbind(destination: &Destination, key: &str) {
    let (name, key) = (destination.name.clone(), key.to_owned());
    destination.with_channel(async move |channel| {
        channel.queue_unbind(name.as_str().into(), name.as_str().into(), key.as_str().into(), FieldTable::default()).await.unwrap();
    });
}

fn delete_exchange(destination: &Destination) {
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    });
}

/// Moves messages from the full queue to the one that the checker reads, in order, until the first is empty or so many were moved: who
/// publishes meanwhile may be faster.
fn move_messages(destination: &Destination, most: usize) {
    let (from, to) = (full(destination), destination.name.clone());
    destination.with_channel(async move |channel| {
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut confirms = Vec::new();
        while confirms.len() < most
            && let Some(message) = channel.basic_get(from.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap()
        {
            let delivery = message.delivery;
            let (options, properties) = (BasicPublishOptions::default(), delivery.properties.clone());
            confirms.push(channel.basic_publish("".into(), to.as_str().into(), options, &delivery.data, properties).await.unwrap());
        }
        // Unconfirmed messages may be lost when the connection ends.
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    });
}
