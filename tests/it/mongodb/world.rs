//! Test fixtures: a database with collections, and a connector for it.

use crate::contract_source::{Stream, feed, live};
use crate::servers::mongodb::MongoDb;
use feedline::checkpoint::{Identity, ResumeToken};
use feedline::event::Operations;
use feedline::feed::{Feed, Feeds};
use feedline::net::{TlsMode, Trust};
use feedline::source::SourceConnector as _;
use feedline::source::mongodb::{Connector, Error, Image, Log, Options, SameCluster, Spelling};
use feedline::status::metrics::Metrics;
use serde_json::Value;
use std::sync::Arc;

pub struct World {
    pub server: &'static MongoDb,
    pub database: String,
    pub options: Options,
    pub feeds: Vec<Feed>,
    pub metrics: Metrics,
}

impl World {
    /// A new database on the shared server with these collections, which store images, and a feed for each.
    pub fn new(collections: &[&str]) -> Self {
        Self::on(MongoDb::shared(), collections)
    }

    /// The same on a server of its own, which ends with the tests.
    pub fn alone(arguments: &[&'static str], collections: &[&str]) -> Self {
        Self::on(Box::leak(Box::new(MongoDb::start(arguments))), collections)
    }

    fn on(server: &'static MongoDb, collections: &[&str]) -> Self {
        let database = MongoDb::database("source");
        for collection in collections {
            server.create(&database, collection);
        }
        let options = options(server.host(), server.port(), &database);
        let feeds = collections.iter().map(|collection| feed(&database, collection, &["_id"], Operations::ALL)).collect();
        Self { server, database, options, feeds, metrics: Metrics::new("shop") }
    }

    pub fn insert(&self, collection: &str, documents: &[Value]) {
        self.server.insert(&self.database, collection, documents);
    }

    pub fn update(&self, collection: &str, key: &Value, update: &Value) {
        self.server.update(&self.database, collection, key, update);
    }

    pub fn delete(&self, collection: &str, key: &Value) {
        self.server.delete(&self.database, collection, key);
    }

    pub fn run(&self, command: &Value) -> Value {
        self.server.run(&self.database, command)
    }

    pub fn feeds(&self) -> Arc<Feeds> {
        Arc::new(Feeds::new(self.feeds.clone()))
    }

    /// A connector as a new process has it.
    pub fn connector(&self) -> Connector {
        let mut connector = Connector::new(self.options.clone(), self.metrics.source.clone());
        connector.select(self.feeds());
        connector
    }

    /// Reads the log from its end on. All feeds are live.
    pub async fn follow(&self) -> Following<'_> {
        let mut connector = self.connector();
        let begin = connector.establish().await.unwrap();
        let known = connector.identity().await.unwrap();
        Following { world: self, connector, known, begin }
    }
}

/// A pipeline's source side.
pub struct Following<'w> {
    world: &'w World,
    pub connector: Connector,
    pub known: Identity,
    pub begin: ResumeToken,
}

impl Following<'_> {
    /// Opens the log at a token.
    pub async fn at(&mut self, token: &ResumeToken) -> Result<Stream<Log>, Error> {
        let (feeds, resume) = (self.world.feeds(), live(token, &self.begin, self.world.feeds.len()));
        let log = self.connector.connect(&self.known, &resume).await?;
        Ok(Stream::new(log, &feeds, &resume, 1 << 20))
    }

    /// Opens it where it began.
    pub async fn stream(&mut self) -> Stream<Log> {
        let begin = self.begin.clone();
        self.at(&begin).await.unwrap()
    }
}

pub fn options(host: &str, port: u16, database: &str) -> Options {
    Options {
        hosts: vec![(host.to_owned(), port)],
        login: None,
        database: database.to_owned(),
        trust: Trust { mode: TlsMode::Disable, ca_file: None, client: None, section: "source" },
        full_document: Image::WhenAvailable,
        pre_images: Image::Off,
        spelling: Spelling::Plain,
        prefeed_readers: 2,
        pipeline: "shop".into(),
        cluster: SameCluster::default(),
    }
}
