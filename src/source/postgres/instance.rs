//! Which run of which server a session has reached. All sessions of a pipeline must have reached the same one.
//!
//! A name may lead to another server from one connection to the next: a failover, a balancer before several, a record that was
//! changed. A copy of the server has its system identifier too, so that is no proof; the microsecond in which the server was
//! started is, together with the database's number. A restart has another one: then the log's own connection is gone as well, and
//! the next one proves anew who the server is (see `identity.rs`).

use super::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// The server's run behind a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instance {
    /// When its postmaster was started, in microseconds.
    pub(super) started_at: String,
    pub(super) database_oid: String,
}

/// The run of the server that the pipeline has to do with, known once the first session has reached it.
#[derive(Clone, Debug, Default)]
pub struct SameServer(Arc<Mutex<Option<Instance>>>);

impl SameServer {
    /// From here on it is this one: its identity was proved, or nothing is known yet that could be compared.
    pub(super) fn set(&self, instance: &Instance) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance.clone());
    }

    /// Refuses a session with another one.
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
    fn the_first_server_is_the_one_until_another_is_proved() {
        let run =
            |started_at: &str, database_oid: &str| Instance { started_at: started_at.to_owned(), database_oid: database_oid.to_owned() };
        let server = SameServer::default();
        assert!(server.check(&run("1", "5"), false, "here").is_ok() && server.check(&run("1", "5"), false, "here").is_ok());
        assert!(server.check(&run("2", "5"), false, "here").is_err() && server.check(&run("1", "6"), true, "here").is_err());
        server.set(&run("2", "5"));
        assert!(server.check(&run("2", "5"), false, "here").is_ok() && server.check(&run("1", "5"), false, "here").is_err());
    }
}
