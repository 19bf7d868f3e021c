//! `feedline checkpoint restore`.

use super::stored::say_error;
use super::token;
use crate::assemble::store::Store;
use crate::checkpoint::{Checkpoint, CheckpointStore as _};
use crate::command::configured::Configured;
use crate::command::process::say;
use crate::config::Plan;
use crate::fault::Exit;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) configured: Configured,
    /// The output of `checkpoint show --json`
    file: PathBuf,
}

pub(super) async fn restore(arguments: &Arguments, plan: &Plan) -> Exit {
    let file = arguments.file.display();
    let checkpoint = match read(&arguments.file) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            say(&format!("{file}: {error}; expected the output of `feedline checkpoint show --json`\n"));
            return Exit::Configuration;
        }
    };
    if checkpoint.name != *plan.pipeline.name {
        say(&format!("{file} is the checkpoint of the pipeline {:?}, this one is {:?}\n", checkpoint.name, plan.pipeline.name));
        return Exit::Configuration;
    }
    if let Some(token) = &checkpoint.token
        && let Err(failure) = token::skips(plan, token, token).await
    {
        say(&format!("{file}: {failure}\n"));
        return Exit::Configuration;
    }
    let mut store = match Store::open(plan) {
        Ok(store) => store,
        Err(error) => return say_error(&error),
    };
    match store.load().await {
        Ok(None) => {}
        Ok(Some(_)) => {
            say(&format!(
                "there is a checkpoint at {} already, which is not overwritten: see `feedline checkpoint show`\n",
                plan.checkpoint.location()
            ));
            return Exit::Configuration;
        }
        Err(error) => return say_error(&error),
    }
    match store.save(&checkpoint).await {
        Ok(()) => {
            let token = checkpoint.token.as_ref().map(|token| &*token.0);
            tracing::warn!(pipeline = &*plan.pipeline.name, token, "checkpoint restored: the next start resumes from it");
            Exit::Clean
        }
        Err(error) => say_error(&error),
    }
}

fn read(path: &Path) -> Result<Checkpoint, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}
