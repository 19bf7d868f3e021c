//! Asks the server about what the log mentions: tables, and text that only the server can decode.

use super::binlog::MariaId;
use super::error::Error;
use super::grants::Grants;
use super::hex::hex;
use super::layout::Hints;
use super::options::Options;
use super::quote::literal;
use super::session::Session;
use super::token::LogFile;
use super::{head, tables};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// A session that was idle for longer is opened anew: the server, or a firewall on the way, may have closed it.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// An answer, and the session that gave it.
type Running = Pin<Box<dyn Future<Output = Result<(Session, Answer), Error>> + Send>>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Hints { schema: String, table: String },
    Triggers { schema: String, table: String },
    Text { charset: String, bytes: Vec<u8> },
    Before { file: LogFile },
}

#[derive(Clone, Debug)]
enum Answer {
    Hints(Hints),
    /// Whether it certainly has none.
    NoTriggers(bool),
    Text(Option<String>),
    Before(Option<Vec<MariaId>>),
}

/// Looks up what the log does not say. All calls are cancel safe: if the same is asked again for one event, the answer is the same.
pub(super) struct Lookup {
    options: Options,
    is_mariadb: bool,
    /// The session of the last lookup, and when that was.
    session: Option<(Session, Instant)>,
    /// A lookup in progress. If a call is cancelled, the next one continues it, however slow the server is.
    running: Option<(Question, Running)>,
    /// What was answered for the current event.
    answered: Vec<(Question, Answer)>,
}

impl Lookup {
    pub(super) const fn new(options: Options, is_mariadb: bool) -> Self {
        Self { options, is_mariadb, session: None, running: None, answered: Vec::new() }
    }

    /// The next event begins.
    pub(super) fn forget(&mut self) {
        self.answered.clear();
    }

    /// What the catalogue says today of this table's columns; nothing where it is gone again.
    pub(super) async fn hints(&mut self, schema: &str, table: &str) -> Result<Hints, Error> {
        if !self.is_mariadb {
            return Ok(Hints::default());
        }
        let question = Question::Hints { schema: schema.to_owned(), table: table.to_owned() };
        Ok(if let Answer::Hints(hints) = self.ask(question).await? { hints } else { Hints::default() })
    }

    /// Whether this table certainly has no trigger: only a user with the privilege TRIGGER sees them.
    pub(super) async fn is_without_triggers(&mut self, schema: &str, table: &str) -> Result<bool, Error> {
        let question = Question::Triggers { schema: schema.to_owned(), table: table.to_owned() };
        Ok(matches!(self.ask(question).await?, Answer::NoTriggers(true)))
    }

    /// Text in this character set of the server; `None` where it has characters that are not defined.
    pub(super) async fn text(&mut self, charset: &str, bytes: &[u8]) -> Result<Option<String>, Error> {
        let question = Question::Text { charset: charset.to_owned(), bytes: bytes.to_vec() };
        Ok(if let Answer::Text(text) = self.ask(question).await? { text } else { None })
    }

    /// The last transactions of each domain and server of MariaDB that are complete before this file; `None` where the server does not say it.
    pub(super) async fn before(&mut self, file: &LogFile) -> Result<Option<Vec<MariaId>>, Error> {
        let question = Question::Before { file: file.clone() };
        Ok(if let Answer::Before(before) = self.ask(question).await? { before } else { None })
    }

    async fn ask(&mut self, question: Question) -> Result<Answer, Error> {
        if let Some((_, answer)) = self.answered.iter().find(|(answered, _)| *answered == question) {
            return Ok(answer.clone());
        }
        // Whoever asked something else asks no more.
        self.running.take_if(|(running, _)| *running != question);
        let (options, session) = (&self.options, &mut self.session);
        let begin = || -> (Question, Running) {
            let kept = session.take().filter(|(_, used_at)| used_at.elapsed() < IDLE_MAX).map(|(session, _)| session);
            (question.clone(), Box::pin(ask(options.clone(), kept, question.clone())))
        };
        let found = self.running.get_or_insert_with(begin).1.as_mut().await;
        self.running = None;
        let (session, answer) = found?;
        self.session = Some((session, Instant::now()));
        self.answered.push((question, answer.clone()));
        Ok(answer)
    }
}

async fn ask(options: Options, session: Option<Session>, question: Question) -> Result<(Session, Answer), Error> {
    let mut session = match session {
        Some(session) => session,
        None => Session::open(&options).await?,
    };
    let answer = match question {
        Question::Hints { schema, table } => {
            let found = tables::one(&mut session, &schema, &table).await?;
            Answer::Hints(found.as_ref().map(Hints::of).unwrap_or_default())
        }
        Question::Triggers { schema, table } => Answer::NoTriggers(is_without_triggers(&mut session, &schema, &table).await?),
        Question::Text { charset, bytes } => Answer::Text(text(&mut session, &charset, &bytes).await?),
        Question::Before { file } => Answer::Before(head::before(&mut session, &file).await?),
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

/// Names of character sets are letters and digits.
async fn text(session: &mut Session, charset: &str, bytes: &[u8]) -> Result<Option<String>, Error> {
    let rows = session.query(&format!("SELECT CONVERT(CONVERT(UNHEX('{}') USING {charset}) USING utf8mb4)", hex(bytes))).await?;
    Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned))
}
