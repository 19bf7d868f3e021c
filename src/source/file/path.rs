//! The file of a feed: where it is, whether it opens, and about how many rows it holds.

use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::source::file::error::Error;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Returns an error for each feed's file that cannot be opened.
#[must_use]
pub fn check(feeds: &Feeds) -> Vec<Error> {
    feeds.iter().filter_map(path_of).filter_map(|path| open(path).err()).collect()
}

/// Estimates how many rows the feed's file holds, from its size: 200 bytes per line.
#[must_use]
pub fn expected_rows(feed: &Feed) -> Option<u64> {
    let size = path_of(feed)?.metadata().ok()?.len();
    Some(size / 200)
}

pub(super) fn path_of(feed: &Feed) -> Option<&Arc<Path>> {
    match &feed.prefeed {
        PrefeedKind::File(path) => Some(path),
        PrefeedKind::None | PrefeedKind::Snapshot | PrefeedKind::Query(_) => None,
    }
}

pub(super) fn open(path: &Path) -> Result<File, Error> {
    let opened = File::open(path)
        .and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) });
    opened.map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}
