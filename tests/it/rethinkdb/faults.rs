//! What a server may do wrong while it is read, and what follows.

use super::*;
use crate::servers::certificates;
use std::net::TcpListener;

/// Longer than a heartbeat and the wait for its answer.
const LONG: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_freezes_is_given_up() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    let mut stream = side.connect(&at).await;
    world.server.freeze(true);
    // It takes connections, and says nothing on them, nor on those that it has.
    let mut other = world.connector();
    let (failed, refused) = tokio::join!(stream.fails_within(LONG), other.catalogue());
    let refused = refused.unwrap_err();
    for error in [&failed, &refused] {
        assert_eq!((error.code(), error.fault()), (Code::SourceUnreachable, Fault::Transient), "{error}");
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }
    drop(stream);
    world.server.freeze(false);
    fill(&world, 0..3, "new");
    caught_up(&mut side, &world, "t", &at, BTreeMap::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_never_ends_is_begun_anew() {
    let world = World::new(&["t"]);
    fill(&world, 0..60, "old");
    world.server.stall(true);
    let mut side = Side::first(&world, "t").await;
    let begin = side.begin.clone();
    let failed = side.connect(&begin).await.fails_within(2 * LONG).await;
    assert_eq!((failed.code(), failed.fault()), (Code::RethinkDbFeedEnded, Fault::Transient), "{failed}");
    assert!(matches!(&failed, Error::FeedEnded { reason: FeedEnd::Stalled { table }, .. } if table == "t"), "{failed}");
    world.server.stall(false);
    drop(side.connect(&begin).await);
    assert_eq!(rows(&mut side).await, expected(&world, "t"));
}

/// After a start, and while replicas move, a table may have no primary for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_primary_is_waited_for() {
    let world = World::new(&["t"]);
    fill(&world, 0..3, "old");
    let mut side = Side::first(&world, "t").await;
    let begin = side.begin.clone();
    let mut stream = side.connect(&begin).await;
    world.server.settle("t");
    world.server.lack_a_primary(2);
    world.server.abort_feeds("t");
    for says in ["aborted", "not available", "not available"] {
        let (_, failed) = stream.failure().await;
        assert_eq!((failed.code(), failed.fault()), (Code::RethinkDbFeedEnded, Fault::Transient), "{failed}");
        assert!(failed.to_string().contains(says), "{failed}");
        stream = side.connect(&begin).await;
    }
    fill(&world, 3..5, "new");
    world.server.settle("t");
    assert_eq!(rows(&mut side).await, expected(&world, "t"));
}

/// A session that learns of a feed's end may begin the next one before the feed's task is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_ended_is_begun_again_however_soon_the_next_session_comes() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    let begin = side.begin.clone();
    world.server.settle("t");
    world.server.kill();
    for round in 0..500 {
        let mut stream = side.connect(&begin).await;
        let failed = stream.failure().await.1;
        assert_eq!((failed.code(), failed.fault()), (Code::SourceUnreachable, Fault::Transient), "{round}: {failed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_found_before_the_start_and_named_in_a_run() {
    let world = World::new(&["t"]);
    world.server.deny(true);
    let mut side = Side::process(&world, "t");
    let errors = verify(&mut side.connector).await.unwrap_err();
    contract_source::assert_found(&errors, &[(Code::SourcePrivilege, &["admin", "grant"])]);
    world.server.deny(false);
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    world.server.deny(true);
    world.server.abort_feeds("t");
    let mut stream = side.connect(&at).await;
    let failed = stream.failure().await.1;
    let failed = if failed.fault() == Fault::Transient { side.connect(&at).await.failure().await.1 } else { failed };
    assert_eq!((failed.code(), failed.fault()), (Code::SourcePrivilege, Fault::Fatal), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_comes_back_with_another_key_stops_its_feed() {
    let world = World::new(&["t"]);
    fill(&world, 0..3, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    let mut stream = side.connect(&at).await;
    // A document without the key: the table was made anew, and nobody has told of it yet.
    world.server.say("t", br#"{"new_val":{"name":"a"},"old_val":null,"type":"add"}"#);
    let (_, failed) = stream.failure().await;
    assert!(matches!(&failed, Error::FeedEnded { reason: FeedEnd::Keyless { .. }, .. }), "{failed}");
    world.server.drop_table("t");
    world.server.create_table("t", "name");
    world.server.put("t", &json!({"name": "a"}));
    let failed = loop {
        let (_, failed) = side.connect(&at).await.failure().await;
        if failed.fault() == Fault::Fatal {
            break failed;
        }
    };
    assert_eq!(failed.code(), Code::TableChanged, "{failed}");
    assert!(matches!(&failed, Error::KeyChanged { table } if table == "t"), "{failed}");
}

/// Changes of a document that was left out between two of its changes are missed, and found by a scan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_does_not_fit_is_noticed() {
    let world = World::new(&["t"]);
    fill(&world, 0..3, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (mut state, mut at) = (rows(&mut side).await, head(&mut side.connector).await);
    let wrong: [&[u8]; 3] = [
        br#"{"new_val":{"id":1,"note":"b"},"old_val":{"id":1,"note":"a"},"type":"change"}"#,
        br#"{"new_val":{"id":2,"note":"again"},"old_val":null,"type":"add"}"#,
        br#"{"new_val":null,"old_val":{"id":7,"note":"unknown"},"type":"remove"}"#,
    ];
    for element in wrong {
        let mut stream = side.connect(&at).await;
        world.server.settle("t");
        world.server.say("t", element);
        let (taken, failed) = stream.failure().await;
        assert!(matches!(&failed, Error::FeedEnded { reason: FeedEnd::LeftOut { .. }, .. }), "{failed}");
        assert_eq!(taken.len(), 0);
        drop(stream);
        world.server.wait_for_feeds("t", 0);
        state = caught_up(&mut side, &world, "t", &at, state).await;
        at = head(&mut side.connector).await;
    }
}

/// A scan of what has not changed tells nobody anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_publishes_differences_alone() {
    let world = World::new(&["t"]);
    fill(&world, 0..60, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    for round in 0..2 {
        let mut stream = side.connect(&at).await;
        world.server.abort_feeds("t");
        let (_, failed) = stream.failure().await;
        assert_eq!(failed.fault(), Fault::Transient, "{failed}");
        let mut stream = side.connect(&at).await;
        world.server.settle("t");
        world.server.put("t", &json!({"id": 100 + round}));
        assert_eq!(stream.take(round + 1).await.last().unwrap().brief(), format!("insert {{\"id\":{}}}", 100 + round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_scans_do_is_counted() {
    let world = World::new(&["t"]);
    fill(&world, 0..10, "old");
    let metrics = Metrics::new("shop").source;
    let counted = || {
        [&metrics.scans, &metrics.scanned_rows, &metrics.scan_differences, &metrics.overflows].map(prometheus::core::GenericCounter::get)
    };
    let mut side = Side::started(Connector::new(world.options(), metrics.clone()), "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    assert_eq!(counted(), [1, 10, 0, 0]);
    let mut stream = side.connect(&at).await;
    world.server.kill();
    world.server.remove("t", &json!(0));
    fill(&world, 1..3, "new");
    world.server.restart();
    assert_eq!(stream.failure().await.1.fault(), Fault::Transient);
    let mut stream = side.connect(&at).await;
    world.server.settle("t");
    assert_eq!(counted(), [2, 19, 3, 0]);
    world.server.hold(true);
    (0..200).for_each(|round| fill(&world, 0..9, &format!("round {round}")));
    world.server.hold(false);
    let (_, failed) = stream.failure().await;
    assert!(matches!(&failed, Error::FeedEnded { reason: FeedEnd::Overflowed { .. }, .. }), "{failed}");
    assert_eq!(counted()[3], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_stops_the_reading_and_loses_nothing() {
    let world = World::new(&["t"]);
    let mut side = Side::started(connector(Options { store_log_max_bytes: 20_000, ..world.options() }), "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    let mut probe = side.connector.probe().await.unwrap();
    let write = |round: u64| fill(&world, 0..20, &format!("round {round} {}", "x".repeat(30)));
    let (mut at, mut state, deadline) = (at, BTreeMap::new(), Instant::now() + TIMEOUT);
    // At least 80 bytes a change: the log has space for some 200.
    let mut written = 0;
    let full = loop {
        let head = probe.head(&at).await.unwrap();
        assert!(Instant::now() < deadline, "{head:?}");
        if head.headroom_ratio.unwrap() <= 0.0 {
            break head;
        }
        if written * 20 * 80 <= head.retained_bytes.unwrap() {
            write(written);
            written += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // One frame more than the limit at most.
    assert!(!full.caught_up && (20_000..200_000).contains(&full.retained_bytes.unwrap()), "{full:?}");
    // The server's queue takes 1000 more, and then it drops them.
    (written..written + 100).for_each(write);
    (0..5).for_each(|id| world.server.remove("t", &json!(id)));
    // What is confirmed makes room.
    while state != expected(&world, "t") {
        assert!(Instant::now() < deadline, "{state:?}");
        let mut stream = side.connect(&at).await;
        while let Ok(batch) = stream.batch(None).await {
            batch.records.iter().for_each(|taken| take(&mut state, taken));
            at = batch.token;
            if stream.source.acknowledge(Some(&at)).await.is_err() || state == expected(&world, "t") {
                break;
            }
        }
    }
    while probe.head(&at).await.unwrap().retained_bytes != Some(0) {
        assert!(Instant::now() < deadline, "the log is empty: {:?}", probe.head(&at).await);
        side.connect(&at).await.source.acknowledge(Some(&at)).await.ok();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Behind a port with TLS. It ends with the test's runtime.
async fn behind_tls(directory: &Path, server: u16) -> u16 {
    let mut acceptor = openssl::ssl::SslAcceptor::mozilla_intermediate_v5(openssl::ssl::SslMethod::tls()).unwrap();
    acceptor.set_certificate_chain_file(directory.join("server.crt")).unwrap();
    acceptor.set_private_key_file(directory.join("server.key"), openssl::ssl::SslFiletype::PEM).unwrap();
    let acceptor = acceptor.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let ssl = openssl::ssl::Ssl::new(acceptor.context()).unwrap();
            tokio::spawn(async move {
                let mut client = tokio_openssl::SslStream::new(ssl, client).unwrap();
                if std::pin::Pin::new(&mut client).accept().await.is_err() {
                    // Who speaks no TLS hears nothing.
                    return std::future::pending().await;
                }
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                // Ends when either side does.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_and_what_is_no_tls_is_named() {
    let world = World::new(&["t"]);
    let directory = world.store.with_extension("tls");
    std::fs::create_dir_all(&directory).unwrap();
    certificates::make(&directory);
    let port = behind_tls(&directory, world.server.port()).await;
    let trust = |mode: TlsMode, ca: Option<&str>| Trust { mode, ca_file: ca.map(|name| directory.join(name)), ..world.options().trust };
    let connect = async |port: u16, trust: Trust| connector(Options { port, trust, ..world.options() }).catalogue().await;
    for pieces in [7, usize::MAX] {
        world.server.send_in_pieces(pieces);
        assert_eq!(connect(port, trust(TlsMode::VerifyFull, Some("ca.crt"))).await.unwrap().tables.len(), 1);
    }
    assert_eq!(connect(port, trust(TlsMode::Require, None)).await.unwrap().tables.len(), 1);
    for (port, trust) in [
        // A certificate that nobody vouches for, and a server without TLS.
        (port, trust(TlsMode::VerifyFull, None)),
        (world.server.port(), trust(TlsMode::Require, None)),
    ] {
        let refused = connect(port, trust).await.unwrap_err();
        assert_eq!((refused.code(), refused.fault()), (Code::SourceTls, Fault::Fatal), "{refused}");
    }
    // A port with TLS says nothing to a client without.
    let refused = connect(port, trust(TlsMode::Disable, None)).await.unwrap_err();
    assert!(refused.fault() == Fault::Transient && refused.to_string().contains("source.tls"), "{refused}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = connect(closed, trust(TlsMode::VerifyFull, None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::SourceUnreachable, "{refused}");
    std::fs::remove_dir_all(directory).unwrap();
}
