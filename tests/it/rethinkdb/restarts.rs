//! What happens while no feed is open: the next scan finds it, deletes too.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_feedline_was_down_is_told_deletes_too() {
    let world = World::new(&["t"]);
    fill(&world, 0..200, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let state = rows(&mut side).await;
    assert_eq!(state, expected(&world, "t"));
    let at = head(&mut side.connector).await;
    drop(std::mem::replace(&mut side, Side::process(&world, "t")).connector);
    world.server.wait_for_feeds("t", 0);
    fill(&world, 100..120, "new");
    fill(&world, 300..310, "added");
    (0..50).for_each(|id| world.server.remove("t", &json!(id)));
    side.known = Identity::from([("database".to_owned(), "00000000-0000-0000-0000-000000000000".to_owned())]);
    side.begin = at.clone();
    let state = caught_up(&mut side, &world, "t", &at, state).await;
    assert_eq!(state.len(), 160);
    // 20 updates, 10 inserts, 50 deletes, which no changefeed has told; what comes now one does.
    let end = head(&mut side.connector).await;
    let mut stream = side.connect(&at).await;
    let told: Vec<_> = stream.batches(&end).await.into_iter().flat_map(|batch| batch.records).collect();
    assert_eq!(told.len(), 80);
    assert!(told.iter().all(|event| event.field("source")["compensating"] == true), "{told:#?}");
    fill(&world, 400..401, "live");
    assert!(stream.take(1).await[0].field("source").get("compensating").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_and_an_aborted_feed_cost_a_scan_and_nothing_else() {
    let world = World::new(&["t"]);
    fill(&world, 0..120, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (mut state, mut at) = (rows(&mut side).await, head(&mut side.connector).await);
    for round in 0..3 {
        let mut stream = side.connect(&at).await;
        if round == 1 {
            world.server.abort_feeds("t");
        } else {
            world.server.kill();
        }
        let (_, failed) = stream.failure().await;
        assert_eq!(failed.fault(), Fault::Transient, "{failed}");
        drop(stream);
        fill(&world, 10 * round..10 * round + 5, &format!("round {round}"));
        world.server.remove("t", &json!(50 + round));
        world.server.restart();
        state = caught_up(&mut side, &world, "t", &at, state).await;
        at = head(&mut side.connector).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_made_anew_is_compared_with_its_forerunner() {
    let world = World::new(&["t"]);
    fill(&world, 0..20, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (state, at) = (rows(&mut side).await, head(&mut side.connector).await);
    let mut stream = side.connect(&at).await;
    world.server.drop_table("t");
    let (_, failed) = stream.failure().await;
    assert_eq!(failed.fault(), Fault::Transient, "{failed}");
    drop(stream);
    world.server.create_table("t", "id");
    fill(&world, 10..30, "new");
    caught_up(&mut side, &world, "t", &at, state).await;
    world.server.drop_table("t");
    let mut stream = side.connect(&at).await;
    let failed = loop {
        let (_, failed) = stream.failure().await;
        stream = side.connect(&at).await;
        if failed.fault() == Fault::Fatal {
            break failed;
        }
    };
    assert!(matches!(&failed, Error::TableGone { table } if table == "t"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_old_store_is_a_gap() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    fill(&world, 0..10, "old");
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    let mut side = side.next(&world, "t");
    let connect = async |side: &mut Side, at: &ResumeToken| {
        let resume = live(at, &side.begin, 1);
        side.connector.connect(&side.known, &resume).await.map(drop)
    };
    let later = ResumeToken(format!("{}0", at.0).into());
    let rewound = connect(&mut side, &later).await.unwrap_err();
    assert_eq!((rewound.code(), rewound.fault()), (Code::SourceRewound, Fault::Gap), "{rewound}");
    std::fs::remove_file(&world.store).unwrap();
    let lost = connect(&mut side, &at).await.unwrap_err();
    assert_eq!((lost.code(), lost.fault()), (Code::SourceLogLost, Fault::Gap), "{lost}");
    let renewed = side.connector.renew(&side.known, &live(&at, &side.begin, 1)).await.unwrap();
    assert_eq!(renewed.feeds, [FeedId(0)]);
    assert!(side.connector.skips(&at, &renewed.token).unwrap(), "positions go on");
    connect(&mut side, &renewed.token).await.unwrap();
    assert_eq!(rows(&mut side).await, expected(&world, "t"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_overflows_is_noticed_and_repaired() {
    let world = World::new(&["t"]);
    fill(&world, 0..50, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (state, at) = (rows(&mut side).await, head(&mut side.connector).await);
    let mut stream = side.connect(&at).await;
    world.server.hold(true);
    // The queue holds 1000 changes.
    (0..40).for_each(|round| fill(&world, 0..30, &format!("round {round}")));
    (30..50).for_each(|id| world.server.remove("t", &json!(id)));
    world.server.hold(false);
    let (_, failed) = stream.failure().await;
    assert_eq!((failed.code(), failed.fault()), (Code::RethinkDbFeedEnded, Fault::Transient), "{failed}");
    assert!(failed.to_string().contains("over array size limit"), "{failed}");
    drop(stream);
    caught_up(&mut side, &world, "t", &at, state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_of_the_server_takes_back_is_taken_back() {
    let world = World::new(&["t"]);
    fill(&world, 0..10, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (state, at) = (rows(&mut side).await, head(&mut side.connector).await);
    let mut stream = side.connect(&at).await;
    world.server.put("t", &json!({"id": 100, "note": "not flushed"}));
    assert_eq!(stream.take(1).await[0].brief(), r#"insert {"id":100}"#);
    world.server.kill();
    world.server.take_back("t", &json!(100));
    world.server.restart();
    let (_, failed) = stream.failure().await;
    assert_eq!(failed.fault(), Fault::Transient, "{failed}");
    drop(stream);
    let state = caught_up(&mut side, &world, "t", &at, state).await;
    assert_eq!(state.len(), 10);
}

/// A writer changes documents all the time, and feedline is dropped wherever it is. Each round goes on at the last token that a reader has
/// confirmed, and sees the events since once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delete_is_lost_wherever_feedline_ends() {
    let world = Arc::new(World::new(&["t"]));
    fill(&world, 0..60, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (mut state, mut at) = (rows(&mut side).await, head(&mut side.connector).await);
    let stop = Arc::new(AtomicU32::new(0));
    let writer = std::thread::spawn({
        let (world, stop) = (Arc::clone(&world), Arc::clone(&stop));
        move || {
            let mut random = fastrand::Rng::with_seed(7);
            while stop.load(Ordering::Relaxed) == 0 {
                let id = random.u32(0..200);
                if random.bool() {
                    world.server.put("t", &json!({"id": id, "note": random.u32(..)}));
                } else {
                    world.server.remove("t", &json!(id));
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..40 {
        side = side.next(&world, "t");
        let mut stream = side.connect(&at).await;
        let wait = Duration::from_millis(random.u64(0..40));
        let read = async {
            while let Ok(batch) = stream.batch(None).await {
                batch.records.iter().for_each(|taken| take(&mut state, taken));
                at = batch.token;
            }
        };
        // Dropped wherever it is: scanning, writing the store, or reading it.
        drop(tokio::time::timeout(wait, read).await);
    }
    stop.store(1, Ordering::Relaxed);
    writer.join().unwrap();
    side = side.next(&world, "t");
    caught_up(&mut side, &world, "t", &at, state).await;
}
