//! Why a checkpoint file could not be read or written.

use super::image::{SlotFault, VERSION};
use crate::fault::{Classify, Code, Fault};
use std::io;
use std::path::PathBuf;

/// Why a checkpoint file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another process has the file open.
    #[error("checkpoint {} is held by {}: one instance at a time may run on it", path.display(), holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The checkpoint.
        path: PathBuf,
        /// Who holds it, where it left its number.
        holder: Option<u32>,
    },
    /// The directory does not exist.
    #[error("directory of checkpoint {} does not exist: make it, or mount the volume that holds it", path.display())]
    DirectoryMissing {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The path leads through a link at its end, to a directory or to a device.
    #[error("{} is not a regular file: set checkpoint.path to one (a symbolic link is not followed)", path.display())]
    NotAFile {
        /// What the path names.
        path: PathBuf,
    },
    /// The user of the process may not.
    #[error("{action} {}: permission denied; the user of this process must own the file and may write its directory", path.display())]
    Denied {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("{action} {}", path.display())]
    Read {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Neither slot is valid.
    #[error("checkpoint {} is unusable (first slot {}, second slot {}): restore the file from a backup, or begin again after `feedline checkpoint reset` and `feedline detach`: every row is sent again then, and readers begin with empty tables", path.display(), slots[0], slots[1])]
    Corrupt {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with each slot.
        slots: [SlotFault; 2],
    },
    /// A later feedline wrote the file.
    #[error("checkpoint {} has format version {found}, this feedline reads up to {VERSION}: run the version that wrote it, or a later one", path.display())]
    Newer {
        /// The checkpoint.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The slot is whole, but what it holds is not a checkpoint.
    #[error("checkpoint {} cannot be understood: run the feedline that wrote it", path.display())]
    Foreign {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// More tables than a slot can hold.
    #[error("checkpoint {} would have {bytes} bytes, more than a slot may: split the pipeline", path.display())]
    TooLarge {
        /// The checkpoint.
        path: PathBuf,
        /// Its size.
        bytes: usize,
    },
    /// The filesystem has no room.
    #[error("{action} {}: no space left (or a quota, or a limit on the size of files): make room and start again", path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("{action} {}: whether it reached the disk is unknown; mend the disk and start again", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// With which file.
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
    /// An earlier write failed.
    #[error("checkpoint {} is not written again after a failed write: start again", path.display())]
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
