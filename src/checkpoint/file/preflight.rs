//! What a start will do where the file is, and what stands in its way; nothing is changed to find out.

use super::disk;
use super::error::FileError;
use crate::fault::{Classify as _, Code};
use crate::preflight::{Findings, Warning};
use rustix::fs::{Access, access, statvfs};
use std::path::Path;

/// Two slots, and room for the file that replaces them when they grow.
const ROOM_BYTES: u64 = 4 << 20;

/// Looks ahead; blocks.
pub(super) fn preflight(path: &Path) -> Result<Findings, FileError> {
    let directory = disk::directory_of(path);
    if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        return Err(disk::unlockable(path, directory, error.into()));
    }
    let mut findings = Findings::default();
    let action = if path.exists() { "go on from checkpoint" } else { "make checkpoint" };
    findings.actions.push(format!("{action} {}", path.display()));
    if let Some(held) = disk::look_at_lock(path)? {
        let message = format!("{held}; a start here waits for it (pipeline.takeover_timeout)");
        findings.warnings.push(Warning { code: held.code(), message });
    }
    if let Ok(disk) = statvfs(directory) {
        findings.warnings.extend(cramped(directory, disk.f_bavail.saturating_mul(disk.f_frsize)));
    }
    Ok(findings)
}

/// What it means that the disk has so much room.
fn cramped(directory: &Path, free_bytes: u64) -> Option<Warning> {
    (free_bytes < ROOM_BYTES).then(|| Warning {
        code: Code::CheckpointCramped,
        message: format!(
            "{} has {} KiB left, the checkpoint needs {} KiB: make room, or set checkpoint.path",
            directory.display(),
            free_bytes >> 10,
            ROOM_BYTES >> 10
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{ROOM_BYTES, cramped};
    use crate::fault::Code;
    use std::path::Path;

    #[test]
    fn a_disk_that_is_nearly_full_is_named_with_what_is_left() {
        let warning = cramped(Path::new("/var/lib/feedline"), 12 << 10).unwrap();
        assert_eq!(warning.code, Code::CheckpointCramped);
        assert!(warning.message.starts_with("/var/lib/feedline has 12 KiB left, the checkpoint needs 4096 KiB"), "{}", warning.message);
        assert!(cramped(Path::new("."), ROOM_BYTES).is_none());
    }
}
