//! Logs what lasts too long: a broker that confirms nothing, with the last error of its client, and a checkpoint that is being saved.

use crate::status::Status;
use crate::status::metrics::SinkMetrics;
use std::time::Duration;
use tokio::time::Instant;

/// After how long it is logged, and how often.
const LOG_AFTER: Duration = Duration::from_secs(15);
const LOG_EVERY: Duration = Duration::from_mins(1);

/// The stalls that are logged.
#[derive(Debug, Default)]
pub(super) struct StallReport {
    broker: Stall,
    save: Stall,
}

impl StallReport {
    /// Logs a stall or its end, if it is time. `saving_for`: how long the checkpoint has been being saved.
    pub(super) fn check(&mut self, status: &Status, metrics: &SinkMetrics, saving_for: Duration) {
        let now = Instant::now();
        // The end of a session is logged elsewhere.
        match status.unconfirmed_for(now).map(|unconfirmed_for| (unconfirmed_for, self.broker.look(unconfirmed_for, now))) {
            None => self.broker = Stall::default(),
            Some((_, Look::Nothing)) => {}
            Some((_, Look::IsOver)) => tracing::info!("the broker confirms events again"),
            Some((unconfirmed_for, Look::Lasts)) => tracing::warn!(
                seconds = unconfirmed_for.as_secs(),
                client_says = metrics.complaint().unwrap_or_else(|| "nothing".to_owned()),
                "the broker has events and confirms none; they wait"
            ),
        }
        match self.save.look(saving_for, now) {
            Look::Nothing => {}
            Look::IsOver => tracing::info!("the checkpoint is saved again"),
            Look::Lasts => tracing::warn!(
                seconds = saving_for.as_secs(),
                "the checkpoint has been being saved for long; the disk or the broker that keeps it does not answer"
            ),
        }
    }
}

/// Something that should not last: when it was last logged.
#[derive(Debug, Default)]
struct Stall {
    logged_at: Option<Instant>,
}

/// What is to be logged of it.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Nothing,
    Lasts,
    IsOver,
}

impl Stall {
    fn look(&mut self, lasted: Duration, now: Instant) -> Look {
        if lasted < LOG_AFTER {
            return if self.logged_at.take().is_some() { Look::IsOver } else { Look::Nothing };
        }
        if self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOG_EVERY) {
            return Look::Nothing;
        }
        self.logged_at = Some(now);
        Look::Lasts
    }
}

#[cfg(test)]
mod tests {
    use super::{Look, Stall};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_stall_is_logged_after_a_while_then_once_a_minute_and_when_it_is_over() {
        let begun = Instant::now();
        let mut stall = Stall::default();
        let looks = [10, 15, 16, 74, 75, 80].map(|seconds| {
            let lasted = Duration::from_secs(seconds);
            stall.look(lasted, begun + lasted)
        });
        assert_eq!(looks, [Look::Nothing, Look::Lasts, Look::Nothing, Look::Nothing, Look::Lasts, Look::Nothing]);
        let after = begun + Duration::from_secs(81);
        assert_eq!([stall.look(Duration::ZERO, after), stall.look(Duration::ZERO, after)], [Look::IsOver, Look::Nothing]);
    }
}
