//! Whose store it is, and whose server answers.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_follows_one_cluster_alone() {
    let world = World::new(&["t"]);
    fill(&world, 0..10, "old");
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let (state, at) = (rows(&mut side).await, head(&mut side.connector).await);
    let mut stream = side.connect(&at).await;
    // Another cluster behind the same address, whose table of this name is empty: no delete may be told of that.
    world.server.kill();
    world.server.become_another();
    (0..10).for_each(|id| world.server.remove("t", &json!(id)));
    world.server.restart();
    let (taken, first) = stream.failure().await;
    assert_eq!((taken.len(), first.fault()), (0, Fault::Transient), "{first}");
    let (taken, refused) = side.connect(&at).await.failure().await;
    assert_eq!((refused.code(), refused.fault(), taken.len()), (Code::SourceForeign, Fault::Gap, 0), "{refused}");
    let mut next = side.next(&world, "t");
    assert_eq!(rows(&mut next).await, state, "the store is as it was");
    next.connector.catalogue().await.unwrap();
    let refused = next.connector.recognize(&next.known).await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SourceForeign, Fault::Gap), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_goes_with_its_own_store() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    drop(side.connector);
    // The store of a database that the checkpoint does not know.
    let known = Identity::from([("database".to_owned(), "11111111-1111-1111-1111-111111111111".to_owned())]);
    let mut side = Side { known, begin: at.clone(), ..Side::process(&world, "t") };
    let resume = live(&at, &side.begin, 1);
    let refused = side.connector.connect(&side.known, &resume).await.map(drop).unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SourceForeign, Fault::Gap), "{refused}");
    // The store of another pipeline.
    let mut other = connector(Options { pipeline: "other".into(), ..world.options() });
    let refused = other.resumable(&Identity::new(), &resume).await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::RethinkDbStore, Fault::Fatal), "{refused}");
    // A store that was made at another time.
    let (_, next) = at.0.rsplit_once(':').unwrap();
    let resume = live(&ResumeToken(format!("rethinkdb:1:5:{next}").into()), &at, 1);
    let refused = world.connector().resumable(&Identity::new(), &resume).await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SourceRewound, Fault::Gap), "{refused}");
    // A file of something else stays.
    std::fs::write(&world.store, "a letter").unwrap();
    let refused = world.connector().detach().await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::RethinkDbStore, Fault::Fatal), "{refused}");
    assert_eq!(std::fs::read_to_string(&world.store).unwrap(), "a letter");
}
