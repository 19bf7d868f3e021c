//! Events handed to Kafka's client, up to where the client's own threads take over.

use crate::{counted, encode::feeds};
use feedline::{
    batch::Ack,
    batch::Budget,
    batch::{Batch, Ending, Seq},
    checkpoint::{Progress, ResumeToken},
    event::{FeedId, Head, Operation, Timestamp},
    sink::{
        Sink as _, SinkConnector as _,
        kafka::{Connector, Options, Session},
    },
    status::metrics::Metrics,
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Runtime, sync::mpsc};

const BODY: [u8; 560] = [b'x'; 560];

/// Submits this many events to a broker in this process, which is not counted. All are confirmed in the end.
pub(crate) fn carry(runtime: &Runtime, events: u64) -> u64 {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("bench.public.event", 3, 1).unwrap();
    // The queue holds all of them: otherwise the count would depend on how often it is full.
    let options = Options { queue_bytes: 1 << 30, ..Options::plain(&cluster.bootstrap_servers(), "bench") };
    let mut connector = Connector::new(options, Metrics::new("bench").sink);
    connector.select(feeds("public"));
    let (mut session, _) = runtime.block_on(connector.connect()).unwrap();
    let batches = runtime.block_on(batches(events));
    let (sender, mut settled) = mpsc::unbounded_channel();
    let submissions: Vec<_> = batches
        .into_iter()
        .map(|batch| {
            let ack = Ack::new(batch.seq(), 1, u32::try_from(batch.len()).unwrap(), sender.clone());
            (batch, ack)
        })
        .collect();
    let count = submissions.len();
    counted(runtime, Box::pin(submit(&mut session, submissions)));
    runtime.block_on(async {
        for _ in 0..count {
            let settled = tokio::time::timeout(Duration::from_mins(5), settled.recv()).await.expect("the broker confirms");
            assert!(settled.unwrap().confirmed);
        }
    });
    events
}

async fn submit(session: &mut Session, submissions: Vec<(Arc<Batch>, Ack)>) {
    for (batch, ack) in submissions {
        session.submit(batch, ack).await.unwrap();
    }
}

async fn batches(events: u64) -> Vec<Arc<Batch>> {
    let budget = Budget::new(64 << 20, 1 << 20);
    let (mut batches, mut written) = (Vec::new(), 0);
    while written < events {
        let mut out = budget.writer().await;
        while !out.is_full() && written < events {
            written += 1;
            let mut record = out.begin(Head { feed: FeedId(0), operation: Operation::Insert, timestamp: Timestamp::now() });
            record.arena().extend_from_slice(format!("bench/00000001-00000000{written:08X}-1-0000000000000010").as_bytes());
            record.end_id();
            record.arena().extend_from_slice(format!("{{\"id\":{written:07}}}").as_bytes());
            record.end_key();
            record.arena().extend_from_slice(&BODY);
            record.end(Ending::Closed, false).unwrap();
        }
        let seq = Seq(batches.len() as u64 + 1);
        let (batch, _) = out.seal(seq, Progress::live(ResumeToken(written.to_string().into())));
        batches.push(Arc::new(batch));
    }
    batches
}
