//! The feed half: reads the source, seals batches, hands them over. It starts again from memory, by itself.

use crate::batch::{Batch, BatchWriter, Budget, OpenRecords, Seq};
use crate::checkpoint::{Progress, ResumeToken};
use crate::event::FeedId;
use crate::pipeline::commit_tracker::Durable;
use crate::pipeline::health::{Health, Side};
use crate::pipeline::held::Held;
use crate::source::{Filled, Prefeed, Source, TableChange};
use crate::status::metrics::State;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// What the feed half shares with the rest, whatever session it is in.
#[derive(Debug)]
pub(super) struct Outlet {
    /// `None` once nothing more will come.
    pub(super) batches: Option<mpsc::Sender<Batch>>,
    pub(super) next: Seq,
    pub(super) budget: Budget,
    pub(super) durable: watch::Receiver<Durable>,
    /// The batch in which a file was begun, while that is being sent: from when it is durable on, the source must keep its log.
    pub(super) kept: Option<Seq>,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
}

/// A batch that will leave without waiting: it has its memory and its place in the channel.
pub(super) struct Outgoing {
    pub(super) out: BatchWriter,
    pub(super) permit: OwnedPermit<Batch>,
}

impl Outlet {
    /// Waits for what the next batch needs to leave; `None` when nothing leaves any more. Cancel safe.
    pub(super) fn outgoing(&self) -> impl Future<Output = Option<Outgoing>> + Send + use<> {
        let (budget, permit) = (self.budget.clone(), self.permit());
        async move {
            let out = budget.writer().await;
            Some(Outgoing { out, permit: permit.await? })
        }
    }

    /// Waits until a batch may leave; `None` when nothing leaves any more. Cancel safe.
    fn permit(&self) -> impl Future<Output = Option<OwnedPermit<Batch>>> + Send + use<> {
        let batches = self.batches.clone();
        async move { batches?.reserve_owned().await.ok() }
    }

    /// Seals what is closed, counts it as on its way, and hands it over.
    pub(super) fn send(&mut self, outgoing: Outgoing, progress: Progress) -> (Seq, Option<OpenRecords>) {
        let (batch, open) = outgoing.out.seal(self.next, progress);
        self.next = self.next.next();
        self.health.handed_over(batch.oldest_live());
        let seq = batch.seq();
        outgoing.permit.send(batch);
        (seq, open)
    }

    /// Waits until `seq` and all before it are durable; whether it ever will be. Cancel safe.
    pub(super) fn durable(&self, seq: Seq) -> impl Future<Output = bool> + Send + use<> {
        let mut durable = self.durable.clone();
        async move { durable.wait_for(|durable| seq <= durable.seq).await.is_ok() }
    }
}

/// How many heartbeats pass as one while the source is read and nothing comes from it: whatever comes is seen at once.
const QUIET_BEATS: u32 = 3;

/// How far [`Stream::pump`] goes, unless it is left before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit<'l> {
    /// Until the source sights something beside the log.
    TableChange,
    /// To a place in the log, exactly; from inside a transaction to its end.
    Cut(&'l ResumeToken),
    /// Until no input waits.
    Drained,
    /// Until it is left.
    Endless,
}

/// What to do with a batch that was being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Hand it over and go on.
    HandOver,
    /// Hand it over: the limit is reached.
    Limit,
    /// Hand it over: it is left before the limit.
    Leave,
}

/// One session with the source. Whatever it waits for, the source hears from it at every heartbeat, and more rarely while nothing comes.
pub(super) struct Stream<'o, S> {
    source: S,
    outlet: &'o mut Outlet,
    beat: Interval,
    /// Whether the next beat is late, because nothing came at the last one.
    is_quiet: bool,
    open: Option<OpenRecords>,
    /// What the source table_changes and nobody has looked at yet.
    table_changes: Vec<TableChange>,
    /// The token of the newest batch on its way.
    handed_over: ResumeToken,
    /// From when this batch is durable on, the source is told what is durable.
    told_from: Seq,
}

/// What ends a wait of the stream early.
#[derive(Debug)]
pub(super) enum Interrupted<E> {
    /// The pipeline is asked to stop, or the deliver half has ended.
    Stopped,
    /// The rows of the feed's file are sent, and the log is to be read again from where they began.
    Loaded(FeedId),
    /// The source failed.
    Failed(E),
}

impl<E> From<E> for Interrupted<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

impl<'o, S: Source> Stream<'o, S> {
    /// Goes on where the source says. Where that is not `resumed`, what is proven of its log ends sooner, and what was durable before says
    /// nothing of what is read now: told of it, the source would forget what a next session begins with.
    pub(super) fn new(source: S, resumed: &ResumeToken, outlet: &'o mut Outlet) -> Self {
        let mut beat = tokio::time::interval(S::HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let handed_over = source.token();
        let told_from = if handed_over == *resumed { Seq(0) } else { outlet.next };
        Self { source, outlet, beat, is_quiet: false, open: None, table_changes: Vec::new(), handed_over, told_from }
    }

    /// The feed's live events are published from `start` on.
    pub(super) fn start(&mut self, feed: FeedId, start: &ResumeToken) {
        self.source.start(feed, start);
    }

    /// From when this batch is durable on, or an earlier one that said so, the source is told of no later place.
    pub(super) fn keep(&mut self, begun: Seq) {
        self.outlet.kept.get_or_insert(begun);
    }

    /// The token of the newest batch on its way: where a new session goes on.
    pub(super) const fn handed_over(&self) -> &ResumeToken {
        &self.handed_over
    }

    /// What the pipeline is doing now.
    pub(super) fn set_phase(&self, phase: State) {
        self.outlet.health.set_phase(phase);
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

    /// Tells the source what is durable (I1: and nothing beyond it), and asks what it table_changes.
    pub(super) async fn keep_alive(&mut self) -> Result<(), S::Error> {
        self.outlet.health.turned(Side::Source);
        let durable = self.outlet.durable.borrow_and_update().clone();
        let is_told = self.told_from <= durable.seq && self.outlet.kept.is_none_or(|kept| durable.seq < kept);
        self.source.acknowledge(is_told.then_some(&durable.token)).await?;
        self.table_changes.append(&mut self.source.table_changes());
        Ok(())
    }

    /// What the source table_changes since the last call.
    pub(super) fn table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }

    /// Waits for what the next batch needs to leave.
    pub(super) async fn outgoing(&mut self) -> Result<Outgoing, Interrupted<S::Error>> {
        let outgoing = self.outlet.outgoing();
        self.tended(outgoing).await?.ok_or(Interrupted::Stopped)
    }

    /// As [`Self::outgoing`], under a snapshot; `None` where the slice is to end first.
    async fn outgoing_under<P>(&mut self, held: &mut Held<'_, P>) -> Result<Option<Outgoing>, Interrupted<S::Error>>
    where
        P: Prefeed<Error = S::Error>,
    {
        let outgoing = self.outlet.outgoing();
        match self.tended(held.wait(outgoing)).await?? {
            Some(outgoing) => outgoing.map(Some).ok_or(Interrupted::Stopped),
            None => Ok(None),
        }
    }

    /// Waits for the memory of one more batch under a snapshot; `None` where the slice is to end first.
    pub(super) async fn memory_under<P>(&mut self, held: &mut Held<'_, P>) -> Result<Option<BatchWriter>, Interrupted<S::Error>>
    where
        P: Prefeed<Error = S::Error>,
    {
        let budget = self.outlet.budget.clone();
        Ok(self.tended(held.wait(budget.writer())).await??)
    }

    /// Waits until a batch may leave. Cancel safe.
    pub(super) async fn permit(&mut self) -> Result<OwnedPermit<Batch>, Interrupted<S::Error>> {
        let permit = self.outlet.permit();
        self.tended(permit).await?.ok_or(Interrupted::Stopped)
    }

    /// Where memory is reserved.
    pub(super) const fn budget(&self) -> &Budget {
        &self.outlet.budget
    }

    /// Seals and hands over.
    pub(super) fn send(&mut self, mut outgoing: Outgoing, progress: Progress) -> Seq {
        self.adopt(&mut outgoing);
        self.handed_over = progress.token.clone();
        let (seq, open) = self.outlet.send(outgoing, progress);
        self.open = open;
        seq
    }

    /// Puts the records first that the last batch left open.
    fn adopt(&mut self, outgoing: &mut Outgoing) {
        if let Some(open) = self.open.take() {
            outgoing.out.adopt(&open);
        }
    }

    /// As [`Outlet::durable`].
    pub(super) fn becomes_durable(&self, seq: Seq) -> impl Future<Output = bool> + Send + use<S> {
        self.outlet.durable(seq)
    }

    /// Waits until `seq` and all before it are durable.
    pub(super) async fn durable(&mut self, seq: Seq) -> Result<(), Interrupted<S::Error>> {
        let durable = self.becomes_durable(seq);
        // Otherwise the deliver half has ended.
        if self.tended(durable).await? { Ok(()) } else { Err(Interrupted::Stopped) }
    }

    /// Carries the log to the outlet, up to the limit, until `leave`, or until the stop.
    ///
    /// A batch leaves when it is full, or when the input is drained and not much waits for the broker. While much does it
    /// stays, and what comes next joins it: an outage with one-row transactions fills whole batches.
    pub(super) async fn pump<T>(&mut self, limit: Limit<'_>, leave: impl Future<Output = T>) -> Result<(), Interrupted<S::Error>> {
        let mut leave = pin!(async {
            let _left = leave.await;
            Ok(())
        });
        loop {
            let outgoing = self.outlet.outgoing();
            let left = async {
                tokio::select! { biased;
                    _ = &mut leave => None,
                    outgoing = outgoing => Some(outgoing),
                }
            };
            let Some(outgoing) = self.tended(left).await? else { return Ok(()) };
            let outgoing = outgoing.ok_or(Interrupted::Stopped)?;
            if self.round(outgoing, limit, leave.as_mut()).await? != Next::HandOver {
                return Ok(());
            }
        }
    }

    /// Carries the log to the cut of a snapshot that is held; whether it came there before the slice is to end.
    pub(super) async fn carry<P>(&mut self, cut: &ResumeToken, held: &mut Held<'_, P>) -> Result<bool, Interrupted<S::Error>>
    where
        P: Prefeed<Error = S::Error>,
    {
        loop {
            let Some(outgoing) = self.outgoing_under(held).await? else { return Ok(false) };
            match self.round(outgoing, Limit::Cut(cut), pin!(held.over())).await? {
                Next::HandOver => {}
                Next::Limit => return Ok(true),
                Next::Leave => return Ok(false),
            }
        }
    }

    /// Fills one batch and hands it over, with what was read before it was left too.
    async fn round<F>(&mut self, mut outgoing: Outgoing, limit: Limit<'_>, leave: Pin<&mut F>) -> Result<Next, Interrupted<S::Error>>
    where
        F: Future<Output = Result<(), S::Error>>,
    {
        self.adopt(&mut outgoing);
        let next = self.fill(&mut outgoing.out, limit, leave).await?;
        if std::mem::take(&mut self.is_quiet) {
            self.beat.reset_after(S::HEARTBEAT);
        }
        let progress = Progress::live(self.source.token());
        if !outgoing.out.is_empty() || outgoing.out.is_open() || progress.token != self.handed_over {
            self.send(outgoing, progress);
        }
        Ok(next)
    }

    /// Fills `out` until it is to be handed over. Cancelling it would lose what was written: only a stop does.
    async fn fill<F>(&mut self, out: &mut BatchWriter, limit: Limit<'_>, mut leave: Pin<&mut F>) -> Result<Next, Interrupted<S::Error>>
    where
        F: Future<Output = Result<(), S::Error>>,
    {
        let (stop, budget) = (self.outlet.stop.clone(), self.outlet.budget.clone());
        let until = if let Limit::Cut(cut) = limit { Some(cut) } else { None };
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => return Err(Interrupted::Stopped),
                _ = self.beat.tick() => {
                    self.keep_alive().await?;
                    if matches!(limit, Limit::TableChange) && !self.table_changes.is_empty() {
                        return Ok(Next::Limit);
                    }
                    let idle = out.is_empty() && !out.is_open();
                    if idle {
                        if self.source.token() != self.handed_over {
                            return Ok(Next::HandOver);
                        }
                        self.is_quiet = true;
                        self.beat.reset_after(S::HEARTBEAT * QUIET_BEATS);
                    }
                }
                left = &mut leave => return Ok(left.map(|()| Next::Leave)?),
                () = budget.eased(), if !out.is_empty() => return Ok(Next::HandOver),
                filled = self.source.fill(out, until) => match filled? {
                    Filled::Full => return Ok(Next::HandOver),
                    Filled::Reached => return Ok(Next::Limit),
                    Filled::Drained if matches!(limit, Limit::Drained) => return Ok(Next::Limit),
                    Filled::Drained if !out.is_empty() && !budget.is_crowded() => return Ok(Next::HandOver),
                    Filled::Drained => {}
                },
                () = std::future::ready(()), if matches!(limit, Limit::Drained) => return Ok(Next::Limit),
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
