//! Which running server a session has reached. All sessions of a pipeline must reach the same one.
//!
//! A host name may lead to another server with each connection: after a failover, behind a load balancer, after a DNS change. The system
//! identifier is no proof, because a copy of the server has the same one. The microsecond in which the server was started, together with
//! the database's OID, is one. A restart changes it; then the log's connection is gone too, and the next one verifies the server again
//! (see `identity.rs`).

use super::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// A running server and a database of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instance {
    /// When the server was started, in microseconds.
    pub(super) started_at: String,
    pub(super) database_oid: String,
}

/// The running server that the pipeline works with. It is set by the first session.
#[derive(Clone, Debug, Default)]
pub struct SameServer(Arc<Mutex<Option<Instance>>>);

impl SameServer {
    /// Sets the server. Its identity was verified, or there is nothing yet to compare it with.
    pub(super) fn set(&self, instance: &Instance) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance.clone());
    }

    /// Refuses a session with another server.
    pub(super) fn check(&self, instance: &Instance, is_standby: bool, address: &str) -> Result<(), Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get_or_insert_with(|| instance.clone()) == instance {
            return Ok(());
        }
        Err(Error::Elsewhere { address: address.to_owned(), is_standby })
    }
}

#[cfg(test)]
mod tests {
    use super::{Instance, SameServer};

    #[test]
    fn the_first_server_stays_until_another_is_set() {
        let run =
            |started_at: &str, database_oid: &str| Instance { started_at: started_at.to_owned(), database_oid: database_oid.to_owned() };
        let server = SameServer::default();
        assert!(server.check(&run("1", "5"), false, "here").is_ok() && server.check(&run("1", "5"), false, "here").is_ok());
        assert!(server.check(&run("2", "5"), false, "here").is_err() && server.check(&run("1", "6"), true, "here").is_err());
        server.set(&run("2", "5"));
        assert!(server.check(&run("2", "5"), false, "here").is_ok() && server.check(&run("1", "5"), false, "here").is_err());
    }
}
