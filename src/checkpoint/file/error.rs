//! Why a checkpoint file could not be read or written.

use super::image::{SlotFault, VERSION};
use crate::fault::{Classify, Code, Fault};
use std::io;
use std::path::PathBuf;

/// Why a checkpoint file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another process has the file open.
    #[error("checkpoint {} is held by {}: run one instance at a time", path.display(), holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The checkpoint.
        path: PathBuf,
        /// The number of the process, if it could write it.
        holder: Option<u32>,
    },
    /// The directory does not exist.
    #[error("the directory of checkpoint {} does not exist: create it, or mount its volume", path.display())]
    DirectoryMissing {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The path is a symbolic link, a directory or a device.
    #[error("{} is not a regular file: set checkpoint.path to one (a symbolic link is not followed)", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The user of the process has no permission.
    #[error("{action} {}: permission denied; the user of this process must own the file and be able to write to its directory", path.display())]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("{action} {}", path.display())]
    Read {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Neither slot is valid.
    #[error("checkpoint {} is unusable (first slot {}, second slot {}): restore it, or begin again with `feedline checkpoint reset` and `feedline detach`", path.display(), slots[0], slots[1])]
    Corrupt {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with each slot.
        slots: [SlotFault; 2],
    },
    /// A later version of feedline wrote the file.
    #[error("checkpoint {} has format version {found}, this feedline reads up to {VERSION}: run the version that wrote it, or a later one", path.display())]
    Newer {
        /// The checkpoint.
        path: PathBuf,
        /// The version of the file.
        found: u32,
    },
    /// The slot is intact, but its payload is not a checkpoint.
    #[error("checkpoint {} cannot be parsed: run the version of feedline that wrote it", path.display())]
    Foreign {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The checkpoint is too large: it has too many tables.
    #[error("checkpoint {} would have {bytes} bytes, more than a slot can hold: split the pipeline", path.display())]
    TooLarge {
        /// The checkpoint.
        path: PathBuf,
        /// The size of the checkpoint.
        bytes: usize,
    },
    /// The filesystem is full.
    #[error("{action} {}: no space left (or a quota or file size limit is reached): free some space and start again", path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("{action} {}: it is unknown whether the write reached the disk; repair the disk and start again", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file was removed or replaced while it was open.
    #[error("checkpoint {} was removed or replaced while it was in use: start again", path.display())]
    Replaced {
        /// The checkpoint.
        path: PathBuf,
    },
    /// An earlier write failed, so nothing more is written.
    #[error("checkpoint {} is not written again after a failed write: start feedline again", path.display())]
    Poisoned {
        /// The checkpoint.
        path: PathBuf,
    },
}

impl Classify for FileError {
    fn fault(&self) -> Fault {
        match self {
            Self::Held { .. } => Fault::Transient,
            _ => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Held { .. } => Code::CheckpointHeld,
            Self::DirectoryMissing { .. } | Self::NotAFile { .. } | Self::Denied { .. } | Self::Read { .. } => Code::CheckpointUnreadable,
            Self::Corrupt { .. } | Self::Foreign { .. } => Code::CheckpointCorrupt,
            Self::Newer { .. } => Code::CheckpointNewer,
            Self::TooLarge { .. } | Self::Full { .. } | Self::Write { .. } | Self::Replaced { .. } | Self::Poisoned { .. } => {
                Code::CheckpointUnwritable
            }
        }
    }
}
