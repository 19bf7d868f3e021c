//! Checks that an existing file was written by this pipeline. Any other file is neither appended to nor cut.

use super::error::Error;
use super::options::{Options, Target};
use crate::format;
use rustix::fs::{Access, access};
use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Identifies a file: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// Returns how many bytes of the file are complete lines; the rest is an unfinished line that a crash left. `written_file` is the
/// file that this process wrote to before.
///
/// # Errors
/// If it is not a regular file, or holds anything that this pipeline did not write.
pub(super) fn complete_bytes(file: &mut File, path: &Path, options: &Options, written_file: Option<FileId>) -> Result<u64, Error> {
    let failed = |source| Error::of(&options.target, source);
    let metadata = file.metadata().map_err(failed)?;
    check_regular(&metadata, path)?;
    let complete = end_of_lines(file).map_err(failed)?;
    // A file that this process opened before is its own, whatever the format.
    if written_file == Some(FileId::of(&metadata)) {
        return Ok(complete);
    }
    let is_ours = is_ours(file, complete, metadata.len(), &options.pipeline).map_err(failed)?;
    if is_ours { Ok(complete) } else { Err(Error::Foreign { path: path.to_owned(), pipeline: options.pipeline.clone() }) }
}

/// Refuses a pipe, a device or a directory: a pipe and a device keep nothing, and none of them has an end to append to.
pub(super) fn check_regular(metadata: &Metadata, path: &Path) -> Result<(), Error> {
    if metadata.is_file() { Ok(()) } else { Err(Error::Special { path: path.to_owned() }) }
}

/// Checks whether `path` could be opened for appending, or created. Read-only.
pub(super) fn check_path(path: &Path, options: &Options) -> Result<(), Error> {
    let failed = |source| Error::of(&Target::File(path.to_owned()), source);
    match std::fs::metadata(path) {
        Ok(metadata) => {
            check_regular(&metadata, path)?;
            check_access(path).map_err(failed)?;
            let mut file = File::open(path).map_err(failed)?;
            complete_bytes(&mut file, path, options, None).map(drop)
        }
        Err(_) => check_access(path).map_err(failed),
    }
}

/// Checks the permissions to write the file, or to create it if it does not exist.
fn check_access(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(access(path, Access::READ_OK | Access::WRITE_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the first line, the last complete line and the unfinished rest are events of this pipeline. The lines between are not
/// read: the file is only appended to.
fn is_ours(file: &mut File, complete: u64, length: u64, pipeline: &str) -> io::Result<bool> {
    let longest = format::LINE_BEGINS.iter().map(|begins| begins.len()).max().unwrap_or(0) as u64;
    let mut unfinished = Vec::new();
    file.seek(SeekFrom::Start(complete))?;
    (&mut *file).take(longest).read_to_end(&mut unfinished)?;
    let may_begin = |begins: &&str| begins.bytes().zip(&unfinished).all(|(expected, found)| expected == *found);
    if complete < length && !format::LINE_BEGINS.iter().any(may_begin) {
        return Ok(false);
    }
    if complete == 0 {
        return Ok(true);
    }
    let last = start_of_line(file, complete - 1)?;
    for start in [0, last] {
        file.seek(SeekFrom::Start(start))?;
        let mut line = Vec::new();
        let mut reader = BufReader::new((&mut *file).take(complete - start));
        (&mut reader).take(longest).read_to_end(&mut line)?;
        // Checked before the rest is read: a line of another program may be as long as the file.
        if !format::LINE_BEGINS.iter().any(|begins| line.starts_with(begins.as_bytes())) {
            return Ok(false);
        }
        reader.read_until(b'\n', &mut line)?;
        if !format::is_line_of(&line, pipeline) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The offset behind the last complete line.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    start_of_line(file, end)
}

/// The offset behind the last newline before `end`; 0 if there is none.
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
