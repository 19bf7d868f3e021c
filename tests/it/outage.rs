//! An outage: the broker stops while the source continues. The source's slot is kept, the lag is right, and every event arrives
//! afterwards.

use crate::crash::feedline::Feedline;
use crate::servers::kafka::Kafka;
use crate::servers::port::wait_for;
use crate::servers::postgres::Postgres;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the broker is stopped. `make bench` does this for minutes, under load.
const OUTAGE: Duration = Duration::from_secs(12);

#[test]
fn while_the_broker_is_stopped_the_lag_rises_by_a_second_each_second_and_nothing_is_lost() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("outage-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let postgres = Postgres::shared();
    let database = postgres.create_database("outage");
    postgres.psql(&database, "CREATE TABLE orders (id int PRIMARY KEY, note text)");
    let kafka = Kafka::start(&[]);
    let mut feedline = Feedline::new(
        &directory,
        &format!(
            "name = \"outage\"\n[source]\nkind = \"postgres\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\ntls = \"disable\"\n\
             [[feeds]]\ntables = [\"public.orders\"]\nprefeed = \"none\"\n\
             [sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = {{ partitions = 1, replication = 1 }}\n\
             [checkpoint]\npath = \"{}\"\n",
            postgres.port(),
            kafka.bootstrap(),
            directory.join("checkpoint").display(),
        ),
    );
    feedline.start();
    feedline.wait_until_live();
    postgres.psql(&database, "INSERT INTO orders VALUES (1, 'before')");
    wait_for("the first row is confirmed", Duration::from_mins(1), || (feedline.confirmed() == 1).then_some(()));
    wait_for("the lag is 0: the head shows that nothing is missing", Duration::from_mins(1), || {
        (feedline.lag_seconds() == Some(0.0)).then_some(())
    });

    kafka.pause();
    postgres.psql(&database, "INSERT INTO orders SELECT id, 'during' FROM generate_series(2, 1001) id");
    let since = Instant::now();
    let mut lags = Vec::new();
    wait_for("the outage ends", OUTAGE * 3, || {
        feedline.assert_runs();
        if let Some(lag) = feedline.lag_seconds() {
            lags.push((since.elapsed().as_secs_f64(), lag));
        }
        (OUTAGE <= since.elapsed()).then_some(())
    });
    let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'feedline_outage'";
    assert_eq!(postgres.psql("postgres", active).trim(), "t", "the slot is still active");
    let (elapsed, lag) = *lags.last().unwrap();
    // It rises by one second per second. It may begin one check of the head later, and never exceeds the real time.
    assert!((elapsed - 6.0..elapsed + 1.0).contains(&lag), "after {elapsed} s the lag is {lag}: {lags:?}");
    // The machine's clock may be adjusted by some milliseconds meanwhile.
    let fell = lags.windows(2).any(|pair| pair[1].1 + 0.1 < pair[0].1 && 0.0 < pair[0].1);
    assert!(!fell, "the lag fell although nothing was confirmed: {lags:?}");

    kafka.resume();
    wait_for("everything is confirmed", Duration::from_mins(1), || (feedline.confirmed() == 1001).then_some(()));
    wait_for("the lag is 0 again", Duration::from_mins(1), || (feedline.lag_seconds() == Some(0.0)).then_some(()));
    feedline.stop();
    let topic = kafka.read_topic("outage.public.orders");
    assert_eq!(topic.len(), 1001, "each row once");
    postgres.psql("postgres", "SELECT pg_drop_replication_slot('feedline_outage')");
    std::fs::remove_dir_all(directory).unwrap();
}
