//! The HTTP server for metrics and health. It changes nothing, and says nothing of rows.

use crate::change::Timestamp;
use crate::fault::{Classify, Code, Fault};
use crate::metrics::{BUILD, Metrics, render};
use crate::pipeline::health::Health;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long an answer may still take once the server is to end.
const CLOSING: Duration = Duration::from_secs(1);

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this machine's, or its port needs a privilege.
    #[error("admin.listen = \"{address}\": {source}; choose another address or port, or admin.listen = \"off\"")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        Code::AdminAddress
    }
}

/// What the server tells of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The pipeline's metrics.
    pub metrics: Metrics,
    /// The pipeline's health.
    pub health: Arc<Health>,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens, and answers nobody yet.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        Ok(Self { listener })
    }

    /// Where it listens: the port that the system chose where the configured one is 0.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`, then ends what it has begun, for a second at most.
    pub async fn serve(self, subject: Subject, stop: CancellationToken) {
        let stopped = stop.clone();
        let server = axum::serve(self.listener, router(subject)).with_graceful_shutdown(async move { stopped.cancelled().await });
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(CLOSING).await;
        };
        tokio::select! { biased;
            ended = async { server.await } => if let Err(error) = ended {
                tracing::error!(error = %error, "the admin server ended");
            },
            // A client that keeps its connection open does not keep the process.
            () = overdue => {}
        }
    }
}

fn router(subject: Subject) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/version", get(version))
        .with_state(subject)
}

async fn metrics(State(Subject { metrics, health }): State<Subject>) -> Response {
    let text = metrics.render(&health.lag(), health.state(), Timestamp::now());
    ([(header::CONTENT_TYPE, render::CONTENT_TYPE)], text).into_response()
}

/// Whether the process works. A database or a broker that is away never fails it: a restart would not bring them back.
async fn live(State(subject): State<Subject>) -> Response {
    probe(subject.health.live(tokio::time::Instant::now()))
}

/// Whether events are carried now.
async fn ready(State(subject): State<Subject>) -> Response {
    let sink_blocked = subject.metrics.sink.blocked.get() != 0;
    probe(subject.health.ready(sink_blocked, tokio::time::Instant::now()))
}

/// Whoever answers has read its configuration. A checkpoint's store in a broker that is away, or held by another instance, is
/// waited for: an orchestrator that killed the process meanwhile would only start the wait anew.
async fn started() -> Response {
    probe(Ok(()))
}

async fn version() -> Response {
    json(StatusCode::OK, &serde_json::json!(BUILD))
}

fn probe(outcome: Result<(), String>) -> Response {
    match outcome {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({ "status": "ok" })),
        Err(reason) => json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "status": "unavailable", "reason": reason })),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
