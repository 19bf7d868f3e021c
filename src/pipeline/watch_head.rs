//! Looks at the head of the log every few seconds, so that the lag is right while the log itself is stuck.

use crate::checkpoint::ResumeToken;
use crate::pipeline::commit_tracker::Durable;
use crate::pipeline::health::Health;
use crate::source::Probe;
use crate::status::LogHead;
use crate::status::metrics::Metrics;
use crate::status::metrics::lag::Moment;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How often the head is looked at, and how long a look may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// The same while nothing is on its way and the proof that nothing is missing is still to come.
const SOON: Duration = Duration::from_secs(1);
/// After how many looks in a row that failed the log tells of it.
const TOLD_AFTER: u32 = 3;

/// Looks until what is durable is known for the last time. A look that fails is counted: the lag counts up from the last proof.
pub(super) async fn run<P: Probe>(mut probe: P, durable: watch::Receiver<Durable>, metrics: Metrics, health: Arc<Health>) {
    let mut due = Instant::now();
    let mut ended = durable.clone();
    let (mut failed, mut silence) = (0, Silence::default());
    loop {
        tokio::select! { biased;
            changed = ended.changed() => if changed.is_err() { return } else { continue },
            () = sleep_until(due) => {}
        }
        let (begun, idle, asked) = (Instant::now(), health.is_idle(), Moment::ours(crate::event::Timestamp::now()));
        let confirmed = durable.borrow().token.clone();
        let mut interval = PROBE_INTERVAL;
        match look(&mut probe, &confirmed).await {
            Ok(head) => {
                silence = Silence::default();
                metrics.set_head(Some(&head));
                if !health.seen_head(&head, idle, asked) && idle {
                    interval = SOON;
                }
                if TOLD_AFTER <= std::mem::take(&mut failed) {
                    tracing::info!("the head of the log is seen again");
                }
            }
            Err(Unseen { error, is_silent }) => {
                metrics.set_head(None);
                metrics.source_probe_errors.inc();
                health.unseen_head(silence.since(is_silent, begun, metrics.source.last_message_timestamp_seconds.value()));
                failed = (failed + 1).min(TOLD_AFTER + 1);
                if failed == TOLD_AFTER {
                    tracing::warn!(error, "the head of the log cannot be seen: the lag counts from when it last could");
                }
            }
        }
        due = begun + interval;
    }
}

/// Why a look failed, and whether nobody answered at all.
struct Unseen {
    error: String,
    is_silent: bool,
}

/// Since when looks have found a source that answers nothing, and what last came from it by then.
#[derive(Debug, Default)]
struct Silence(Option<(Instant, Option<f64>)>);

impl Silence {
    /// Since when it lasts, after a look that began `begun` and failed; `heard`: when anything last came.
    fn since(&mut self, is_silent: bool, begun: Instant, heard: Option<f64>) -> Option<Instant> {
        let lasts = self.0.filter(|(_, before)| *before == heard);
        self.0 = is_silent.then(|| lasts.unwrap_or((begun, heard)));
        self.0.map(|(since, _)| since)
    }
}

/// A session may have ended since the last look, which is noticed by asking: then the second try opens another.
async fn look<P: Probe>(probe: &mut P, confirmed: &ResumeToken) -> Result<LogHead, Unseen> {
    let mut unseen = Unseen { error: String::new(), is_silent: true };
    for _ in 0..2 {
        match timeout(PROBE_INTERVAL, probe.head(confirmed)).await {
            Ok(Ok(head)) => return Ok(head),
            Ok(Err(failed)) => unseen = Unseen { error: failed.to_string(), is_silent: false },
            Err(_elapsed) => return Err(Unseen { error: format!("no answer within {} s", PROBE_INTERVAL.as_secs()), is_silent: true }),
        }
    }
    Err(unseen)
}

#[cfg(test)]
mod tests {
    use super::Silence;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_source_is_silent_from_the_first_look_on_that_nobody_answers() {
        let first = Instant::now();
        let later = |seconds| first + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert_eq!(silence.since(true, first, Some(1.0)), Some(first));
        assert_eq!(silence.since(true, later(5), Some(1.0)), Some(first));
        assert_eq!(silence.since(true, later(10), Some(2.0)), Some(later(10)), "something came from it");
        assert_eq!(silence.since(false, later(15), Some(2.0)), None, "it answers, and refuses");
        assert_eq!(silence.since(true, later(20), Some(2.0)), Some(later(20)));
    }
}
