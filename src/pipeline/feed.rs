//! The feed half: reads the source, seals batches, hands them over. It starts again from memory, by itself.

use crate::batch::{Batch, BatchWriter, OpenRecords, Seq};
use crate::budget::Budget;
use crate::change::FeedId;
use crate::checkpoint::{Durable, Progress, ResumeToken};
use crate::metrics::State;
use crate::pipeline::health::{Half, Health};
use crate::source::{Filled, Sighting, Source};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// What the feed half shares with the rest, whatever session it is in.
#[derive(Debug)]
pub(super) struct Outlet {
    /// `None` once nothing more will come.
    pub(super) batches: Option<mpsc::Sender<Batch>>,
    pub(super) next: Seq,
    pub(super) budget: Budget,
    pub(super) durable: watch::Receiver<Durable>,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
}

impl Outlet {
    /// Seals what is closed in `out` and counts it as on its way.
    pub(super) fn seal(&mut self, out: BatchWriter, progress: Progress) -> (Batch, Option<OpenRecords>) {
        let (batch, open) = out.seal(self.next, progress);
        self.next = self.next.next();
        self.health.handed_over(batch.oldest_live());
        (batch, open)
    }

    fn is_way_free(&self) -> bool {
        !self.budget.is_crowded() && self.batches.as_ref().is_some_and(|batches| 0 < batches.capacity())
    }

    /// Waits until a small batch may leave. Cancel safe.
    async fn way_is_free(&self) {
        self.budget.eased().await;
        if let Some(batches) = &self.batches {
            // A closed channel lets go too: handing over will then find it closed.
            drop(batches.reserve().await);
        }
    }
}

/// How far [`Stream::pump`] goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit<'l> {
    /// Until the source sights something beside the log.
    Sighting,
    /// To a place in the log, exactly.
    Cut(&'l ResumeToken),
    /// Until a moment.
    Moment(Instant),
}

/// What to do with a batch that was being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Hand it over and go on.
    HandOver,
    /// Hand it over: the limit is reached.
    Limit,
}

/// One session with the source. Whatever it waits for, the source hears from it at every heartbeat.
pub(super) struct Stream<'o, S> {
    source: S,
    outlet: &'o mut Outlet,
    beat: Interval,
    open: Option<OpenRecords>,
    /// What the source sighted and nobody has looked at yet.
    sighted: Vec<Sighting>,
    /// The token of the newest batch on its way.
    handed_over: ResumeToken,
}

/// What ends a wait of the stream early.
#[derive(Debug)]
pub(super) enum Interrupted<E> {
    /// The pipeline is asked to stop, or the deliver half has ended.
    Stopped,
    /// The source failed.
    Failed(E),
}

impl<E> From<E> for Interrupted<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

impl<'o, S: Source> Stream<'o, S> {
    pub(super) fn new(source: S, outlet: &'o mut Outlet) -> Self {
        let mut beat = tokio::time::interval(S::HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let handed_over = source.token();
        Self { source, outlet, beat, open: None, sighted: Vec::new(), handed_over }
    }

    /// The feed's live events are published from `start` on.
    pub(super) fn start(&mut self, feed: FeedId, start: &ResumeToken) {
        self.source.start(feed, start);
    }

    /// The token of the newest batch on its way: where a new session goes on.
    pub(super) const fn handed_over(&self) -> &ResumeToken {
        &self.handed_over
    }

    /// What the pipeline is doing now.
    pub(super) fn set_phase(&self, phase: State) {
        self.outlet.health.set_phase(phase);
    }

    /// Number of the newest batch on its way.
    pub(super) const fn newest(&self) -> Seq {
        Seq(self.outlet.next.0 - 1)
    }

    /// Waits for `wait` with the source kept alive; a stop ends it.
    pub(super) async fn tended<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Interrupted<S::Error>> {
        tokio::pin!(wait);
        let stop = self.outlet.stop.clone();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => return Err(Interrupted::Stopped),
                value = &mut wait => return Ok(value),
                _ = self.beat.tick() => self.keep_alive().await?,
            }
        }
    }

    /// Tells the source what is durable (I1: and nothing beyond it), and asks what it sighted.
    pub(super) async fn keep_alive(&mut self) -> Result<(), S::Error> {
        self.outlet.health.turned(Half::Feed);
        let durable = self.outlet.durable.borrow_and_update().token.clone();
        self.source.acknowledge(&durable).await?;
        self.sighted.append(&mut self.source.sightings());
        Ok(())
    }

    /// What the source sighted since the last call.
    pub(super) fn sightings(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.sighted)
    }

    /// Room for the next batch, with the records in it that the last one left open.
    pub(super) async fn writer(&mut self) -> Result<BatchWriter, Interrupted<S::Error>> {
        let budget = self.outlet.budget.clone();
        let mut out = self.tended(budget.writer()).await?;
        if let Some(open) = self.open.take() {
            out.adopt(&open);
        }
        Ok(out)
    }

    /// Seals and hands over, waiting for the channel.
    pub(super) async fn hand_over(&mut self, out: BatchWriter, progress: Progress) -> Result<Seq, Interrupted<S::Error>> {
        let Some(batches) = self.outlet.batches.clone() else { return Err(Interrupted::Stopped) };
        let Ok(permit) = self.tended(batches.reserve()).await? else { return Err(Interrupted::Stopped) };
        self.handed_over = progress.token.clone();
        let (batch, open) = self.outlet.seal(out, progress);
        self.open = open;
        let seq = batch.seq();
        permit.send(batch);
        Ok(seq)
    }

    /// Waits until `seq` and all before it are durable.
    pub(super) async fn durable(&mut self, seq: Seq) -> Result<(), Interrupted<S::Error>> {
        let mut durable = self.outlet.durable.clone();
        match self.tended(async move { durable.wait_for(|durable| seq <= durable.seq).await.map(|_| ()) }).await? {
            Ok(()) => Ok(()),
            Err(_deliver_ended) => Err(Interrupted::Stopped),
        }
    }

    /// Carries the log to the outlet, up to the limit or until the stop.
    ///
    /// A batch leaves when it is full, or when the input is drained and the way is free. While much waits for the broker it
    /// stays, and what comes next joins it: an outage with one-row transactions fills whole batches.
    pub(super) async fn pump(&mut self, limit: Limit<'_>) -> Result<(), Interrupted<S::Error>> {
        loop {
            let mut out = self.writer().await?;
            let next = self.fill(&mut out, limit).await?;
            let progress = Progress::live(self.source.token());
            if !out.is_empty() || out.is_open() || progress.token != self.handed_over {
                self.hand_over(out, progress).await?;
            }
            if next == Next::Limit {
                return Ok(());
            }
        }
    }

    /// Fills `out` until it is to be handed over. Cancelling it would lose what was written: only a stop does.
    async fn fill(&mut self, out: &mut BatchWriter, limit: Limit<'_>) -> Result<Next, Interrupted<S::Error>> {
        let stop = self.outlet.stop.clone();
        let until = if let Limit::Cut(cut) = limit { Some(cut) } else { None };
        loop {
            let moment = async {
                match limit {
                    Limit::Moment(at) => tokio::time::sleep_until(at).await,
                    Limit::Sighting | Limit::Cut(_) => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = stop.cancelled() => return Err(Interrupted::Stopped),
                _ = self.beat.tick() => {
                    self.keep_alive().await?;
                    if matches!(limit, Limit::Sighting) && !self.sighted.is_empty() {
                        return Ok(Next::Limit);
                    }
                    let idle = out.is_empty() && !out.is_open();
                    if idle && self.source.token() != self.handed_over {
                        return Ok(Next::HandOver);
                    }
                }
                () = moment => return Ok(Next::Limit),
                () = self.outlet.way_is_free(), if !out.is_empty() => return Ok(Next::HandOver),
                filled = self.source.fill(out, until) => match filled? {
                    Filled::Full => return Ok(Next::HandOver),
                    Filled::Reached => return Ok(Next::Limit),
                    Filled::Drained if !out.is_empty() && self.outlet.is_way_free() => return Ok(Next::HandOver),
                    Filled::Drained => {}
                },
            }
        }
    }

    /// Ends the session in order: nothing more is handed over; when all is settled the source hears the last durable place.
    pub(super) async fn close(mut self) -> Result<(), S::Error> {
        self.outlet.batches = None;
        let mut durable = self.outlet.durable.clone();
        loop {
            tokio::select! { biased;
                changed = durable.changed() => if changed.is_err() { break },
                _ = self.beat.tick() => self.keep_alive().await?,
            }
        }
        self.keep_alive().await
    }
}
