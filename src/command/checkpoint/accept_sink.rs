//! `feedline checkpoint accept-sink`.

use super::stored::{open, say_error};
use crate::checkpoint::CheckpointStore as _;
use crate::command::configured::Configured;
use crate::config::Plan;
use crate::fault::Exit;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) configured: Configured,
}

/// Clears the checkpoint's sink identity. The next start fills it in.
pub(super) async fn accept_sink(plan: &Plan) -> Exit {
    let (mut store, mut checkpoint) = match open(plan).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let before = std::mem::take(&mut checkpoint.sink);
    match store.save(&checkpoint).await {
        Ok(()) => {
            tracing::warn!(pipeline = &*plan.pipeline.name, sink = ?before, "removed the sink's identity from the checkpoint: the next start accepts the sink that it finds");
            Exit::Clean
        }
        Err(error) => say_error(&error),
    }
}
