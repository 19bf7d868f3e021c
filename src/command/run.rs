//! `feedline run`.

use super::configured::Configured;
use super::process::{Signals, block_on, log};
use crate::assemble::{self, Running};
use crate::config::Loaded;
use crate::fault::{Classify, Exit};
use crate::pipeline::Ending;
use clap::Args;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Start even if keys or the format differ from those of the checkpoint
    #[arg(long)]
    accept_config_change: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let loaded = match arguments.configured.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    log::start(&loaded.plan.log);
    let stop = CancellationToken::new();
    let panics = log::Panics::watch(stop.clone());
    let span = log::span(&loaded.plan.pipeline.name);
    let exit = span.in_scope(|| block_on(pipeline(loaded, arguments.accept_config_change, stop)));
    if panics.occurred() { Exit::Crash } else { exit }
}

async fn pipeline(loaded: Loaded, accept_config_change: bool, stop: CancellationToken) -> Exit {
    let Loaded { plan, warnings, .. } = loaded;
    for warning in &warnings {
        tracing::warn!(code = %warning.code, setting = warning.path, "{}", warning.message);
    }
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(target: log::FINAL_ERROR, error = %error, "signals cannot be caught");
            return Exit::Repair;
        }
    };
    tracing::info!(
        source = plan.source.kind(),
        sink = plan.sink.kind(),
        version = crate::status::metrics::BUILD.version,
        revision = crate::status::metrics::BUILD.revision,
        "starting"
    );
    let mut running = match Running::prepare(&plan).await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(target: log::FINAL_ERROR, code = %error.code(), error = %error, "cannot start");
            return error.code().exit();
        }
    };
    running.set_log_level = Some(log::set_level);
    if let Some(address) = running.address() {
        tracing::info!(%address, "metrics and health are served");
    }
    let ending = signals.during(&stop, Box::pin(assemble::run(plan, running, accept_config_change, stop.clone()))).await;
    log_ending(&ending);
    ending.exit()
}

/// Logs how the run ended.
pub(super) fn log_ending(ending: &Ending) {
    match ending {
        Ending::Drained => tracing::info!("drained and stopped"),
        Ending::Deadline { unconfirmed } => {
            tracing::warn!(unconfirmed, "stopped at the deadline; unconfirmed records are sent at the next start");
        }
        Ending::Failed(failure) => {
            tracing::error!(target: log::FINAL_ERROR, code = %failure.code, fault = ?failure.fault, error = failure.message, "stopped for a fault");
        }
        Ending::Crashed { message } => tracing::error!(target: log::FINAL_ERROR, panic = message, "a defect of feedline: please report it"),
    }
}
