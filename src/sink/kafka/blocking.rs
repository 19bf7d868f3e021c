//! Runs blocking calls of the client library on tokio's blocking threads.

use super::error::Error;

/// Runs `work` on a thread that may block. A panic in `work` continues here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Unconfirmed { reason: "the process is stopping".to_owned() }),
        },
    }
}
