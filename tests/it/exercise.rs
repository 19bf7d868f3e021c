//! A backend as an exercise: a database in memory, its log, its snapshots. It is a source with nothing but its own protocol, and passes the
//! contract of every source.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod database;

use crate::contract_source::{Stream, Workload, feed, feeds, head, live};
use database::{Change, Database, Rows, Table};
use feedline::checkpoint::{Identity, ResumeToken, ScanPosition};
use feedline::event::{Cell, Column, ColumnKind, FeedId, Operation, Operations, Relation, Row, RowError, Timestamp};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Catalogue, Feed, Feeds};
use feedline::preflight::Findings;
use feedline::source::{
    Cut, Emission, Emitter, Filled, HandedOver, Inside, LogToken, Opened, Prefeed, Probe, Renewed, Resume, RowEmitter, Scanned, Source,
    SourceConnector, SourceProgress, ToRead,
};
use feedline::status::LogHead;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[error("{0} is not a position in the log")]
pub struct Unreadable(String);

impl Classify for Unreadable {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        Code::SourceProtocol
    }
}

/// A position: a transaction, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    transaction: usize,
    ordinal: u64,
    index: u64,
}

impl LogToken for Token {
    type Error = Unreadable;
    type Change = (usize, u64);

    fn parse(token: &ResumeToken) -> Result<Self, Unreadable> {
        let mut parts = token.0.split(':').map(str::parse);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(transaction)), Some(Ok(ordinal)), Some(Ok(index))) => {
                Ok(Self { transaction: usize::try_from(transaction).unwrap(), ordinal, index })
            }
            _ => Err(Unreadable(token.0.to_string())),
        }
    }

    fn is_before(&self, other: &Self) -> bool {
        self < other
    }

    fn admits(&self, change: (usize, u64)) -> bool {
        (self.transaction, self.ordinal) <= change
    }

    fn position_prefix(&self) -> String {
        position_prefix(self.transaction)
    }
}

impl Token {
    fn at(transaction: usize) -> Self {
        Self { transaction, ordinal: 0, index: 0 }
    }

    fn resume(self) -> ResumeToken {
        ResumeToken(format!("{}:{}:{}", self.transaction, self.ordinal, self.index).into())
    }
}

fn position_prefix(transaction: usize) -> String {
    format!("{transaction:012}")
}

/// A row's values, in the order of its columns. Those of a deleted row are its key only.
#[derive(Clone, Copy)]
struct Values<'r> {
    values: &'r [Option<String>],
    key_only: bool,
}

impl Row for Values<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.values.iter().enumerate().try_for_each(|(index, value)| {
            visit(match value {
                Some(key) if index == 0 => Cell::Integer(key),
                _ if self.key_only => Cell::Absent,
                Some(text) => Cell::Text(text),
                None => Cell::Null,
            })
        })
    }
}

const fn whole(values: &[Option<String>]) -> Values<'_> {
    Values { values, key_only: false }
}

const fn key(values: &[Option<String>]) -> Values<'_> {
    Values { values, key_only: true }
}

fn relation(feed: &Feed, columns: &[String]) -> Relation {
    let columns = columns.iter().enumerate().map(|(index, name)| Column::new(name.as_str(), ColumnKind::Any, index == 0));
    Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns: columns.collect() }
}

/// The open log.
pub struct Log {
    database: Database,
    feeds: Arc<Feeds>,
    /// The transaction that is read next, or being read, and the next change in it.
    transaction: usize,
    change: usize,
    /// What an earlier session handed over.
    resumed: Token,
}

impl Log {
    /// Gives the next change to the emitter; `false` at the end of the log.
    async fn step(&mut self, out: &mut Emitter<'_, Token>) -> bool {
        let Some(changes) = self.database.transaction(self.transaction) else { return false };
        if self.change == 0 {
            let Token { transaction, ordinal, index } = self.resumed;
            let handed_over =
                if transaction == self.transaction { HandedOver::Until(Inside { ordinal, index }) } else { HandedOver::Nothing };
            let id = self.transaction.to_string();
            let committed_at = Timestamp(i64::try_from(self.transaction).unwrap());
            out.begin(position_prefix(self.transaction).as_bytes(), committed_at, &id, handed_over);
        }
        let ordinal = 10 * self.change as u64;
        if let Some(change) = changes.get(self.change) {
            self.change += 1;
            self.write(change, ordinal, out).await;
        } else {
            out.commit();
            (self.transaction, self.change) = (self.transaction + 1, 0);
        }
        true
    }

    async fn write(&self, change: &Change, ordinal: u64, out: &mut Emitter<'_, Token>) {
        let operation = match (&change.old, &change.new) {
            (None, _) => Operation::Insert,
            (_, None) => Operation::Delete,
            _ => Operation::Update,
        };
        let Some(feed) = self.feeds.of_table("main", &change.table) else { return out.skip(operation) };
        let definition = out.prepare(&relation(feed, &change.columns)).await.unwrap();
        let Some(admitted) = out.admit(&definition, operation, (self.transaction, ordinal), ordinal) else { return };
        let written = match (&change.old, &change.new) {
            (None, new) => admitted.insert(whole(new.as_deref().unwrap())),
            (Some(old), None) => admitted.delete(key(old), None),
            (Some(old), Some(new)) if old[0] == new[0] => admitted.update(Some(whole(old)), whole(new)),
            (Some(old), Some(new)) => admitted.change_key(whole(old), Some(whole(old)), whole(new)),
        };
        written.unwrap();
    }
}

impl Source for Log {
    type Error = Unreadable;
    type Token = Token;
    const HEARTBEAT: Duration = Duration::from_secs(1);

    async fn fill(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Filled, Unreadable> {
        let mut is_new = false;
        loop {
            if self.change == 0 && until.is_some_and(|until| until.transaction <= self.transaction) {
                return Ok(Filled::Reached);
            }
            if out.is_full() {
                return Ok(Filled::Full);
            }
            match self.step(out).await {
                true => is_new = true,
                false if is_new => return Ok(Filled::Drained),
                false => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn progress(&mut self, written: &Emission<Token>) -> SourceProgress {
        let inside = written.inside(10 * self.change as u64);
        let token = match inside {
            Some(Inside { ordinal, index }) => Token { transaction: self.transaction, ordinal, index },
            None if self.resumed.transaction == self.transaction => self.resumed,
            None => Token::at(self.transaction),
        };
        SourceProgress { token: token.resume(), table_changes: Vec::new() }
    }

    async fn acknowledge(&mut self, _durable: Option<&Token>, _written: &Emission<Token>) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// Existing rows: the tables as they were when the snapshot was opened.
pub struct Snapshot {
    database: Database,
    feeds: Arc<Feeds>,
    tables: Rows,
}

impl Prefeed for Snapshot {
    type Error = Unreadable;
    const SLICE_MAX: Duration = Duration::from_secs(1);

    async fn open(&mut self, _feeds: &[ToRead], _within: Duration) -> Result<Opened, Unreadable> {
        let (tables, transactions) = self.database.snapshot();
        self.tables = tables;
        Ok(Opened::Cut(Cut { token: Token::at(transactions).resume(), opened_at: Timestamp::now() }))
    }

    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Unreadable> {
        let feed = self.feeds.get(feed);
        let Table { columns, rows } = &self.tables[&*feed.table];
        let encoder = out.prepare(&relation(feed, columns)).await.unwrap();
        let mut scanned = Scanned { after: after.cloned(), done: false };
        let after: i64 = after.map_or(i64::MIN, |after| after.0.parse::<i64>().unwrap() + 1);
        for (id, row) in rows.range(after..) {
            if out.is_full() {
                return Ok(scanned);
            }
            out.write(&encoder, whole(row)).unwrap();
            scanned.after = Some(ScanPosition(id.to_string().into()));
        }
        Ok(Scanned { done: true, ..scanned })
    }

    async fn is_waited_for(&mut self) -> Result<bool, Unreadable> {
        Ok(false)
    }

    async fn close(&mut self) -> Result<(), Unreadable> {
        self.tables.clear();
        Ok(())
    }

    async fn expected_rows(&mut self, _feed: FeedId) -> Result<Option<u64>, Unreadable> {
        Ok(None)
    }
}

pub struct Head;

impl Probe for Head {
    type Error = Unreadable;

    async fn head(&mut self, _confirmed: &ResumeToken) -> Result<LogHead, Unreadable> {
        Ok(LogHead::default())
    }
}

pub struct Connector {
    database: Database,
    feeds: Arc<Feeds>,
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Snapshot;
    type Probe = Head;
    type Error = Unreadable;

    async fn catalogue(&mut self) -> Result<Catalogue, Unreadable> {
        Ok(Catalogue { database: "exercise".into(), tables: Vec::new() })
    }

    async fn identity(&mut self) -> Result<Identity, Unreadable> {
        Ok(Identity::from([("database".to_owned(), "exercise".to_owned())]))
    }

    async fn recognize(&mut self, _known: &Identity) -> Result<(), Unreadable> {
        Ok(())
    }

    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }

    async fn preflight(&mut self) -> Result<Findings, Unreadable> {
        Ok(Findings::default())
    }

    async fn unclaimed(&mut self) -> Result<(), Unreadable> {
        Ok(())
    }

    async fn resumable(&mut self, _known: &Identity, _resume: &Resume) -> Result<(), Unreadable> {
        Ok(())
    }

    async fn establish(&mut self) -> Result<ResumeToken, Unreadable> {
        Ok(Token::at(self.database.snapshot().1).resume())
    }

    async fn connect(&mut self, _known: &Identity, resume: &Resume) -> Result<Log, Unreadable> {
        let resumed = Token::parse(&resume.token)?;
        let (database, feeds) = (self.database.clone(), Arc::clone(&self.feeds));
        Ok(Log { database, feeds, transaction: resumed.transaction, change: 0, resumed })
    }

    async fn renew(&mut self, _known: &Identity, lost: &Resume) -> Result<Renewed, Unreadable> {
        Ok(Renewed { token: lost.token.clone(), feeds: Vec::new() })
    }

    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Unreadable> {
        Ok(Token::parse(stored)?.is_before(&Token::parse(token)?))
    }

    async fn prefeed(&mut self) -> Result<Snapshot, Unreadable> {
        Ok(Snapshot { database: self.database.clone(), feeds: Arc::clone(&self.feeds), tables: Rows::new() })
    }

    async fn probe(&mut self) -> Result<Head, Unreadable> {
        Ok(Head)
    }

    async fn detach(&mut self) -> Result<Vec<String>, Unreadable> {
        Ok(Vec::new())
    }
}

impl Workload for Database {
    type Connector = Connector;
    const SCHEMA: &'static str = "main";

    fn connector(&self) -> Connector {
        Connector { database: self.clone(), feeds: Arc::default() }
    }

    fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            Self::run(self, statement);
        }
    }
}

crate::contract_source::suite!(Database::default());

#[tokio::test]
async fn events_have_the_columns_that_their_table_had() {
    let mut database = Database::default();
    Workload::run(&mut database, &["CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)"]);
    let mut connector = database.connector();
    let feeds = feeds(vec![feed("main", "t", &["id"], Operations::ALL)]);
    connector.select(Arc::clone(&feeds));
    let begin = connector.establish().await.unwrap();
    Workload::run(
        &mut database,
        &["INSERT INTO t VALUES (1, 'a')", "ALTER TABLE t ADD COLUMN more TEXT", "UPDATE t SET more = 'b' WHERE id = 1"],
    );
    let resume = live(&begin, &begin, 1);
    let log = connector.connect(&Identity::new(), &resume).await.unwrap();
    let end = head(&mut connector).await;
    let batches = Stream::new(log, &feeds, &resume, 16 << 10).batches(&end).await;
    let after: Vec<_> = batches.iter().flat_map(|batch| &batch.records).map(|record| record.field("after")).collect();
    assert_eq!(after, [serde_json::json!({"id": 1, "note": "a"}), serde_json::json!({"id": 1, "note": "a", "more": "b"})]);
}
