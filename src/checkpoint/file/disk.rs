//! The checkpoint file on disk; everything here blocks.

use super::error::FileError;
use super::image::{self, Newest};
use crate::checkpoint::fold::Checkpoint;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A locked checkpoint.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    current: Current,
    lock: File,
}

/// How long a lock that somebody has is waited for: who only looks has it for a moment.
const LOOK_MAX: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What is known of the file.
#[derive(Debug)]
enum Current {
    Unread,
    /// There was none.
    Missing,
    Open {
        file: File,
        generation: u64,
        slot: usize,
        slot_bytes: usize,
    },
    /// A write failed, or has not come to its end.
    Failed,
}

impl Drop for Disk {
    /// Closing is not enough: a process that is being started holds copies of all that is open.
    fn drop(&mut self) {
        let _closed_next = self.lock.unlock();
    }
}

impl Disk {
    pub(super) fn lock(path: &Path) -> Result<Self, FileError> {
        let lock_path = beside(path, ".lock");
        let lock = options().read(true).write(true).create(true).open(&lock_path);
        let mut lock = lock.map_err(|error| unlockable(path, &lock_path, error))?;
        let until = Instant::now() + LOOK_MAX;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => return Err(FileError::Held { path: path.to_owned(), holder: holder(lock) }),
                Err(TryLockError::Error(error)) => return Err(unreadable("lock", &lock_path, error)),
            }
        }
        // The number only makes another process's error more helpful: a full disk may keep it out.
        let _unwritten = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), current: Current::Unread, lock })
    }

    pub(super) fn load(&mut self) -> Result<Option<Checkpoint>, FileError> {
        if matches!(self.current, Current::Failed) {
            return Err(FileError::Poisoned { path: self.path.clone() });
        }
        let Some(file) = open(&self.path, true)? else {
            self.current = Current::Missing;
            return Ok(None);
        };
        // What the last process wrote and did not live to sync is made durable before anyone builds on it.
        self.current = Current::Failed;
        file.sync_data().map_err(|error| unwritable("sync checkpoint", &self.path, error))?;
        self.current = Current::Unread;
        let image = read(&self.path, &file)?;
        let newest = newest(&self.path, &image)?;
        let checkpoint = decode(&self.path, &newest)?;
        if let Some(fault) = image::damage(&image, &newest) {
            tracing::warn!(path = %self.path.display(), generation = newest.generation, slot = 1 - newest.slot, %fault,
                "the checkpoint's other slot is unusable, as after a crash in a write; this one counts");
        }
        let Newest { generation, slot, slot_bytes, .. } = newest;
        self.current = Current::Open { file, generation, slot, slot_bytes };
        Ok(Some(checkpoint))
    }

    pub(super) fn save(&mut self, payload: &[u8]) -> Result<(), FileError> {
        if matches!(self.current, Current::Unread) {
            self.load()?;
        }
        // Whatever goes wrong from here on, a panic too, leaves it failed.
        self.current = match std::mem::replace(&mut self.current, Current::Failed) {
            Current::Open { file, generation, slot, slot_bytes } if image::fits(payload.len(), slot_bytes) => {
                let slot = 1 - slot;
                self.overwrite(&file, generation + 1, slot, slot_bytes, payload)?;
                Current::Open { file, generation: generation + 1, slot, slot_bytes }
            }
            Current::Open { file, generation, .. } => {
                self.check_in_place(&file)?;
                self.make(generation + 1, payload)?
            }
            Current::Missing => self.make(1, payload)?,
            Current::Unread | Current::Failed => return Err(FileError::Poisoned { path: self.path.clone() }),
        };
        Ok(())
    }

    fn overwrite(&self, file: &File, generation: u64, slot: usize, slot_bytes: usize, payload: &[u8]) -> Result<(), FileError> {
        self.check_in_place(file)?;
        let bytes = image::write(generation, slot_bytes, payload);
        file.write_all_at(&bytes, (slot * slot_bytes) as u64).map_err(|error| unwritable("write checkpoint", &self.path, error))?;
        file.sync_data().map_err(|error| unwritable("sync checkpoint", &self.path, error))
    }

    /// Refuses to write to a file that the path no longer names: nobody would find it.
    fn check_in_place(&self, file: &File) -> Result<(), FileError> {
        let of = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let opened = file.metadata().map_err(|error| unreadable("look at checkpoint", &self.path, error))?;
        match fs::symlink_metadata(&self.path) {
            Ok(named) if of(&named) == of(&opened) => Ok(()),
            Ok(_) => Err(FileError::Replaced { path: self.path.clone() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(FileError::Replaced { path: self.path.clone() }),
            Err(error) => Err(unreadable("look at checkpoint", &self.path, error)),
        }
    }

    /// A new file with room for the payload takes the old one's place, or none's.
    fn make(&self, generation: u64, payload: &[u8]) -> Result<Current, FileError> {
        let too_large = || FileError::TooLarge { path: self.path.clone(), bytes: payload.len() };
        let slot_bytes = image::slot_bytes_for(payload.len()).ok_or_else(too_large)?;
        let new_path = beside(&self.path, ".new");
        let made = self.make_at(&new_path, generation, slot_bytes, payload);
        if made.is_err() {
            // What is left over is overwritten by the next attempt; the error that counts is the one at hand.
            let _leftover = fs::remove_file(&new_path);
        }
        Ok(Current::Open { file: made?, generation, slot: 0, slot_bytes })
    }

    fn make_at(&self, new_path: &Path, generation: u64, slot_bytes: usize, payload: &[u8]) -> Result<File, FileError> {
        let failed = |action| move |error| unwritable(action, new_path, error);
        // What lies there was left over by a crash, or put there by somebody who may keep it open.
        match fs::remove_file(new_path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove what is in the way of the checkpoint")(error)),
            _ => {}
        }
        let mut file = options().read(true).write(true).create_new(true).open(new_path).map_err(failed("make checkpoint"))?;
        let mut bytes = image::write(generation, slot_bytes, payload);
        // Zeros are written and not only promised, so that later writes need no space and no change of the file's extents.
        bytes.resize(2 * slot_bytes, 0);
        file.write_all(&bytes).map_err(failed("write checkpoint"))?;
        file.sync_all().map_err(failed("sync checkpoint"))?;
        fs::rename(new_path, &self.path).map_err(failed("rename checkpoint"))?;
        self.sync_directory()?;
        Ok(file)
    }

    fn sync_directory(&self) -> Result<(), FileError> {
        let directory = directory_of(&self.path);
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unwritable("sync directory", directory, error))
    }

    pub(super) fn remove(&mut self) -> Result<bool, FileError> {
        match fs::remove_file(&self.path) {
            Ok(()) => {
                self.current = Current::Missing;
                self.sync_directory().map(|()| true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unwritable("remove checkpoint", &self.path, error)),
        }
    }
}

pub(super) fn inspect(path: &Path) -> Result<Option<Checkpoint>, FileError> {
    let Some(file) = open(path, false)? else { return Ok(None) };
    let image = read(path, &file)?;
    decode(path, &newest(path, &image)?).map(Some)
}

/// Who keeps others out of the checkpoint at `path`, as the error that they meet. The lock is not waited for; where nobody has it,
/// it is taken for the moment of the look, shared.
pub(super) fn look_at_lock(path: &Path) -> Result<Option<FileError>, FileError> {
    let lock_path = beside(path, ".lock");
    let lock = match options().read(true).open(&lock_path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unlockable(path, &lock_path, error)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(FileError::Held { path: path.to_owned(), holder: holder(lock) })),
        Err(TryLockError::Error(error)) => Err(unreadable("lock", &lock_path, error)),
    }
}

/// The directory of a checkpoint.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Why nothing can be locked beside the checkpoint: `place` is the lock, or its directory.
pub(super) fn unlockable(path: &Path, place: &Path, error: io::Error) -> FileError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileError::DirectoryMissing { path: path.to_owned() },
        _ => unreadable("lock", place, error),
    }
}

/// The file; `None` only where the system says that it does not exist.
fn open(path: &Path, write: bool) -> Result<Option<File>, FileError> {
    let file = match options().read(true).write(write).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable("open checkpoint", path, error)),
    };
    let metadata = file.metadata().map_err(|error| unreadable("look at checkpoint", path, error))?;
    if metadata.is_file() { Ok(Some(file)) } else { Err(FileError::NotAFile { path: path.to_owned() }) }
}

fn read(path: &Path, file: &File) -> Result<Vec<u8>, FileError> {
    let mut image = Vec::new();
    // More than the largest file is not read: it is no checkpoint, and might be anything.
    let read = file.take(2 * image::SLOT_BYTES_MAX as u64).read_to_end(&mut image);
    read.map(|_| image).map_err(|error| unreadable("read checkpoint", path, error))
}

fn newest<'i>(path: &Path, image: &'i [u8]) -> Result<Newest<'i>, FileError> {
    image::newest(image).map_err(|slots| FileError::Corrupt { path: path.to_owned(), slots })
}

/// Each format version that this build reads has its arm.
fn decode(path: &Path, newest: &Newest<'_>) -> Result<Checkpoint, FileError> {
    match newest.version {
        image::VERSION => serde_json::from_slice(newest.payload).map_err(|source| FileError::Foreign { path: path.to_owned(), source }),
        found => Err(FileError::Newer { path: path.to_owned(), found }),
    }
}

/// Files of the owner alone; a link at the path's end is not followed, a device is not waited for.
fn options() -> OpenOptions {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(flags.cast_signed());
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The number of the process that holds the lock, where it could leave it.
fn holder(lock: File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn unreadable(action: &'static str, path: &Path, source: io::Error) -> FileError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied => FileError::Denied { action, path },
        ErrorKind::IsADirectory => FileError::NotAFile { path },
        _ if Errno::from_io_error(&source) == Some(Errno::LOOP) => FileError::NotAFile { path },
        _ => FileError::Read { action, path, source },
    }
}

fn unwritable(action: &'static str, path: &Path, source: io::Error) -> FileError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied => FileError::Denied { action, path },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => FileError::Full { action, path },
        _ if Errno::from_io_error(&source) == Some(Errno::LOOP) => FileError::NotAFile { path },
        _ => FileError::Write { action, path, source },
    }
}
