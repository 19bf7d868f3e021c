//! Runs a pipeline with its admin server.

use super::connectors::{Visit, visit};
use super::store::Store;
use crate::admin::scrapes::Scrapes;
use crate::admin::{self, AdminState, Server};
use crate::config::Plan;
use crate::fault::{Classify, Exit};
use crate::pipeline::restart::RestartPolicy;
use crate::pipeline::{Ending, Failure, Pipeline, Settings};
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::Health;
use crate::status::metrics::{Metrics, State};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often to try to open a checkpoint that another process holds.
const HELD_INTERVAL: Duration = Duration::from_millis(500);

/// The settings of the engine.
#[must_use]
pub fn settings(plan: &Plan, accept_config_change: bool) -> Settings {
    Settings {
        name: Arc::clone(&plan.name),
        configuration: plan.configuration.clone(),
        rules: plan.feeds.clone(),
        route: plan.topic.clone(),
        default_schema: plan.source.default_schema(),
        memory_bytes: plan.memory_bytes,
        checkpoint_interval: plan.checkpoint_interval,
        shutdown_deadline: plan.shutdown_deadline,
        prefeed_slice: plan.prefeed_slice,
        prefeed_bytes_per_second: plan.prefeed_bytes_per_second,
        takeover_timeout: plan.takeover_timeout,
        on_gap: plan.on_gap,
        accept_config_change,
        restart: RestartPolicy::default(),
    }
}

/// The metrics, health and admin server of a pipeline that [`run`] can start.
#[derive(Debug)]
pub struct Running {
    /// The pipeline's metrics.
    pub metrics: Metrics,
    /// The pipeline's health.
    pub health: Arc<Health>,
    admin: Option<Server>,
}

impl Running {
    /// Starts to listen on the admin address of the plan.
    ///
    /// # Errors
    /// If the server cannot listen on the address.
    pub async fn prepare(plan: &Plan) -> Result<Self, admin::Error> {
        let admin = match plan.admin {
            Some(address) => Some(Server::bind(address).await?),
            None => None,
        };
        let metrics = Metrics::new(&plan.name);
        metrics.set_pipeline(plan.source.kind(), plan.sink.kind(), plan.sink.delivery());
        Ok(Self { metrics, health: Arc::default(), admin })
    }

    /// The address of the admin server.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|server| server.address().ok())
    }
}

/// Runs the pipeline until `stop`, or until a fault that is not transient.
pub async fn run(plan: Plan, running: Running, accept_config_change: bool, stop: CancellationToken) -> Ending {
    let Running { metrics, health, admin } = running;
    let server_stop = CancellationToken::new();
    let (scrapes, final_health) = (Scrapes::default(), Arc::clone(&health));
    let state = AdminState { metrics: metrics.clone(), health: Arc::clone(&health), scrapes: scrapes.clone() };
    // The server outlives the pipeline, so that the final state can be scraped.
    let serving = async {
        if let Some(server) = admin {
            server.serve(state, server_stop.clone()).await;
        }
    };
    let running = async {
        let ending = match open_store(&plan, &health, &stop).await {
            Ok(Some(store)) => {
                let start = Start { settings: settings(&plan, accept_config_change), store, metrics: metrics.clone(), health, stop };
                Box::pin(visit(&plan, &metrics, start)).await
            }
            Ok(None) => Ending::Drained,
            Err(failure) => Ending::Failed(failure),
        };
        // A last scrape, within the shutdown deadline, shows that this stop was requested.
        if ending == Ending::Drained {
            metrics.set_stopped();
            final_health.set_stopped();
            scrapes.wait_for_next(plan.shutdown_deadline.saturating_sub(final_health.stopping_for())).await;
        }
        server_stop.cancel();
        ending
    };
    let (ending, ()) = tokio::join!(running, serving);
    ending
}

/// Opens the checkpoint store, waiting for an instance that holds it. `None` if `stop` comes first.
async fn open_store(plan: &Plan, health: &Health, stop: &CancellationToken) -> Result<Option<Store>, Failure> {
    let until = Instant::now() + plan.takeover_timeout;
    let mut is_logged = false;
    loop {
        let error = match Store::open(plan) {
            Ok(store) => return Ok(Some(store)),
            Err(error) => error,
        };
        if error.code().exit() != Exit::Held || until <= Instant::now() {
            return Err(Failure::of(&error));
        }
        if !is_logged {
            is_logged = true;
            health.set_phase(State::Standby);
            tracing::warn!(code = %error.code(), error = %error, timeout = ?plan.takeover_timeout, "waiting for another instance");
        }
        tokio::select! { biased;
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(HELD_INTERVAL) => {}
        }
    }
}

/// Runs the engine on the connectors.
struct Start {
    settings: Settings,
    store: Store,
    metrics: Metrics,
    health: Arc<Health>,
    stop: CancellationToken,
}

impl Visit for Start {
    type Output = Ending;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, sink: K) -> Ending {
        let Self { settings, store, metrics, health, stop } = self;
        Pipeline::new(settings, source, sink, store, metrics, health).run(stop).await
    }
}
