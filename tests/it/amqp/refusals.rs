//! Errors that are reported before an event is sent, with code and remedy.

use super::destination::Destination;
use super::{batches, connector};
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, open};
use crate::servers::rabbitmq::RabbitMq;
use feedline::fault::{Classify, Code, Fault};
use feedline::net::secret::Secret;
use feedline::sink::amqp::{Error, Options, Queue, QueueType};
use feedline::sink::{Sink, SinkConnector};
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

pub async fn refused(options: Options, code: Code, fault: Fault, parts: &[&str]) {
    let error = timeout(DEADLINE, connector(options).establish()).await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.fault()), (code, fault), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part} in: {error}");
    }
}

#[tokio::test]
async fn each_error_names_its_cause_and_remedy() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let with = |change: fn(&mut Options)| {
        let mut options = destination.options();
        change(&mut options);
        options
    };
    let password = with(|options| options.password = Some(Secret::new("canary".to_owned())));
    refused(password, Code::SinkAuthentication, Fault::Fatal, &["guest", "sink.password_file"]).await;
    refused(with(|options| options.vhost = "elsewhere".to_owned()), Code::VirtualHostMissing, Fault::Fatal, &["elsewhere", "add_vhost"])
        .await;
    refused(with(|options| options.exchange = "amq.direct".to_owned()), Code::ExchangeUnfit, Fault::Fatal, &["amq.direct", "topic"]).await;
    let missing = with(|options| (options.exchange, options.declare) = ("missing".to_owned(), false));
    refused(missing, Code::ExchangeUnfit, Fault::Fatal, &["missing"]).await;
    refused(
        with(|options| options.addresses[0].port = crate::servers::port::free()),
        Code::SinkUnreachable,
        Fault::Transient,
        &["sink.port"],
    )
    .await;
    // Another instance owns the lock while its session is open.
    let mut first = connector(destination.options());
    let session = open(&mut first).await;
    refused(destination.options(), Code::SinkBusy, Fault::Transient, &[".lock"]).await;
    session.close().await.unwrap();
    connector(destination.options()).establish().await.unwrap();
}

#[tokio::test]
async fn the_documented_permissions_are_enough_and_needed() {
    let broker = RabbitMq::shared();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let (user, name) = (destination.name.as_str(), destination.name.as_str());
    broker.ctl(&["add_user", user, "secret"]);
    let options = Options { user: user.to_owned(), password: Some(Secret::new("secret".to_owned())), ..destination.options() };
    refused(options.clone(), Code::VirtualHostMissing, Fault::Fatal, &["sink.vhost", "set_permissions"]).await;
    broker.ctl(&["set_permissions", "-p", "/", user, "^$", "^$", "^$"]);
    refused(options.clone(), Code::SinkPrivilege, Fault::Fatal, &["set_permissions", ".lock"]).await;
    broker.ctl(&["set_permissions", "-p", "/", user, &format!("^{name}(\\.lock)?$"), &format!("^{name}$"), &format!("^{name}\\.lock$")]);
    let mut connector = connector(options);
    connector.establish().await.unwrap();
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = batches(&mut builder, 1).await.remove(0);
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_key_larger_than_a_frame_is_refused_before_it_is_sent() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let mut session = open(&mut connector).await;
    let (mut builder, settling) = (Builder::new(), Settling::new());
    let key = format!("{{\"id\":\"{}\"}}", "x".repeat(140_000));
    let batch = builder.batch(&[Spec::insert("shop/1", &key, "{}")]).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    let error = timeout(DEADLINE, async {
        loop {
            if let error @ Error::TooLarge { .. } = session.failure() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let error = error.await.unwrap();
    assert_eq!((error.code(), error.fault()), (Code::RecordTooLarge, Fault::Fatal));
    assert!(error.to_string().contains("shop/1") && error.to_string().contains("public.orders"), "{error}");
}

#[tokio::test]
async fn queues_are_declared_and_bound_as_configured_or_refused() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let queue = |kind| Queue { name: format!("{}.orders", destination.name), keys: vec!["*.*.orders".to_owned()], kind };
    let options = Options { queues: vec![queue(QueueType::Classic)], ..destination.options() };
    let mut connector = connector(options.clone());
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let batch = batches(&mut builder, 1).await.remove(0);
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    assert!(settling.next().await.confirmed, "the queue takes shop.public.orders");
    session.close().await.unwrap();
    // Declared again without a change, then with another type.
    connector.establish().await.unwrap();
    let other = Options { queues: vec![queue(QueueType::Quorum)], ..options };
    refused(other, Code::QueueUnfit, Fault::Fatal, &[".orders", "x-queue-type"]).await;
}

#[tokio::test]
async fn a_routing_key_that_is_too_long_is_refused_at_the_start() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let mut connector = connector(destination.options());
    let long = crate::contract_sink::feed("orders", &"x".repeat(256));
    connector.select(Arc::new(feedline::feed::Feeds::new(vec![long])));
    let error = connector.establish().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::DestinationInvalid, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("256 bytes"), "{error}");
}
