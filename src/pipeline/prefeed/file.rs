//! Rows of a file, sent between live events of other feeds.
//!
//! The feed of a file begins where the log was before the first of its rows, and all of them are positioned there. Its live events come behind
//! the last row: the log is then read again from that place. What other feeds were sent meanwhile is not sent again: their live events count
//! from where the log had come. Until then the source keeps its log from that place on.

use super::progress::Report;
use super::{Plan, SLICE_BESIDE_LIVE, SLICE_ROWS_MAX, Sliced};
use crate::batch::Seq;
use crate::checkpoint::{FeedState, Progress, ResumeToken};
use crate::event::{FeedId, Timestamp};
use crate::feed::Feed;
use crate::pipeline::stream::{Interrupted, Limit, Outgoing, Stream};
use crate::source::{Cut, Prefeed, Slice, Source};
use std::future::pending;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

impl Plan {
    /// The feed of which a file is being sent: the source keeps its log for it.
    pub(in crate::pipeline) fn begun_file(&self) -> Option<FeedId> {
        let is_begun = |feed: &&Feed| matches!(self.states[feed.id.index()], FeedState::Loading { start: Some(_), .. });
        self.feeds.iter().find(is_begun).map(|feed| feed.id)
    }

    /// Sends rows of the feed's file, as many as one slice numbers, and behind each batch of them the live events that wait.
    pub(super) async fn load<S, P>(
        &mut self,
        id: FeedId,
        stream: &mut Stream<'_, S>,
        prefeed: &mut P,
        report: &mut Report,
    ) -> Result<Sliced, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let mut slice = Slice { number: self.slice, next_row: 0 };
        self.is_numbered = false;
        while slice.next_row < SLICE_ROWS_MAX {
            let mut outgoing = stream.outgoing().await?;
            let FeedState::Loading { start, after } = self.states[id.index()].clone() else { break };
            let Some(start) = start else {
                self.begin_file(id, outgoing, stream).await?;
                continue;
            };
            let cut = Cut { token: start.clone(), opened_at: Timestamp::now() };
            let scanned = stream.tended(prefeed.load(id, &cut, after.as_ref(), &mut slice, &mut outgoing.out)).await??;
            self.rate_limit.count(outgoing.out.size_bytes());
            report.rows(id, &scanned);
            let further = FeedState::Loading { start: Some(start), after: scanned.after.or(after) };
            let token = stream.handed_over().clone();
            let sent = self.send(vec![(id, further)], &token, scanned.done, outgoing, stream);
            if scanned.done {
                self.end_file(sent, stream).await?;
                if self.unfinished().count() == 1 {
                    report.complete();
                }
                return Err(Interrupted::Loaded(id));
            }
            self.catch_up(stream).await?;
            self.take_note(stream).await?;
        }
        Ok(Sliced::Read)
    }

    /// Where the file's feed begins is durable before the first of its rows is sent: after a crash it begins there.
    async fn begin_file<S: Source>(
        &mut self,
        id: FeedId,
        outgoing: Outgoing,
        stream: &mut Stream<'_, S>,
    ) -> Result<(), Interrupted<S::Error>> {
        self.end_transaction(stream).await?;
        let start = stream.handed_over().clone();
        let begun = FeedState::Loading { start: Some(start.clone()), after: None };
        let sent = self.send(vec![(id, begun)], &start, true, outgoing, stream);
        self.live_until_durable(sent, stream).await
    }

    /// All rows are confirmed before the log is read again, and no transaction of other feeds is left in its middle.
    async fn end_file<S: Source>(&mut self, sent: Seq, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        self.live_until_durable(sent, stream).await?;
        self.end_transaction(stream).await
    }

    async fn end_transaction<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        let here = stream.handed_over().clone();
        stream.pump(Limit::Cut(&here), pending::<()>()).await
    }

    /// Sends the live events that wait, and those that come while the rate is waited for.
    async fn catch_up<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        let pause = self.rate_limit.pause();
        if !pause.is_zero() {
            return self.live(stream, sleep(pause)).await;
        }
        if self.holds_log() {
            // The source hears from us at least.
            return stream.tended(yield_now()).await;
        }
        yield_now().await;
        stream.pump(Limit::Drained, sleep(SLICE_BESIDE_LIVE)).await?;
        self.held_since = Instant::now();
        Ok(())
    }

    /// The rows of the feed's file are sent: it begins where they did, and the log is read again from there. Other feeds begin where the log
    /// had come, but those whose `start` is later: what `is_passed` says of it. Returns what is to be remembered.
    ///
    /// # Errors
    /// As `is_passed`.
    pub(in crate::pipeline) fn join<E>(
        &mut self,
        id: FeedId,
        reached: &ResumeToken,
        is_passed: impl Fn(&ResumeToken) -> Result<bool, E>,
    ) -> Result<Progress, E> {
        let start = self.states[id.index()].since().unwrap_or(reached).clone();
        // What is proven of a log may end before the place where the file was begun.
        let token = if is_passed(&start)? { start.clone() } else { reached.clone() };
        for state in &mut self.states {
            let (FeedState::Reading { start: other, .. } | FeedState::Live { start: other } | FeedState::Again { start: Some(other), .. }) =
                state
            else {
                continue;
            };
            if is_passed(other)? {
                other.clone_from(reached);
            }
        }
        self.states[id.index()] = FeedState::Live { start };
        self.show_pending();
        let feed = &self.feeds.get(id).name;
        tracing::info!(table = %feed, "the file is sent: its table's changes since follow");
        let marks = self.feeds.iter().map(|feed| self.mark(feed.id, &self.states[feed.id.index()])).collect();
        Ok(Progress { token, marks, slice: None, urgent: true })
    }
}
