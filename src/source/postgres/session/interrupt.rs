//! Cancels the statement that a session is running, over a connection of its own.

use super::dial::{OPEN_TIMEOUT, dial};
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use std::net::SocketAddr;
use tokio::time::timeout;

/// A session's backend process, and the secret that a cancel request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: u32,
    pub(super) secret: u32,
}

/// Cancels what a session is doing.
#[derive(Clone, Debug)]
pub(crate) struct Interrupter {
    pub(super) options: Options,
    pub(super) backend: Backend,
    /// The address that the session is connected to: the host name may lead to another server by now.
    pub(super) peer: Option<SocketAddr>,
}

impl Interrupter {
    /// Sends a cancel request (PostgreSQL documentation, 55.2.8). The server does not answer it.
    pub(crate) async fn interrupt(&self) -> Result<(), Error> {
        const CANCEL: u32 = 80_877_102;
        let address = self.options.address();
        let asked = async {
            let (mut wire, _) = dial(&self.options, &address, self.peer).await?;
            wire.push(None, |out| [CANCEL, self.backend.pid, self.backend.secret].iter().for_each(|word| out.extend(word.to_be_bytes())));
            wire.flush().await?;
            // The server closes the connection once it has passed the request on.
            wire.read().await.map(drop).or_else(|error| if matches!(error, Error::Connection { .. }) { Ok(()) } else { Err(error) })
        };
        let seconds = OPEN_TIMEOUT.as_secs();
        timeout(OPEN_TIMEOUT, asked).await.unwrap_or(Err(Error::Silent {
            address: self.options.address(),
            seconds,
            what: "the end of a cancel request",
        }))
    }
}
