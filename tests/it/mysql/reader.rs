//! A reader of the log, as the engine has one.

use super::world::World;
use crate::contract_source::{Stream, Taken, head, live};
use crate::servers::mysql::MySql;
use feedline::checkpoint::{Identity, ResumeToken};
use feedline::feed::Feeds;
use feedline::source::mysql::{Connector, Error, Log, Options};
use feedline::source::{Resume, SourceConnector as _};
use serde_json::Value;
use std::sync::Arc;

/// Reads the log, session after session.
pub(crate) struct Reading {
    pub(crate) connector: Connector,
    pub(crate) known: Identity,
    /// Where the feeds are live from.
    begin: ResumeToken,
    /// Where the next session goes on.
    pub(crate) token: ResumeToken,
    feeds: Arc<Feeds>,
    stream: Option<Stream<Log>>,
}

/// The same database on another server.
pub(crate) fn moved_to(world: &World, server: &'static MySql) -> World {
    let options = Options { port: server.port(), ..world.options.clone() };
    World { server, database: world.database.clone(), options, feeds: world.feeds.clone(), metrics: world.metrics.clone() }
}

impl Reading {
    /// Begins to read the log at its end.
    pub(crate) async fn begin(world: &World) -> Self {
        Self::with(world.connector(), world).await
    }

    /// The same with this connector.
    pub(crate) async fn with(mut connector: Connector, world: &World) -> Self {
        let begin = connector.establish().await.unwrap();
        let known = connector.identity().await.unwrap();
        Self { connector, known, begin: begin.clone(), token: begin, feeds: world.feeds(), stream: None }
    }

    /// Where a session would go on.
    pub(crate) fn resume(&self) -> Resume {
        live(&self.token, &self.begin, self.feeds.len())
    }

    /// Opens a session at the token.
    pub(crate) async fn connect(&mut self, batch_bytes: usize) -> Result<(), Error> {
        let resume = self.resume();
        self.stream = None;
        let log = self.connector.connect(&self.known, &resume).await?;
        self.stream = Some(Stream::new(log, &self.feeds, &resume, batch_bytes));
        Ok(())
    }

    /// Ends the session.
    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
    }

    /// The open session; opens one where there is none.
    pub(crate) async fn stream(&mut self) -> &mut Stream<Log> {
        if self.stream.is_none() {
            self.connect(64 * 1024).await.unwrap();
        }
        self.stream.as_mut().unwrap()
    }

    /// Everything that is new in the log.
    pub(crate) async fn taken(&mut self) -> Vec<Taken> {
        let end = head(&mut self.connector).await;
        let batches = self.stream().await.batches(&end).await;
        self.token = batches.last().unwrap().token.clone();
        batches.into_iter().flat_map(|batch| batch.records).collect()
    }

    /// The same as JSON.
    pub(crate) async fn events(&mut self) -> Vec<Value> {
        self.taken().await.iter().map(|taken| serde_json::from_str(taken.body.as_deref().unwrap()).unwrap()).collect()
    }

    /// The same in short.
    pub(crate) async fn shorts(&mut self) -> Vec<String> {
        self.events().await.iter().map(short).collect()
    }

    /// Reads until the session fails.
    pub(crate) async fn failure(&mut self) -> Error {
        self.stream().await.failure().await.1
    }
}

/// An event in short: operation, table, key, index, and `!` at the end of a transaction.
pub(crate) fn short(event: &Value) -> String {
    let source = &event["source"];
    let last = if source["last"] == true { "!" } else { "" };
    format!("{} {} {} {}{last}", event["op"].as_str().unwrap(), event["table"].as_str().unwrap(), event["key"], source["index"])
}
