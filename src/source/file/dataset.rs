//! Reads the rows of a feed's file, and resumes behind the last one sent.

use crate::checkpoint::ScanPosition;
use crate::event::{Column, ColumnKind, FeedId, Relation, RowError};
use crate::feed::Feed;
use crate::format::Encoder;
use crate::source::file::error::Error;
use crate::source::file::line::JsonRow;
use crate::source::file::lines::{LinePosition, Lines};
use crate::source::file::path::path_of;
use crate::source::prefeed::Scanned;
use crate::source::rows::RowEmitter;

/// Reads the files of the feeds that have one.
#[derive(Debug, Default)]
pub struct Dataset {
    /// The file that is being read.
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    feed: FeedId,
    lines: Lines,
    encoder: Encoder,
}

impl Dataset {
    /// Gives `out` the rows behind `after` until the batch is full or the file ends.
    ///
    /// # Errors
    /// Where the file cannot be read, is not the one that was begun, or has a line that is no row.
    pub async fn load(&mut self, feed: &Feed, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Error> {
        let mut file = match self.open.take() {
            Some(file) if file.feed == feed.id && after == Some(&file.lines.position().into()) => file,
            _ => open_at(feed, after, out).await?,
        };
        let done = loop {
            if out.is_full() {
                break false;
            }
            if !file.lines.has_line() {
                file.lines = read_ahead(file.lines).await?;
            }
            let Some(()) = file.write_line(feed, out)? else { break true };
        };
        let position = ScanPosition::from(file.lines.position());
        self.open = Some(file);
        Ok(Scanned { after: Some(position), done })
    }
}

async fn open_at(feed: &Feed, after: Option<&ScanPosition>, out: &RowEmitter<'_>) -> Result<OpenFile, Error> {
    let path = path_of(feed).expect("only feeds with a file are loaded").to_path_buf();
    let position = after.and_then(LinePosition::parse).unwrap_or_default();
    let lines = blocking(move || Lines::open(path, position)).await?;
    let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
    let columns = feed.columns.iter().map(|name| Column::new(name.clone(), ColumnKind::Any, is_key(name))).collect();
    let relation = Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns };
    let encoder = out.prepare(&relation).await?;
    Ok(OpenFile { feed: feed.id, lines, encoder })
}

impl OpenFile {
    /// Writes the next line if it is not blank; `None` at the end of the file.
    fn write_line(&mut self, feed: &Feed, out: &mut RowEmitter<'_>) -> Result<Option<()>, Error> {
        let Some(line) = self.lines.peek() else { return Ok(None) };
        if !line.trim_ascii().is_empty() {
            let row = JsonRow::parse(line, feed).map_err(|reason| self.lines.refuse_next(reason))?;
            out.write(&self.encoder, &row).map_err(|error: RowError| self.lines.refuse_next(error.to_string()))?;
        }
        self.lines.advance();
        Ok(Some(()))
    }
}

async fn read_ahead(mut lines: Lines) -> Result<Lines, Error> {
    blocking(move || lines.read_ahead().map(|()| lines)).await
}

/// Runs work that may wait for a disk, off the thread that keeps the source alive.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
