//! The checkpoint file: two slots, written in turn, so that a torn write leaves the previous checkpoint intact.
//!
//! A lock on `PATH.lock` keeps a second process out; that file is never removed. `PATH.new` is a file that is being created. There is
//! no checkpoint only if the file does not exist; a file that cannot be read is an error (I9). After a failed write nothing is
//! written again: a page whose sync failed may be lost although the page cache still shows it, and only a new start reads what
//! is on the disk (I6; Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

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

/// Stores the checkpoint in a file, which is locked as long as the store exists.
#[derive(Debug)]
pub struct FileStore {
    disk: Arc<Mutex<Disk>>,
}

impl FileStore {
    /// Locks the checkpoint at `path`. The file need not exist, its directory must. Blocks for a few system calls.
    ///
    /// # Errors
    /// [`FileError::Held`] if another store, of this process or another one, has it open.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self { disk: Arc::new(Mutex::new(Disk::lock(path)?)) })
    }

    /// Reads the checkpoint at `path` without a lock, while a pipeline may be using it. `None` if there is no file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn inspect(path: &Path) -> Result<Option<Checkpoint>, FileError> {
        match disk::inspect(path) {
            // Both slots may have been written during the read. That does not happen twice in a row.
            Err(FileError::Corrupt { .. }) => disk::inspect(path),
            other => other,
        }
    }

    /// Finds out what a start would do at `path`: whether the directory is writable, and who holds the lock. Blocks for a few
    /// system calls.
    ///
    /// # Errors
    /// Like [`Self::open`]. A held lock is only a warning, because its holder may end.
    pub fn preflight(path: &Path) -> Result<Findings, FileError> {
        preflight::preflight(path)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Disk) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let disk = Arc::clone(&self.disk);
        // If the caller is dropped, the work is still finished, and the next call waits for it at the mutex. A panic in it leaves
        // the file in the failed state, like an error.
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
        let payload = serde_json::to_vec(checkpoint).expect("the maps have string keys, and JSON can represent every number");
        self.blocking(move |disk| disk.save(&payload)).await
    }

    async fn remove(&mut self) -> Result<bool, FileError> {
        self.blocking(Disk::remove).await
    }
}
