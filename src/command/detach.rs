//! `feedline detach`.

use super::{Configured, block_on, log, print, say};
use crate::assemble::store::{Store, StoreError};
use crate::assemble::{Visit, visit};
use crate::checkpoint::file::FileError;
use crate::checkpoint::{CheckpointStore as _, Identity};
use crate::config::Plan;
use crate::config::plan::CheckpointPlan;
use crate::fault::{Classify, Exit};
use crate::metrics::Metrics;
use crate::pipeline::Failure;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Do it: changes since the last run are then lost to the pipeline
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let plan = match arguments.configured.load() {
        Ok(loaded) => loaded.plan,
        Err(exit) => return exit,
    };
    log::start(&plan.log);
    if !arguments.yes {
        say(&format!(
            "this removes from the source all that pipeline `{}` made there; changes that it has not published yet are lost to it.\n\
             Stop the pipeline first, then say `feedline detach --yes`.\n",
            plan.name
        ));
        return Exit::Configuration;
    }
    let held = match hold(&plan) {
        Ok(held) => held,
        Err(error) => {
            say(&format!("{} {error}\n", error.code()));
            return error.code().exit();
        }
    };
    match block_on(detach(&plan, held)) {
        Ok(removed) if removed.is_empty() => print("nothing was there to remove\n"),
        Ok(removed) => print(&removed.into_iter().map(|line| line + "\n").collect::<String>()),
        Err(failure) => {
            say(&format!("{failure}\n"));
            failure.code.exit()
        }
    }
}

/// Keeps a running pipeline from losing what it reads: its checkpoint is locked as long as this is held. One in a broker is not
/// asked for, as the broker may be gone for good; a replication slot is not dropped while it is read.
fn hold(plan: &Plan) -> Result<Option<Store>, StoreError> {
    if !matches!(plan.checkpoint, CheckpointPlan::File { .. }) {
        return Ok(None);
    }
    match Store::open(plan) {
        Ok(store) => Ok(Some(store)),
        // Nobody runs on a checkpoint there.
        Err(StoreError::File(FileError::DirectoryMissing { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A checkpoint that can be read says whose the pipeline's things are.
async fn detach(plan: &Plan, mut held: Option<Store>) -> Result<Vec<String>, Failure> {
    let known = match &mut held {
        Some(store) => store.load().await.ok().flatten(),
        None => None,
    };
    visit(plan, &Metrics::new(&plan.name), Detach { known: known.map(|known| known.source) }).await
}

struct Detach {
    /// Who the source was when the checkpoint was made.
    known: Option<Identity>,
}

impl Visit for Detach {
    type Output = Result<Vec<String>, Failure>;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, mut source: C, _sink: K) -> Self::Output {
        source.catalogue().await.map_err(|error| Failure::of(&error))?;
        // A source that is nobody has nothing of the pipeline's.
        let is_somebody = !source.identity().await.map_err(|error| Failure::of(&error))?.is_empty();
        if let Some(known) = self.known.filter(|known| is_somebody && !known.is_empty()) {
            source.recognize(&known).await.map_err(|error| Failure::of(&error))?;
        }
        source.detach().await.map_err(|error| Failure::of(&error))
    }
}
