//! The HTTP server for metrics and health. It is read-only, and shows no row data.
//!
//! Clients cannot burden the pipeline: the number of connections and the size of requests are limited. A new connection replaces the oldest
//! one, so that probes are answered even if other clients keep connections open.

use crate::fault::{Classify, Code, Fault};
use crate::status::Status;
use crate::status::metrics::{BUILD, Metrics, render};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub mod scrapes;

use scrapes::Scrapes;

/// How long open requests may take once the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 64;
/// Timeout of a request's head, and of the pause between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a request's head: hyper's minimum.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause after a failed `accept`, such as with too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, is not of this machine, or its port needs a privilege.
    #[error("admin.listen = \"{address}\": {source}; choose another address or port, or admin.listen = \"off\"")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
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

/// What the server shows.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The pipeline's metrics.
    pub metrics: Metrics,
    /// The pipeline's status.
    pub status: watch::Receiver<Status>,
    /// Recent requests for metrics.
    pub scrapes: Scrapes,
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Starts to listen. Requests are answered by [`Server::serve`].
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        Ok(Self { listener })
    }

    /// The address on which it listens, with the port that the system chose if the configured one is 0.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until `stop`, then finishes open requests, for at most a second.
    pub async fn serve(self, state: AdminState, stop: CancellationToken) {
        let router = router(state);
        let mut clients = Clients::default();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, peer)) => clients.admit(answer(socket, router.clone().layer(Extension(peer.ip())), stop.clone())),
                    Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
                },
                Some(_) = clients.tasks.join_next() => {}
            }
        }
        // Idle connections do not keep the process alive.
        let ended = async { while clients.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            clients.tasks.shutdown().await;
        }
    }
}

/// The connected clients, oldest first.
#[derive(Default)]
struct Clients {
    tasks: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Clients {
    fn admit(&mut self, answering: impl Future<Output = ()> + Send + 'static) {
        self.handles.retain(|handle| !handle.is_finished());
        if CONNECTIONS_MAX <= self.handles.len()
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.handles.push_back(self.tasks.spawn(answering));
    }
}

/// Answers one client until it disconnects or the server stops.
async fn answer(socket: TcpStream, router: Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // Errors of a client are ignored.
    let is_over = tokio::select! { biased;
        _ = connection.as_mut() => true,
        () = stop.cancelled() => false,
    };
    if !is_over {
        connection.as_mut().graceful_shutdown();
        connection.await.ok();
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/version", get(version))
        .with_state(state)
}

async fn metrics(
    State(AdminState { metrics, status, scrapes }): State<AdminState>,
    Extension(peer): Extension<IpAddr>,
    headers: HeaderMap,
) -> Response {
    let text = metrics.render(&status.borrow(), tokio::time::Instant::now());
    scrapes.record((peer, headers.get(header::USER_AGENT).cloned()));
    ([(header::CONTENT_TYPE, render::CONTENT_TYPE)], text).into_response()
}

/// Liveness. An unreachable database or broker does not fail it, because a restart would not help.
async fn live(State(state): State<AdminState>) -> Response {
    probe(state.status.borrow().live(tokio::time::Instant::now()))
}

/// Readiness: whether events flow now.
async fn ready(State(state): State<AdminState>) -> Response {
    let sink_blocked = state.metrics.sink.blocked.get() != 0;
    probe(state.status.borrow().ready(sink_blocked, tokio::time::Instant::now()))
}

/// Startup: always ok, because the server starts after the configuration is loaded. Waiting for an unreachable checkpoint store or another
/// instance does not fail it: after a kill, the wait would only start again.
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
