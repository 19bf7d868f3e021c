//! Routing keys that no queue would take.

use super::super::destination::Destination;
use super::{Arc, Broker, FieldTable, Options, RabbitMq, assert_none, found, managed, preflight, preflight_one, tables};
use crate::contract_sink::{Builder, Settling, Spec, open};
use crate::servers::port;
use feedline::event::{FeedId, Operation};
use feedline::fault::Code;
use feedline::sink::amqp::{Connector, Management, Queue, QueueType};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::Metrics;
use lapin::ExchangeKind;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions};
use std::collections::BTreeSet;

/// All keys that a message lists, also in the short form `public.{a,b}.{c,d}`.
fn listed_keys(message: &str) -> BTreeSet<String> {
    fn expanded(text: &str) -> Vec<String> {
        let Some((before, rest)) = text.split_once('{') else { return vec![text.to_owned()] };
        let (words, after) = rest.split_once('}').unwrap();
        words.split(',').flat_map(|word| expanded(&format!("{before}{word}{after}"))).collect()
    }
    let (_, keys) = message.split_once("the keys: ").unwrap();
    keys.split(", ").flat_map(expanded).collect()
}

#[tokio::test]
async fn every_routing_key_that_no_queue_takes_is_named_before_the_first_event() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &["*.*.insert", "public.t0.*"], FieldTable::default());
    let options = Options { management: Some(managed(port)), ..destination.options() };
    // 200 tables with six operations each. A queue takes the inserts of all tables, and everything of one table.
    let feeds = tables(200);
    let findings = preflight(&options, &feeds).await;
    let refusal = found(&findings.refusals, Code::EventUnroutable, &["bind a queue"]);
    let named = listed_keys(refusal);
    for number in 0..200 {
        for operation in [Operation::Insert, Operation::Update, Operation::Delete, Operation::Read] {
            let is_covered = number == 0 || operation == Operation::Insert;
            assert_eq!(named.contains(&format!("public.t{number}.{operation}")), !is_covered, "t{number} {operation}");
        }
    }
    assert!(refusal.contains(&format!("for {} routing keys", named.len())) && named.len() == 199 * 5, "{refusal}");
    found(&findings.warnings, Code::QueueUnsafe, &["no consumer"]);
    assert_none(&findings.warnings, Code::BindingsUnseen);
    // The queues that a start binds are counted.
    let queue = Queue { name: format!("{}.rest", destination.name), keys: vec!["public.#".to_owned()], kind: QueueType::Classic };
    let findings = preflight(&Options { queues: vec![queue], ..options.clone() }, &feeds).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    assert!(findings.actions.iter().any(|action| action.contains("make and bind queue")), "{findings:?}");
    // With dead letters nothing stops, and there is a warning.
    let letters = Some(format!("{}.dead", destination.name).into());
    let findings = preflight(&Options { dead_letter: letters, ..options.clone() }, &tables(2)).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    found(&findings.warnings, Code::EventUnroutable, &["public.t1.update", "dead letters"]);

    // A user without the tag is told what is missing, and the rest is checked.
    let user = format!("{}plain", destination.name);
    broker.ctl(&["add_user", &user, "secret"]);
    broker.ctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]);
    let plain = Options { user: user.clone(), password: Some(feedline::net::secret::Secret::new("secret".to_owned())), ..options.clone() };
    let findings = preflight_one(&plain).await;
    found(&findings.warnings, Code::BindingsUnseen, &[&format!("set_user_tags {user} management"), "public.t0.insert"]);
    let absent = Some(Management { address: Broker { host: "127.0.0.1".to_owned(), port: port::free() }, is_encrypted: false });
    let findings = preflight_one(&Options { management: absent, ..options.clone() }).await;
    found(&findings.warnings, Code::BindingsUnseen, &["refused"]);
    let findings = preflight_one(&Options { management: None, ..options }).await;
    found(&findings.warnings, Code::BindingsUnseen, &["sink.management_url"]);
}

#[tokio::test]
async fn a_missing_exchange_has_only_the_bindings_that_a_start_makes() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let options = Options { exchange: format!("{}.new", destination.name), ..destination.options() };
    let findings = preflight_one(&options).await;
    found(&findings.refusals, Code::EventUnroutable, &["will be made without a queue", "[[sink.queues]]", "public.t0.insert"]);
    assert_none(&findings.warnings, Code::BindingsUnseen);
    let queue = |key: &str| Queue { name: format!("{}.all", destination.name), keys: vec![key.to_owned()], kind: QueueType::Classic };
    let part = Options { queues: vec![queue("*.*.insert")], ..options.clone() };
    let findings = preflight_one(&part).await;
    assert!(!found(&findings.refusals, Code::EventUnroutable, &["public.t0.delete"]).contains("public.t0.insert"));
    let findings = preflight_one(&Options { queues: vec![queue("public.#")], ..options }).await;
    assert!(findings.refusals.is_empty() && findings.warnings.is_empty(), "{findings:?}");
    // An existing exchange may have other bindings, which do not matter if the configured ones are enough.
    let there = |key| Options { queues: vec![queue(key)], ..destination.options() };
    assert_none(&preflight_one(&there("public.#")).await.warnings, Code::BindingsUnseen);
    let findings = preflight_one(&there("*.*.insert")).await;
    assert!(!found(&findings.warnings, Code::BindingsUnseen, &["public.t0.delete"]).contains("public.t0.insert"));
}

#[tokio::test]
async fn a_binding_to_an_exchange_takes_its_keys_wherever_it_leads() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &[], FieldTable::default());
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        let behind = format!("{name}.behind");
        let (kind, options) = (ExchangeKind::Fanout, ExchangeDeclareOptions::default());
        channel.exchange_declare(behind.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
        let (to, from) = (behind.as_str().into(), name.as_str().into());
        channel.exchange_bind(to, from, "*.*.insert".into(), ExchangeBindOptions::default(), FieldTable::default()).await.unwrap();
    });
    let findings = preflight(&Options { management: Some(managed(port)), ..destination.options() }, &tables(2)).await;
    let named = listed_keys(found(&findings.refusals, Code::EventUnroutable, &[]));
    assert!(named.contains("public.t0.update") && !named.iter().any(|key| key.ends_with(".insert")), "{named:?}");
}

#[tokio::test]
async fn one_event_for_each_of_600_routing_keys_is_stored() {
    let destination = Destination::new(RabbitMq::shared(), &["public.#"], FieldTable::default());
    let mut connector = Connector::new(destination.options(), Metrics::new("shop").sink);
    connector.select(tables(200));
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let ids: Vec<String> = (0..600).map(|number| format!("shop/{number:06}")).collect();
    let spec = |(number, id): (usize, &'_ String)| {
        let operation = [Operation::Insert, Operation::Update, Operation::Delete][number % 3];
        Spec { feed: FeedId(u32::try_from(number / 3).unwrap()), operation, ..Spec::insert(String::leak(id.clone()), "1", "{}") }
    };
    let specs: Vec<Spec<'_>> = ids.iter().enumerate().map(spec).collect();
    for specs in specs.chunks(100) {
        let batch = builder.batch(specs).await;
        session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    }
    assert!(settling.take(6).await.values().all(|confirmed| *confirmed));
    session.close().await.unwrap();
    let stored: Vec<String> = destination.read().into_iter().map(|seen| seen.routing_key).collect();
    let expected = |number: usize| format!("public.t{}.{}", number / 3, ["insert", "update", "delete"][number % 3]);
    assert_eq!(stored, (0..600).map(expected).collect::<Vec<_>>());
}
