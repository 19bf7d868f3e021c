//! A session with a source as the engine has one: the source, and what writes its events.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use feedline::batch::BatchWriter;
use feedline::checkpoint::{ResumeToken, ScanPosition};
use feedline::event::{FeedId, Timestamp};
use feedline::feed::Feeds;
use feedline::format::{Encoders, Envelope, Format};
use feedline::source::{Emission, Emitter, Filled, LogToken as _, Prefeed, Resume, RowEmitter, Slice, Source, SourceProgress, TableChange};
use feedline::status::metrics::SourceMetrics;
use std::sync::Arc;

/// A source, and the state behind its events.
pub(crate) struct Session<S: Source> {
    pub(crate) source: S,
    emission: Emission<S::Token>,
    table_changes: Vec<TableChange>,
}

impl<S: Source> Session<S> {
    pub(crate) fn new(source: S, feeds: &Arc<Feeds>, resume: &Resume, encoders: Encoders, metrics: SourceMetrics) -> Self {
        let emission = Emission::new(encoders, Arc::clone(feeds), &resume.feeds, metrics);
        Self { source, emission: emission.unwrap_or_else(|error| panic!("a feed's start: {error}")), table_changes: Vec::new() }
    }

    pub(crate) async fn fill(&mut self, out: &mut BatchWriter, until: Option<&ResumeToken>) -> Result<Filled, S::Error> {
        let until = until.map(S::Token::parse).transpose()?;
        let filled = self.source.fill(&mut Emitter::new(&mut self.emission, out), until.as_ref()).await;
        self.emission.report();
        filled
    }

    pub(crate) fn start(&mut self, feed: FeedId, start: &ResumeToken) {
        let start = S::Token::parse(start).unwrap_or_else(|error| panic!("a feed's start: {error}"));
        self.emission.start(feed, start);
    }

    pub(crate) fn token(&mut self) -> ResumeToken {
        let SourceProgress { token, mut table_changes } = self.source.progress(&self.emission);
        self.table_changes.append(&mut table_changes);
        token
    }

    pub(crate) fn table_changes(&mut self) -> Vec<TableChange> {
        self.token();
        std::mem::take(&mut self.table_changes)
    }

    pub(crate) async fn acknowledge(&mut self, durable: Option<&ResumeToken>) -> Result<(), S::Error> {
        let durable = durable.map(S::Token::parse).transpose()?;
        self.source.acknowledge(durable.as_ref(), &self.emission).await
    }
}

/// The encoders of a pipeline with this name, that writes JSON.
pub(crate) fn encoders(pipeline: &str, backend: &'static str, database: &str) -> Encoders {
    let envelope = Envelope { name: pipeline.into(), backend, database: database.into(), tombstones: false };
    Encoders::new(Format::Json(Arc::new(envelope)))
}

/// What one call of [`Prefeed::scan`] did.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) after: Option<ScanPosition>,
    pub(crate) rows: u64,
    pub(crate) done: bool,
}

/// Reads rows of a slice whose positions begin with `prefix`.
pub(crate) async fn scan<P: Prefeed>(
    prefeed: &mut P,
    prefix: &str,
    feed: FeedId,
    after: Option<&ScanPosition>,
    slice: &mut Slice,
    out: &mut BatchWriter,
) -> Result<Scan, P::Error> {
    let mut rows = RowEmitter::new(encoders("shop", "scanned", "shop"), prefix, Timestamp::now(), slice, out);
    let scanned = prefeed.scan(feed, after, &mut rows).await?;
    Ok(Scan { after: scanned.after, rows: rows.written(), done: scanned.done })
}

/// A cut as the positions of its rows begin with it.
pub(crate) fn prefix<S: Source>(cut: &ResumeToken) -> String {
    S::Token::parse(cut).unwrap_or_else(|error| panic!("a cut: {error}")).position_prefix()
}
