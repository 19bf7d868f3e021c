//! Formats: what each promises, and its bytes.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod cloudevents;
mod contract;
mod golden;
mod json;

use feedline::batch::{BatchWriter, Budget, Record};
use feedline::event::{
    Cell, Column, ColumnKind, Elements, Event, FeedId, Operation, Operations, Position, Relation, Row, RowError, Seen, Timestamp,
};
use feedline::feed::{Feed, Feeds, PrefeedKind, feed_name};
use feedline::format::cloudevents::Mode;
use feedline::format::{Envelope, Format};
use std::sync::Arc;

const POSITION: &[u8] = b"00000001-00000000016B3748-1-0000000000000030";

/// Every format, by the name of its golden file. A new format is added here.
fn formats(tombstones: bool) -> [(&'static str, Format); 3] {
    let envelope = Arc::new(envelope(tombstones));
    [
        ("json", Format::Json(Arc::clone(&envelope))),
        ("cloudevents_binary", Format::CloudEvents(Arc::clone(&envelope), Mode::Binary)),
        ("cloudevents_structured", Format::CloudEvents(envelope, Mode::Structured)),
    ]
}

fn envelope(tombstones: bool) -> Envelope {
    Envelope { name: "shop".into(), backend: "postgres", database: "shop".into(), tombstones }
}

/// A row of cells.
#[derive(Clone, Copy)]
pub struct Cells<'a>(pub &'a [Cell<'a>]);

impl Row for Cells<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.0.iter().try_for_each(|cell| visit(*cell))
    }
}

impl Elements for Cells<'_> {
    fn visit(&self, visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.0.iter().try_for_each(|cell| visit(*cell))
    }
}

/// A table with these columns, which are key or not.
fn relation(columns: &[(&str, bool)]) -> Relation {
    let columns = columns.iter().map(|&(name, key)| Column::new(name, ColumnKind::Any, key)).collect();
    Relation { feed: FeedId(0), schema: "public".into(), table: "orders".into(), columns }
}

/// The feed of that table.
fn feeds() -> Feeds {
    Feeds::new(vec![Feed {
        id: FeedId(0),
        name: feed_name("public", "orders"),
        schema: "public".into(),
        table: "orders".into(),
        operations: Operations::ALL,
        prefeed: PrefeedKind::Snapshot,
        stage: 1,
        key: vec!["id".into()],
        columns: Vec::new(),
        leaves_values_out: false,
        destinations: std::array::from_fn(|_| "orders".into()),
    }])
}

fn event(operation: Operation) -> Event<'static, Cells<'static>> {
    Event {
        operation,
        position: Position::new(POSITION),
        timestamp: Timestamp(1_795_418_728_123_456),
        seen: Seen::Alone,
        key: None,
        before: None,
        after: None,
        counterpart: None,
    }
}

async fn writer() -> BatchWriter {
    Budget::new(1 << 20, 1 << 20).writer().await
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn only(out: &BatchWriter) -> Record<'_> {
    let mut records = out.records();
    let record = records.next().unwrap();
    assert_eq!(records.len(), 0);
    record
}
