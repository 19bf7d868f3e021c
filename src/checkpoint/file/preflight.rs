//! Preflight of the checkpoint file: what a start would do, and what would stop it. Changes nothing.

use super::disk;
use super::error::FileError;
use crate::fault::{Classify as _, Code};
use crate::preflight::{Findings, Warning};
use rustix::fs::{Access, access, statvfs};
use std::path::Path;

/// Free space for two slots, and for the larger file that may replace them.
const SPACE_BYTES: u64 = 4 << 20;

/// Collects the findings. Blocks.
pub(super) fn preflight(path: &Path) -> Result<Findings, FileError> {
    let directory = disk::directory_of(path);
    if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        return Err(disk::unlockable(path, directory, error.into()));
    }
    let mut findings = Findings::default();
    let action = if path.exists() { "go on from checkpoint" } else { "make checkpoint" };
    findings.actions.push(format!("{action} {}", path.display()));
    if let Some(held) = disk::inspect_lock(path)? {
        let message = format!("{held}; a start here waits for it (pipeline.takeover_timeout)");
        findings.warnings.push(Warning { code: held.code(), message });
    }
    if let Ok(disk) = statvfs(directory) {
        findings.warnings.extend(low_space(directory, disk.f_bavail.saturating_mul(disk.f_frsize)));
    }
    Ok(findings)
}

/// A warning if the disk has too little free space.
fn low_space(directory: &Path, free_bytes: u64) -> Option<Warning> {
    (free_bytes < SPACE_BYTES).then(|| Warning {
        code: Code::CheckpointCramped,
        message: format!(
            "{} has {} KiB left, the checkpoint needs {} KiB: free some space, or set checkpoint.path",
            directory.display(),
            free_bytes >> 10,
            SPACE_BYTES >> 10
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{SPACE_BYTES, low_space};
    use crate::fault::Code;
    use std::path::Path;

    #[test]
    fn a_disk_that_is_nearly_full_is_named_with_its_free_space() {
        let warning = low_space(Path::new("/var/lib/feedline"), 12 << 10).unwrap();
        assert_eq!(warning.code, Code::CheckpointCramped);
        assert!(warning.message.starts_with("/var/lib/feedline has 12 KiB left, the checkpoint needs 4096 KiB"), "{}", warning.message);
        assert!(low_space(Path::new("."), SPACE_BYTES).is_none());
    }
}
