//! Logs that no longer have what comes next, and servers that go away.

use super::world::World;
use crate::contract_source::{TIMEOUT, Taken, head};
use feedline::checkpoint::ResumeToken;
use feedline::fault::{Classify as _, Code, Fault};
use feedline::source::mongodb::Token;
use feedline::source::{LogToken as _, SourceConnector as _};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn what_was_read_is_not_read_again_after_the_server_was_killed() {
    let world = World::alone(&[], &["t"]);
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1})]);
    let mut stream = following.stream().await;
    assert_eq!(stream.take(1).await.len(), 1);
    let token = stream.source.token();
    world.server.kill();
    assert_eq!(stream.failure().await.1.fault(), Fault::Transient);
    assert_eq!(following.at(&token).await.map(drop).unwrap_err().fault(), Fault::Transient, "while it is away");
    world.server.restart();
    world.insert("t", &[json!({"_id": 2})]);
    let after = following.at(&token).await.unwrap().take(1).await;
    assert_eq!(after.iter().map(Taken::brief).collect::<Vec<_>>(), ["insert {\"_id\":2}"]);
}

#[tokio::test]
async fn an_oplog_that_was_trimmed_is_a_gap_that_can_be_repaired() {
    let world = World::alone(&["--oplog-max-entries", "20"], &["t"]);
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1})]);
    let mut stream = following.stream().await;
    stream.take(1).await;
    let token = stream.source.token();
    drop(stream);
    let begun = Instant::now();
    let error = loop {
        for _ in 0..50 {
            world.insert("other", &[json!({})]);
        }
        match following.at(&token).await {
            Err(error) => break error,
            // The server trims its log now and then.
            Ok(_) => assert!(begun.elapsed() < 3 * TIMEOUT, "nothing is trimmed"),
        }
    };
    assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
    let lost = crate::contract_source::live(&token, &token, 1);
    let known = following.known.clone();
    let renewed = following.connector.renew(&known, &lost).await.unwrap();
    assert_eq!(renewed.feeds.len(), 1);
    let (old, new) = (Token::parse(&token).unwrap(), Token::parse(&renewed.token).unwrap());
    assert!(old.is_before(&new) && old.position_prefix() < new.position_prefix());
    world.insert("t", &[json!({"_id": 1000})]);
    assert_eq!(following.at(&renewed.token).await.unwrap().take(1).await[0].brief(), "insert {\"_id\":1000}");
}

#[tokio::test]
async fn a_token_of_something_else_is_refused() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    for wrong in ["", "1/0000000000000001", "00000001-000000000000000A", "1/0000000000000001:0@AAAA"] {
        assert_eq!(following.at(&ResumeToken(wrong.into())).await.map(drop).unwrap_err().code(), Code::SourceProtocol, "{wrong}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let world = World::alone(&[], &["t"]);
    let mut following = world.follow().await;
    let end = head(&mut following.connector).await;
    let mut stream = following.stream().await;
    drop(stream.batches(&end).await);
    world.server.pause();
    let begun = Instant::now();
    let failed = loop {
        if let Err(error) = stream.source.acknowledge(None).await {
            break error;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "nobody has noticed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    world.server.resume();
    assert_eq!(failed.fault(), Fault::Transient, "{failed}");
}
