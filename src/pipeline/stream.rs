//! One session with the source: fills batches from its log, hands them over, and keeps its connection alive while it waits.

use super::batch_sender::{BatchSender, Outgoing};
use super::failure::Failure;
use super::held_snapshot::HeldSnapshot;
use crate::batch::{Batch, BatchWriter, OpenRecords, Seq};
use crate::checkpoint::{Progress, ResumeToken};
use crate::event::FeedId;
use crate::source::{Cut, Emission, Emitter, Filled, LogToken as _, Prefeed, RowEmitter, Slice, Source, SourceProgress, TableChange};
use crate::status::Side;
use crate::status::metrics::State;
use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Interval, MissedTickBehavior};

/// How many heartbeats pass as one while the log is read and nothing comes. Input is seen at once all the same.
const QUIET_BEATS: u32 = 3;

/// How far [`Stream::pump`] reads, unless `leave` ends it first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit<'l> {
    /// Until the source notices a change of a table that the log does not show, or a table is to be read again.
    TableChange,
    /// To a position in the log, exactly. From inside a transaction, to its end.
    Cut(&'l ResumeToken),
    /// Until no input waits.
    Drained,
    /// Without a limit.
    Endless,
}

/// Why a batch is no longer filled. It is handed over in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FillEnd {
    /// It is to be handed over, and reading goes on.
    BatchReady,
    /// The limit is reached.
    LimitReached,
    /// `leave` has ended.
    Left,
}

/// One session with the source. Whatever it waits for, it sends the source a keep-alive at every heartbeat, and less often while nothing comes.
pub(super) struct Stream<'o, S: Source> {
    source: S,
    emission: Emission<S::Token>,
    sender: &'o mut BatchSender,
    heartbeat: Interval,
    /// Whether the next heartbeat is late because nothing came at the last one.
    is_quiet: bool,
    open: Option<OpenRecords>,
    /// Table changes that the source noticed and nobody has processed yet.
    table_changes: Vec<TableChange>,
    /// The token of the newest batch handed over.
    handed_over: ResumeToken,
}

/// What ended a wait of the stream early.
#[derive(Debug)]
pub(super) enum StreamInterrupt<E> {
    /// The pipeline is stopping, or the sink side has ended.
    Stopped,
    /// A command requested a new session.
    Requested,
    /// All rows of the feed's file are sent, and the log must be read again from where the file was begun.
    FileSent(FeedId),
    /// The source failed.
    Failed(E),
    /// Something else failed: a file, or the format.
    Failure(Failure),
}

impl<E> From<E> for StreamInterrupt<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

impl<'o, S: Source> Stream<'o, S> {
    /// A session that goes on where the source says. If that is not `resumed`, the source's log is proven only up to an earlier position, and what
    /// was durable before says nothing about what is read now. The source is not told of it: it would forget log that the next session needs.
    pub(super) fn new(source: S, emission: Emission<S::Token>, resumed: &ResumeToken, sender: &'o mut BatchSender) -> Self {
        let mut heartbeat = tokio::time::interval(S::HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (open, table_changes) = (None, Vec::new());
        let mut stream = Self { source, emission, sender, heartbeat, is_quiet: false, open, table_changes, handed_over: resumed.clone() };
        let begins_at = stream.progress();
        if begins_at != *resumed {
            stream.sender.acknowledge_from = stream.sender.next;
        }
        stream.handed_over = begins_at;
        stream
    }

    /// Publishes the feed's live events from `start` on.
    pub(super) fn start(&mut self, feed: FeedId, start: &ResumeToken) -> Result<(), S::Error> {
        self.emission.start(feed, S::Token::parse(start)?);
        Ok(())
    }

    /// The source's position. Keeps the tables that it found changed.
    fn progress(&mut self) -> ResumeToken {
        let SourceProgress { token, mut table_changes } = self.source.progress(&self.emission);
        self.table_changes.append(&mut table_changes);
        token
    }

    /// Lets rows of a slice be written into `out`, positioned at its cut.
    pub(super) fn rows<'e>(&self, cut: &Cut, slice: &'e mut Slice, out: &'e mut BatchWriter) -> Result<RowEmitter<'e>, S::Error> {
        let prefix = S::Token::parse(&cut.token)?.position_prefix();
        Ok(RowEmitter::new(self.emission.encoders().clone(), &prefix, cut.opened_at, slice, out))
    }

    /// Once batch `begun` is durable, the source is told of no later position. An earlier call prevails.
    pub(super) fn keep_log_from(&mut self, begun: Seq) {
        self.sender.keep_log_from.get_or_insert(begun);
    }

    /// The token of the newest batch handed over: the next session goes on there.
    pub(super) const fn handed_over(&self) -> &ResumeToken {
        &self.handed_over
    }

    /// Shows in the status what the pipeline is doing.
    pub(super) fn set_phase(&self, phase: State) {
        self.sender.status.publish(|status| status.set_phase(phase));
    }

    /// Waits for `wait`, and meanwhile keeps the source's connection alive. A stop ends the wait, and so does a requested restart.
    pub(super) async fn keep_alive_while<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, StreamInterrupt<S::Error>> {
        tokio::pin!(wait);
        let stop = self.sender.stop.clone();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => return Err(StreamInterrupt::Stopped),
                Ok(()) = self.sender.restart.changed() => return Err(StreamInterrupt::Requested),
                value = &mut wait => return Ok(value),
                _ = self.heartbeat.tick() => self.keep_alive().await?,
            }
        }
    }

    /// Tells the source what is durable (I1: and nothing beyond it), and asks for table changes.
    pub(super) async fn keep_alive(&mut self) -> Result<(), S::Error> {
        self.sender.status.note(|status| status.mark_alive(Side::Source));
        let durable = self.sender.durable.borrow_and_update().clone();
        let is_told = self.sender.acknowledge_from <= durable.seq && self.sender.keep_log_from.is_none_or(|begun| durable.seq < begun);
        let durable = if is_told { Some(S::Token::parse(&durable.token)?) } else { None };
        self.source.acknowledge(durable.as_ref(), &self.emission).await?;
        self.progress();
        Ok(())
    }

    /// Table changes since the last call.
    pub(super) fn table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }

    /// Whether tables changed since the last call of [`Self::table_changes`].
    pub(super) const fn has_table_changes(&self) -> bool {
        !self.table_changes.is_empty()
    }

    /// Whether feeds are to be read again by a command.
    pub(super) fn is_asked_to_read_again(&mut self) -> bool {
        while let Ok(feed) = self.sender.read_again.try_recv() {
            self.sender.unmarked.insert(feed);
        }
        !self.sender.unmarked.is_empty()
    }

    /// The feeds that are to be read again by a command since the last call.
    pub(super) fn asked_to_read_again(&mut self) -> BTreeSet<FeedId> {
        std::mem::take(&mut self.sender.unmarked)
    }

    /// Waits for the memory and the slot of the next batch.
    pub(super) async fn outgoing(&mut self) -> Result<Outgoing, StreamInterrupt<S::Error>> {
        let outgoing = self.sender.outgoing();
        self.keep_alive_while(outgoing).await?.ok_or(StreamInterrupt::Stopped)
    }

    /// As [`Self::outgoing`], under a snapshot; `None` when the slice must end first.
    async fn outgoing_under<P>(&mut self, held: &mut HeldSnapshot<'_, P>) -> Result<Option<Outgoing>, StreamInterrupt<S::Error>>
    where
        P: Prefeed<Error = S::Error>,
    {
        let outgoing = self.sender.outgoing();
        match self.keep_alive_while(held.wait(outgoing)).await?? {
            Some(outgoing) => outgoing.map(Some).ok_or(StreamInterrupt::Stopped),
            None => Ok(None),
        }
    }

    /// Waits for the memory of one more batch under a snapshot; `None` when the slice must end first.
    pub(super) async fn memory_under<P>(&mut self, held: &mut HeldSnapshot<'_, P>) -> Result<Option<BatchWriter>, StreamInterrupt<S::Error>>
    where
        P: Prefeed<Error = S::Error>,
    {
        let memory = self.sender.memory();
        Ok(self.keep_alive_while(held.wait(memory)).await??)
    }

    /// Waits for the memory of up to `most` batches at once. Cancel safe.
    pub(super) fn memory_of(&self, most: usize) -> impl Future<Output = Vec<BatchWriter>> + Send + use<S> {
        self.sender.memory_of(most)
    }

    /// Waits for a slot in the channel. Cancel safe.
    pub(super) async fn permit(&mut self) -> Result<OwnedPermit<Batch>, StreamInterrupt<S::Error>> {
        let permit = self.sender.permit();
        self.keep_alive_while(permit).await?.ok_or(StreamInterrupt::Stopped)
    }

    /// Seals a batch and hands it over.
    pub(super) fn send(&mut self, mut outgoing: Outgoing, progress: Progress) -> Seq {
        debug_assert!(
            !self.goes_back(&progress.token),
            "I4: {} comes before {}, which was handed over",
            progress.token.0,
            self.handed_over.0
        );
        self.adopt(&mut outgoing);
        self.handed_over = progress.token.clone();
        let (seq, open) = self.sender.send(outgoing, progress);
        self.open = open;
        seq
    }

    /// Whether a token lies before the one that was handed over last. Within a session none does.
    fn goes_back(&self, token: &ResumeToken) -> bool {
        let token = S::Token::parse(token);
        token.is_ok_and(|token| S::Token::parse(&self.handed_over).is_ok_and(|handed_over| token.is_before(&handed_over)))
    }

    /// Puts the open records of the last batch first.
    fn adopt(&mut self, outgoing: &mut Outgoing) {
        if let Some(open) = self.open.take() {
            outgoing.out.adopt(&open);
        }
    }

    /// As [`BatchSender::durable`].
    pub(super) fn becomes_durable(&self, seq: Seq) -> impl Future<Output = bool> + Send + use<S> {
        self.sender.durable(seq)
    }

    /// Waits until `seq` and all before it are durable.
    pub(super) async fn durable(&mut self, seq: Seq) -> Result<(), StreamInterrupt<S::Error>> {
        let durable = self.becomes_durable(seq);
        // `false`: the sink side has ended.
        if self.keep_alive_while(durable).await? { Ok(()) } else { Err(StreamInterrupt::Stopped) }
    }

    /// Hands over batches from the log, up to the limit, until `leave`, or until the stop.
    ///
    /// A batch leaves when it is full, or when the input is drained and the memory budget is not crowded. While it is crowded, the batch stays
    /// and what comes next joins it: an outage with one-row transactions fills whole batches.
    pub(super) async fn pump<T>(&mut self, limit: Limit<'_>, leave: impl Future<Output = T>) -> Result<(), StreamInterrupt<S::Error>> {
        let mut leave = pin!(async {
            let _left = leave.await;
            Ok(())
        });
        loop {
            let outgoing = self.sender.outgoing();
            let left = async {
                tokio::select! { biased;
                    _ = &mut leave => None,
                    outgoing = outgoing => Some(outgoing),
                }
            };
            let Some(outgoing) = self.keep_alive_while(left).await? else { return Ok(()) };
            let outgoing = outgoing.ok_or(StreamInterrupt::Stopped)?;
            if self.round(outgoing, limit, leave.as_mut()).await? != FillEnd::BatchReady {
                return Ok(());
            }
        }
    }

    /// Hands over batches up to the cut of a held snapshot; `false` when the slice must end first.
    pub(super) async fn pump_under<P>(
        &mut self,
        cut: &ResumeToken,
        held: &mut HeldSnapshot<'_, P>,
    ) -> Result<bool, StreamInterrupt<S::Error>>
    where
        P: Prefeed<Error = S::Error>,
    {
        loop {
            let Some(outgoing) = self.outgoing_under(held).await? else { return Ok(false) };
            match self.round(outgoing, Limit::Cut(cut), pin!(held.over())).await? {
                FillEnd::BatchReady => {}
                FillEnd::LimitReached => return Ok(true),
                FillEnd::Left => return Ok(false),
            }
        }
    }

    /// Fills one batch and hands it over, also when `leave` ended the filling.
    async fn round<F>(&mut self, mut outgoing: Outgoing, limit: Limit<'_>, leave: Pin<&mut F>) -> Result<FillEnd, StreamInterrupt<S::Error>>
    where
        F: Future<Output = Result<(), S::Error>>,
    {
        self.adopt(&mut outgoing);
        let filled = self.fill(&mut outgoing.out, limit, leave).await;
        self.emission.report();
        let end = filled?;
        if std::mem::take(&mut self.is_quiet) {
            self.heartbeat.reset_after(S::HEARTBEAT);
        }
        let progress = Progress::live(self.progress());
        if !outgoing.out.is_empty() || outgoing.out.is_open() || progress.token != self.handed_over {
            self.send(outgoing, progress);
        }
        Ok(end)
    }

    /// Fills `out` until it is to be handed over. Not cancel safe, since written records would be lost: only a stop cancels it.
    async fn fill<F>(
        &mut self,
        out: &mut BatchWriter,
        limit: Limit<'_>,
        mut leave: Pin<&mut F>,
    ) -> Result<FillEnd, StreamInterrupt<S::Error>>
    where
        F: Future<Output = Result<(), S::Error>>,
    {
        let (stop, budget) = (self.sender.stop.clone(), self.sender.budget.clone());
        let until = if let Limit::Cut(cut) = limit { Some(S::Token::parse(cut)?) } else { None };
        loop {
            let is_empty = out.is_empty();
            let mut emitter = Emitter::new(&mut self.emission, out);
            tokio::select! { biased;
                () = stop.cancelled() => return Err(StreamInterrupt::Stopped),
                Ok(()) = self.sender.restart.changed() => return Err(StreamInterrupt::Requested),
                // During a pause the batch leaves, and the next one gets no memory.
                () = self.sender.gate.closed() => return Ok(FillEnd::BatchReady),
                Some(feed) = self.sender.read_again.recv(), if matches!(limit, Limit::TableChange) => {
                    self.sender.unmarked.insert(feed);
                    return Ok(FillEnd::LimitReached);
                }
                _ = self.heartbeat.tick() => {
                    self.keep_alive().await?;
                    if matches!(limit, Limit::TableChange) && !self.table_changes.is_empty() {
                        return Ok(FillEnd::LimitReached);
                    }
                    let idle = out.is_empty() && !out.is_open();
                    if idle {
                        if self.progress() != self.handed_over {
                            return Ok(FillEnd::BatchReady);
                        }
                        self.is_quiet = true;
                        self.heartbeat.reset_after(S::HEARTBEAT * QUIET_BEATS);
                    }
                }
                left = &mut leave => return Ok(left.map(|()| FillEnd::Left)?),
                () = budget.eased(), if !is_empty => return Ok(FillEnd::BatchReady),
                filled = self.source.fill(&mut emitter, until.as_ref()) => match filled? {
                    Filled::Full => return Ok(FillEnd::BatchReady),
                    Filled::Reached => return Ok(FillEnd::LimitReached),
                    Filled::Drained if matches!(limit, Limit::Drained) => return Ok(FillEnd::LimitReached),
                    Filled::Drained if !out.is_empty() && !budget.is_crowded() => return Ok(FillEnd::BatchReady),
                    Filled::Drained => {}
                },
                () = std::future::ready(()), if matches!(limit, Limit::Drained) => return Ok(FillEnd::LimitReached),
            }
        }
    }

    /// Ends the session in order: hands nothing more over, waits until everything is settled, and tells the source the last durable position.
    pub(super) async fn close(mut self) -> Result<(), S::Error> {
        self.sender.batches = None;
        let mut durable = self.sender.durable.clone();
        loop {
            tokio::select! { biased;
                changed = durable.changed() => if changed.is_err() { break },
                _ = self.heartbeat.tick() => self.keep_alive().await?,
            }
        }
        self.keep_alive().await
    }
}
