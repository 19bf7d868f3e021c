//! Ctrl-C and SIGTERM: the first asks to drain and stop, the second stops at once.

use super::stderr::LINES;
use crate::fault::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that end a process.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they are caught.
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! { biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs `work` to its end; a signal cancels `stop`, a second one ends the process.
    pub(super) async fn during<T>(mut self, stop: &CancellationToken, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut asked = false;
        loop {
            tokio::select! { biased;
                output = &mut work => return output,
                () = self.next() => {
                    if asked {
                        tracing::warn!("stopped at once; what is unconfirmed follows at the next start");
                        LINES.finish();
                        std::process::exit(Exit::Deadline as i32);
                    }
                    asked = true;
                    tracing::info!("stopping; a second signal stops at once");
                    stop.cancel();
                }
            }
        }
    }
}
