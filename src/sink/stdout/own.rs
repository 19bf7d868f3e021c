//! Whether a file that is there already was written by this pipeline: nothing else is appended to, and nothing else is cut.

use super::{Error, Options, Target};
use crate::format;
use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Which file it is: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node(u64, u64);

impl Node {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// How much of the file stays: all but what a crash left of a last line.
///
/// # Errors
/// Where it is no regular file, or holds anything that this pipeline did not write.
pub(super) fn kept(file: &mut File, path: &Path, options: &Options, known: Option<Node>) -> Result<u64, Error> {
    let failed = |source| Error::of(&options.target, source);
    let metadata = file.metadata().map_err(failed)?;
    regular(&metadata, path)?;
    let keep = end_of_lines(file).map_err(failed)?;
    // What this process opened before is its own, whatever the format.
    if known == Some(Node::of(&metadata)) {
        return Ok(keep);
    }
    let is_ours = is_ours(file, keep, metadata.len(), &options.pipeline).map_err(failed)?;
    if is_ours { Ok(keep) } else { Err(Error::Foreign { path: path.to_owned(), pipeline: options.pipeline.clone() }) }
}

/// Refuses a pipe, a device, a directory: they have no end to go on from, and nothing stays there.
pub(super) fn regular(metadata: &Metadata, path: &Path) -> Result<(), Error> {
    if metadata.is_file() { Ok(()) } else { Err(Error::Special { path: path.to_owned() }) }
}

/// The same for a path that may lead nowhere yet, changing nothing.
pub(super) fn look(path: &Path, options: &Options) -> Result<(), Error> {
    let failed = |source| Error::of(&Target::File(path.to_owned()), source);
    match std::fs::metadata(path) {
        Ok(metadata) => {
            regular(&metadata, path)?;
            super::openable(path).map_err(failed)?;
            let mut file = File::open(path).map_err(failed)?;
            kept(&mut file, path, options, None).map(drop)
        }
        Err(_) => super::openable(path).map_err(failed),
    }
}

/// Its first line, its last one and what follows that were written by this pipeline. What lies between is only appended to.
fn is_ours(file: &mut File, keep: u64, length: u64, pipeline: &str) -> io::Result<bool> {
    let mut torn = Vec::new();
    file.seek(SeekFrom::Start(keep))?;
    (&mut *file).take(format::EVENT_BEGINS.len() as u64).read_to_end(&mut torn)?;
    let begins = format::EVENT_BEGINS.as_bytes();
    if keep < length && !begins.starts_with(&torn) {
        return Ok(false);
    }
    if keep == 0 {
        return Ok(true);
    }
    let last = start_of_line(file, keep - 1)?;
    for start in [0, last] {
        file.seek(SeekFrom::Start(start))?;
        let mut head = Vec::new();
        let mut reader = BufReader::new((&mut *file).take(keep - start));
        (&mut reader).take(begins.len() as u64).read_to_end(&mut head)?;
        // A line of something else may be as long as the file.
        if head != begins {
            return Ok(false);
        }
        reader.read_until(b'\n', &mut head)?;
        if !format::is_event_of(&head, pipeline) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the last complete line ends.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    start_of_line(file, end)
}

/// Where the line begins to which the byte before `end` belongs, its own line's end left out.
fn start_of_line(file: &mut File, mut end: u64) -> io::Result<u64> {
    let mut block = [0; 4096];
    loop {
        let length = end.min(block.len() as u64);
        if length == 0 {
            return Ok(0);
        }
        let start = end - length;
        let block = &mut block[..usize::try_from(length).expect("a block's length")];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(newline) = memchr::memrchr(b'\n', block) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
}
