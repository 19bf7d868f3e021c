//! Health: whether a pipeline is live and ready, by its status.

use super::pipeline_status::{Lifecycle, Status};
use super::side::{LastError, WaitFor, Waiting};
use std::time::Duration;
use tokio::time::Instant;

/// How long a side may go without a turn of its loop. Each turns every few seconds at least, whatever it waits for.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long a broker may take to confirm the oldest batch in flight before the pipeline is not ready.
const UNCONFIRMED_AFTER: Duration = Duration::from_secs(5);
/// How long a source may leave probes of its log's head unanswered, and send nothing else.
const SILENT_AFTER: Duration = Duration::from_secs(10);

impl Status {
    /// Whether the loops of both sides turn. They do while a database or a broker is away, so that this never fails for it: a restart
    /// would not bring them back.
    ///
    /// # Errors
    /// Which side is stuck, and for how long.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        for (side, alive_at) in [("source", self.source.alive_at), ("sink", self.sink.alive_at)] {
            let stuck = now.saturating_duration_since(alive_at);
            if Lifecycle::Running <= self.lifecycle && STUCK_AFTER < stuck {
                return Err(format!("the {side} side has been stuck for {} s", stuck.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether events flow now. `sink_blocked`: whether the broker's client takes no more.
    ///
    /// # Errors
    /// Why they do not.
    pub fn ready(&self, sink_blocked: bool, now: Instant) -> Result<(), String> {
        let unconfirmed_for = self.in_flight.unconfirmed_for(now);
        let takes = if sink_blocked { "takes no events (feedline_sink_blocked is 1) and" } else { "has events in flight and" };
        let unconfirmed = format!("the broker {takes} confirmed none for {} s", unconfirmed_for.as_secs());
        let starting = with_error("starting", self.start_error.as_ref());
        let no_source = with_error("the source is not connected", self.source.error.as_ref());
        let silent_for = self.source_silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let no_answer = format!("the source has answered nothing for {} s", silent_for.as_secs());
        let no_sink = self.no_sink(now);
        let reasons = [
            (self.lifecycle == Lifecycle::Stopping, "stopping"),
            (self.lifecycle < Lifecycle::Running, starting.as_str()),
            (self.is_paused(), "paused"),
            (!self.source.is_connected(), no_source.as_str()),
            (self.source.is_connected() && SILENT_AFTER <= silent_for, &no_answer),
            (!self.sink.is_connected(), no_sink.as_str()),
            (UNCONFIRMED_AFTER <= unconfirmed_for, &unconfirmed),
        ];
        let reasons: Vec<_> = reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }
}

impl Status {
    /// Why there is no session with the sink.
    fn no_sink(&self, now: Instant) -> String {
        match &self.sink.waiting {
            Some(Waiting { what: WaitFor::Checkpoint, since, .. }) => {
                let seconds = now.saturating_duration_since(*since).as_secs();
                format!("the sink is reached, and the checkpoint has been being saved for {seconds} s")
            }
            _ => with_error("the sink is not connected", self.sink.error.as_ref()),
        }
    }
}

/// The reason, with the error behind it while that lasts.
fn with_error(reason: &str, error: Option<&LastError>) -> String {
    let lasting = error.filter(|error| !error.is_over);
    lasting.map_or_else(|| reason.to_owned(), |error| format!("{reason}: {}", error.message))
}

#[cfg(test)]
mod tests {
    use super::super::changes::{HandedOver, PreviousRun};
    use super::super::side::Side;
    use super::{LastError, SILENT_AFTER, Status, UNCONFIRMED_AFTER, WaitFor};
    use crate::fault::Code;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    fn hand_over(status: &mut Status) {
        status.handed_over(HandedOver { records: 1, bytes: 1, oldest: None, position: &Arc::from("1") });
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_confirms_nothing_is_not_ready_and_a_slow_one_is() {
        let mut status = Status::default();
        status.set_running(PreviousRun::default());
        status.set_connected(Side::Source, true);
        status.set_connected(Side::Sink, true);
        advance(Duration::from_hours(1)).await;
        hand_over(&mut status);
        hand_over(&mut status);
        assert_eq!(status.ready(true, Instant::now()), Ok(()), "the broker had no time yet");
        advance(UNCONFIRMED_AFTER).await;
        for (blocked, part) in [(true, "feedline_sink_blocked is 1"), (false, "events in flight")] {
            let reason = status.ready(blocked, Instant::now()).unwrap_err();
            assert!(reason.contains(part) && reason.contains("5 s"), "{reason}");
        }
        status.confirmed(&Arc::from("1"), None);
        assert_eq!(status.ready(true, Instant::now()), Ok(()), "a batch was confirmed just now");
        status.confirmed(&Arc::from("1"), None);
        advance(UNCONFIRMED_AFTER).await;
        assert_eq!(status.ready(true, Instant::now()), Ok(()), "nothing is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_without_confirmation_starts_anew_with_each_session() {
        let mut status = Status::default();
        status.set_connected(Side::Sink, true);
        hand_over(&mut status);
        advance(Duration::from_mins(1)).await;
        assert_eq!(status.unconfirmed_for(Instant::now()), Some(Duration::from_mins(1)));
        status.set_connected(Side::Sink, false);
        assert_eq!(status.unconfirmed_for(Instant::now()), None);
        status.set_connected(Side::Sink, true);
        assert_eq!(status.unconfirmed_for(Instant::now()), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_that_is_waited_for_is_named_and_not_the_brokers_last_error() {
        let mut status = Status::default();
        status.set_running(PreviousRun::default());
        status.set_connected(Side::Source, true);
        status.set_connected(Side::Sink, false);
        status.failed(Side::Sink, LastError::new(Code::SinkUnreachable, "no route", Duration::from_secs(1)));
        assert_eq!(status.ready(false, Instant::now()).unwrap_err(), "the sink is not connected: no route");
        status.begin_wait(Side::Sink, WaitFor::Checkpoint);
        advance(Duration::from_secs(20)).await;
        let reason = status.ready(false, Instant::now()).unwrap_err();
        assert_eq!(reason, "the sink is reached, and the checkpoint has been being saved for 20 s");
        status.end_wait(Side::Sink, WaitFor::Checkpoint);
        status.set_connected(Side::Sink, true);
        assert_eq!(status.ready(false, Instant::now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_answers_nothing_is_not_ready() {
        let mut status = Status::default();
        status.set_running(PreviousRun::default());
        status.set_connected(Side::Source, true);
        status.set_connected(Side::Sink, true);
        let since = Instant::now();
        advance(SILENT_AFTER).await;
        status.head_unread(None);
        assert_eq!(status.ready(false, Instant::now()), Ok(()), "it answers, and refuses the probe");
        status.head_unread(Some(since));
        assert_eq!(status.ready(false, Instant::now()).unwrap_err(), "the source has answered nothing for 10 s");
    }
}
