//! Test fixtures: a database with tables, a connector for it, and a reader that parses the events.

use crate::contract_source::{Refusal, verify};
use crate::servers::postgres::{Options as ServerOptions, Postgres};
use crate::session::{Session, encoders};
use feedline::batch::{BatchWriter, Budget, OpenRecords, Seq};
use feedline::checkpoint::{FeedState, Identity, Progress, ResumeToken};
use feedline::event::{FeedId, Operation, Operations};
use feedline::feed::{Feed, Feeds, PrefeedKind, feed_name};
use feedline::net::{RequireAuth, TlsMode, Trust};
use feedline::source::postgres::{Connector, Error, Log, OnAddedDefault, Options, SameServer};
use feedline::source::{Filled, Resume, SourceConnector};
use feedline::status::metrics::Metrics;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longer than any step takes on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// One record as the broker would get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub id: String,
    pub key: String,
    pub related: Option<String>,
    pub body: Option<String>,
}

impl Sent {
    pub fn event(&self) -> Value {
        serde_json::from_str(self.body.as_deref().unwrap()).unwrap()
    }

    /// `op`, key and index, with `!` at the end of a transaction.
    pub fn short(&self) -> String {
        let event = self.event();
        let source = &event["source"];
        let last = if source["last"] == true { "!" } else { "" };
        format!("{} {} {}{last}", event["op"].as_str().unwrap(), self.key, source["index"])
    }
}

pub fn shorts(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::short).collect()
}

/// A feed of a table in `public`.
pub fn feed(table: &str, key: &[&str]) -> Feed {
    Feed {
        id: FeedId(0),
        name: feed_name("public", table),
        schema: "public".into(),
        table: table.into(),
        operations: Operations::ALL,
        prefeed: PrefeedKind::None,
        stage: 1,
        key: key.iter().map(|key| Arc::from(*key)).collect(),
        columns: Vec::new(),
        leaves_values_out: false,
        destinations: std::array::from_fn::<_, { Operation::ALL.len() }, _>(|_| "topic".into()),
    }
}

pub struct World {
    pub server: &'static Postgres,
    pub database: String,
    pub options: Options,
    pub feeds: Vec<Feed>,
    pub metrics: Metrics,
}

impl World {
    /// A new database on the shared server, with these tables.
    pub fn new(tables: &str, feeds: Vec<Feed>) -> Self {
        Self::on(Postgres::shared(), tables, feeds)
    }

    /// The same on a server of its own, with these settings. The server ends with the tests.
    pub fn alone(settings: &[(&'static str, &'static str)], tables: &str, feeds: Vec<Feed>) -> Self {
        Self::started(&ServerOptions { settings: settings.to_vec(), ..Default::default() }, tables, feeds)
    }

    /// The same on a server of this version.
    pub fn of_version(version: &'static str, settings: &[(&'static str, &'static str)], tables: &str, feeds: Vec<Feed>) -> Self {
        let options = ServerOptions { version: Some(version), settings: settings.to_vec(), ..Default::default() };
        Self::started(&options, tables, feeds)
    }

    fn started(options: &ServerOptions, tables: &str, feeds: Vec<Feed>) -> Self {
        Self::on(Box::leak(Box::new(Postgres::start(options))), tables, feeds)
    }

    /// The same on this server.
    pub fn on(server: &'static Postgres, tables: &str, feeds: Vec<Feed>) -> Self {
        let database = server.create_database("source");
        server.psql(&database, tables);
        Self::within(server, database, feeds)
    }

    /// A database that exists already.
    pub fn within(server: &'static Postgres, database: String, feeds: Vec<Feed>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let options = Options {
            host: "127.0.0.1".to_owned(),
            port: server.port(),
            user: "postgres".to_owned(),
            password: None,
            database: database.clone(),
            trust: Trust { mode: TlsMode::Disable, section: "source", ..Trust::default() },
            slot: name.clone(),
            publication: name,
            manage: true,
            prefeed_readers: 2,
            require_auth: RequireAuth::Scram,
            on_added_default: OnAddedDefault::Prefeed,
            pipeline: "shop".into(),
            server: SameServer::default(),
        };
        Self { server, database, options, feeds, metrics: Metrics::new("shop") }
    }

    pub fn sql(&self, statements: &str) -> String {
        self.server.psql(&self.database, statements)
    }

    pub fn connector(&self) -> Connector {
        let mut connector = Connector::new(self.options.clone(), self.metrics.source.clone());
        connector.select(self.feeds());
        connector
    }

    fn feeds(&self) -> Arc<Feeds> {
        Arc::new(Feeds::new(self.feeds.clone()))
    }

    /// The session of a log that was opened at `resume`.
    pub fn session(&self, log: Log, resume: &Resume) -> Session<Log> {
        Session::new(log, &self.feeds(), resume, encoders("shop", "postgres", &self.database), self.metrics.source.clone())
    }

    /// Makes the preflight, as a start does.
    pub async fn verify(&self) -> Result<(), Vec<Refusal>> {
        verify(&mut self.connector()).await
    }

    /// Does what a first start does: checks, creates the slot, returns the token.
    pub async fn establish(&self) -> (Identity, ResumeToken) {
        let mut connector = self.connector();
        let identity = connector.identity().await.unwrap();
        verify(&mut connector).await.unwrap();
        connector.unclaimed().await.unwrap();
        // On a busy machine, another test's transaction may delay the slot for longer than a start waits at a time.
        let deadline = tokio::time::Instant::now() + 4 * TIMEOUT;
        loop {
            match connector.establish().await {
                Err(Error::HeldUp { .. }) if tokio::time::Instant::now() < deadline => {}
                established => return (identity, established.unwrap()),
            }
        }
    }

    pub fn resume(&self, token: &ResumeToken, start: &ResumeToken) -> Resume {
        let feeds = self.feeds.iter().map(|_| FeedState::Live { start: start.clone() }).collect();
        Resume { token: token.clone(), feeds, layouts: Vec::new() }
    }

    /// Connects as soon as the previous connection to the slot is gone.
    pub async fn connect(&self, identity: &Identity, resume: &Resume) -> Result<Session<Log>, Error> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.connector().connect(identity, resume).await {
                Err(Error::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
                connected => return Ok(self.session(connected?, resume)),
            }
        }
    }

    /// Establishes the slot and reads the log from there.
    pub async fn begin(&self) -> Reader {
        let (identity, token) = self.establish().await;
        let log = self.connect(&identity, &self.resume(&token, &token)).await.unwrap();
        Reader { log, token, open: None, budget: Budget::new(64 << 20, 1 << 20), filled: Filled::Drained }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The slot's connection may not have ended yet. A slot that stays would keep log for all other tests.
        let statements = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{0}'; \
             SELECT pg_drop_replication_slot('{0}') FROM pg_replication_slots WHERE slot_name = '{0}' AND NOT active; \
             SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{0}'",
            self.options.slot
        );
        let deadline = Instant::now() + TIMEOUT;
        // The server may be stopped.
        while self.server.try_psql(&self.database, &statements).is_ok_and(|answer| !answer.ends_with('0')) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Reads a log batch by batch, as the engine does.
pub struct Reader {
    pub log: Session<Log>,
    /// Where reading began.
    pub token: ResumeToken,
    pub open: Option<OpenRecords>,
    pub budget: Budget,
    pub filled: Filled,
}

impl Reader {
    pub fn of(log: Session<Log>, token: &ResumeToken, batch_bytes: usize) -> Self {
        Self { log, token: token.clone(), open: None, budget: Budget::new(64 << 20, batch_bytes), filled: Filled::Drained }
    }

    /// Reads one batch.
    pub async fn batch(&mut self, until: Option<&ResumeToken>) -> Result<Vec<Sent>, Error> {
        let mut writer: BatchWriter = self.budget.writer().await;
        if let Some(open) = self.open.take() {
            writer.adopt(&open);
        }
        self.filled = timeout(TIMEOUT, self.log.fill(&mut writer, until)).await.expect("no input from the log")?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let sent = writer
            .records()
            .map(|record| Sent {
                id: text(record.id),
                key: text(record.key),
                related: record.related_key.map(text),
                body: record.body.map(text),
            })
            .collect();
        (_, self.open) = writer.seal(Seq(1), Progress::live(self.log.token()));
        Ok(sent)
    }

    /// Reads batches until there are this many records.
    pub async fn take(&mut self, count: usize) -> Vec<Sent> {
        let (mut sent, deadline) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
        while sent.len() < count {
            assert!(Instant::now() < deadline, "only {} of {count} records came: {sent:#?}", sent.len());
            sent.extend(self.batch(None).await.unwrap());
        }
        assert_eq!(sent.len(), count, "{sent:#?}");
        sent
    }

    /// Reads batches up to `until`.
    pub async fn read_to(&mut self, until: &ResumeToken) -> Vec<Sent> {
        let (mut sent, deadline) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
        loop {
            assert!(Instant::now() < deadline, "{} is not reached", until.0);
            sent.extend(self.batch(Some(until)).await.unwrap());
            if self.filled == Filled::Reached {
                return sent;
            }
        }
    }

    /// Reads until the session fails. Returns what it sent before, and why it failed.
    pub async fn failure(&mut self) -> (Vec<Sent>, Error) {
        let (mut sent, deadline) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
        loop {
            assert!(Instant::now() < deadline, "the session goes on: {sent:#?}");
            match self.batch(None).await {
                Ok(more) => sent.extend(more),
                Err(error) => return (sent, error),
            }
        }
    }
}
