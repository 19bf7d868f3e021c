//! What slices and files share: live events between them, sending records of a feed, and waiting until the start of a feed is durable.

use super::plan::Plan;
use crate::batch::Seq;
use crate::checkpoint::{FeedState, Progress, ResumeToken};
use crate::event::FeedId;
use crate::pipeline::batch_sender::Outgoing;
use crate::pipeline::held_snapshot::INSTANT;
use crate::pipeline::stream::{Limit, Stream, StreamInterrupt};
use crate::source::Source;
use tokio::time::Instant;

impl Plan {
    /// Publishes live events until `leave`, unless the log is held.
    pub(super) async fn live_until<S: Source, T>(
        &mut self,
        leave: impl Future<Output = T>,
        stream: &mut Stream<'_, S>,
    ) -> Result<(), StreamInterrupt<S::Error>> {
        if self.holds_log() {
            return stream.keep_alive_while(leave).await.map(drop);
        }
        let begun = Instant::now();
        stream.pump(Limit::Endless, leave).await?;
        if INSTANT <= begun.elapsed() {
            self.held_since = Instant::now();
        }
        Ok(())
    }

    /// Publishes live events until batch `sent` is durable.
    pub(super) async fn live_until_durable<S: Source>(
        &mut self,
        sent: Seq,
        stream: &mut Stream<'_, S>,
    ) -> Result<(), StreamInterrupt<S::Error>> {
        let durable = stream.becomes_durable(sent);
        self.live_until(durable, stream).await?;
        stream.durable(sent).await
    }

    /// Takes note of table changes that the log does not show, and of what commands request: such tables are to be read again.
    pub(crate) async fn note_table_changes<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), StreamInterrupt<S::Error>> {
        let is_asked = stream.is_asked_to_read_again();
        if !is_asked && !stream.has_table_changes() {
            return Ok(());
        }
        // Before anything is noted: if the session ends in this wait, the next one finds the changes and the requests again.
        let outgoing = stream.outgoing().await?;
        let mut marks: Vec<_> = stream.asked_to_read_again().into_iter().map(|feed| self.reread_on_request(feed)).collect();
        marks.extend(stream.table_changes().into_iter().map(|table_change| self.note(table_change)));
        stream.send(outgoing, Progress { token: stream.handed_over().clone(), marks, slice: None, urgent: is_asked });
        Ok(())
    }

    /// Hands over records of feeds, and the feeds' states once these are confirmed. The plan takes the states over only now: a session that ended
    /// before has handed over nothing.
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
                stream.keep_log_from(seq);
            }
            self.states[id.index()] = state;
        }
        seq
    }

    /// Waits until the start of every feed that has begun is durable: no later record may be sent before. Cancel safe.
    pub(super) async fn wait_begun<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), StreamInterrupt<S::Error>> {
        if let Some(begun) = self.begun {
            stream.durable(begun).await?;
            self.begun = None;
        }
        Ok(())
    }
}
