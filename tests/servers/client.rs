//! What tests do through a database's own client: statements, and names that no other test has.

use super::account::run;
use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Runs a client to its end. Returns what it printed, trimmed, or where it fails the server's message.
pub(crate) fn answer(command: &mut Command) -> Result<String, String> {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A name that nothing else has that this process makes.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
