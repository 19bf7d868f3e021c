//! Interrupting a session from outside.

use super::dial::{OPEN_TIMEOUT, dial};
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use std::net::SocketAddr;
use tokio::time::timeout;

/// The server's process behind a session, and the secret that lets it be interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: u32,
    pub(super) secret: u32,
}

/// Interrupts what a session is doing, from outside.
#[derive(Clone, Debug)]
pub(crate) struct Interrupter {
    pub(super) options: Options,
    pub(super) backend: Backend,
    /// Where the session itself is connected: the name may lead elsewhere by now.
    pub(super) peer: Option<SocketAddr>,
}

impl Interrupter {
    /// Asks the server to cancel the statement at hand (PostgreSQL documentation, 55.2.8): on a connection of its own, without an answer.
    pub(crate) async fn interrupt(&self) -> Result<(), Error> {
        const CANCEL: u32 = 80_877_102;
        let address = self.options.address();
        let asked = async {
            let (mut wire, _) = dial(&self.options, &address, self.peer).await?;
            wire.push(None, |out| [CANCEL, self.backend.pid, self.backend.secret].iter().for_each(|word| out.extend(word.to_be_bytes())));
            wire.flush().await?;
            // The server closes the connection when it has passed the request on.
            wire.read().await.map(drop).or_else(|error| if matches!(error, Error::Connection { .. }) { Ok(()) } else { Err(error) })
        };
        let seconds = OPEN_TIMEOUT.as_secs();
        timeout(OPEN_TIMEOUT, asked).await.unwrap_or(Err(Error::Silent {
            address: self.options.address(),
            seconds,
            what: "a request to cancel",
        }))
    }
}
