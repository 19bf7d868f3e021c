//! Handles Ctrl-C and SIGTERM: the first signal drains and stops, the second stops at once.

use super::stderr::LINES;
use crate::fault::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that end the process.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on, the signals do not kill the process.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! { biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs `work` to its end. The first signal cancels `stop`, the second ends the process.
    pub(crate) async fn during<T>(mut self, stop: &CancellationToken, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut is_stopping = false;
        loop {
            tokio::select! { biased;
                output = &mut work => return output,
                () = self.next() => {
                    if is_stopping {
                        tracing::warn!("stopped at once; unconfirmed records are sent at the next start");
                        LINES.finish();
                        std::process::exit(Exit::Deadline as i32);
                    }
                    is_stopping = true;
                    tracing::info!("stopping; a second signal stops at once");
                    stop.cancel();
                }
            }
        }
    }
}
