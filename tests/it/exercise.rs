//! A backend as an exercise: a database in memory, its log, its snapshots. It is a source with nothing but its own protocol, and passes the
//! contract of every source.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod database;

use crate::contract_source::{Fixture, Refusal, RowChange, Workload};
use crate::format::Cells;
use database::{Change, Database, State, Table};
use feedline::checkpoint::{Identity, ResumeToken, ScanPosition};
use feedline::event::{Cell, Column, ColumnKind, FeedId, Operation, Operations, Relation, Timestamp};
use feedline::fault::Code;
use feedline::feed::{Catalogue, Feed, Feeds, TableName};
use feedline::preflight::Findings;
use feedline::source::{
    Cut, Emission, Emitter, Filled, HandedOver, Inside, LogToken, Opened, Prefeed, Probe, Renewed, Resume, RowEmitter, Scanned, Source,
    SourceConnector, SourceProgress, ToRead,
};
use feedline::status::LogHead;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// A position: a transaction, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Token(usize, Inside);

impl LogToken for Token {
    type Error = Refusal;
    type Change = (usize, u64);

    fn parse(token: &ResumeToken) -> Result<Self, Refusal> {
        let read = serde_json::from_str(&token.0);
        let (transaction, ordinal, index) =
            read.map_err(|_| Refusal::fatal(Code::SourceProtocol, format!("{} is not a position in the log", token.0)))?;
        Ok(Self(transaction, Inside { ordinal, index }))
    }
    fn is_before(&self, other: &Self) -> bool {
        self < other
    }
    fn admits(&self, change: (usize, u64)) -> bool {
        (self.0, self.1.ordinal) <= change
    }
    fn position_prefix(&self) -> String {
        format!("{:012}", self.0)
    }
}

impl From<Token> for ResumeToken {
    fn from(Token(transaction, Inside { ordinal, index }): Token) -> Self {
        Self(format!("[{transaction},{ordinal},{index}]").into())
    }
}

fn cells(row: &[String]) -> Vec<Cell<'_>> {
    row.iter().enumerate().map(|(column, value)| if column == 0 { Cell::Integer(value) } else { Cell::Text(value) }).collect()
}

fn relation(feed: &Feed, columns: &[String]) -> Relation {
    let columns = columns.iter().enumerate().map(|(column, name)| Column::new(name.as_str(), ColumnKind::Any, column == 0));
    Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns: columns.collect() }
}

/// The open log.
pub struct Log {
    database: watch::Receiver<State>,
    feeds: Arc<Feeds>,
    /// The transaction that is read next or being read, and what an earlier session handed over of it.
    at: Token,
    /// Orders the changes of the transaction: the next one in it. Each takes two.
    ordinal: u64,
}

impl Log {
    async fn write(&self, change: &Change, out: &mut Emitter<'_, Token>) {
        let Change { table, columns, old, new } = change;
        let operation = match (old, new) {
            (None, _) => Operation::Insert,
            (_, None) => Operation::Delete,
            _ => Operation::Update,
        };
        let Some(feed) = self.feeds.of_table("main", table) else { return out.skip(operation) };
        let definition = out.prepare(&relation(feed, columns)).await.unwrap();
        let Some(admitted) = out.admit(&definition, operation, (self.at.0, self.ordinal), self.ordinal) else { return };
        let keeps_key = old.as_ref().map(|row| &row[0]) == new.as_ref().map(|row| &row[0]);
        let (old, new) = (old.as_deref().map(cells), new.as_deref().map(cells));
        match (old.as_deref().map(Cells), new.as_deref().map(Cells)) {
            (old, Some(new)) if keeps_key => admitted.update(old, new),
            (Some(old), Some(new)) => admitted.change_key(old, Some(old), new),
            (Some(old), None) => admitted.delete(old, Some(old)),
            (None, new) => admitted.insert(new.unwrap()),
        }
        .unwrap();
    }
}

impl Source for Log {
    type Error = Refusal;
    type Token = Token;
    const HEARTBEAT: Duration = Duration::from_secs(1);

    async fn fill(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Filled, Refusal> {
        let (begun, limit) = (self.at.0, until.map_or(usize::MAX, |until| until.0));
        drop(self.database.wait_for(|state| begun < state.log.len() || limit <= begun).await);
        while self.ordinal != 0 || self.at.0 < limit {
            if out.is_full() {
                return Ok(Filled::Full);
            }
            let Token(transaction, handed_over) = self.at;
            let Some(changes) = self.database.borrow().log.get(transaction).cloned() else { return Ok(Filled::Drained) };
            if self.ordinal == 0 {
                out.begin(self.at.position_prefix().as_bytes(), Timestamp(0), &transaction.to_string(), HandedOver::Until(handed_over));
            }
            if let Some(change) = changes.get(usize::try_from(self.ordinal / 2).unwrap()) {
                self.write(change, out).await;
                self.ordinal += 2;
            } else {
                out.commit();
                (self.at, self.ordinal) = (Token(transaction + 1, Inside::default()), 0);
            }
        }
        Ok(Filled::Reached)
    }
    fn progress(&mut self, written: &Emission<Token>) -> SourceProgress {
        let token = Token(self.at.0, written.inside(self.ordinal).unwrap_or(self.at.1));
        SourceProgress { token: token.into(), table_changes: Vec::new() }
    }
    async fn acknowledge(&mut self, _durable: Option<&Token>, _written: &Emission<Token>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The database as a new process finds it, and as an open snapshot shows it.
#[derive(Clone)]
pub struct Connector {
    database: Database,
    feeds: Arc<Feeds>,
    shown: State,
}

impl Prefeed for Connector {
    type Error = Refusal;
    const SLICE_MAX: Duration = Duration::from_secs(1);

    async fn open(&mut self, _feeds: &[ToRead], _within: Duration) -> Result<Opened, Refusal> {
        self.shown = self.database.borrow().clone();
        Ok(Opened::Cut(Cut { token: Token(self.shown.log.len(), Inside::default()).into(), opened_at: Timestamp::now() }))
    }
    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Refusal> {
        let feed = self.feeds.get(feed);
        let Table { columns, rows } = &self.shown.tables[&*feed.table];
        let encoder = out.prepare(&relation(feed, columns)).await.unwrap();
        let mut scanned = Scanned { after: after.cloned(), done: false };
        for (id, row) in rows.range(after.map_or(0, |after| after.0.parse::<u32>().unwrap() + 1)..) {
            if out.is_full() {
                return Ok(scanned);
            }
            out.write(&encoder, Cells(&cells(row))).unwrap();
            scanned.after = Some(ScanPosition(id.to_string().into()));
        }
        Ok(Scanned { done: true, ..scanned })
    }
    async fn close(&mut self) -> Result<(), Refusal> {
        self.shown = State::default();
        Ok(())
    }
}

impl Probe for Connector {
    type Error = Refusal;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Refusal> {
        Ok(LogHead { caught_up: self.database.borrow().log.len() <= Token::parse(confirmed)?.0, ..LogHead::default() })
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Refusal> {
        Ok(Vec::new())
    }
}

impl SourceConnector for Connector {
    type Source = Log;
    type Prefeed = Self;
    type Probe = Self;
    type Error = Refusal;

    async fn catalogue(&mut self) -> Result<Catalogue, Refusal> {
        Ok(Catalogue { database: "exercise".into(), tables: Vec::new(), views: Vec::new() })
    }
    async fn identity(&mut self) -> Result<Identity, Refusal> {
        Ok(Identity::from([("database".to_owned(), "exercise".to_owned())]))
    }
    async fn recognize(&mut self, _known: &Identity) -> Result<(), Refusal> {
        Ok(())
    }
    fn select(&mut self, feeds: Arc<Feeds>) {
        self.feeds = feeds;
    }
    async fn preflight(&mut self) -> Result<Findings, Refusal> {
        Ok(Findings::default())
    }
    async fn establish(&mut self) -> Result<ResumeToken, Refusal> {
        Ok(Token(self.database.borrow().log.len(), Inside::default()).into())
    }
    async fn connect(&mut self, _known: &Identity, resume: &Resume) -> Result<Log, Refusal> {
        let (database, feeds) = (self.database.subscribe(), Arc::clone(&self.feeds));
        Ok(Log { database, feeds, at: Token::parse(&resume.token)?, ordinal: 0 })
    }
    async fn renew(&mut self, _known: &Identity, lost: &Resume) -> Result<Renewed, Refusal> {
        Ok(Renewed { token: lost.token.clone(), feeds: Vec::new() })
    }
    async fn prefeed(&mut self) -> Result<Self, Refusal> {
        Ok(self.clone())
    }
    async fn probe(&mut self) -> Result<Self, Refusal> {
        Ok(self.clone())
    }
}

impl Workload for Database {
    type Connector = Connector;

    fn schema(&self) -> &'static str {
        "main"
    }

    fn connector(&self) -> Connector {
        Connector { database: self.clone(), feeds: Arc::default(), shown: State::default() }
    }
    fn create(&mut self, table: &str) {
        self.send_modify(|state| ["id", "note"].iter().for_each(|column| state.add_column(table, column, "")));
    }
    fn write(&mut self, table: &str, transaction: &[RowChange]) {
        self.send_modify(|state| state.commit(table, transaction));
    }
}

crate::contract_source::suite!(Database::default());

#[tokio::test]
async fn events_have_the_columns_that_their_table_had() {
    let mut fixture = Fixture::new(Database::default(), Operations::ALL).await;
    fixture.workload.write("contract_a", &[RowChange { old: None, new: Some((1, "a".to_owned())) }]);
    fixture.workload.send_modify(|state| state.add_column("contract_a", "more", "b"));
    fixture.workload.write("contract_a", &[RowChange { old: Some(1), new: Some((1, "c".to_owned())) }]);
    let after: Vec<_> = fixture.read_all().await.iter().map(|record| record.field("after")).collect();
    assert_eq!(after, [serde_json::json!({"id": 1, "note": "a"}), serde_json::json!({"id": 1, "note": "c", "more": "b"})]);
}
