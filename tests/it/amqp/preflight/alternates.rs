//! An exchange with an alternate exchange, which takes events that no binding matches.

use super::super::destination::Destination;
use super::{Arc, FieldTable, Options, RabbitMq, assert_none, connector, found, managed, preflight_one};
use crate::contract_sink::{Builder, Settling, Spec, open};
use feedline::fault::Code;
use feedline::net::secret::Secret;
use feedline::sink::Sink;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::AMQPValue;

/// The exchange `NAME.with`, made with an alternate exchange `NAME.rest` that is bound to the destination's queue.
fn with_alternate(destination: &Destination) -> Options {
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (rest, with) = (format!("{name}.rest"), format!("{name}.with"));
        channel.exchange_declare(rest.as_str().into(), ExchangeKind::Fanout, durable, FieldTable::default()).await.unwrap();
        let (queue, exchange) = (name.as_str().into(), rest.as_str().into());
        channel.queue_bind(queue, exchange, "".into(), QueueBindOptions::default(), FieldTable::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(rest.into()));
        channel.exchange_declare(with.as_str().into(), ExchangeKind::Topic, durable, arguments).await.unwrap();
    });
    Options { exchange: format!("{}.with", destination.name), ..destination.options() }
}

#[tokio::test]
async fn an_exchange_with_an_alternate_exchange_is_taken_as_it_is() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &[], FieldTable::default());
    let options = with_alternate(&destination);
    let findings = preflight_one(&Options { management: Some(managed(port)), ..options.clone() }).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    found(&findings.warnings, Code::EventUnroutable, &[&format!("{}.rest", destination.name), "count as delivered", "public.t0.insert"]);
    // Without the API its name is known from the broker's error message.
    let findings = preflight_one(&options).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    found(&findings.warnings, Code::BindingsUnseen, &["alternate exchange", &format!("{}.rest", destination.name)]);
    // A session takes it too, and the events arrive through the alternate exchange.
    let mut connector = connector(options);
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = builder.batch(&[Spec::insert("shop/1", "1", "{}"), Spec::insert("shop/2", "2", "{}")]).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    session.close().await.unwrap();
    assert_eq!(destination.read().len(), 2);
}

#[tokio::test]
async fn a_policy_may_name_the_alternate_exchange() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &[], FieldTable::default());
    let name = destination.name.as_str();
    with_alternate(&destination);
    let definition = format!("{{\"alternate-exchange\":\"{name}.rest\"}}");
    broker.ctl(&["set_policy", "--apply-to", "exchanges", name, &format!("^{name}$"), &definition]);
    let options = Options { management: Some(managed(port)), ..destination.options() };
    let findings = preflight_one(&options).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    found(&findings.warnings, Code::EventUnroutable, &[&format!("{name}.rest"), "count as delivered"]);
    // A user that may not read policies is told which one, and the result is unknown.
    broker.ctl(&["add_user", name, "secret"]);
    broker.ctl(&["set_user_tags", name, "management"]);
    broker.ctl(&["set_permissions", "-p", "/", name, ".*", ".*", ".*"]);
    let poor = Options { user: name.to_owned(), password: Some(Secret::new("secret".to_owned())), ..options };
    let findings = preflight_one(&poor).await;
    assert_none(&findings.refusals, Code::EventUnroutable);
    found(&findings.warnings, Code::BindingsUnseen, &["policy", name, "policymaker", "public.t0.insert"]);
}
