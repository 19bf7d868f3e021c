//! TLS, client certificates, and several hosts.

use super::connector;
use super::destination::Destination;
use crate::contract_sink::{Builder, DEADLINE, Settling, open};
use crate::servers::port;
use crate::servers::rabbitmq::RabbitMq;
use feedline::fault::{Classify, Code, Fault};
use feedline::net::{TlsMode, Trust};
use feedline::sink::amqp::{Address as Broker, Options};
use feedline::sink::{Sink, SinkConnector};
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;

fn broker(host: &str, port: u16) -> Broker {
    Broker { host: host.to_owned(), port }
}

/// One broker for all cases, since it takes some seconds to start.
#[tokio::test]
async fn each_tls_mode_verifies_what_it_promises_and_a_client_certificate_logs_in() {
    let (server, port) = RabbitMq::start_tls();
    let destination = Destination::new(&server, &["#"], FieldTable::default());
    let options = |mode, with_authority: bool, host: &str| Options {
        addresses: vec![broker(host, port)],
        trust: Trust { mode, ca_file: with_authority.then(|| server.file("ca.crt")), client: None, section: "sink" },
        ..destination.options()
    };
    // The certificate names localhost and 127.0.0.1. "0" reaches the same address, and is not in it.
    for (mode, with_authority, host, refused) in [
        (TlsMode::Require, false, "127.0.0.1", None),
        (TlsMode::VerifyCa, false, "127.0.0.1", Some("sink.ca_file")),
        (TlsMode::VerifyCa, true, "127.0.0.1", None),
        (TlsMode::VerifyFull, true, "127.0.0.1", None),
        (TlsMode::VerifyFull, true, "localhost", None),
        (TlsMode::VerifyFull, false, "localhost", Some("sink.ca_file")),
        (TlsMode::VerifyFull, true, "0", Some("sink.host")),
        (TlsMode::VerifyCa, true, "0", None),
    ] {
        match (connector(options(mode, with_authority, host)).establish().await, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(remedy)) => {
                assert_eq!((error.code(), error.fault()), (Code::SinkTls, Fault::Fatal), "{mode:?} {host}: {error}");
                assert!(error.to_string().contains(remedy), "{mode:?} {host}: {error}");
            }
            (verified, _) => panic!("{mode:?} {host}: {verified:?}"),
        }
    }

    let mut connector_by_tls = connector(options(TlsMode::VerifyFull, true, "localhost"));
    let mut session = open(&mut connector_by_tls).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    for batch in super::batches(&mut builder, 200).await {
        session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    }
    assert!(settling.take(200).await.values().all(|confirmed| *confirmed));
    session.close().await.unwrap();
    assert_eq!(destination.read().len(), 2_000);

    // The plain port does not speak TLS, and the error says so.
    let plain = Options { addresses: vec![broker("127.0.0.1", destination.port)], ..options(TlsMode::Require, false, "") };
    let error = connector(plain).establish().await.unwrap_err();
    assert!(matches!(error.code(), Code::SinkTls | Code::SinkUnreachable), "{error}");

    // A certificate that names a user needs no password.
    let client = Some((server.file("client.crt"), server.file("client.key")));
    let mut by_certificate = options(TlsMode::VerifyFull, true, "localhost");
    (by_certificate.external, by_certificate.password, by_certificate.trust.client) = (true, None, client);
    let error = connector(by_certificate.clone()).establish().await.unwrap_err();
    assert_eq!(error.code(), Code::SinkAuthentication, "no such user yet: {error}");
    server.ctl(&["add_user", "feedline", "unused"]);
    server.ctl(&["set_permissions", "-p", "/", "feedline", ".*", ".*", ".*"]);
    connector(by_certificate).establish().await.unwrap();
}

/// A load balancer without a broker behind it does this, or a broker that is killed in that moment.
#[tokio::test]
async fn a_connection_that_breaks_during_the_handshake_is_a_transient_fault() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            if count % 2 == 1 {
                // Read what has arrived, so that the connection is closed and not reset.
                std::io::Read::read(&mut stream, &mut [0; 4096]).ok();
            }
        }
    });
    let destination = Destination { port, name: "shop".to_owned() };
    let trust = Trust { mode: TlsMode::VerifyFull, section: "sink", ..Trust::default() };
    for _ in 0..2 {
        let error = connector(Options { trust: trust.clone(), ..destination.options() }).establish().await.unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::SinkUnreachable, Fault::Transient), "{error}");
    }
}

#[tokio::test]
async fn the_first_host_that_answers_is_used() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let (dead, other) = (port::free(), port::free());
    let addresses = vec![broker("127.0.0.1", dead), broker("127.0.0.1", destination.port)];
    connector(Options { addresses, ..destination.options() }).establish().await.unwrap();
    let addresses = vec![broker("127.0.0.1", dead), broker("127.0.0.1", other)];
    let error = connector(Options { addresses, ..destination.options() }).establish().await.unwrap_err();
    assert_eq!(error.code(), Code::SinkUnreachable);
    assert!(error.to_string().contains(&dead.to_string()) && error.to_string().contains(&other.to_string()), "{error}");
}

/// A stopped broker does this, or a firewall that drops packets. The client's thread waits for an answer.
#[tokio::test]
async fn a_connection_to_a_silent_broker_is_closed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = Destination { port: listener.local_addr().unwrap().port(), name: "shop".to_owned() };
    let (told, ending) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        let ended = std::io::Read::read_to_end(&mut stream, &mut bytes).is_ok();
        told.send((bytes, ended)).unwrap();
    });
    let mut connector = connector(destination.options());
    tokio::time::timeout(Duration::from_secs(1), connector.connect()).await.expect_err("the broker sends nothing");
    let (bytes, ended) = tokio::time::timeout(DEADLINE, ending).await.expect("the socket stays open").unwrap();
    assert_eq!((bytes.as_slice(), ended), (&b"AMQP\0\0\x09\x01"[..], true));
}

/// The client parses nested tables by recursion, and an unauthenticated server may nest them without limit.
#[tokio::test]
async fn a_greeting_with_deeply_nested_tables_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = Destination { port: listener.local_addr().unwrap().port(), name: "shop".to_owned() };
    let sized = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let table = (0..8_000).fold(b"\x01tt\x01".to_vec(), |inner, _| [b"\x01aF".as_slice(), &sized(&inner)].concat());
    let start = [b"\0\x0a\0\x0a\0\x09".as_slice(), &sized(&table), &sized(b"PLAIN"), &sized(b"en_US")].concat();
    let frame = [b"\x01\0\0".as_slice(), &sized(&start), b"\xce"].concat();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _gone = (std::io::Read::read(&mut stream, &mut [0; 8]), std::io::Write::write_all(&mut stream, &frame));
        }
    });
    let refused =
        tokio::time::timeout(DEADLINE, connector(destination.options()).establish()).await.expect("the greeting is refused").unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SinkUnreachable, Fault::Transient), "{refused}");
    assert!(refused.to_string().contains("more than 32 deep"), "{refused}");
}
