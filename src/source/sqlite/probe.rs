//! Looks at the head of the log from a connection of its own.

use crate::checkpoint::ResumeToken;
use crate::source::Probe;
use crate::source::sqlite::Error;
use crate::source::sqlite::capture::Names;
use crate::source::sqlite::history::{History, Proved};
use crate::source::sqlite::identity::File;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::status::LogHead;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Looks at the head of one log.
pub struct LogProbe {
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) file: File,
    pub(super) proved: Proved,
    /// Held by one look at a time; a look that was cancelled ends by itself.
    pub(super) connection: Arc<Mutex<Connection>>,
}

impl Probe for LogProbe {
    type Error = Error;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let place = LogPosition::parse(confirmed)?;
        let (path, names, file, connection) = (self.path.clone(), self.names.clone(), self.file.clone(), Arc::clone(&self.connection));
        let proved = self.proved.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // A file that was replaced would go on looking caught up.
            file.check()?;
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            look(&History { connection: &connection, names: &names, path: &path }, &proved, place)
        });
        looked.await.map_err(|_| Error::Ended)?
    }
}

fn look(history: &History<'_>, proved: &Proved, place: LogPosition) -> Result<LogHead, Error> {
    let failed = |source| Error::sqlite("look at the change log's head", history.path, source);
    let head = proved.check_newest(history)?;
    let (connection, log) = (history.connection, quoted(&history.names.log));
    let exists = format!("SELECT EXISTS (SELECT 1 FROM main.{log} WHERE seq >= ?1)");
    let beyond: bool =
        connection.prepare_cached(&exists).and_then(|mut statement| statement.query_row([place.next], |row| row.get(0))).map_err(failed)?;
    Ok(LogHead {
        caught_up: head <= place.next || !beyond,
        // The log counts rows, not bytes, and keeps them until they are durable elsewhere.
        lag_bytes: None,
        retained_bytes: None,
        xmin_age: None,
        headroom_ratio: Some(1.0),
        // The writer's clock is this machine's.
        clock_offset_seconds: Some(0.0),
    })
}
