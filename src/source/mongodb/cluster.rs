//! Which cluster a session has reached. All sessions of a pipeline must reach the same one, whichever of its members answers (G6).

use super::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// The cluster that the pipeline works with. The first session sets it.
#[derive(Clone, Debug, Default)]
pub struct SameCluster(Arc<Mutex<Option<String>>>);

impl SameCluster {
    /// Sets the cluster: the checkpoint knows it, or there is nothing yet to compare with.
    pub(super) fn set(&self, id: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id.map(str::to_owned);
    }

    /// Refuses a session with another cluster.
    pub(super) fn check(&self, id: &str, address: &str) -> Result<(), Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_with(|| id.to_owned());
        if known == id {
            return Ok(());
        }
        Err(Error::Foreign { address: address.to_owned(), what: format!("it is {id}, not {known}") })
    }
}

#[cfg(test)]
mod tests {
    use super::SameCluster;

    #[test]
    fn the_first_cluster_stays_until_another_is_set() {
        let cluster = SameCluster::default();
        assert!(cluster.check("a", "here").is_ok() && cluster.check("a", "there").is_ok());
        assert!(cluster.check("b", "here").is_err());
        cluster.set(Some("b"));
        assert!(cluster.check("b", "here").is_ok() && cluster.check("a", "here").is_err());
        cluster.set(None);
        assert!(cluster.check("a", "here").is_ok());
    }
}
