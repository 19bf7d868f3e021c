//! What happens before the first event: who is there, what was agreed, where to go on.

use crate::checkpoint::{Checkpoint, CheckpointStore, LastExit};
use crate::feed::{Catalogue, Feeds, resolve};
use crate::pipeline::failure::Failure;
use crate::pipeline::health::Reached;
use crate::pipeline::{Pipeline, agreement};
use crate::sink::SinkConnector;
use crate::source::{Resume, SourceConnector};
use crate::status::metrics::RestartReason;
use crate::status::metrics::lag::Moment;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the halves begin with.
pub(super) struct Start {
    pub(super) feeds: Arc<Feeds>,
    pub(super) checkpoint: Checkpoint,
    pub(super) resume: Resume,
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Pipeline<C, K, S> {
    /// Makes one attempt to begin. It may be repeated after a transient fault: what it made is found again.
    pub(super) async fn prepare(&mut self) -> Result<Start, Failure> {
        let known = self.store.load().await.map_err(|error| Failure::of(&error))?;
        if known.is_none() && !self.counted_start {
            self.metrics.restore_restarts(&BTreeMap::new());
        }
        if let Some(known) = &known {
            agreement::check_name(known, &self.settings.name).map_err(|error| Failure::of(&error))?;
            self.remember(known);
        }
        let catalogue = self.source.catalogue().await.map_err(|error| Failure::of(&error))?;
        if let Some(known) = known.as_ref().filter(|known| !known.source.is_empty()) {
            // Before the checkpoint is made to fit what the source has.
            self.source.recognize(&known.source).await.map_err(|error| Failure::of(&error))?;
        }
        let feeds = Arc::new(self.resolve(&catalogue)?);
        self.source.select(Arc::clone(&feeds));
        self.sink.select(Arc::clone(&feeds));
        self.source.verify().await.map_err(|errors| Failure::of_all(&errors))?;
        let warnings = self.source.preflight().await.map_err(|error| Failure::of(&error))?.warnings;
        if let Some(known) = known.as_ref().filter(|known| !known.sink.is_empty()) {
            // Before anything is made there.
            self.sink.expect(&known.sink);
            let found = self.sink.identity().await.map_err(|error| Failure::of(&error))?;
            agreement::check_sink(known, &found).map_err(|error| Failure::of(&error))?;
        }
        let sink = self.sink.verify().await.map_err(|error| Failure::of(&error))?;
        let mut checkpoint = match known {
            Some(known) => self.taken_up(known, &feeds)?,
            None => self.intent().await?,
        };
        agreement::check_sink(&checkpoint, &sink).map_err(|error| Failure::of(&error))?;
        checkpoint.sink = sink;
        let token = if let Some(token) = checkpoint.token.clone() {
            token
        } else {
            let token = self.source.establish().await.map_err(|error| Failure::of(&error))?;
            // A source may have become somebody only now: an embedded database is known by its change log.
            checkpoint.source = self.source.identity().await.map_err(|error| Failure::of(&error))?;
            token
        };
        let resume = agreement::resume(&checkpoint, &feeds, token);
        settle_feeds(&mut checkpoint, &feeds, &resume);
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

    /// A first start: the intent is durable before anything is made in the source, so that a crash between the two is no riddle.
    async fn intent(&mut self) -> Result<Checkpoint, Failure> {
        self.source.unclaimed().await.map_err(|error| Failure::of(&error))?;
        let source = self.source.identity().await.map_err(|error| Failure::of(&error))?;
        let instance = format!("{:016x}", fastrand::u64(..));
        let checkpoint = Checkpoint::intent(&self.settings.name, instance, source, self.settings.configuration.clone());
        self.save(&checkpoint).await?;
        // What the next attempt finds is no earlier run.
        self.counted_start = true;
        tracing::info!("first start: preparing the source");
        Ok(checkpoint)
    }

    /// What the checkpoint tells of earlier runs, once.
    fn remember(&mut self, known: &Checkpoint) {
        if !self.counted_start {
            self.reached = Reached {
                newest_confirmed: known.committed_at.map(|at| Moment::of_source(at, None)),
                proved: known.caught_up_at.map(Moment::ours),
            };
            self.counted_start = true;
            self.metrics.restore_restarts(&known.restarts);
            if known.last_exit == LastExit::Running {
                self.metrics.restarted(RestartReason::Process);
                tracing::warn!("the last run ended uncleanly; going on from its checkpoint");
            }
        }
    }

    /// A later start: the checkpoint must fit the configuration.
    fn taken_up(&self, mut known: Checkpoint, feeds: &Feeds) -> Result<Checkpoint, Failure> {
        if let Err(change) = agreement::check_configuration(&known, &self.settings.configuration, feeds) {
            if !self.settings.accept_config_change {
                return Err(Failure::of(&change));
            }
            if let agreement::Disagreement::Configuration { what } = change {
                tracing::warn!(what, "differs from what the checkpoint was made with; accepted, as --accept-config-change says");
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

/// Gives every feed its state: a new one begins with its prefeed, one that is removed is remembered by its name alone.
fn settle_feeds(checkpoint: &mut Checkpoint, feeds: &Feeds, resume: &Resume) {
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
            tracing::info!(table = %feed.name, prefeed = ?feed.prefeed, reset = returns, "published from now on");
        }
    }
}
