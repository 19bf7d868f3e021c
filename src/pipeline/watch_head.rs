//! Looks at the head of the log every few seconds, so that the lag is right while the log itself is stuck.

use crate::change::Timestamp;
use crate::checkpoint::Durable;
use crate::metrics::Metrics;
use crate::pipeline::health::Health;
use crate::source::Probe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often the head is looked at.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Looks until what is durable is known for the last time. A look that fails is counted: the lag goes on without it.
pub(super) async fn run<P: Probe>(mut probe: P, durable: watch::Receiver<Durable>, metrics: Metrics, health: Arc<Health>) {
    let mut tick = tokio::time::interval(PROBE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = durable.clone();
    loop {
        tokio::select! { biased;
            changed = ended.changed() => if changed.is_err() { return } else { continue },
            _ = tick.tick() => {}
        }
        let idle = health.is_idle();
        let confirmed = durable.borrow().token.clone();
        match tokio::time::timeout(PROBE_INTERVAL, probe.head(&confirmed)).await {
            Ok(Ok(head)) => {
                metrics.set_head(&head);
                health.seen_head(&head, idle, Timestamp::now());
            }
            Ok(Err(error)) => {
                metrics.source_probe_errors.inc();
                tracing::debug!(error = %error, "the head of the log could not be seen");
            }
            Err(_elapsed) => metrics.source_probe_errors.inc(),
        }
    }
}
