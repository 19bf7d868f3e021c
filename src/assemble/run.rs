//! Runs a pipeline with its admin server.

use super::connectors::{Visit, visit};
use super::new_tables;
use super::store::Store;
use crate::admin::scrapes::Scrapes;
use crate::admin::{self, AdminState, Server};
use crate::config::Plan;
use crate::fault::{Classify, Exit};
use crate::pipeline::{Ending, Failure, Pipeline, SetLogLevel, Settings};
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::{Metrics, State};
use crate::status::{Publisher, Side, Status, WaitFor};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often to try to open a checkpoint that another process holds.
const HELD_INTERVAL: Duration = Duration::from_millis(500);

/// The metrics, status and admin server of a pipeline that [`run`] can start.
#[derive(Debug)]
pub struct Running {
    /// The pipeline's metrics.
    pub metrics: Metrics,
    /// The pipeline's status.
    pub status: Publisher,
    /// Sets the level of the log, where this process has one.
    pub set_log_level: Option<SetLogLevel>,
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
        let metrics = Metrics::new(&plan.pipeline.name);
        metrics.set_pipeline(plan.source.kind(), plan.sink.kind(), plan.sink.delivery());
        Ok(Self { metrics, status: Publisher::default(), set_log_level: None, admin })
    }

    /// The address of the admin server.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|server| server.address().ok())
    }
}

/// Runs the pipeline until `stop`, or until a fault that is not transient.
pub async fn run(plan: Plan, running: Running, accept_config_change: bool, stop: CancellationToken) -> Ending {
    let Running { metrics, status, set_log_level, admin } = running;
    let server_stop = CancellationToken::new();
    let scrapes = Scrapes::default();
    let state = AdminState { metrics: metrics.clone(), status: status.subscribe(), scrapes: scrapes.clone() };
    // The server outlives the pipeline, so that the final state can be scraped.
    let serving = async {
        if let Some(server) = admin {
            server.serve(state, server_stop.clone()).await;
        }
    };
    let running = async {
        let mut run = Run { plan: &plan, metrics: &metrics, status: &status, set_log_level, accept_config_change };
        let ending = run.until(&stop).await;
        // A last scrape, within the shutdown deadline, shows that this stop was requested.
        if ending == Ending::Drained {
            status.publish(Status::set_stopped);
            let stopping_for = status.read().stopping_for();
            scrapes.wait_for_next(plan.pipeline.shutdown_deadline.saturating_sub(stopping_for)).await;
        }
        server_stop.cancel();
        ending
    };
    let (ending, ()) = tokio::join!(running, serving);
    ending
}

/// Runs of one plan, one after another.
struct Run<'p> {
    plan: &'p Plan,
    metrics: &'p Metrics,
    status: &'p Publisher,
    set_log_level: Option<SetLogLevel>,
    accept_config_change: bool,
}

impl Run<'_> {
    /// Runs the pipeline. Where new tables can be published, it drains and begins again with them: the feeds of a run are fixed.
    async fn until(&mut self, stop: &CancellationToken) -> Ending {
        let mut drained_at = None;
        loop {
            let drain = stop.child_token();
            let ending = {
                let mut run = pin!(self.once(drain.clone()));
                tokio::select! { biased;
                    ending = &mut run => return ending,
                    () = new_tables::wait(self.plan, self.status, drained_at) => {
                        drained_at = Some(Instant::now());
                        drain.cancel();
                        run.await
                    }
                }
            };
            if stop.is_cancelled() || !matches!(ending, Ending::Drained | Ending::Deadline { .. }) {
                return ending;
            }
            // What was accepted is in the checkpoint.
            self.accept_config_change = false;
        }
    }

    async fn once(&self, stop: CancellationToken) -> Ending {
        match open_store(self.plan, self.status, &stop).await {
            Ok(Some(store)) => {
                let settings = Settings { accept_config_change: self.accept_config_change, ..self.plan.pipeline.clone() };
                let (metrics, status, set_log_level) = (self.metrics.clone(), self.status.clone(), self.set_log_level);
                let start = Start { settings, store, metrics, status, set_log_level, stop };
                Box::pin(visit(self.plan, self.metrics, start)).await
            }
            Ok(None) => Ending::Drained,
            Err(failure) => Ending::Failed(failure),
        }
    }
}

/// Opens the checkpoint store, waiting for an instance that holds it. `None` if `stop` comes first.
async fn open_store(plan: &Plan, status: &Publisher, stop: &CancellationToken) -> Result<Option<Store>, Failure> {
    let until = Instant::now() + plan.pipeline.takeover_timeout;
    let mut is_logged = false;
    loop {
        let of = plan.clone();
        // A disk may hang, and health must be answered meanwhile.
        let opening = tokio::task::spawn_blocking(move || Store::open(&of));
        let opened = tokio::select! { biased;
            () = stop.cancelled() => return Ok(None),
            opened = opening => opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())),
        };
        let error = match opened {
            Ok(store) => return Ok(Some(store)),
            Err(error) => error,
        };
        if error.code().exit() != Exit::Held || until <= Instant::now() {
            return Err(Failure::of(&error));
        }
        if !is_logged {
            is_logged = true;
            status.publish(|status| {
                status.set_phase(State::Standby);
                status.set_waiting(Side::Source, Some((WaitFor::Instance, Some(error.to_string()))));
            });
            let timeout_seconds = plan.pipeline.takeover_timeout.as_secs();
            tracing::warn!(code = %error.code(), error = %error, timeout_seconds, "waiting for another instance");
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
    status: Publisher,
    set_log_level: Option<SetLogLevel>,
    stop: CancellationToken,
}

impl Visit for Start {
    type Output = Ending;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, sink: K) -> Ending {
        let Self { settings, store, metrics, status, set_log_level, stop } = self;
        Pipeline::new(settings, source, sink, store, metrics, status, set_log_level).run(stop).await
    }
}
