//! Who holds the write lock of a SQLite database.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The byte of the `-shm` file that a writer locks (SQLite documentation, "WAL-mode File Format", 2.3.1).
const WRITE_LOCK_BYTE: u64 = 120;

/// The file by which the connections of a database in WAL mode share locks. `database` is the path without links.
pub(super) fn shared_memory(database: &Path) -> PathBuf {
    let mut beside = database.as_os_str().to_owned();
    beside.push("-shm");
    beside.into()
}

/// The process that holds the write lock, for a person, such as `process 4711 ("shop")`; `None` where the system does not tell, or it is
/// this process. The `-shm` file is not opened: closing it would release SQLite's own locks (SQLite documentation, "How To Corrupt", 2.2).
pub(super) fn holder(database: &Path) -> Option<String> {
    // It lies beside the file itself, and not beside a link to it.
    let inode = fs::metadata(shared_memory(&database.canonicalize().ok()?)).ok()?.ino();
    let pid = find(&fs::read_to_string("/proc/locks").ok()?, inode).filter(|pid| *pid != std::process::id())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(if name.is_empty() { format!("process {pid}") } else { format!("process {pid} ({:?})", name.trim_end()) })
}

/// The process that has locked the byte of this file for writing, by the lines of `/proc/locks`:
/// `1: POSIX  ADVISORY  WRITE 708 08:01:5678 120 120`.
fn find(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (class, _, access) = (words.next()?, words.next()?, words.next()?);
        let (pid, file) = (words.next()?, words.next()?);
        let (first, last) = (words.next()?.parse::<u64>().ok()?, words.next()?);
        // A file can be locked to its end.
        let last = if last == "EOF" { u64::MAX } else { last.parse().ok()? };
        let is_it = class == "POSIX" && access == "WRITE" && file.rsplit(':').next()?.parse::<u64>().ok()? == inode;
        (is_it && (first..=last).contains(&WRITE_LOCK_BYTE)).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_writer_is_found_among_other_locks() {
        let locks = "1: POSIX  ADVISORY  READ  11 08:01:5678 124 124\n\
                     2: FLOCK  ADVISORY  WRITE 12 08:01:5678 0 EOF\n\
                     2: -> POSIX  ADVISORY  WRITE 13 08:01:5678 120 120\n\
                     3: POSIX  ADVISORY  WRITE 14 08:01:9999 120 120\n\
                     4: POSIX  ADVISORY  WRITE 15 08:01:5678 120 120\n";
        assert_eq!(find(locks, 5678), Some(15), "who waits for it, and other files and bytes, do not count");
        assert_eq!(find("5: POSIX  ADVISORY  WRITE 16 08:01:5678 0 EOF\n", 5678), Some(16));
        assert_eq!(find("1: POSIX\nnonsense\n", 5678), None);
    }
}
