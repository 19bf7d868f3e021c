//! One slice of the prefeed: rows as one snapshot shows them, sent when the log has reached the snapshot's cut.
//!
//! Rows are read first, into memory that was reserved before. So under the snapshot only the source is waited for, however far the broker is
//! behind. If the log reaches the cut in an instant, the slice goes on with memory that becomes free in an instant. Otherwise the
//! snapshot is released ([`HeldSnapshot`]), and the log up to the cut and the rows are sent without it.

use super::plan::{Plan, SLICE_BESIDE_LIVE, SLICE_ROWS_MAX};
use super::report::Report;
use crate::batch::BatchWriter;
use crate::checkpoint::FeedState;
use crate::event::{FeedId, Timestamp};
use crate::feed::PrefeedKind;
use crate::pipeline::batch_sender::Outgoing;
use crate::pipeline::failure::Failure;
use crate::pipeline::held_snapshot::{HeldSnapshot, INSTANT};
use crate::pipeline::stream::{Limit, Stream, StreamInterrupt};
use crate::source::{Cut, Opened, Prefeed, Slice, Source};
use crate::status::{Side, WaitFor};
use std::collections::VecDeque;
use std::future::pending;
use tokio::time::{Instant, sleep};

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceOutcome {
    /// Rows were read.
    Read,
    /// No snapshot could be opened.
    Blocked,
}

/// A slice that is being read.
struct SliceReading<'r> {
    feeds: &'r [FeedId],
    cut: Cut,
    slice: Slice,
    /// Batches that are read and not sent yet.
    ready: VecDeque<ReadyBatch>,
}

/// A batch of rows, to be sent at the cut.
struct ReadyBatch {
    out: BatchWriter,
    /// The states of its feeds once it is confirmed.
    states: Vec<(FeedId, FeedState)>,
}

impl SliceReading<'_> {
    /// The feed's state once all rows that were read are sent.
    fn state<'s>(&'s self, plan: &'s Plan, id: FeedId) -> &'s FeedState {
        let read = self.ready.iter().rev().flat_map(|ready| &ready.states).find(|(feed, _)| *feed == id);
        read.map_or(&plan.states[id.index()], |(_, state)| state)
    }

    /// The feed that is read next.
    fn next_feed(&self, plan: &Plan) -> Option<FeedId> {
        self.feeds.iter().copied().find(|id| matches!(self.state(plan, *id), FeedState::Reading { .. }))
    }
}

impl Plan {
    /// Sends the next rows of these feeds: as many as the reserved memory holds, and more if that needs no long wait.
    pub(super) async fn slice<S, P>(
        &mut self,
        feeds: &[FeedId],
        memory: Vec<BatchWriter>,
        stream: &mut Stream<'_, S>,
        prefeed: &mut P,
        report: &mut Report,
    ) -> Result<SliceOutcome, StreamInterrupt<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        // The log is held from here on: it is not read until the cut is known.
        let needs_snapshot = feeds.iter().all(|id| self.is_read(self.feeds.get(*id)));
        let opened = if needs_snapshot {
            stream.keep_alive_while(prefeed.open(&self.to_read(feeds), self.open_timeout())).await??
        } else {
            Opened::Cut(Cut { token: stream.handed_over().clone(), opened_at: Timestamp::now() })
        };
        let cut = match opened {
            Opened::Cut(cut) => cut,
            Opened::Blocked { by } => {
                tracing::warn!(by, "no snapshot could be opened; live events go on, then it is tried again");
                self.status.publish(|status| status.set_waiting(Side::Source, Some((WaitFor::Snapshot, Some(by)))));
                return Ok(SliceOutcome::Blocked);
            }
        };
        self.status.publish(|status| status.set_waiting(Side::Source, None));
        self.is_numbered = false;
        let mut reading = SliceReading { feeds, cut, slice: Slice { number: self.slice, next_row: 0 }, ready: VecDeque::new() };
        let longest = if self.any_is_live() { self.slice_max.min(SLICE_BESIDE_LIVE) } else { self.slice_max }.min(P::SLICE_MAX);
        let mut held = HeldSnapshot::new(prefeed, longest);
        let read = self.read(&mut reading, memory, stream, &mut held, report).await;
        // The snapshot is released whatever happened: it would hold up the source.
        let closed = stream.keep_alive_while(prefeed.close()).await?;
        read?;
        closed?;
        // What took too long under the snapshot is done without it.
        stream.pump(Limit::Cut(&reading.cut.token), pending::<()>()).await?;
        self.held_since = Instant::now();
        while !reading.ready.is_empty() {
            self.send_next(&mut reading, stream).await?;
        }
        self.wait_begun(stream).await?;
        Ok(SliceOutcome::Read)
    }

    /// Reads rows into the reserved memory. Then hands over the log up to the cut, sends the rows and reads on, until all are sent or the slice must
    /// end.
    async fn read<S, P>(
        &mut self,
        reading: &mut SliceReading<'_>,
        memory: Vec<BatchWriter>,
        stream: &mut Stream<'_, S>,
        held: &mut HeldSnapshot<'_, P>,
        report: &mut Report,
    ) -> Result<(), StreamInterrupt<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let mut memory = memory.into_iter();
        self.begin_feeds(reading, &mut memory, stream)?;
        while let Some(out) = memory.next() {
            let goes_on = self.scan(reading, out, stream, held, report).await?;
            if let Some(read) = reading.ready.back_mut() {
                read.out.absorb(&mut memory);
            }
            if !goes_on {
                return Ok(());
            }
        }
        if !stream.pump_under(&reading.cut.token, held).await? {
            return Ok(());
        }
        self.held_since = Instant::now();
        loop {
            while !reading.ready.is_empty() {
                let Some(sent) = held.wait(self.send_next(reading, stream)).await? else { return Ok(()) };
                sent?;
            }
            let Some(out) = stream.memory_under(held).await? else { return Ok(()) };
            if !self.scan(reading, out, stream, held, report).await? {
                return Ok(());
            }
        }
    }

    /// Begins the new feeds at the cut, so that a replay begins them at the same position. Writes a `reset` event for each that is read again, with
    /// the first row numbers of the slice.
    fn begin_feeds<S: Source>(
        &self,
        reading: &mut SliceReading<'_>,
        memory: &mut impl Iterator<Item = BatchWriter>,
        stream: &Stream<'_, S>,
    ) -> Result<(), StreamInterrupt<S::Error>> {
        let is_new = |id: &FeedId| matches!(self.states[id.index()], FeedState::Pending | FeedState::Again { .. });
        let mut new = reading.feeds.iter().copied().filter(is_new).peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let mut out = memory.next().expect("memory for at least one batch");
        let mut states = Vec::new();
        for id in new {
            if matches!(self.states[id.index()], FeedState::Again { reset: true, .. }) {
                let mut rows = stream.rows(&reading.cut, &mut reading.slice, &mut out)?;
                rows.reset(self.feeds.get(id)).map_err(|error| StreamInterrupt::Failure(Failure::of(&error)))?;
            }
            states.push((id, self.begun_state(id, &reading.cut)));
        }
        reading.ready.push_back(ReadyBatch { out, states });
        Ok(())
    }

    /// The feed's state once it has begun at the cut.
    fn begun_state(&self, id: FeedId, cut: &Cut) -> FeedState {
        let state = &self.states[id.index()];
        let start = state.start().unwrap_or(&cut.token).clone();
        match self.feeds.get(id).prefeed {
            PrefeedKind::File(_) if state.start().is_none() => FeedState::Loading { start: Some(start), after: None },
            PrefeedKind::None if state.start().is_none() => FeedState::Live { start },
            _ => FeedState::Reading { start, after: None },
        }
    }

    /// Reads the next rows. Returns whether the slice goes on.
    async fn scan<S, P>(
        &mut self,
        reading: &mut SliceReading<'_>,
        mut out: BatchWriter,
        stream: &mut Stream<'_, S>,
        held: &mut HeldSnapshot<'_, P>,
        report: &mut Report,
    ) -> Result<bool, StreamInterrupt<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let Some(id) = reading.next_feed(self) else { return Ok(false) };
        let FeedState::Reading { start, after } = reading.state(self, id).clone() else { return Ok(false) };
        let mut rows = stream.rows(&reading.cut, &mut reading.slice, &mut out)?;
        let scanned = stream.keep_alive_while(held.prefeed.scan(id, after.as_ref(), &mut rows)).await??;
        report.rows(id, rows.written(), scanned.done);
        self.rate_limit.count(out.size_bytes());
        let state = if scanned.done { FeedState::Live { start } } else { FeedState::Reading { start, after: scanned.after.or(after) } };
        reading.ready.push_back(ReadyBatch { out, states: vec![(id, state)] });
        let pause = self.rate_limit.pause();
        if INSTANT < pause || SLICE_ROWS_MAX <= reading.slice.next_row || stream.keep_alive_while(held.is_over()).await?? {
            return Ok(false);
        }
        stream.keep_alive_while(sleep(pause)).await?;
        Ok(reading.next_feed(self).is_some())
    }

    /// Hands over the oldest batch that was read. Cancel safe.
    async fn send_next<S: Source>(
        &mut self,
        reading: &mut SliceReading<'_>,
        stream: &mut Stream<'_, S>,
    ) -> Result<(), StreamInterrupt<S::Error>> {
        self.wait_begun(stream).await?;
        let permit = stream.permit().await?;
        let Some(ReadyBatch { out, states }) = reading.ready.pop_front() else { return Ok(()) };
        let mut begins = false;
        for (id, state) in &states {
            if self.states[id.index()].start().is_none() {
                begins = true;
                if let Some(start) = state.start() {
                    stream.start(*id, start)?;
                }
            }
        }
        let sent = self.send(states, &reading.cut.token, begins, Outgoing { out, permit }, stream);
        // Nothing later is sent before this is durable.
        if begins {
            self.begun = Some(sent);
        }
        Ok(())
    }
}
