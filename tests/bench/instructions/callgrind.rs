//! Runs this program again, under callgrind.

use crate::servers::port::run_directory;
use std::{fs, process::Command};

/// The features that glibc may use of the processor. It has many variants of its copying functions; without features it uses the simplest
/// on every machine.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX512VL,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-Prefer_No_VZEROUPPER";

/// What an event takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) instructions: f64,
    /// Allocations of the thread that is measured.
    pub(crate) allocations: f64,
}

/// What an event takes in the process that these arguments choose.
pub(crate) fn count(arguments: &[&str]) -> Taken {
    let directory = run_directory("callgrind", None).unwrap();
    let out = directory.join("out");
    let watched = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=instructions::counted", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .expect("run valgrind: run tests/setup");
    assert!(watched.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&watched.stderr));
    let printed = String::from_utf8(watched.stdout).unwrap();
    let (events, allocations) = printed.trim().split_once(' ').unwrap();
    let [events, allocations] = [events, allocations].map(|number| number.parse::<f64>().unwrap());
    let counted = fs::read_to_string(&out).unwrap();
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind writes totals");
    assert_ne!(total, "0", "callgrind has not met the function");
    if std::env::var_os("BENCH_KEEP").is_none() {
        fs::remove_dir_all(&directory).unwrap();
    }
    Taken { instructions: total.trim().parse::<f64>().unwrap() / events, allocations: allocations / events }
}
