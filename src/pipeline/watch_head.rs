//! Probes the head of the log every few seconds, so that the lag is right while the log itself is stuck. Has new tables looked for too.

use super::delivery::Durable;
use super::new_tables::NewTables;
use crate::checkpoint::ResumeToken;
use crate::event::Timestamp;
use crate::source::Probe;
use crate::status::metrics::Metrics;
use crate::status::metrics::lag::Moment;
use crate::status::{LogHead, Publisher};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How often the head is probed, and how long a probe may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while nothing is in flight and it is not proved yet that nothing is missing.
const SOON: Duration = Duration::from_secs(1);
/// After how many failed probes in a row a warning is logged.
const WARN_AFTER: u32 = 3;

/// Probes until the sender of `durable` is dropped. After a failed probe the lag counts up from the last proof.
///
/// The head is compared with what the broker has confirmed, whether the checkpoint is saved or not: lag is about events.
///
/// # Panics
/// Where the positions are not known: a run publishes them before it watches.
pub(super) async fn run<P: Probe>(
    mut probe: P,
    mut new_tables: NewTables,
    mut durable: watch::Receiver<Durable>,
    metrics: Metrics,
    status: Publisher,
) {
    let mut due = Instant::now();
    let (mut failures, mut silence) = (0, Silence::default());
    let mut ended = pin!(async { while durable.changed().await.is_ok() {} });
    loop {
        tokio::select! { biased;
            () = &mut ended => return,
            () = source_returns(&status) => {}
            () = sleep_until(due) => {}
        }
        let (begun, was_idle, asked) = (Instant::now(), status.read().is_idle(), Moment::ours(Timestamp::now()));
        let confirmed = ResumeToken(status.read().confirmed.clone().expect("the positions are known"));
        let mut interval = PROBE_INTERVAL;
        match probe_head(&mut probe, &confirmed).await {
            Ok(head) => {
                silence = Silence::default();
                metrics.set_head(Some(&head));
                if !status.note(|status| status.head_read(&head, was_idle, asked)) && was_idle {
                    interval = SOON;
                }
                if WARN_AFTER <= std::mem::take(&mut failures) {
                    tracing::info!("the head of the log can be read again");
                }
            }
            Err(ProbeFailure { error, is_silent }) => {
                metrics.set_head(None);
                metrics.source_probe_errors.inc();
                let silent_since = silence.since(is_silent, begun, metrics.source.last_message_timestamp_seconds.value());
                status.note(|status| status.head_unread(silent_since));
                failures = (failures + 1).min(WARN_AFTER + 1);
                if failures == WARN_AFTER {
                    tracing::warn!(error, "the head of the log cannot be read: the lag counts from when it last could");
                }
            }
        }
        new_tables.look(&mut probe, &status).await;
        due = begun + interval;
    }
}

/// Waits until the source side has lost its session and has another one. Then a proof is due at once: after an outage the lag has risen.
async fn source_returns(status: &Publisher) {
    let mut changes = status.subscribe();
    for is_connected in [false, true] {
        // The publisher is held here, so that this waits for as long as it takes.
        let _changed = changes.wait_for(|status| status.source.is_connected() == is_connected).await;
    }
}

/// Why a probe failed, and whether there was no answer at all.
struct ProbeFailure {
    error: String,
    is_silent: bool,
}

/// Since when probes have had no answer, and when the last message had come from the source by then.
#[derive(Debug, Default)]
struct Silence(Option<(Instant, Option<f64>)>);

impl Silence {
    /// Since when the silence lasts, after a failed probe that began at `begun`. `last_message`: when anything last came from the source.
    fn since(&mut self, is_silent: bool, begun: Instant, last_message: Option<f64>) -> Option<Instant> {
        let lasting = self.0.filter(|(_, before)| *before == last_message);
        self.0 = is_silent.then(|| lasting.unwrap_or((begun, last_message)));
        self.0.map(|(since, _)| since)
    }
}

/// Probes twice where the first probe fails with an error: the session may have ended since the last probe, and the second opens another.
async fn probe_head<P: Probe>(probe: &mut P, confirmed: &ResumeToken) -> Result<LogHead, ProbeFailure> {
    let mut failure = ProbeFailure { error: String::new(), is_silent: true };
    for _ in 0..2 {
        match timeout(PROBE_INTERVAL, probe.head(confirmed)).await {
            Ok(Ok(head)) => return Ok(head),
            Ok(Err(error)) => failure = ProbeFailure { error: error.to_string(), is_silent: false },
            Err(_elapsed) => {
                return Err(ProbeFailure { error: format!("no answer within {} s", PROBE_INTERVAL.as_secs()), is_silent: true });
            }
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::Silence;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn silence_counts_from_the_first_unanswered_probe() {
        let first = Instant::now();
        let later = |seconds| first + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert_eq!(silence.since(true, first, Some(1.0)), Some(first));
        assert_eq!(silence.since(true, later(5), Some(1.0)), Some(first));
        assert_eq!(silence.since(true, later(10), Some(2.0)), Some(later(10)), "a message came");
        assert_eq!(silence.since(false, later(15), Some(2.0)), None, "it answers, and refuses");
        assert_eq!(silence.since(true, later(20), Some(2.0)), Some(later(20)));
    }
}
