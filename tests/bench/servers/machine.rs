//! The machine of the measurements, and the versions of the servers.

use crate::{contestants::DEBEZIUM, kinds::Bench};
use std::{fmt::Write as _, fs, process::Command, thread};

/// Markdown.
pub(crate) fn described(bench: &Bench) -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap();
    let processors = file("/proc/cpuinfo");
    let processor = field(&processors, "model name").unwrap_or(std::env::consts::ARCH);
    let memory = file("/proc/meminfo");
    let kilobytes: u64 = field(&memory, "MemTotal").unwrap().trim_end_matches(" kB").parse().unwrap();
    let cores = thread::available_parallelism().unwrap();
    let lines = [
        (
            "machine",
            format!("{cores} cores of {processor}, {} GB, Linux {}", kilobytes / 1_000_000, file("/proc/sys/kernel/osrelease").trim()),
        ),
        (
            "feedline",
            format!(
                "{} at {}, by {}",
                env!("CARGO_PKG_VERSION"),
                said("git", &["rev-parse", "--short", "HEAD"]),
                said("rustc", &["--version"])
            ),
        ),
        ("database", format!("PostgreSQL {}, on the same machine", bench.postgres.psql("postgres", "SHOW server_version"))),
        ("broker", "Kafka 4.1.1, one node, one partition, no compression, on the same machine".to_owned()),
        ("peer", format!("Debezium {DEBEZIUM} on {}", said("java", &["--version"]))),
        ("measured", said("date", &["--utc", "--iso-8601"])),
    ];
    let mut text = String::from("| | |\n|---|---|\n");
    for (what, description) in lines {
        writeln!(text, "| {what} | {description} |").unwrap();
    }
    text
}

/// A field of a file of proc(5).
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// The first line that a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("run {program}: {error}"));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
}
