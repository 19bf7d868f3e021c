//! One slice: rows as one snapshot shows them, sent where the log is at its cut.
//!
//! The rows are read first, into memory that was reserved before, so that nobody but the source is waited for under the snapshot, however far
//! the broker is behind. Where the log comes to the cut in an instant, the slice goes on with the memory that comes free in an instant; otherwise
//! the snapshot is released ([`Held`]), and the log is carried to the cut and the rows are sent without it.

use super::progress::Report;
use super::{Plan, SLICE_BESIDE_LIVE, SLICE_ROWS_MAX};
use crate::batch::{BatchWriter, Seq};
use crate::checkpoint::{FeedState, Progress, ResumeToken};
use crate::event::{FeedId, Timestamp};
use crate::feed::PrefeedKind;
use crate::pipeline::held::{Held, INSTANT};
use crate::pipeline::stream::{Interrupted, Limit, Outgoing, Stream};
use crate::source::{Cut, Opened, Prefeed, Slice, Source};
use std::collections::VecDeque;
use std::future::pending;
use tokio::time::{Instant, sleep};

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sliced {
    /// Rows were read.
    Read,
    /// No snapshot could be opened.
    Blocked,
}

/// A slice that is being read.
struct Reading<'r> {
    feeds: &'r [FeedId],
    cut: Cut,
    slice: Slice,
    /// Batches that were read and not sent yet.
    ready: VecDeque<Ready>,
}

/// A batch that is to be sent at the cut.
struct Ready {
    out: BatchWriter,
    /// What is known of its feeds once it is confirmed.
    states: Vec<(FeedId, FeedState)>,
}

impl Reading<'_> {
    /// The feed's state when all is sent that was read.
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
    /// Sends the next rows of these feeds: as many as the memory holds that was reserved for them, and more where nobody has to be waited for.
    pub(super) async fn slice<S, P>(
        &mut self,
        feeds: &[FeedId],
        memory: Vec<BatchWriter>,
        stream: &mut Stream<'_, S>,
        prefeed: &mut P,
        report: &mut Report,
    ) -> Result<Sliced, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        // The log is held from here on: nothing pumps it until the cut is known.
        let needs_snapshot = feeds.iter().all(|id| self.is_read(self.feeds.get(*id)));
        let opened = if needs_snapshot {
            stream.tended(prefeed.open(&self.to_read(feeds), self.patience())).await??
        } else {
            Opened::Cut(Cut { token: stream.handed_over().clone(), opened_at: Timestamp::now() })
        };
        let cut = match opened {
            Opened::Cut(cut) => cut,
            Opened::Blocked { by } => {
                tracing::warn!(by, "no snapshot could be opened; live events go on, then it is tried again");
                return Ok(Sliced::Blocked);
            }
        };
        self.is_numbered = false;
        let mut reading = Reading { feeds, cut, slice: Slice { number: self.slice, next_row: 0 }, ready: VecDeque::new() };
        let longest = if self.any_is_live() { self.slice_max.min(SLICE_BESIDE_LIVE) } else { self.slice_max }.min(P::SLICE_MAX);
        let mut held = Held::new(prefeed, longest);
        let read = self.read(&mut reading, memory, stream, &mut held, report).await;
        // A snapshot that is kept would hold up the source: it is released whatever happened.
        let closed = stream.tended(prefeed.close()).await?;
        read?;
        closed?;
        // What could not be waited for under the snapshot is waited for without it.
        stream.pump(Limit::Cut(&reading.cut.token), pending::<()>()).await?;
        self.held_since = Instant::now();
        while !reading.ready.is_empty() {
            self.send_next(&mut reading, stream).await?;
        }
        self.settle(stream).await?;
        Ok(Sliced::Read)
    }

    /// Reads rows into the memory that was reserved; then carries the log to the cut, sends them and goes on, until all are sent or the slice is to
    /// end.
    async fn read<S, P>(
        &mut self,
        reading: &mut Reading<'_>,
        memory: Vec<BatchWriter>,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
        report: &mut Report,
    ) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let mut memory = memory.into_iter();
        self.begin(reading, &mut memory, stream, held).await?;
        while let Some(out) = memory.next() {
            let goes_on = self.scan(reading, out, stream, held, report).await?;
            if let Some(read) = reading.ready.back_mut() {
                read.out.absorb(&mut memory);
            }
            if !goes_on {
                return Ok(());
            }
        }
        if !stream.carry(&reading.cut.token, held).await? {
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

    /// Has the feeds begin at the cut that have not begun, so that a replay begins them at the same place, and says of those that are read anew
    /// that they are, by the first numbers of the slice.
    async fn begin<S, P>(
        &self,
        reading: &mut Reading<'_>,
        memory: &mut impl Iterator<Item = BatchWriter>,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
    ) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let is_new = |id: &FeedId| matches!(self.states[id.index()], FeedState::Pending | FeedState::Again { .. });
        let mut new = reading.feeds.iter().copied().filter(is_new).peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let mut out = memory.next().expect("memory of a batch at least");
        let mut states = Vec::new();
        for id in new {
            if matches!(self.states[id.index()], FeedState::Again { reset: true, .. }) {
                stream.tended(held.prefeed.reset(id, &reading.cut, &mut reading.slice, &mut out)).await??;
            }
            states.push((id, self.beginning(id, &reading.cut)));
        }
        reading.ready.push_back(Ready { out, states });
        Ok(())
    }

    /// The feed's state once it has begun at the cut.
    fn beginning(&self, id: FeedId, cut: &Cut) -> FeedState {
        let state = &self.states[id.index()];
        let start = state.start().unwrap_or(&cut.token).clone();
        match self.feeds.get(id).prefeed {
            PrefeedKind::File(_) if state.start().is_none() => FeedState::Loading { start: Some(start), after: None },
            PrefeedKind::None if state.start().is_none() => FeedState::Live { start },
            _ => FeedState::Reading { start, after: None },
        }
    }

    /// Reads the next rows; whether the slice goes on.
    async fn scan<S, P>(
        &mut self,
        reading: &mut Reading<'_>,
        mut out: BatchWriter,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
        report: &mut Report,
    ) -> Result<bool, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let Some(id) = reading.next_feed(self) else { return Ok(false) };
        let FeedState::Reading { start, after } = reading.state(self, id).clone() else { return Ok(false) };
        let scanned = stream.tended(held.prefeed.scan(id, after.as_ref(), &mut reading.slice, &mut out)).await??;
        self.rate_limit.count(out.size_bytes());
        report.rows(id, &scanned);
        let further = if scanned.done { FeedState::Live { start } } else { FeedState::Reading { start, after: scanned.after.or(after) } };
        reading.ready.push_back(Ready { out, states: vec![(id, further)] });
        let pause = self.rate_limit.pause();
        if INSTANT < pause || SLICE_ROWS_MAX <= reading.slice.next_row || stream.tended(held.is_over()).await?? {
            return Ok(false);
        }
        stream.tended(sleep(pause)).await?;
        Ok(reading.next_feed(self).is_some())
    }

    /// Hands over the next batch that was read. Cancel safe.
    async fn send_next<S: Source>(&mut self, reading: &mut Reading<'_>, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        self.settle(stream).await?;
        let permit = stream.permit().await?;
        let Some(Ready { out, states }) = reading.ready.pop_front() else { return Ok(()) };
        let mut begins = false;
        for (id, state) in &states {
            if self.states[id.index()].start().is_none() {
                begins = true;
                if let Some(start) = state.start() {
                    stream.start(*id, start);
                }
            }
        }
        let sent = self.send(states, &reading.cut.token, begins, Outgoing { out, permit }, stream);
        // Nothing is sent behind it before it is durable.
        if begins {
            self.begun = Some(sent);
        }
        Ok(())
    }

    /// Hands over records of feeds, and with them what is known of the feeds once they are confirmed. The plan knows it no sooner: a session that
    /// ends before has handed over nothing.
    pub(super) fn send<S: Source>(
        &mut self,
        states: Vec<(FeedId, FeedState)>,
        token: &ResumeToken,
        urgent: bool,
        outgoing: Outgoing,
        stream: &mut Stream<'_, S>,
    ) -> Seq {
        let marks = states.iter().map(|(id, state)| self.mark(*id, state)).collect();
        let seq = stream.send(outgoing, Progress { token: token.clone(), marks, slice: None, urgent });
        for (id, state) in states {
            if matches!(state, FeedState::Loading { .. }) {
                stream.keep(seq);
            }
            self.states[id.index()] = state;
        }
        seq
    }

    /// Waits until where the feeds begin is durable: no record after it is sent before. Cancel safe.
    pub(super) async fn settle<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        if let Some(begun) = self.begun {
            stream.durable(begun).await?;
            self.begun = None;
        }
        Ok(())
    }
}
