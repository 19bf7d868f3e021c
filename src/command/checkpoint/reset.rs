//! `feedline checkpoint reset`.

use super::stored::{say_error, say_none};
use crate::assemble::store::Store;
use crate::checkpoint::CheckpointStore as _;
use crate::command::configured::Configured;
use crate::command::process::say;
use crate::config::Plan;
use crate::fault::Exit;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) configured: Configured,
    /// Confirm: every row is published again, readers must start with empty tables, and changes before the next start may be skipped
    #[arg(long)]
    yes: bool,
}

/// The consequences. No `reset` event comes before the rows, because nothing is known of what readers hold.
const CONSEQUENCES: &str = "the next start publishes every row again, and readers must begin with empty tables and topics: \
     no event removes rows deleted meanwhile, and positions may be lower than before";

pub(super) async fn reset(arguments: &Arguments, plan: &Plan) -> Exit {
    if !arguments.yes {
        say(&format!(
            "this deletes {}: {CONSEQUENCES}; changes before that may be skipped.\n\
             Confirm with `feedline checkpoint reset --yes`, then run `feedline detach --yes` to remove the pipeline's objects from the source.\n",
            plan.checkpoint.location()
        ));
        return Exit::Configuration;
    }
    let mut store = match Store::open(plan) {
        Ok(store) => store,
        Err(error) => return say_error(&error),
    };
    match store.remove().await {
        Ok(true) => {
            tracing::warn!(
                pipeline = &*plan.pipeline.name, checkpoint = %plan.checkpoint.location(),
                "checkpoint deleted: {CONSEQUENCES}; before the next start, `feedline detach --yes` must remove the pipeline's objects from the source"
            );
            Exit::Clean
        }
        Ok(false) => say_none(plan),
        Err(error) => say_error(&error),
    }
}
