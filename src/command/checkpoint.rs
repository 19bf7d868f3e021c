//! `feedline checkpoint`: shows the checkpoint of a stopped pipeline, or changes it.

use super::process::{block_on, log};
use crate::fault::Exit;
use clap::Subcommand;

mod accept_sink;
mod reset;
mod restore;
mod rewind;
mod show;
mod stored;
mod token;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print where the pipeline would resume
    Show(show::Arguments),
    /// Publish the rows of tables again, or resume from an earlier log position
    Rewind(rewind::Arguments),
    /// Delete the checkpoint: the next start publishes every row again, and readers must start with empty tables
    Reset(reset::Arguments),
    /// Create a checkpoint from the output of `checkpoint show --json`
    Restore(restore::Arguments),
    /// Accept the current broker as the checkpoint's sink (after a cluster was renamed)
    AcceptSink(accept_sink::Arguments),
}

pub(super) fn run(command: &Command) -> Exit {
    let configured = match command {
        Command::Show(arguments) => &arguments.configured,
        Command::Rewind(arguments) => &arguments.configured,
        Command::Reset(arguments) => &arguments.configured,
        Command::Restore(arguments) => &arguments.configured,
        Command::AcceptSink(arguments) => &arguments.configured,
    };
    let plan = match configured.load() {
        Ok(loaded) => loaded.plan,
        Err(exit) => return exit,
    };
    // Changes are logged in the configured format, as in `run`.
    if !matches!(command, Command::Show(_)) {
        log::start(&plan.log);
    }
    block_on(async {
        match command {
            Command::Show(arguments) => show::show(arguments, &plan).await,
            Command::Rewind(arguments) => rewind::rewind(arguments, &plan).await,
            Command::Reset(arguments) => reset::reset(arguments, &plan).await,
            Command::Restore(arguments) => restore::restore(arguments, &plan).await,
            Command::AcceptSink(_) => accept_sink::accept_sink(&plan).await,
        }
    })
}
