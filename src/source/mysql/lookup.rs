//! Asks the catalogue about a table that the log mentions.

use super::error::Error;
use super::grants::Grants;
use super::layout::Hints;
use super::options::Options;
use super::quote::literal;
use super::session::Session;
use super::tables;
use std::pin::Pin;

/// An answer, and the session that gave it.
type Running = Pin<Box<dyn Future<Output = Result<(Session, Answer), Error>> + Send>>;

/// What is asked about a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Hints,
    Triggers,
}

enum Answer {
    Hints(Hints),
    /// Whether it certainly has none.
    NoTriggers(bool),
}

/// Looks up what the log does not say of a table.
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

    /// What the catalogue says today of this table's columns; nothing where it is gone again. Cancel safe: the same must be asked again.
    pub(super) async fn hints(&mut self, schema: &str, table: &str) -> Result<Hints, Error> {
        if !self.is_mariadb {
            return Ok(Hints::default());
        }
        match self.ask(Question::Hints, schema, table).await? {
            Answer::Hints(hints) => Ok(hints),
            Answer::NoTriggers(_) => Ok(Hints::default()),
        }
    }

    /// Whether this table certainly has no trigger: only a user with the privilege TRIGGER sees them. Cancel safe as [`Self::hints`].
    pub(super) async fn is_without_triggers(&mut self, schema: &str, table: &str) -> Result<bool, Error> {
        Ok(matches!(self.ask(Question::Triggers, schema, table).await?, Answer::NoTriggers(true)))
    }

    async fn ask(&mut self, question: Question, schema: &str, table: &str) -> Result<Answer, Error> {
        let (options, session) = (&self.options, &mut self.session);
        let begin = || -> Running { Box::pin(ask(options.clone(), session.take(), question, schema.to_owned(), table.to_owned())) };
        let found = self.running.get_or_insert_with(begin).as_mut().await;
        self.running = None;
        let (session, answer) = found?;
        self.session = Some(session);
        Ok(answer)
    }
}

async fn ask(
    options: Options,
    session: Option<Session>,
    question: Question,
    schema: String,
    table: String,
) -> Result<(Session, Answer), Error> {
    let mut session = match session {
        Some(session) => session,
        None => Session::open(&options).await?,
    };
    let answer = match question {
        Question::Hints => {
            let found = tables::one(&mut session, &schema, &table).await?;
            Answer::Hints(found.as_ref().map(Hints::of).unwrap_or_default())
        }
        Question::Triggers => Answer::NoTriggers(is_without_triggers(&mut session, &schema, &table).await?),
    };
    Ok((session, answer))
}

async fn is_without_triggers(session: &mut Session, schema: &str, table: &str) -> Result<bool, Error> {
    if !Grants::read(session).await?.has_on_table("TRIGGER", schema, table) {
        return Ok(false);
    }
    let statement = format!(
        "SELECT 1 FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {} LIMIT 1",
        literal(schema),
        literal(table)
    );
    Ok(session.query(&statement).await?.is_empty())
}
