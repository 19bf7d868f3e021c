//! What happens before the first event: who is there, what was agreed, where to go on.

use crate::checkpoint::{Checkpoint, CheckpointStore, FeedState, Identity, LastExit, Layout, ResumeToken};
use crate::fault::{Code, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind, resolve};
use crate::metrics::RestartReason;
use crate::pipeline::Pipeline;
use crate::pipeline::failure::Failure;
use crate::sink::SinkConnector;
use crate::source::{Catalogue, SourceConnector};
use std::sync::Arc;

/// What the halves begin with.
pub(super) struct Start {
    pub(super) feeds: Arc<Feeds>,
    pub(super) checkpoint: Checkpoint,
    pub(super) token: ResumeToken,
    /// State of each feed, by its id.
    pub(super) states: Vec<FeedState>,
    /// How each feed's table was seen last, by its id.
    pub(super) layouts: Vec<Option<Layout>>,
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Pipeline<C, K, S> {
    /// Makes one attempt to begin. It may be repeated after a transient fault: what it made is found again.
    pub(super) async fn prepare(&mut self) -> Result<Start, Failure> {
        let known = self.store.load().await.map_err(|error| Failure::of(&error))?;
        self.health.set_started();
        if let Some(known) = &known {
            self.check_name(known)?;
        }
        let catalogue = self.source.catalogue().await.map_err(|error| Failure::of(&error))?;
        let feeds = Arc::new(self.resolve(&catalogue)?);
        self.source.select(Arc::clone(&feeds));
        self.sink.select(Arc::clone(&feeds));
        self.source.verify().await.map_err(|error| Failure::of(&error))?;
        let warnings = self.source.foresee().await.map_err(|error| Failure::of(&error))?.warnings;
        let sink = self.sink.verify().await.map_err(|error| Failure::of(&error))?;
        let mut checkpoint = match known {
            Some(known) => self.taken_up(known, &feeds)?,
            None => self.intent(catalogue.identity).await?,
        };
        check_sink(&mut checkpoint, sink)?;
        let token = if let Some(token) = checkpoint.token.clone() {
            token
        } else {
            let token = self.source.establish().await.map_err(|error| Failure::of(&error))?;
            // A source may have become somebody only now: an embedded database is known by its change log.
            checkpoint.source = self.source.catalogue().await.map_err(|error| Failure::of(&error))?.identity;
            token
        };
        let states = settle_feeds(&mut checkpoint, &feeds, &token);
        checkpoint.token = Some(token.clone());
        checkpoint.last_exit = LastExit::Running;
        checkpoint.restarts = self.metrics.restarts();
        self.save(&checkpoint).await?;
        let layouts = feeds.iter().map(|feed| checkpoint.layouts.get(&feed.name).cloned()).collect();
        for warning in warnings {
            tracing::warn!(code = %warning.code, "{}", warning.message);
        }
        Ok(Start { feeds, checkpoint, token, states, layouts })
    }

    fn resolve(&self, catalogue: &Catalogue) -> Result<Feeds, Failure> {
        let settings = &self.settings;
        resolve::resolve(&settings.name, &settings.rules, &settings.route, catalogue, settings.default_schema).map_err(|errors| {
            let first = errors.first().map_or(Code::TableMissing, crate::fault::Classify::code);
            let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Failure { code: first, fault: Fault::Fatal, message: messages.join("\n") }
        })
    }

    fn check_name(&self, known: &Checkpoint) -> Result<(), Failure> {
        if *known.name == *self.settings.name {
            return Ok(());
        }
        let message = format!(
            "the checkpoint belongs to the pipeline {:?}, this one is {:?}: set `name` back, or give this pipeline a checkpoint of its own",
            known.name, self.settings.name
        );
        Err(Failure { code: Code::CheckpointForeign, fault: Fault::Fatal, message })
    }

    /// A first start: the intent is durable before anything is made in the source, so that a crash between the two is no riddle.
    async fn intent(&mut self, source: Identity) -> Result<Checkpoint, Failure> {
        self.source.unclaimed().await.map_err(|error| Failure::of(&error))?;
        let instance = format!("{:016x}", fastrand::u64(..));
        let checkpoint = Checkpoint::intent(&self.settings.name, instance, source, self.settings.configuration.clone());
        self.save(&checkpoint).await?;
        tracing::info!("first start: preparing the source");
        Ok(checkpoint)
    }

    /// A later start: the checkpoint must fit the configuration.
    fn taken_up(&mut self, mut known: Checkpoint, feeds: &Feeds) -> Result<Checkpoint, Failure> {
        let changed_keys: Vec<_> =
            feeds.iter().filter(|feed| known.keys.get(&feed.name).is_some_and(|key| *key != feed.key)).map(|feed| &*feed.name).collect();
        let changed = known.configuration != self.settings.configuration || !changed_keys.is_empty();
        if changed && !self.settings.accept_config_change {
            let what = if changed_keys.is_empty() {
                "`format` or `sink.tombstones`".to_owned()
            } else {
                format!("the key of {}", changed_keys.join(", "))
            };
            let message = format!(
                "{what} differs from what the checkpoint was made with: events would no longer repeat byte by byte, and keys may move; \
                 set it back, or start once with --accept-config-change"
            );
            return Err(Failure { code: Code::CheckpointConfiguration, fault: Fault::Fatal, message });
        }
        known.configuration.clone_from(&self.settings.configuration);
        if !self.counted_start {
            self.counted_start = true;
            self.metrics.restore_restarts(&known.restarts);
            if known.last_exit == LastExit::Running {
                self.metrics.restarted(RestartReason::Process);
                tracing::warn!("the last run ended uncleanly; going on from its checkpoint");
            }
        }
        Ok(known)
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        self.store.save(checkpoint).await.map_err(|error| Failure::of(&error))
    }
}

/// Pointing a pipeline at another broker would leave there a hole before the checkpoint.
fn check_sink(checkpoint: &mut Checkpoint, sink: Identity) -> Result<(), Failure> {
    if checkpoint.sink.is_empty() {
        checkpoint.sink = sink;
        return Ok(());
    }
    if checkpoint.sink == sink {
        return Ok(());
    }
    Err(foreign_sink(&checkpoint.sink, &sink))
}

/// The sink is not the one that it was.
pub(super) fn foreign_sink(known: &Identity, found: &Identity) -> Failure {
    let message = format!(
        "the sink is {found:?}, but the checkpoint was made with {known:?}: what was sent there is missing here; point the pipeline back, \
         or begin anew here with `feedline checkpoint reset`; where it is the same one by another name, say so with \
         `feedline checkpoint accept-sink`"
    );
    Failure { code: Code::SinkForeign, fault: Fault::Gap, message }
}

/// Gives every feed its state: a new one begins with its prefeed, a removed one is dropped.
fn settle_feeds(checkpoint: &mut Checkpoint, feeds: &Feeds, token: &ResumeToken) -> Vec<FeedState> {
    let removed: Vec<_> = checkpoint.feeds.keys().filter(|name| !feeds.iter().any(|feed| feed.name == **name)).cloned().collect();
    for name in removed {
        tracing::info!(table = %name, "no longer published; dropped from the checkpoint");
        checkpoint.feeds.remove(&name);
        checkpoint.layouts.remove(&name);
        checkpoint.keys.remove(&name);
    }
    let state = |feed: &Feed| match feed.prefeed {
        PrefeedKind::Snapshot | PrefeedKind::Query(_) => FeedState::Pending,
        PrefeedKind::File(_) => FeedState::Loading { after: None },
        PrefeedKind::None => FeedState::Live { start: token.clone() },
    };
    feeds
        .iter()
        .map(|feed| {
            checkpoint.keys.insert(feed.name.clone(), feed.key.clone());
            let known = checkpoint.feeds.entry(feed.name.clone());
            known
                .or_insert_with(|| {
                    tracing::info!(table = %feed.name, prefeed = ?feed.prefeed, "published from now on");
                    state(feed)
                })
                .clone()
        })
        .collect()
}
