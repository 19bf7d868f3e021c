//! What a source writes, batch by batch, as the tests compare it.

use super::TIMEOUT;
use crate::session::{Session, encoders};
use feedline::batch::{BatchWriter, Budget, OpenRecords, Seq};
use feedline::checkpoint::{Progress, ResumeToken};
use feedline::event::{FeedId, Operation};
use feedline::feed::Feeds;
use feedline::source::{Filled, Resume, Source};
use feedline::status::metrics::Metrics;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A record that a source wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) id: String,
    pub(crate) operation: Operation,
    pub(crate) feed: FeedId,
    pub(crate) key: String,
    pub(crate) related: Option<String>,
    pub(crate) body: Option<String>,
}

impl Taken {
    /// Operation and key, for short comparisons.
    pub(crate) fn brief(&self) -> String {
        format!("{} {}", self.operation, self.key)
    }

    /// A field of the body, as JSON.
    pub(crate) fn field(&self, name: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(self.body.as_deref().unwrap_or("null")).unwrap()[name].clone()
    }
}

pub(crate) fn records(out: &BatchWriter) -> Vec<Taken> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("events are UTF-8");
    out.records()
        .map(|record| Taken {
            id: text(record.id),
            operation: record.head.operation,
            feed: record.head.feed,
            key: text(record.key),
            related: record.related_key.map(text),
            body: record.body.map(text),
        })
        .collect()
}

/// One batch: its records, why filling ended, and the token behind it.
pub(crate) struct Batch {
    pub(crate) records: Vec<Taken>,
    pub(crate) filled: Filled,
    pub(crate) token: ResumeToken,
}

/// A source that fills batches of a given size, with the record that the last batch left open.
pub(crate) struct Stream<S: Source> {
    pub(crate) source: Session<S>,
    budget: Budget,
    open: Option<OpenRecords>,
}

impl<S: Source> Stream<S> {
    pub(crate) fn new(source: S, feeds: &Arc<Feeds>, resume: &Resume, batch_bytes: usize) -> Self {
        let source = Session::new(source, feeds, resume, encoders("shop", "contract", "shop"), Metrics::new("shop").source);
        Self { source, budget: Budget::new(batch_bytes * 4, batch_bytes), open: None }
    }

    async fn writer(&mut self) -> BatchWriter {
        let mut out = self.budget.writer().await;
        if let Some(open) = self.open.take() {
            out.adopt(&open);
        }
        out
    }

    fn seal(&mut self, out: BatchWriter, filled: Filled) -> Batch {
        let records = records(&out);
        let token = self.source.token();
        let (_, open) = out.seal(Seq(1), Progress::live(token.clone()));
        self.open = open;
        Batch { records, filled, token }
    }

    /// The next batch, or an error.
    pub(crate) async fn batch(&mut self, until: Option<&ResumeToken>) -> Result<Batch, S::Error> {
        let mut out = self.writer().await;
        let filled = tokio::time::timeout(TIMEOUT, self.source.fill(&mut out, until)).await.expect("a batch comes in time")?;
        Ok(self.seal(out, filled))
    }

    /// Reads batches until `count` records have come.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Taken> {
        let mut taken = Vec::new();
        let deadline = Instant::now() + TIMEOUT;
        while taken.len() < count {
            assert!(Instant::now() < deadline, "only {} of {count} records came: {taken:#?}", taken.len());
            taken.extend(self.batch(None).await.expect("the source goes on").records);
        }
        assert_eq!(taken.len(), count, "more than expected: {taken:#?}");
        taken
    }

    /// Reads batches up to `end`.
    pub(crate) async fn batches(&mut self, end: &ResumeToken) -> Vec<Batch> {
        let (mut batches, deadline) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
        loop {
            assert!(Instant::now() < deadline, "{} is not reached", end.0);
            let batch = self.batch(Some(end)).await.expect("the source goes on");
            let reached = batch.filled == Filled::Reached;
            batches.push(batch);
            if reached {
                return batches;
            }
        }
    }

    /// Reads until the session fails. Returns what it wrote before, and why it failed.
    pub(crate) async fn failure(&mut self) -> (Vec<Taken>, S::Error) {
        let (mut taken, deadline) = (Vec::new(), Instant::now() + TIMEOUT);
        loop {
            assert!(Instant::now() < deadline, "the session goes on: {taken:#?}");
            match self.batch(None).await {
                Ok(batch) => taken.extend(batch.records),
                Err(error) => return (taken, error),
            }
        }
    }

    /// Waits for the session to fail although nothing comes, for longer than batches take.
    pub(crate) async fn fails_within(&mut self, limit: Duration) -> S::Error {
        let mut out = self.writer().await;
        loop {
            let filled = tokio::time::timeout(limit, self.source.fill(&mut out, None)).await.expect("the session fails in time");
            if let Err(error) = filled {
                return error;
            }
        }
    }

    /// Reads the next batch with a `fill` that is dropped after some polls and called again, until it returns.
    pub(crate) async fn cancelled(&mut self, end: &ResumeToken, polls: usize) -> Batch {
        let mut out = self.writer().await;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            assert!(Instant::now() < deadline, "a batch comes in time");
            let filled = {
                let mut fill = pin!(self.source.fill(&mut out, Some(end)));
                let mut left = polls;
                std::future::poll_fn(|context| match fill.as_mut().poll(context) {
                    Poll::Ready(filled) => Poll::Ready(Some(filled)),
                    Poll::Pending if left == 0 => Poll::Ready(None),
                    Poll::Pending => {
                        left -= 1;
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                })
                .await
            };
            if let Some(filled) = filled {
                return self.seal(out, filled.expect("the source goes on"));
            }
            tokio::task::yield_now().await;
        }
    }
}
