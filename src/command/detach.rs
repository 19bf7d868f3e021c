//! `feedline detach`.

use super::configured::Configured;
use super::process::{block_on, log, print, say};
use crate::assemble::store::{Store, StoreError};
use crate::assemble::{Visit, visit};
use crate::checkpoint::file::FileError;
use crate::checkpoint::{CheckpointStore as _, Identity};
use crate::config::Plan;
use crate::fault::{Classify, Exit};
use crate::pipeline::Failure;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Confirm: changes that are not published yet are lost to the pipeline
    #[arg(long)]
    yes: bool,
    /// Proceed even if the checkpoint, which identifies the source, cannot be read
    #[arg(long)]
    without_checkpoint: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let plan = match arguments.configured.load() {
        Ok(loaded) => loaded.plan,
        Err(exit) => return exit,
    };
    log::start(&plan.log);
    if !arguments.yes {
        say(&format!(
            "this removes everything that pipeline `{}` created in the source; changes that it has not published yet are lost to it.\n\
             Stop the pipeline, then confirm with `feedline detach --yes`.\n",
            plan.pipeline.name
        ));
        return Exit::Configuration;
    }
    let store = match lock_store(&plan) {
        Ok(store) => store,
        Err(error) => {
            say(&format!("{} {error}\n", error.code()));
            return error.code().exit();
        }
    };
    match block_on(detach(&plan, store, arguments.without_checkpoint)) {
        Ok(removed) if removed.is_empty() => print("nothing to remove\n"),
        Ok(removed) => print(&removed.into_iter().map(|line| line + "\n").collect::<String>()),
        Err(failure) => {
            say(&format!("{failure}\n"));
            failure.code.exit()
        }
    }
}

/// Locks a checkpoint file, so that the source of a running pipeline is not detached. A checkpoint in a broker has no lock; there, only
/// PostgreSQL refuses to drop a slot that is in use.
fn lock_store(plan: &Plan) -> Result<Option<Store>, StoreError> {
    if plan.checkpoint.file().is_none() {
        return Ok(None);
    }
    match Store::open(plan) {
        Ok(store) => Ok(Some(store)),
        // Without its directory there is no checkpoint, and no running pipeline.
        Err(StoreError::File(FileError::DirectoryMissing { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The source's identity in the checkpoint. Another source behind the same address may contain objects of the same names. `None` if there
/// is no checkpoint.
async fn expected_source(plan: &Plan, store: Option<&mut Store>) -> Result<Option<Identity>, StoreError> {
    let checkpoint = match store {
        Some(store) => store.load().await?,
        None if plan.checkpoint.file().is_some() => None,
        None => Store::inspect(plan).await?,
    };
    Ok(checkpoint.map(|checkpoint| checkpoint.source))
}

async fn detach(plan: &Plan, mut store: Option<Store>, without_checkpoint: bool) -> Result<Vec<String>, Failure> {
    let expected = match expected_source(plan, store.as_mut()).await {
        Ok(expected) => expected,
        Err(_) if without_checkpoint => None,
        Err(error) => {
            say(
                "the checkpoint, which identifies the source, cannot be read; if it is lost, run `feedline detach --yes --without-checkpoint`\n",
            );
            return Err(Failure::of(&error));
        }
    };
    visit(plan, &Metrics::new(&plan.pipeline.name), Detach { expected }).await
}

struct Detach {
    /// The source's identity in the checkpoint.
    expected: Option<Identity>,
}

impl Visit for Detach {
    type Output = Result<Vec<String>, Failure>;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, mut source: C, _sink: K) -> Self::Output {
        source.catalogue().await.map_err(|error| Failure::of(&error))?;
        // A source without an identity contains nothing of the pipeline.
        let has_identity = !source.identity().await.map_err(|error| Failure::of(&error))?.is_empty();
        if let Some(expected) = self.expected.filter(|expected| has_identity && !expected.is_empty()) {
            source.recognize(&expected).await.map_err(|error| Failure::of(&error))?;
        }
        source.detach().await.map_err(|error| Failure::of(&error))
    }
}
