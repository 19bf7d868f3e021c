//! Runs this program again, under callgrind.

use crate::servers::port::run_directory;
use std::{fs, process::Command};

/// The features that glibc may use of the processor. It has many variants of its copying functions; without features it uses the simplest
/// on every machine.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX512VL,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-Prefer_No_VZEROUPPER";

/// Instructions per event in the process that these arguments choose.
pub(crate) fn count(arguments: &[&str]) -> f64 {
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
    let events: f64 = String::from_utf8(watched.stdout).unwrap().trim().parse().unwrap();
    let counted = fs::read_to_string(&out).unwrap();
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind writes totals");
    assert_ne!(total, "0", "callgrind has not met the function");
    if std::env::var_os("BENCH_KEEP").is_none() {
        fs::remove_dir_all(&directory).unwrap();
    }
    total.trim().parse::<f64>().unwrap() / events
}
