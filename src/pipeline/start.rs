//! One attempt to start: reads the checkpoint, checks source and sink against it, and says where to go on.

use super::agreement;
use super::failure::Failure;
use super::settings::Settings;
use crate::checkpoint::{Checkpoint, CheckpointStore, LastExit};
use crate::feed::{Catalogue, Feeds, resolve};
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
        if let Some(known) = &known {
            agreement::check_name(known, &self.settings.name).map_err(|error| Failure::of(&error))?;
            self.restore(known);
        }
        let catalogue = self.source.catalogue().await.map_err(|error| Failure::of(&error))?;
        if let Some(known) = known.as_ref().filter(|known| !known.source.is_empty()) {
            // Before the checkpoint is adapted to what the source has.
            self.source.recognize(&known.source).await.map_err(|error| Failure::of(&error))?;
        }
        let feeds = Arc::new(self.resolve(&catalogue)?);
        self.source.select(Arc::clone(&feeds));
        self.sink.select(Arc::clone(&feeds));
        self.source.verify().await.map_err(|errors| Failure::of_all(&errors))?;
        let warnings = self.source.preflight().await.map_err(|error| Failure::of(&error))?.warnings;
        if let Some(known) = known.as_ref().filter(|known| !known.sink.is_empty()) {
            // Before anything is created there.
            self.sink.expect(&known.sink);
            let found = self.sink.identity().await.map_err(|error| Failure::of(&error))?;
            agreement::check_sink(known, &found).map_err(|error| Failure::of(&error))?;
        }
        let sink = self.sink.verify().await.map_err(|error| Failure::of(&error))?;
        let mut checkpoint = match known {
            Some(known) => self.accept(known, &feeds)?,
            None => self.write_intent().await?,
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
        for warning in warnings {
            tracing::warn!(code = %warning.code, "{}", warning.message);
        }
        Ok(Start { feeds, checkpoint, resume })
    }

    fn resolve(&self, catalogue: &Catalogue) -> Result<Feeds, Failure> {
        let settings = &self.settings;
        resolve::resolve(&settings.name, &settings.rules, &settings.route, catalogue, settings.default_schema)
            .map_err(|errors| Failure::of_all(&errors))
    }

    /// Saves the intent of a first start, before anything is created in the source: after a crash the next start knows whose it is.
    async fn write_intent(&mut self) -> Result<Checkpoint, Failure> {
        self.source.unclaimed().await.map_err(|error| Failure::of(&error))?;
        let source = self.source.identity().await.map_err(|error| Failure::of(&error))?;
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

    /// Checks the checkpoint against the settings, and adapts it where a changed configuration is accepted.
    fn accept(&self, mut known: Checkpoint, feeds: &Feeds) -> Result<Checkpoint, Failure> {
        if let Err(change) = agreement::check_configuration(&known, &self.settings.configuration, feeds) {
            if !self.settings.accept_config_change {
                return Err(Failure::of(&change));
            }
            if let agreement::Disagreement::Configuration { changed } = change {
                tracing::warn!(changed, "differs from the checkpoint; accepted because of --accept-config-change");
            }
        }
        agreement::accept_configuration(&mut known, &self.settings.configuration, feeds);
        Ok(known)
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        self.store.save(checkpoint).await.map_err(|error| Failure::of(&error))?;
        self.metrics.checkpoint_saved();
        Ok(())
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
