//! Opens the stored checkpoint, and reports that there is none or that it cannot be read.

use crate::assemble::store::Store;
use crate::checkpoint::{Checkpoint, CheckpointStore as _};
use crate::command::process::say;
use crate::config::Plan;
use crate::fault::{Classify, Exit};

pub(super) fn say_error(error: &impl Classify) -> Exit {
    say(&format!("{} {error}\n", error.code()));
    error.code().exit()
}

pub(super) fn say_none(plan: &Plan) -> Exit {
    say(&format!("there is no checkpoint at {}: the next start publishes every row\n", plan.checkpoint.location()));
    Exit::Configuration
}

/// Opens the store and loads the checkpoint to change.
pub(super) async fn open(plan: &Plan) -> Result<(Store, Checkpoint), Exit> {
    let mut store = Store::open(plan).map_err(|error| say_error(&error))?;
    match store.load().await {
        Ok(Some(checkpoint)) => Ok((store, checkpoint)),
        Ok(None) => Err(say_none(plan)),
        Err(error) => Err(say_error(&error)),
    }
}
