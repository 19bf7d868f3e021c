//! `feedline detach`.

use super::{Configured, block_on, log, print, say};
use crate::assemble::store::{Store, StoreError};
use crate::assemble::{Visit, visit};
use crate::checkpoint::file::FileError;
use crate::checkpoint::{CheckpointStore as _, Identity};
use crate::config::Plan;
use crate::config::plan::CheckpointPlan;
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
    /// Do it: changes since the last run are then lost to the pipeline
    #[arg(long)]
    yes: bool,
    /// Although the checkpoint cannot be read, which would prove that the source is the pipeline's
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
    match block_on(detach(&plan, held, arguments.without_checkpoint)) {
        Ok(removed) if removed.is_empty() => print("nothing was there to remove\n"),
        Ok(removed) => print(&removed.into_iter().map(|line| line + "\n").collect::<String>()),
        Err(failure) => {
            say(&format!("{failure}\n"));
            failure.code.exit()
        }
    }
}

/// Keeps a running pipeline from losing what it reads: its checkpoint is locked as long as this is held. One in a broker is not
/// locked; a replication slot is not dropped while it is read.
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

/// Who the source was when the checkpoint was made: another one behind the same name has things of the same names. `None` where there
/// is no checkpoint.
async fn known(plan: &Plan, held: Option<&mut Store>) -> Result<Option<Identity>, StoreError> {
    let found = match (&plan.checkpoint, held) {
        (_, Some(store)) => store.load().await?,
        (CheckpointPlan::File { .. }, None) => None,
        (CheckpointPlan::Broker { .. }, None) => Store::inspect(plan).await?,
    };
    Ok(found.map(|checkpoint| checkpoint.source))
}

async fn detach(plan: &Plan, mut held: Option<Store>, without_checkpoint: bool) -> Result<Vec<String>, Failure> {
    let known = match known(plan, held.as_mut()).await {
        Ok(known) => known,
        Err(_) if without_checkpoint => None,
        Err(error) => {
            say(
                "the checkpoint, which says whether the source is the pipeline's, cannot be read; if it is gone for good, say `feedline detach --yes --without-checkpoint`\n",
            );
            return Err(Failure::of(&error));
        }
    };
    visit(plan, &Metrics::new(&plan.name), Detach { known }).await
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
