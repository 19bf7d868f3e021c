//! Test fixtures: a database with tables, and a connector for it.

use super::options;
use crate::contract_source::{Stream, feed, live};
use crate::servers::mysql::{MySql, Options as ServerOptions};
use feedline::checkpoint::ResumeToken;
use feedline::event::Operations;
use feedline::feed::{Feed, Feeds};
use feedline::net::TlsMode;
use feedline::source::SourceConnector as _;
use feedline::source::mysql::{Connector, Log, Options, SameServer};
use feedline::status::metrics::Metrics;
use std::sync::Arc;

pub struct World {
    pub server: &'static MySql,
    pub database: String,
    pub options: Options,
    pub feeds: Vec<Feed>,
    pub metrics: Metrics,
}

impl World {
    /// A new database on the shared server, with these tables, and a feed with this key for each table that is named.
    pub fn new(tables: &str, feeds: &[(&str, &[&str])]) -> Self {
        Self::on(MySql::shared(), tables, feeds)
    }

    /// The same on a server of its own, with these settings. The server ends with the tests.
    pub fn alone(settings: &[(&'static str, &'static str)], tables: &str, feeds: &[(&str, &[&str])]) -> Self {
        let server = MySql::start(&ServerOptions { settings: settings.to_vec(), ..ServerOptions::default() });
        Self::on(Box::leak(Box::new(server)), tables, feeds)
    }

    /// The same on this server.
    pub fn on(server: &'static MySql, tables: &str, feeds: &[(&str, &[&str])]) -> Self {
        let database = server.create_database("source");
        if !tables.is_empty() {
            server.sql(&database, tables);
        }
        let feeds = feeds.iter().map(|(table, key)| feed(&database, table, key, Operations::ALL)).collect();
        let options = Options { database: database.clone(), ..options(server, "root", None, TlsMode::Disable) };
        Self { server, database, options, feeds, metrics: Metrics::new("shop") }
    }

    /// Runs statements as root, and returns what they print.
    pub fn sql(&self, statements: &str) -> String {
        self.server.sql(&self.database, statements)
    }

    pub fn feeds(&self) -> Arc<Feeds> {
        Arc::new(Feeds::new(self.feeds.clone()))
    }

    /// A connector as a new process has it.
    pub fn connector(&self) -> Connector {
        let options = Options { server: SameServer::default(), server_id: fastrand::u32(1 << 30..), ..self.options.clone() };
        let mut connector = Connector::new(options, self.metrics.source.clone());
        connector.select(self.feeds());
        connector
    }

    /// A connector that knows the log.
    pub async fn established(&self) -> Connector {
        let mut connector = self.connector();
        connector.establish().await.unwrap();
        connector
    }

    /// Reads the log from its end on. All feeds are live.
    pub async fn begin(&self) -> (Stream<Log>, ResumeToken) {
        let (stream, token, _) = self.follow().await;
        (stream, token)
    }

    /// The same, with the connector: its snapshots have places in this log.
    pub async fn follow(&self) -> (Stream<Log>, ResumeToken, Connector) {
        let mut connector = self.connector();
        let token = connector.establish().await.unwrap();
        let resume = live(&token, &token, self.feeds.len());
        let identity = connector.identity().await.unwrap();
        let log = connector.connect(&identity, &resume).await.unwrap();
        (Stream::new(log, &self.feeds(), &resume, 1 << 20), token, connector)
    }
}
