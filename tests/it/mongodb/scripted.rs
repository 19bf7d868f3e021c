//! What `SecantusDB` does not show, against servers whose replies are written as MongoDB's manual documents them.

use super::world::options;
use crate::contract_source::{Stream, assert_found, feed, feeds, live, verify};
use crate::servers::mongodb::scripted::{Scripted, config, cursor, error, inserted, primary, time, token};
use feedline::checkpoint::{Identity, ResumeToken};
use feedline::event::Operations;
use feedline::fault::{Classify as _, Code, Fault};
use feedline::source::mongodb::{Connector, Error, Log};
use feedline::source::{Probe as _, SourceConnector as _};
use feedline::status::metrics::Metrics;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const CLUSTER: &str = "65680000000000000000aaaa";

/// A connector to a scripted server, for the feed `shop.orders`.
fn connector(port: u16) -> Connector {
    let mut connector = Connector::new(options("127.0.0.1", port, "shop"), Metrics::new("shop").source);
    connector.select(feeds(vec![feed("shop", "orders", &["_id"], Operations::ALL)]));
    connector
}

/// What every server of these tests answers: a replica set that a snapshot can be read of. `None` for the rest.
fn usual(port: u16, name: &str) -> Option<Value> {
    Some(match name {
        "hello" => primary(port, 100),
        "replSetGetConfig" => config(CLUSTER),
        "listCollections" => cursor(0, "firstBatch", &[json!({"name": "orders", "type": "collection", "options": {}})], None),
        "find" => {
            let mut reply = cursor(0, "firstBatch", &[], None);
            reply["cursor"]["atClusterTime"] = time(100, 1);
            reply
        }
        "aggregate" => cursor(7, "firstBatch", &[], None),
        "killCursors" => json!({"ok": 1.0}),
        _ => return None,
    })
}

/// A server that answers `getMore` with these replies, one after the other, and the last one again and again.
fn streaming(replies: Vec<Value>) -> Scripted {
    Scripted::start(move |port| {
        let next = AtomicUsize::new(0);
        move |name: &str, _: &Value| match name {
            "getMore" => {
                let index = next.fetch_add(1, Ordering::Relaxed).min(replies.len() - 1);
                std::thread::sleep(std::time::Duration::from_millis(2));
                Some(replies[index].clone())
            }
            name => usual(port, name),
        }
    })
}

fn known() -> Identity {
    [("cluster".to_owned(), format!("replica set rs0 {CLUSTER}"))].into()
}

/// Opens the log at cluster time 90.
async fn open(server: &Scripted) -> Result<Stream<Log>, Error> {
    open_at(server, &ResumeToken("7/0000005a00000000:0".into())).await
}

async fn open_at(server: &Scripted, at: &ResumeToken) -> Result<Stream<Log>, Error> {
    let resume = live(at, at, 1);
    let log = connector(server.port()).connect(&known(), &resume).await?;
    Ok(Stream::new(log, &feeds(vec![feed("shop", "orders", &["_id"], Operations::ALL)]), &resume, 1 << 20))
}

#[tokio::test]
async fn a_server_that_cannot_serve_is_refused() {
    let standalone = Scripted::start(|_| |_: &str, _: &Value| Some(json!({"isWritablePrimary": true, "maxWireVersion": 25, "ok": 1.0})));
    let old =
        Scripted::start(|_| |_: &str, _: &Value| Some(json!({"isWritablePrimary": true, "setName": "a", "maxWireVersion": 13, "ok": 1.0})));
    for (server, words) in [(standalone, "standalone"), (old, "older than MongoDB 6.0")] {
        let error = connector(server.port()).catalogue().await.unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::MongoDbUnsuitable, Fault::Fatal));
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_secondary_leads_to_the_primary() {
    let leader = Scripted::start(|port| move |name: &str, _: &Value| usual(port, name));
    let at = leader.port();
    let secondary = Scripted::start(move |_| {
        move |_: &str, _: &Value| {
            let primary = format!("127.0.0.1:{at}");
            Some(
                json!({"isWritablePrimary": false, "secondary": true, "setName": "rs0", "primary": primary, "maxWireVersion": 25, "ok": 1.0}),
            )
        }
    });
    assert_eq!(connector(secondary.port()).catalogue().await.unwrap().tables.len(), 1);
    let alone = Scripted::start(|_| {
        |_: &str, _: &Value| Some(json!({"isWritablePrimary": false, "setName": "rs0", "maxWireVersion": 25, "ok": 1.0}))
    });
    let error = connector(alone.port()).catalogue().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceUnreachable, Fault::Transient), "an election: {error}");
}

#[tokio::test]
async fn another_cluster_is_refused_by_each_connection() {
    let server = streaming(vec![cursor(7, "nextBatch", &[], None)]);
    let other: Identity = [("cluster".to_owned(), "replica set rs0 000000000000000000000000".to_owned())].into();
    let at = ResumeToken("7/0000005a00000000:0".into());
    let mut connector = connector(server.port());
    let error = connector.connect(&other, &live(&at, &at, 1)).await.map(drop).unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceForeign, Fault::Gap), "{error}");
    assert!(connector.probe().await.is_err() && connector.prefeed().await.is_err(), "whatever the connection is for");
    assert_eq!(connector.recognize(&other).await.unwrap_err().code(), Code::SourceForeign);
    connector.recognize(&known()).await.unwrap();
}

#[tokio::test]
async fn a_missing_privilege_is_named_with_the_role() {
    for (command, role) in
        [("replSetGetConfig", "clusterMonitor"), ("aggregate", "\"read\""), ("find", "\"read\""), ("listCollections", "\"read\"")]
    {
        let server = Scripted::start(|port| {
            move |name: &str, _: &Value| if name == command { Some(error(13, "not authorized")) } else { usual(port, name) }
        });
        let mut connector = connector(server.port());
        let Err(errors) = verify(&mut connector).await else { panic!("{command} is refused") };
        assert_found(&errors, &[(Code::SourcePrivilege, &[role, "grantRolesToUser"])]);
    }
}

#[tokio::test]
async fn a_log_that_is_lost_is_a_gap() {
    for code in [286, 280, 260] {
        let server = streaming(vec![error(code, "Resume of change stream was not possible")]);
        let error = open(&server).await.map(drop).unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
    }
}

#[tokio::test]
async fn a_primary_that_steps_down_ends_the_session_and_nothing_else() {
    for code in [10_107, 11_602, 43, 189] {
        let server = streaming(vec![error(code, "not primary")]);
        assert_eq!(open(&server).await.map(drop).unwrap_err().fault(), Fault::Transient);
    }
}

#[tokio::test]
async fn a_cluster_that_was_set_back_is_refused() {
    let server = streaming(vec![cursor(7, "nextBatch", &[], None)]);
    let at = ResumeToken("7/000000c800000001:0".into());
    let error = open_at(&server, &at).await.map(drop).unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SourceRewound, Fault::Gap), "{error}");
    let mut connector = connector(server.port());
    let renewed = connector.renew(&known(), &live(&at, &at, 1)).await.unwrap();
    assert_eq!(&*renewed.token.0, "8/0000006400000002:0", "positions go on behind those that were published");
}

#[tokio::test]
async fn the_time_in_a_token_moves_the_position_and_reaches_a_limit() {
    let empty = |seconds| cursor(7, "nextBatch", &[], Some(token(seconds, 1, "2B0429296E1404")));
    let server =
        streaming(vec![cursor(7, "nextBatch", &[inserted(91, 1, 1)], Some(token(91, 1, "2B04"))), empty(92), empty(92), empty(95)]);
    let mut stream = open(&server).await.unwrap();
    let taken = stream.take(1).await;
    assert_eq!(taken[0].id, "shop/00000007-0000005B00000001-1-0000000000000000");
    let limit = ResumeToken("7/0000005d00000002:0".into());
    let batches = stream.batches(&limit).await;
    assert!(batches.iter().all(|batch| batch.records.is_empty()), "an empty reply alone shows nothing: the token must be behind the limit");
    assert!(stream.source.token().0.starts_with("7/0000005d00000002:0@"), "{}", stream.source.token().0);
    assert!(server.asked("getMore").len() >= 4);
}

#[tokio::test]
async fn a_router_passes_a_limit_only_by_what_it_sends() {
    let replies = [cursor(7, "nextBatch", &[], Some(json!({"_data": "no time"}))), cursor(7, "nextBatch", &[inserted(96, 1, 1)], None)];
    let server = Scripted::start(move |_| {
        let next = AtomicUsize::new(0);
        move |name: &str, command: &Value| match name {
            "hello" => {
                Some(json!({"isWritablePrimary": true, "msg": "isdbgrid", "maxWireVersion": 25, "ok": 1.0, "operationTime": time(100, 1)}))
            }
            "find" if command["$db"] == "config" => {
                Some(cursor(0, "firstBatch", &[json!({"_id": 1, "clusterId": {"$oid": CLUSTER}})], None))
            }
            "getMore" => Some(replies[usize::from(next.fetch_add(1, Ordering::Relaxed) >= 3)].clone()),
            name => usual(0, name),
        }
    });
    let known: Identity = [("cluster".to_owned(), format!("sharded cluster {CLUSTER}"))].into();
    let at = ResumeToken("7/0000005a00000000:0".into());
    let resume = live(&at, &at, 1);
    let log = connector(server.port()).connect(&known, &resume).await.unwrap();
    let mut stream = Stream::new(log, &feeds(vec![feed("shop", "orders", &["_id"], Operations::ALL)]), &resume, 1 << 20);
    let batches = stream.batches(&ResumeToken("7/0000005d00000001:0".into())).await;
    assert!(batches.iter().all(|batch| batch.records.is_empty()));
    assert!(server.asked("getMore").len() >= 4, "empty replies of a router show nothing");
}

#[tokio::test]
async fn a_server_that_cannot_split_events_is_warned_of() {
    let server = Scripted::start(|port| {
        move |name: &str, command: &Value| match name {
            "aggregate" if command["pipeline"].to_string().contains("$changeStreamSplitLargeEvent") => {
                Some(error(40_324, "Unrecognized pipeline stage name: '$changeStreamSplitLargeEvent'"))
            }
            name => usual(port, name),
        }
    });
    let findings = connector(server.port()).preflight().await.unwrap();
    let codes: Vec<_> = findings.warnings.iter().map(|warning| warning.code).collect();
    assert!(codes.contains(&Code::MongoDbLargeEvents) && codes.contains(&Code::MongoDbPartial), "{codes:?}");
}

#[tokio::test]
async fn the_probe_tells_how_much_of_the_oplog_is_left() {
    let server = Scripted::start(|port| {
        move |name: &str, command: &Value| match name {
            "find" if command["find"] == "oplog.rs" => Some(cursor(0, "firstBatch", &[json!({"ts": time(20, 1)})], None)),
            name => usual(port, name),
        }
    });
    let mut probe = connector(server.port()).probe().await.unwrap();
    let head = probe.head(&ResumeToken("7/0000003c00000001:0".into())).await.unwrap();
    assert_eq!((head.caught_up, head.headroom_ratio), (false, Some(0.5)));
    assert!(probe.head(&ResumeToken("7/0000006400000001:0".into())).await.unwrap().caught_up);
}
