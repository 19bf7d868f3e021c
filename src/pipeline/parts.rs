//! Waits for the concurrent parts of a run, and tells how the run ended.

use super::failure::{Ending, Failure};
use crate::status::{Publisher, Status};
use std::any::Any;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long after the shutdown deadline the sides may take to save what is confirmed.
const CLOSING_GRACE: Duration = Duration::from_secs(2);

/// A part of a running pipeline that has ended.
pub(super) enum Part {
    SourceSide(Result<(), Failure>),
    /// With the number of unconfirmed records.
    SinkSide(Result<u64, Failure>),
    HeadWatch,
}

/// The results of the parts that have ended.
#[derive(Debug, Default)]
struct Outcome {
    unconfirmed: u64,
    /// Whether the sink side has ended: then everything that will be confirmed is confirmed and saved.
    is_sink_closed: bool,
    failure: Option<Failure>,
    panic: Option<String>,
}

/// Waits for all parts. When one fails or `halt` is cancelled, the others drain and save what is confirmed, within the deadline.
pub(super) async fn wait(
    mut parts: JoinSet<Part>,
    halt: CancellationToken,
    deadline: CancellationToken,
    shutdown_deadline: Duration,
    status: &Publisher,
) -> Ending {
    let mut outcome = Outcome::default();
    let mut ends_at: Option<Instant> = None;
    loop {
        let overdue = async {
            match ends_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            joined = parts.join_next() => match joined {
                None => return outcome.ending(),
                Some(joined) => if outcome.add(joined) { halt.cancel(); },
            },
            () = halt.cancelled(), if ends_at.is_none() => {
                status.publish(Status::set_stopping);
                ends_at = Some(Instant::now() + shutdown_deadline);
            }
            () = overdue => if deadline.is_cancelled() || outcome.is_sink_closed {
                if outcome.is_sink_closed {
                    tracing::warn!("the source does not answer at the stop, and is left");
                }
                parts.abort_all();
                ends_at = Some(Instant::now() + CLOSING_GRACE);
            } else {
                tracing::warn!(deadline_seconds = shutdown_deadline.as_secs(), "records are unconfirmed at the deadline; they are sent at the next start");
                deadline.cancel();
                ends_at = Some(Instant::now() + CLOSING_GRACE);
            },
        }
    }
}

impl Outcome {
    /// Adds the result of a part; whether the other parts must end too.
    fn add(&mut self, joined: Result<Part, JoinError>) -> bool {
        match joined {
            Ok(Part::SourceSide(Ok(())) | Part::HeadWatch) => return false,
            Ok(Part::SinkSide(Ok(unconfirmed))) => (self.unconfirmed, self.is_sink_closed) = (unconfirmed, true),
            Ok(Part::SourceSide(Err(failure)) | Part::SinkSide(Err(failure))) => {
                self.failure.get_or_insert(failure);
            }
            Err(error) if error.is_panic() => {
                self.panic.get_or_insert(panic_message(&*error.into_panic()));
            }
            // Aborted after the deadline. The source side says nothing of what is confirmed.
            Err(_aborted) if self.is_sink_closed => {}
            // It could not even save in time.
            Err(_aborted) => self.unconfirmed = self.unconfirmed.max(1),
        }
        true
    }

    fn ending(self) -> Ending {
        match self {
            Self { panic: Some(message), .. } => Ending::Crashed { message },
            Self { failure: Some(failure), .. } => Ending::Failed(failure),
            Self { unconfirmed: 0, .. } => Ending::Drained,
            Self { unconfirmed, .. } => Ending::Deadline { unconfirmed },
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Duration, Ending, JoinSet, Part, Publisher, wait};
    use std::future::pending;
    use tokio_util::sync::CancellationToken;

    /// How a run ends that is told to stop, with a sink side that ends so, or never, and a source side that never does.
    async fn ending(sink_side: Option<u64>) -> Ending {
        let (mut parts, halt) = (JoinSet::new(), CancellationToken::new());
        parts.spawn(pending());
        parts.spawn(async move {
            match sink_side {
                Some(unconfirmed) => Part::SinkSide(Ok(unconfirmed)),
                None => pending().await,
            }
        });
        halt.cancel();
        wait(parts, halt, CancellationToken::new(), Duration::from_secs(20), &Publisher::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_at_the_stop_leaves_nothing_unconfirmed() {
        assert!(matches!(ending(Some(0)).await, Ending::Drained));
        assert!(matches!(ending(Some(7)).await, Ending::Deadline { unconfirmed: 7 }));
        assert!(matches!(ending(None).await, Ending::Deadline { unconfirmed: 1 }));
    }
}
