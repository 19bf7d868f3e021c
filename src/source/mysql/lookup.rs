//! Asks the catalogue about a table whose definition changes in the log.

use super::error::Error;
use super::layout::Hints;
use super::options::Options;
use super::session::Session;
use super::tables;
use std::pin::Pin;

type Running = Pin<Box<dyn Future<Output = Result<(Option<Session>, Hints), Error>> + Send>>;

/// Looks up what the log does not say of a table's columns: on MariaDB alone.
pub(super) struct Lookup {
    options: Options,
    is_mariadb: bool,
    /// Opened for the first lookup, and kept.
    session: Option<Session>,
    /// A lookup in progress. If a call is cancelled, the next one continues it, however slow the server is.
    running: Option<Running>,
}

impl Lookup {
    pub(super) const fn new(options: Options, is_mariadb: bool) -> Self {
        Self { options, is_mariadb, session: None, running: None }
    }

    /// What the catalogue says of this table today; nothing where it is gone again. Cancel safe: the same table must be asked for again.
    pub(super) async fn hints(&mut self, schema: &str, table: &str) -> Result<Hints, Error> {
        if !self.is_mariadb {
            return Ok(Hints::default());
        }
        let (options, session) = (&self.options, &mut self.session);
        let begin = || -> Running { Box::pin(look_up(options.clone(), session.take(), schema.to_owned(), table.to_owned())) };
        let found = self.running.get_or_insert_with(begin).as_mut().await;
        self.running = None;
        let (session, hints) = found?;
        self.session = session;
        Ok(hints)
    }
}

async fn look_up(options: Options, session: Option<Session>, schema: String, table: String) -> Result<(Option<Session>, Hints), Error> {
    let mut session = match session {
        Some(session) => session,
        None => Session::open(&options).await?,
    };
    let hints = tables::one(&mut session, &schema, &table).await?.as_ref().map(Hints::of).unwrap_or_default();
    Ok((Some(session), hints))
}
