//! The checkpoint file: two slots written in turn, so that a torn write leaves the one before.
//!
//! A second process is kept out by a lock on `PATH.lock`, which stays; `PATH.new` is a file that is being made. Only a file
//! that does not exist is no checkpoint; one that cannot be read is an error (I9). After a failed write nothing is written
//! again: a page whose sync failed may be gone though it reads well, and only a new start reads what the disk has (I6;
//! Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use crate::checkpoint::fold::Checkpoint;
use crate::checkpoint::store::CheckpointStore;
use crate::preflight::Findings;
use disk::Disk;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

mod disk;
mod error;
pub mod image;
mod preflight;

pub use error::FileError;

/// A checkpoint in a file of its own, locked while the store lives.
#[derive(Debug)]
pub struct FileStore {
    disk: Arc<Mutex<Disk>>,
}

impl FileStore {
    /// Locks the checkpoint at `path`, which need not exist; its directory must. Takes a few system calls.
    ///
    /// # Errors
    /// [`FileError::Held`] while another store, of this process or another, has it open.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self { disk: Arc::new(Mutex::new(Disk::lock(path)?)) })
    }

    /// The checkpoint at `path` without a lock, for a look while a pipeline runs on it; `None` where there is no file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn inspect(path: &Path) -> Result<Option<Checkpoint>, FileError> {
        match disk::inspect(path) {
            // Both slots may have been written while the file was read; not twice.
            Err(FileError::Corrupt { .. }) => disk::inspect(path),
            other => other,
        }
    }

    /// Looks what a start would do at `path`: whether the directory takes a checkpoint, and who holds it. Takes a few system calls.
    ///
    /// # Errors
    /// What [`Self::open`] would refuse, but for a holder, who may go.
    pub fn preflight(path: &Path) -> Result<Findings, FileError> {
        preflight::preflight(path)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Disk) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let disk = Arc::clone(&self.disk);
        // A caller that goes away leaves the work to be finished; the next call waits for it at the lock. A panic inside
        // leaves the disk failed, as an error does.
        let work = move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl CheckpointStore for FileStore {
    type Error = FileError;

    async fn load(&mut self) -> Result<Option<Checkpoint>, FileError> {
        self.blocking(Disk::load).await
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), FileError> {
        let payload = serde_json::to_vec(checkpoint).expect("maps with text for keys, and no number that JSON lacks");
        self.blocking(move |disk| disk.save(&payload)).await
    }

    async fn remove(&mut self) -> Result<bool, FileError> {
        self.blocking(Disk::remove).await
    }
}
