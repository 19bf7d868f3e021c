//! What is the process's and no pipeline's.

use super::Builder;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use std::sync::LazyLock;

/// What is the process's own and no pipeline's, and so carries no `pipeline` label: all that `registry` registers beside what the
/// operating system says.
pub const OF_PROCESS: [&str; 2] = ["feedline_build_info", "feedline_log_lines_dropped_total"];

/// What the operating system says about the process, what it is built of, and what its log could not write.
pub(super) fn registry() -> Registry {
    let b = Builder { registry: Registry::new(), known: Vec::new() };
    #[cfg(target_os = "linux")]
    b.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect("its names are its own");
    let build = b.register(IntGaugeVec::new(Opts::new(OF_PROCESS[0], "1; says which build this is."), &["version", "revision", "rustc"]));
    b.registry.register(Box::new(log_lines_dropped().clone())).expect("its name is its own");
    build.with_label_values(&[BUILD.version, BUILD.revision, BUILD.rustc]).set(1);
    b.registry
}

/// Lines of the log that standard error did not take.
///
/// # Panics
/// Never: the name is a constant.
#[must_use]
pub fn log_lines_dropped() -> &'static IntCounter {
    static DROPPED: LazyLock<IntCounter> =
        LazyLock::new(|| IntCounter::new(OF_PROCESS[1], "Lines of the log that standard error did not take.").expect("the name is valid"));
    &DROPPED
}

/// Which build this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Build {
    /// Its version.
    pub version: &'static str,
    /// The commit that it was made of.
    pub revision: &'static str,
    /// The compiler that made it.
    pub rustc: &'static str,
}

/// This build.
pub const BUILD: Build = Build { version: env!("CARGO_PKG_VERSION"), revision: env!("FEEDLINE_REVISION"), rustc: env!("FEEDLINE_RUSTC") };
