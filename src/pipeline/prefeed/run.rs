//! Runs the prefeed: one slice or file after the other, with live events between them.

use super::plan::Plan;
use super::report::Report;
use super::slice::SliceOutcome;
use crate::batch::BatchWriter;
use crate::checkpoint::Progress;
use crate::pipeline::stream::{Stream, StreamInterrupt};
use crate::source::file::Dataset;
use crate::source::{Prefeed, Source};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long live events go on after a snapshot could not be opened: the first time, and at most.
const OPEN_PAUSE: Duration = Duration::from_secs(15);
const OPEN_PAUSE_MAX: Duration = Duration::from_mins(2);
/// How many batches of rows a slice reads at least, if three quarters of the memory budget hold that many. Live events may fill the rest.
const SLICE_BATCHES: usize = 128;

impl Plan {
    /// Sends every row that is still to be sent.
    pub(crate) async fn run<S, P>(&mut self, stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<(), StreamInterrupt<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        self.wait_begun(stream).await?;
        // A table's layout must be known before its first rows, so that later changes are noticed.
        stream.keep_alive().await?;
        self.note_table_changes(stream).await?;
        let mut report = Report::begin(self, stream, prefeed).await?;
        let mut dataset = Dataset::default();
        self.held_since = Instant::now();
        let mut pause = OPEN_PAUSE;
        while !self.is_done() {
            let feeds = self.next_feeds();
            self.show_pending();
            self.make_ready(stream).await?;
            let outcome = match feeds[..] {
                [file] if self.is_loading(file) => {
                    self.load(file, stream, &mut dataset, &mut report).await?;
                    SliceOutcome::Read
                }
                _ => {
                    let memory = self.reserve(stream).await?;
                    self.slice(&feeds, memory, stream, prefeed, &mut report).await?
                }
            };
            match outcome {
                SliceOutcome::Read => pause = OPEN_PAUSE,
                SliceOutcome::Blocked => {
                    self.live_until(sleep(pause), stream).await?;
                    pause = (2 * pause).min(OPEN_PAUSE_MAX);
                }
            }
            self.note_table_changes(stream).await?;
        }
        self.show_pending();
        report.complete();
        Ok(())
    }

    /// Waits for the rate limit and for the next slice's number to be durable, while live events go on. The number is durable before it is used,
    /// so that rows read again after a crash get a new one.
    async fn make_ready<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), StreamInterrupt<S::Error>> {
        let pause = self.rate_limit.pause();
        if !pause.is_zero() {
            self.live_until(sleep(pause), stream).await?;
        }
        if !self.is_numbered {
            self.slice += 1;
            let progress = Progress { token: stream.handed_over().clone(), marks: Vec::new(), slice: Some(self.slice), urgent: true };
            let outgoing = stream.outgoing().await?;
            let sent = stream.send(outgoing, progress);
            self.live_until_durable(sent, stream).await?;
            self.is_numbered = true;
        }
        Ok(())
    }

    /// Waits for the memory into which a slice reads its rows, while live events go on. All of it is requested at once: otherwise live events
    /// would take whatever the broker frees.
    async fn reserve<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<Vec<BatchWriter>, StreamInterrupt<S::Error>> {
        let reservation = stream.memory_of(SLICE_BATCHES);
        let mut memory = None;
        let reserved = async { memory = Some(reservation.await) };
        self.live_until(reserved, stream).await?;
        memory.ok_or(StreamInterrupt::Stopped)
    }
}
