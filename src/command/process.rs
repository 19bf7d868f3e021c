//! What commands share with the process around them: logs, standard output and error, signals, the runtime.

mod escape;
pub(super) mod log;
mod output;
mod runtime;
mod signals;
mod stderr;

pub(super) use output::{print, say};
pub(super) use runtime::block_on;
pub(super) use signals::Signals;
pub(super) use stderr::LINES;
