//! A running source: how soon it sees a commit, what it costs, and whether writers wait for it.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Database, Writer, assert_refusal, refused, table};
use crate::children::ended;
use crate::contract_source::{TIMEOUT, head};
use feedline::fault::{Code, Fault};
use feedline::source::{Probe, SourceConnector};
use std::process::Command;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn trimming_lets_writers_through() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let fill = "INSERT INTO t SELECT value, printf('%0200d', value) FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 60000) SELECT value FROM c)";
    database.writer.run(&[fill]);
    let end = head(&mut connector).await;
    let mut stream = captured.connect(&mut connector).await.unwrap();
    stream.batches(&end).await;
    let mut impatient = Writer::new(&database.path, "1");
    stream.source.acknowledge(Some(&end)).await.unwrap();
    let (mut slowest, mut writes) = (Duration::ZERO, 0);
    let deadline = Instant::now() + 6 * TIMEOUT;
    loop {
        let begun = Instant::now();
        impatient.run(&["UPDATE t SET a = 'x' WHERE id = 1"]);
        slowest = slowest.max(begun.elapsed());
        writes += 1;
        let left = impatient.run(&["SELECT count(*) FROM _feedline_shop_log"]);
        // The newest durable row stays, to prove that the log is the same.
        if left[0][0].as_i64().unwrap() <= writes + 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the log is trimmed: {left}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eprintln!("{writes} writes while 60,000 rows were trimmed, the slowest took {slowest:?}");
    assert!(slowest < Duration::from_secs(1));
    let mut probe = connector.probe().await.unwrap();
    assert!(!probe.head(&end).await.unwrap().caught_up);
    let gone = refused(captured.connect(&mut connector).await).await;
    assert_refusal(&gone, Code::SourceLogLost, Fault::Gap, "keeps nothing");
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_within_milliseconds_and_an_idle_source_costs_nothing() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, at REAL)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let mut stream = captured.connect(&mut connector).await.unwrap();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let count = 600;
    let script = format!(
        "import sqlite3,sys,time\nc=sqlite3.connect(sys.argv[1],isolation_level=None)\nc.execute('PRAGMA synchronous=NORMAL')\n\
         for i in range({count}):\n  time.sleep(0.005)\n  c.execute('INSERT INTO t VALUES (?,?)',(i,time.time()))\n"
    );
    let mut child = Command::new("python3").arg("-c").arg(script).arg(&database.path).spawn().unwrap();
    let (mut delays, deadline) = (Vec::new(), Instant::now() + 6 * TIMEOUT);
    while delays.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} commits are seen", delays.len());
        let batch = stream.batch(None).await.unwrap();
        let seen = now();
        delays.extend(batch.records.iter().map(|taken| seen - taken.field("after")["at"].as_f64().unwrap()));
    }
    assert!(ended(&mut child).success());
    delays.sort_by(f64::total_cmp);
    let (median, late) = (delays[count / 2] * 1e3, delays[count * 95 / 100] * 1e3);
    eprintln!("200 commits a second: seen after {median:.2} ms (p50), {late:.2} ms (p95)");
    // Other tests of this process may run now, so the processor time is printed and not asserted.
    let before = cpu();
    let idle = tokio::time::timeout(Duration::from_secs(3), stream.batch(None)).await;
    assert!(idle.is_err(), "nothing was written");
    eprintln!("3 s idle: {:?} of CPU", cpu().saturating_sub(before));
    // A single commit after a pause wakes the reader.
    let begun = Instant::now();
    database.writer.run(&["INSERT INTO t VALUES (-1, 0)"]);
    stream.take(1).await;
    eprintln!("a single commit after a pause: {:?}", begun.elapsed());
    assert!(median < 50.0 && begun.elapsed() < Duration::from_secs(1), "far beyond what a busy machine explains");
}
