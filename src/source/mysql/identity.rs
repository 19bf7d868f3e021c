//! The identity of the server, as a checkpoint remembers it.
//!
//! After a failover the log goes on on another server that has the same transactions. So another server is refused here only where it cannot
//! have them; whether it has them is verified when the log is opened (`history.rs`).

use super::error::Error;
use super::head::Head;
use super::session::Session;
use super::transaction_id::Gtids;
use crate::checkpoint::Identity;

const PRODUCT: &str = "product";
/// The server's UUID; on MariaDB its host, port and folder of data.
const SERVER: &str = "server";

/// What identifies this server.
pub(super) fn of(session: &Session) -> Identity {
    let product = if session.is_mariadb() { "mariadb" } else { "mysql" };
    [(PRODUCT, product.to_owned()), (SERVER, session.instance().server.clone())].map(|(name, value)| (name.to_owned(), value)).into()
}

/// Refuses a server that cannot be the known one or its successor (G6).
pub(super) async fn compare(known: &Identity, session: &mut Session) -> Result<(), Error> {
    let now = of(session);
    let differs = |name: &str| known.get(name).is_some_and(|known| now.get(name) != Some(known));
    if !differs(PRODUCT) && !differs(SERVER) {
        return Ok(());
    }
    let shown = |identity: &Identity, name: &str| identity.get(name).cloned().unwrap_or_default();
    let foreign = |name: &str| Error::Foreign {
        what: format!("the {name} is {:?}, but the checkpoint has {:?}", shown(&now, name), shown(known, name)),
    };
    if differs(PRODUCT) {
        return Err(foreign(PRODUCT));
    }
    match Head::read(session).await?.gtids {
        // Only the names of transactions tell whether one server's log goes on on another.
        Gtids::Unnamed => Err(foreign(SERVER)),
        Gtids::MySql(_) | Gtids::Maria(_) => Ok(()),
    }
}
