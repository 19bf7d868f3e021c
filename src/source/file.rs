//! Rows from a file of JSON lines: a prefeed that no database holds. It serves every source.
//!
//! Each line is one row, an object of columns by name. The place after a line is known by its offset and by a checksum of all
//! before it, so that a file that changed between two runs is noticed.

use crate::batch::BatchWriter;
use crate::checkpoint::ScanPosition;
use crate::event::{Column, Event, FeedId, Operation, Relation, RowError};
use crate::fault::{Classify, Code, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::format::{Encoder, Format};
use crate::source::{Cut, RowPositions, Scanned, Slice};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod line;
mod lines;

use line::JsonRow;
use lines::{LinePosition, Lines};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened or read.
    #[error(
        "file {path} of feeds.prefeed cannot be read: {source}; check the path, which begins at the working directory unless it is absolute, and its permissions"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is not the file that was begun.
    #[error(
        "file {path} of feeds.prefeed changed since its first {offset} bytes were read: put the old one back, or read it from the first line with `feedline checkpoint rewind --feed TABLE`"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// How far it was read.
        offset: u64,
    },
    /// A line is not a row of the table.
    #[error("file {path} of feeds.prefeed, line {line}: {reason}; correct the line and start again, nothing behind it was sent")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        match self {
            Self::Unreadable { .. } => Code::DatasetUnreadable,
            Self::Changed { .. } => Code::DatasetChanged,
            Self::Line { .. } => Code::DatasetLine,
        }
    }
}

/// Which files cannot be opened, before anything is made.
#[must_use]
pub fn check(feeds: &Feeds) -> Vec<Error> {
    feeds.iter().filter_map(path_of).filter_map(|path| open(path).err()).collect()
}

/// How many rows the feed's file holds, roughly: as many as its size allows with lines of 200 bytes.
#[must_use]
pub fn expected_rows(feed: &Feed) -> Option<u64> {
    let size = path_of(feed)?.metadata().ok()?.len();
    Some(size / 200)
}

fn path_of(feed: &Feed) -> Option<&Arc<Path>> {
    match &feed.prefeed {
        PrefeedKind::File(path) => Some(path),
        PrefeedKind::None | PrefeedKind::Snapshot | PrefeedKind::Query(_) => None,
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let opened = File::open(path)
        .and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) });
    opened.map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

/// Reads the files of the feeds that have one.
#[derive(Debug)]
pub struct Dataset {
    format: Format,
    /// The file that is being read.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    feed: FeedId,
    lines: Lines,
    encoder: Encoder,
}

impl Dataset {
    /// A reader that has opened nothing yet.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, reading: None }
    }

    /// Appends the rows after `after` until the batch is full or the file ends, at positions of `place`.
    ///
    /// # Errors
    /// Where the file cannot be read, is not the one that was begun, or holds something else than rows.
    pub async fn load(
        &mut self,
        feed: &Feed,
        place: &str,
        cut: &Cut,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Error> {
        let mut reading = match self.reading.take() {
            Some(reading) if reading.feed == feed.id && after == Some(&reading.lines.place().into()) => reading,
            _ => self.begin(feed, after).await?,
        };
        let positions = slice.positions(place);
        let mut rows = 0;
        let done = loop {
            if out.is_full() {
                break false;
            }
            if !reading.lines.is_ahead() {
                reading.lines = read_ahead(reading.lines).await?;
            }
            let Some(()) = reading.write_line(feed, cut, &positions, slice, out, &mut rows)? else { break true };
        };
        let position = ScanPosition::from(reading.lines.place());
        self.reading = Some(reading);
        Ok(Scanned { after: Some(position), rows, done })
    }

    async fn begin(&self, feed: &Feed, after: Option<&ScanPosition>) -> Result<Reading, Error> {
        let path = path_of(feed).expect("only feeds with a file are loaded").to_path_buf();
        let place = after.and_then(LinePosition::parse).unwrap_or_default();
        let lines = blocking(move || Lines::open(path, place)).await?;
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        let columns = feed.columns.iter().map(|name| Column { name: name.clone(), key: is_key(name) }).collect();
        let relation = Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns };
        let encoder = self.format.prepare(&relation).await.map_err(|error| lines.refused(error.to_string()))?;
        Ok(Reading { feed: feed.id, lines, encoder })
    }
}

impl Reading {
    /// Writes the next line, if it is a row; `None` at the end.
    fn write_line(
        &mut self,
        feed: &Feed,
        cut: &Cut,
        positions: &RowPositions,
        slice: &mut Slice,
        out: &mut BatchWriter,
        rows: &mut u64,
    ) -> Result<Option<()>, Error> {
        let Some(text) = self.lines.peek() else { return Ok(None) };
        if !text.trim_ascii().is_empty() {
            let row = JsonRow::parse(text, feed).map_err(|reason| self.lines.refused(reason))?;
            let event = Event {
                operation: Operation::Read,
                position: positions.of(slice.take_row()),
                timestamp: cut.opened_at,
                transaction: None,
                key: Some(&row),
                before: None,
                after: Some(&row),
                counterpart: None,
            };
            self.encoder.write(&event, out).map_err(|error: RowError| self.lines.refused(error.to_string()))?;
            *rows += 1;
        }
        self.lines.advance();
        Ok(Some(()))
    }
}

async fn read_ahead(mut lines: Lines) -> Result<Lines, Error> {
    blocking(move || lines.read_ahead().map(|()| lines)).await
}

/// Disks may take their time: not on the thread that keeps the source alive.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
