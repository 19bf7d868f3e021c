//! One attempt to start: reads the checkpoint, checks source and sink against it, and says where to go on.

use super::agreement::{self, Disagreement};
use super::failure::Failure;
use super::preflight::{Known, Observer, Part, preflight};
use super::settings::Settings;
use crate::checkpoint::{Checkpoint, CheckpointStore, Identity, LastExit};
use crate::feed::Feeds;
use crate::preflight::Warning;
use crate::sink::SinkConnector;
use crate::source::{Resume, SourceConnector};
use crate::status::PreviousRun;
use crate::status::metrics::lag::Moment;
use crate::status::metrics::{Metrics, RestartReason};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What both sides begin with.
pub(super) struct Start {
    pub(super) feeds: Arc<Feeds>,
    pub(super) checkpoint: Checkpoint,
    pub(super) resume: Resume,
}

/// The source, the sink and the store of a pipeline that has not begun.
#[derive(Debug)]
pub(super) struct Starter<C, K, S> {
    pub(super) settings: Settings,
    pub(super) source: C,
    pub(super) sink: K,
    pub(super) store: S,
    pub(super) metrics: Metrics,
    /// Whether this process has read or written a checkpoint: one that a later attempt finds is not an earlier run's.
    pub(super) is_counted: bool,
    pub(super) previous: PreviousRun,
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Starter<C, K, S> {
    /// Makes one attempt to start. After a transient failure it may be repeated: it finds what the attempt before has made.
    pub(super) async fn prepare(&mut self) -> Result<Start, Failure> {
        let known = self.store.load().await.map_err(|error| Failure::of(&error))?;
        if known.is_none() && !self.is_counted {
            self.metrics.restore_restarts(&BTreeMap::new());
        }
        if let Some(known) = known.as_ref().filter(|known| *known.name == *self.settings.name) {
            self.restore(known);
        }
        let stored = known.as_ref().map_or(Known::Nothing, Known::Checkpoint);
        let mut observer = StartObserver::default();
        let found = preflight(&mut self.source, &mut self.sink, &self.settings, stored, &mut observer).await?;
        let feeds = found.feeds;
        let sink = self.sink.establish().await.map_err(|error| Failure::of(&error))?;
        let mut checkpoint = match known {
            Some(known) => self.accept(known, &feeds),
            None => self.write_intent(found.source).await?,
        };
        agreement::check_sink(&checkpoint, &sink).map_err(|error| Failure::of(&error))?;
        checkpoint.sink = sink;
        let token = if let Some(token) = checkpoint.token.clone() {
            token
        } else {
            let token = self.source.establish().await.map_err(|error| Failure::of(&error))?;
            // A source may have an identity only now: an embedded database is known by its change log.
            checkpoint.source = self.source.identity().await.map_err(|error| Failure::of(&error))?;
            token
        };
        let resume = agreement::resume(&checkpoint, &feeds, token);
        update_feeds(&mut checkpoint, &feeds, &resume);
        checkpoint.token = Some(resume.token.clone());
        checkpoint.last_exit = LastExit::Running;
        checkpoint.restarts = self.metrics.restarts();
        self.save(&checkpoint).await?;
        for warning in observer.0 {
            tracing::warn!(code = %warning.code, "{}", warning.message);
        }
        Ok(Start { feeds, checkpoint, resume })
    }

    /// Saves the intent of a first start, before anything is created in the source: after a crash the next start knows whose it is.
    async fn write_intent(&mut self, source: Identity) -> Result<Checkpoint, Failure> {
        let instance = format!("{:016x}", fastrand::u64(..));
        let checkpoint = Checkpoint::intent(&self.settings.name, instance, source, self.settings.configuration.clone());
        self.save(&checkpoint).await?;
        self.is_counted = true;
        tracing::info!("first start: preparing the source");
        Ok(checkpoint)
    }

    /// Takes over, once, what the checkpoint says of earlier runs.
    fn restore(&mut self, known: &Checkpoint) {
        if !self.is_counted {
            self.previous = PreviousRun {
                newest_confirmed: known.committed_at.map(|at| Moment::of_source(at, None)),
                caught_up_at: known.caught_up_at.map(Moment::ours),
            };
            self.is_counted = true;
            self.metrics.restore_restarts(&known.restarts);
            if known.last_exit == LastExit::Running {
                self.metrics.count_restart(RestartReason::Process);
                tracing::warn!("the last run ended uncleanly; going on from its checkpoint");
            }
        }
    }

    /// Adapts the checkpoint to a changed configuration, which the preflight lets pass only where it is accepted.
    fn accept(&self, mut known: Checkpoint, feeds: &Feeds) -> Checkpoint {
        let configuration = &self.settings.configuration;
        if let Err(Disagreement::Configuration { changed }) = agreement::check_configuration(&known, configuration, feeds) {
            tracing::warn!(changed, "differs from the checkpoint; accepted because of --accept-config-change");
        }
        agreement::accept_configuration(&mut known, configuration, feeds);
        known
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        self.store.save(checkpoint).await.map_err(|error| Failure::of(&error))?;
        self.metrics.checkpoint_saved();
        Ok(())
    }
}

/// A start ends at the first problem, and logs the warnings once it has succeeded.
#[derive(Default)]
struct StartObserver(Vec<Warning>);

impl Observer for StartObserver {
    type Stop = Failure;

    fn refuse(&mut self, _part: Part, problems: Vec<Failure>) -> Result<(), Failure> {
        Failure::joined(problems).map_or(Ok(()), Err)
    }

    fn note(&mut self, _part: Part, _actions: Vec<String>, warnings: Vec<Warning>) {
        self.0.extend(warnings);
    }
}

/// Gives every feed its state. New feeds begin with their prefeed; of removed ones only the name is kept.
fn update_feeds(checkpoint: &mut Checkpoint, feeds: &Feeds, resume: &Resume) {
    let removed: Vec<_> = checkpoint.feeds.keys().filter(|name| !feeds.iter().any(|feed| feed.name == **name)).cloned().collect();
    for name in removed {
        tracing::info!(table = %name, "no longer published; dropped from the checkpoint");
        checkpoint.drop_feed(&name);
    }
    for (feed, state) in feeds.iter().zip(&resume.feeds) {
        checkpoint.keys.insert(feed.name.clone(), feed.key.clone());
        if checkpoint.feeds.insert(feed.name.clone(), state.clone()).is_none() {
            let returns = checkpoint.former.holds(&feed.name);
            checkpoint.former.remove(&feed.name);
            tracing::info!(table = %feed.name, prefeed = feed.prefeed.name(), reset = returns, "published from now on");
        }
    }
}
