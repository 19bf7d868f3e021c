//! Reads, writes and locks the checkpoint file. Everything here blocks.

use super::error::FileError;
use super::image::{self, Slot};
use crate::checkpoint::fold::Checkpoint;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A locked checkpoint file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    state: State,
    lock: File,
}

/// How long to wait for a lock that is held: a process that only inspects it holds it for a moment.
const LOCK_WAIT: Duration = Duration::from_millis(200);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// What is known of the file.
#[derive(Debug)]
enum State {
    Unread,
    /// There is no file.
    Missing,
    Open {
        file: File,
        generation: u64,
        index: usize,
        slot_bytes: usize,
    },
    /// A write failed, or is in progress.
    Failed,
}

impl Drop for Disk {
    /// Closing the file is not enough: a child process that is being started holds copies of all open files.
    fn drop(&mut self) {
        let _ignored = self.lock.unlock();
    }
}

impl Disk {
    pub(super) fn lock(path: &Path) -> Result<Self, FileError> {
        let lock_path = beside(path, ".lock");
        let lock = options().read(true).write(true).create(true).open(&lock_path);
        let mut lock = lock.map_err(|error| unlockable(path, &lock_path, error))?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => return Err(FileError::Held { path: path.to_owned(), holder: holder(lock) }),
                Err(TryLockError::Error(error)) => return Err(unreadable("lock", &lock_path, error)),
            }
        }
        // The process number only makes another process's error more helpful, so a full disk is no reason to fail.
        let _ignored = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), state: State::Unread, lock })
    }

    pub(super) fn load(&mut self) -> Result<Option<Checkpoint>, FileError> {
        if matches!(self.state, State::Failed) {
            return Err(FileError::Poisoned { path: self.path.clone() });
        }
        let Some(file) = open(&self.path, true)? else {
            self.state = State::Missing;
            return Ok(None);
        };
        // The last process may have written without a sync. That must be durable before this process relies on it.
        self.state = State::Failed;
        file.sync_data().map_err(|error| unwritable("sync checkpoint", &self.path, error))?;
        self.state = State::Unread;
        let image = read(&self.path, &file)?;
        let newest = newest(&self.path, &image)?;
        let checkpoint = decode(&self.path, &newest)?;
        if let Some(fault) = image::other_slot_fault(&image, &newest) {
            tracing::warn!(path = %self.path.display(), generation = newest.generation, slot = 1 - newest.index, %fault,
                "the other slot of the checkpoint is unusable, as after a crash during a write; using this one");
        }
        let Slot { generation, index, slot_bytes, .. } = newest;
        self.state = State::Open { file, generation, index, slot_bytes };
        Ok(Some(checkpoint))
    }

    pub(super) fn save(&mut self, payload: &[u8]) -> Result<(), FileError> {
        if matches!(self.state, State::Unread) {
            self.load()?;
        }
        // Any error from here on, or a panic, leaves the state `Failed`.
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Open { file, generation, index, slot_bytes } if image::fits(payload.len(), slot_bytes) => {
                let index = 1 - index;
                self.overwrite(&file, generation + 1, index, slot_bytes, payload)?;
                State::Open { file, generation: generation + 1, index, slot_bytes }
            }
            State::Open { file, generation, .. } => {
                self.check_not_replaced(&file)?;
                self.create(generation + 1, payload)?
            }
            State::Missing => self.create(1, payload)?,
            State::Unread | State::Failed => return Err(FileError::Poisoned { path: self.path.clone() }),
        };
        Ok(())
    }

    fn overwrite(&self, file: &File, generation: u64, index: usize, slot_bytes: usize, payload: &[u8]) -> Result<(), FileError> {
        self.check_not_replaced(file)?;
        let bytes = image::write(generation, slot_bytes, payload);
        file.write_all_at(&bytes, (index * slot_bytes) as u64).map_err(|error| unwritable("write checkpoint", &self.path, error))?;
        file.sync_data().map_err(|error| unwritable("sync checkpoint", &self.path, error))
    }

    /// Refuses to write to a file that is no longer at the path: the next start would not find it.
    fn check_not_replaced(&self, file: &File) -> Result<(), FileError> {
        let id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let opened = file.metadata().map_err(|error| unreadable("inspect checkpoint", &self.path, error))?;
        match fs::symlink_metadata(&self.path) {
            Ok(named) if id(&named) == id(&opened) => Ok(()),
            Ok(_) => Err(FileError::Replaced { path: self.path.clone() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(FileError::Replaced { path: self.path.clone() }),
            Err(error) => Err(unreadable("inspect checkpoint", &self.path, error)),
        }
    }

    /// Creates a file whose slots fit the payload. It replaces the old file, if there is one.
    fn create(&self, generation: u64, payload: &[u8]) -> Result<State, FileError> {
        let too_large = || FileError::TooLarge { path: self.path.clone(), bytes: payload.len() };
        let slot_bytes = image::slot_bytes_for(payload.len()).ok_or_else(too_large)?;
        let new_path = beside(&self.path, ".new");
        let created = self.create_at(&new_path, generation, slot_bytes, payload);
        if created.is_err() {
            // The next attempt overwrites the file anyway. The first error is the one to report.
            let _ignored = fs::remove_file(&new_path);
        }
        Ok(State::Open { file: created?, generation, index: 0, slot_bytes })
    }

    fn create_at(&self, new_path: &Path, generation: u64, slot_bytes: usize, payload: &[u8]) -> Result<File, FileError> {
        let failed = |action| move |error| unwritable(action, new_path, error);
        // A file at this path was left by a crash, or by another process that may still have it open.
        match fs::remove_file(new_path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove file")(error)),
            _ => {}
        }
        let mut file = options().read(true).write(true).create_new(true).open(new_path).map_err(failed("create checkpoint"))?;
        let mut bytes = image::write(generation, slot_bytes, payload);
        // Zeros are really written, so that later writes need no more space and no change of the file's extents.
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
                self.state = State::Missing;
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

/// The error that another process would get from the lock of the checkpoint at `path`; `None` if nobody holds the lock. Does not
/// wait. A free lock is taken for a moment, shared.
pub(super) fn inspect_lock(path: &Path) -> Result<Option<FileError>, FileError> {
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

/// The directory of a checkpoint file.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Why the checkpoint cannot be locked. `failed` is the lock file or its directory.
pub(super) fn unlockable(path: &Path, failed: &Path, error: io::Error) -> FileError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileError::DirectoryMissing { path: path.to_owned() },
        _ => unreadable("lock", failed, error),
    }
}

/// Opens the file. `None` only if the system says that it does not exist.
fn open(path: &Path, write: bool) -> Result<Option<File>, FileError> {
    let file = match options().read(true).write(write).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable("open checkpoint", path, error)),
    };
    let metadata = file.metadata().map_err(|error| unreadable("inspect checkpoint", path, error))?;
    if metadata.is_file() { Ok(Some(file)) } else { Err(FileError::NotAFile { path: path.to_owned() }) }
}

fn read(path: &Path, file: &File) -> Result<Vec<u8>, FileError> {
    let mut image = Vec::new();
    // A larger file is not a checkpoint, and is not read to its end.
    let read = file.take(2 * image::SLOT_BYTES_MAX as u64).read_to_end(&mut image);
    read.map(|_| image).map_err(|error| unreadable("read checkpoint", path, error))
}

fn newest<'i>(path: &Path, image: &'i [u8]) -> Result<Slot<'i>, FileError> {
    image::newest(image).map_err(|slots| FileError::Corrupt { path: path.to_owned(), slots })
}

/// Parses the payload: one arm for each format version that this build reads.
fn decode(path: &Path, newest: &Slot<'_>) -> Result<Checkpoint, FileError> {
    match newest.version {
        image::VERSION => serde_json::from_slice(newest.payload).map_err(|source| FileError::Foreign { path: path.to_owned(), source }),
        found => Err(FileError::Newer { path: path.to_owned(), found }),
    }
}

/// For files that only their owner may read. A symbolic link is not followed, and a device or pipe does not block.
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

/// The number of the process that holds the lock, if it could write it.
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
