//! Sends the rows of a file, between live events of other feeds.
//!
//! A file's feed starts at the log's position before the first row, and all rows have that position. The feed's live events come after the
//! last row: then the log is read again from the start. Other feeds were sent their events meanwhile, and do not get them again: their live
//! events then count from the position that the log had reached. Until then the source keeps its log from the start on.

use super::plan::{Plan, SLICE_BESIDE_LIVE, SLICE_ROWS_MAX};
use super::report::Report;
use crate::batch::Seq;
use crate::checkpoint::{FeedState, Progress, ResumeToken};
use crate::event::{FeedId, Timestamp};
use crate::pipeline::batch_sender::Outgoing;
use crate::pipeline::failure::Failure;
use crate::pipeline::stream::{Limit, Stream, StreamInterrupt};
use crate::source::file::Dataset;
use crate::source::{Cut, Slice, Source};
use std::future::pending;
use std::sync::Arc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

impl Plan {
    /// Sends rows of the feed's file, at most as many as one slice can number. After each batch, live events that wait are sent.
    pub(super) async fn load<S: Source>(
        &mut self,
        id: FeedId,
        stream: &mut Stream<'_, S>,
        dataset: &mut Dataset,
        report: &mut Report,
    ) -> Result<(), StreamInterrupt<S::Error>> {
        let feeds = Arc::clone(&self.feeds);
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
            let mut rows = stream.rows(&cut, &mut slice, &mut outgoing.out)?;
            let loaded = stream.keep_alive_while(dataset.load(feeds.get(id), after.as_ref(), &mut rows)).await?;
            let scanned = loaded.map_err(|error| StreamInterrupt::Failure(Failure::of(&error)))?;
            report.rows(id, rows.written(), scanned.done);
            self.rate_limit.count(outgoing.out.size_bytes());
            let state = FeedState::Loading { start: Some(start), after: scanned.after.or(after) };
            let token = stream.handed_over().clone();
            let sent = self.send(vec![(id, state)], &token, scanned.done, outgoing, stream);
            if scanned.done {
                self.end_file(sent, stream).await?;
                if self.unfinished().count() == 1 {
                    report.complete();
                }
                return Err(StreamInterrupt::FileSent(id));
            }
            self.catch_up(stream).await?;
            self.note_table_changes(stream).await?;
        }
        Ok(())
    }

    /// Makes the start of the file's feed durable before its first row is sent: after a crash it starts at the same position.
    async fn begin_file<S: Source>(
        &mut self,
        id: FeedId,
        outgoing: Outgoing,
        stream: &mut Stream<'_, S>,
    ) -> Result<(), StreamInterrupt<S::Error>> {
        self.end_transaction(stream).await?;
        let start = stream.handed_over().clone();
        let begun = FeedState::Loading { start: Some(start.clone()), after: None };
        let sent = self.send(vec![(id, begun)], &start, true, outgoing, stream);
        self.live_until_durable(sent, stream).await
    }

    /// Waits until all rows are confirmed, and ends the current transaction of other feeds: then the log can be read again.
    async fn end_file<S: Source>(&mut self, sent: Seq, stream: &mut Stream<'_, S>) -> Result<(), StreamInterrupt<S::Error>> {
        self.live_until_durable(sent, stream).await?;
        self.end_transaction(stream).await
    }

    async fn end_transaction<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), StreamInterrupt<S::Error>> {
        let position = stream.handed_over().clone();
        stream.pump(Limit::Cut(&position), pending::<()>()).await
    }

    /// Sends the live events that wait, and those that come during a pause of the rate limit.
    async fn catch_up<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), StreamInterrupt<S::Error>> {
        let pause = self.rate_limit.pause();
        if !pause.is_zero() {
            return self.live_until(sleep(pause), stream).await;
        }
        if self.holds_log() {
            // Only sends a keep-alive, if one is due.
            return stream.keep_alive_while(yield_now()).await;
        }
        yield_now().await;
        stream.pump(Limit::Drained, sleep(SLICE_BESIDE_LIVE)).await?;
        self.held_since = Instant::now();
        Ok(())
    }

    /// Ends the file of a feed: the feed's live events count from where its file was begun, and the log is read again from there. Those of other
    /// feeds count from `reached`, unless their start is later. `is_passed` tells whether a start lies before `reached`. Returns what the
    /// checkpoint must hold.
    ///
    /// # Errors
    /// As `is_passed`.
    pub(crate) fn finish_file<E>(
        &mut self,
        id: FeedId,
        reached: &ResumeToken,
        is_passed: impl Fn(&ResumeToken) -> Result<bool, E>,
    ) -> Result<Progress, E> {
        let start = self.states[id.index()].since().unwrap_or(reached).clone();
        // The log may be proven only up to a position before the one where the file was begun.
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
