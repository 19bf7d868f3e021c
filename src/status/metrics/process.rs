//! Metrics of the process: its build, its dropped log lines, and what the operating system reports.

use super::builder::Builder;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use std::sync::LazyLock;

/// Metrics of the process, without a `pipeline` label. Those of the operating system come in addition.
pub const OF_PROCESS: [&str; 2] = ["feedline_build_info", "feedline_log_lines_dropped_total"];

/// A registry with all metrics of the process.
pub(super) fn registry() -> Registry {
    let b = Builder::new(Registry::new());
    #[cfg(target_os = "linux")]
    b.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect("its names are its own");
    let build = b.register(IntGaugeVec::new(Opts::new(OF_PROCESS[0], "1; the labels name the build."), &["version", "revision", "rustc"]));
    b.registry.register(Box::new(log_lines_dropped().clone())).expect("its name is its own");
    build.with_label_values(&[BUILD.version, BUILD.revision, BUILD.rustc]).set(1);
    b.registry
}

/// Log lines that could not be written to standard error.
///
/// # Panics
/// Never: the name is a constant.
#[must_use]
pub fn log_lines_dropped() -> &'static IntCounter {
    static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
        IntCounter::new(OF_PROCESS[1], "Log lines that could not be written to standard error.").expect("the name is valid")
    });
    &DROPPED
}

/// Which build this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Build {
    /// Its version.
    pub version: &'static str,
    /// The commit that it was built from.
    pub revision: &'static str,
    /// The compiler that built it.
    pub rustc: &'static str,
}

/// This build.
pub const BUILD: Build = Build { version: env!("CARGO_PKG_VERSION"), revision: env!("FEEDLINE_REVISION"), rustc: env!("FEEDLINE_RUSTC") };
