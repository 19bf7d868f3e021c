//! The runtime of a command.

use std::time::Duration;
use tokio::runtime::Builder;

/// How long blocking calls may keep the process after the command has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a future on one thread.
///
/// Source side and sink side together need a fraction of a core. Heavy work has its own threads: the broker's client, a change log's
/// reader, disks. The first thread would have to wake a second one for each packet.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    // Lines of blocking calls belong to the same span as those of this thread.
    let span = tracing::Span::current();
    let enter = move || std::mem::forget(span.clone().entered());
    let runtime = Builder::new_current_thread().enable_all().on_thread_start(enter).build().expect("the system grants threads and timers");
    let output = runtime.block_on(future);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    output
}
