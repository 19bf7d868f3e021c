//! Which running server a session has reached. All sessions of a pipeline must reach the same one.
//!
//! A host name may lead to another server with each connection: after a failover, behind a proxy, after a DNS change. A copy of a server may
//! have the same identity, so the time at which the server was started counts too. A restart changes it; then the connection of the log is
//! gone too, and the next one verifies the server again.

use super::error::Error;
use openssl::sha::sha256;
use std::sync::{Arc, Mutex, PoisonError};

/// A running server.
#[derive(Clone, Debug, Default)]
pub(super) struct Instance {
    /// What tells it from others: its UUID, or on MariaDB its host, port and folder of data.
    pub(super) server: String,
    /// When it was started: seconds since 1970.
    pub(super) started_at: i64,
}

/// The server counts whole seconds since its start, and rounds them.
const ROUNDING_SECONDS: u64 = 2;

impl Instance {
    /// A number that other servers hardly have, for tokens.
    pub(super) fn fingerprint(&self) -> u64 {
        sha256(self.server.as_bytes()).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    fn is(&self, other: &Self) -> bool {
        self.server == other.server && self.started_at.abs_diff(other.started_at) <= ROUNDING_SECONDS
    }
}

/// The running server that the pipeline works with. The first session sets it.
#[derive(Clone, Debug, Default)]
pub struct SameServer(Arc<Mutex<Option<Instance>>>);

impl SameServer {
    /// Sets the server, which was verified, or which there is nothing yet to compare with.
    pub(super) fn set(&self, instance: &Instance) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance.clone());
    }

    /// Refuses a session with another server.
    pub(super) fn check(&self, instance: &Instance, address: &str) -> Result<(), Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get_or_insert_with(|| instance.clone()).is(instance) {
            return Ok(());
        }
        Err(Error::Elsewhere { address: address.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Instance, SameServer};

    #[test]
    fn the_first_server_stays_until_another_is_set() {
        let run = |server: &str, started_at| Instance { server: server.to_owned(), started_at };
        let server = SameServer::default();
        assert!(server.check(&run("a", 100), "here").is_ok() && server.check(&run("a", 101), "here").is_ok());
        assert!(server.check(&run("a", 110), "here").is_err() && server.check(&run("b", 100), "here").is_err());
        server.set(&run("b", 100));
        assert!(server.check(&run("b", 100), "here").is_ok() && server.check(&run("a", 100), "here").is_err());
        assert!(run("a", 1).fingerprint() == run("a", 2).fingerprint() && run("a", 1).fingerprint() != run("b", 1).fingerprint());
    }
}
