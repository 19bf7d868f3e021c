//! Decides when a pipeline begins again with tables that were made after its start.

use super::connectors::{Visit, visit};
use super::store::Store;
use crate::checkpoint::Checkpoint;
use crate::config::Plan;
use crate::fault::Exit;
use crate::pipeline::{Failure, Known, Observer, Part, Settings, note, preflight};
use crate::preflight::Warning;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;
use crate::status::{Publisher, Status};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long to wait for further tables of the same migration.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two checks of tables that cannot be published yet.
const AGAIN_AFTER: Duration = Duration::from_secs(15);
/// A restart that took so long is followed by a run of at least so many times that, for applications that create tables all the time.
const RUN_FACTOR: u32 = 100;

/// Waits until there are new tables with which a start would succeed. With a table that cannot be published, a start would be refused: the
/// pipeline goes on without it, and the log says why. `drained_at`: when the run before this one was ended for new tables.
pub(super) async fn wait(plan: &Plan, status: &Publisher, drained_at: Option<Instant>) {
    let (mut changes, mut told) = (status.subscribe(), None);
    // The publisher is held here, so that this waits for as long as it takes, here and below.
    drop(changes.wait_for(Status::is_running).await);
    if let Some(drained_at) = drained_at {
        sleep(drained_at.elapsed() * RUN_FACTOR).await;
    }
    loop {
        let found = changes.wait_for(|status| status.is_running() && !status.is_paused() && !status.new_tables.is_empty()).await;
        let tables = found.map(|status| status.new_tables.iter().map(|name| &**name).collect::<Vec<_>>().join(", ")).unwrap_or_default();
        sleep(SETTLE).await;
        let mut problems = problems(plan).await;
        // What would not pass by itself comes first, and decides.
        problems.sort_by_key(Failure::is_transient);
        let Some(failure) = Failure::joined(problems) else {
            tracing::info!(tables, "new tables match the feeds: the pipeline drains and begins again with them");
            return;
        };
        if failure.is_transient() {
            tracing::debug!(tables, error = failure.message, "whether the new tables can be published cannot be checked now");
        } else if told.as_ref() != Some(&(tables.clone(), failure.clone())) {
            let (code, error) = (failure.code, &failure.message);
            tracing::warn!(tables, %code, error, "new tables match the feeds and are not published: a start with them is refused");
            told = Some((tables, failure));
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Why a start would fail now.
async fn problems(plan: &Plan) -> Vec<Failure> {
    match Store::inspect(plan).await {
        Ok(checkpoint) => visit(plan, &Metrics::new(&plan.pipeline.name), Check { settings: &plan.pipeline, checkpoint }).await,
        Err(error) => vec![Failure::of(&error)],
    }
}

/// Makes the preflight with connectors of its own, while the pipeline runs.
struct Check<'p> {
    settings: &'p Settings,
    checkpoint: Option<Checkpoint>,
}

impl Visit for Check<'_> {
    type Output = Vec<Failure>;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, mut source: C, mut sink: K) -> Vec<Failure> {
        let mut problems = Problems::default();
        let known = self.checkpoint.as_ref().map_or(Known::Unusable, Known::Checkpoint);
        let Ok(found) = preflight(&mut source, &mut sink, self.settings, known, &mut problems).await;
        if found.is_sink_reached {
            match sink.preflight().await {
                Ok(findings) => {
                    let Ok(_is_fit) = note(&mut problems, Part::Sink, findings, found.is_complete);
                }
                Err(error) => problems.0.push(Failure::of(&error)),
            }
        }
        problems.0
    }
}

/// What a start would be refused for.
#[derive(Default)]
struct Problems(Vec<Failure>);

impl Observer for Problems {
    type Stop = Infallible;

    fn refuse(&mut self, _part: Part, problems: Vec<Failure>) -> Result<(), Infallible> {
        // What another instance holds is held by the running pipeline, and is free once that has drained.
        self.0.extend(problems.into_iter().filter(|problem| problem.code.exit() != Exit::Held));
        Ok(())
    }

    fn note(&mut self, _part: Part, _actions: Vec<String>, _warnings: Vec<Warning>) {}
}
