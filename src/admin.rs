//! The HTTP server for metrics and health. It changes nothing, and says nothing of rows.
//!
//! Whoever reaches its port costs the pipeline little: connections are few and their requests short, and a new one takes the place of
//! the oldest, so that probes are answered whoever holds connections open.

use crate::fault::{Classify, Code, Fault};
use crate::status::Health;
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
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub mod scrapes;

use scrapes::Scrapes;

/// How long an answer may still take once the server is to end.
const CLOSING: Duration = Duration::from_secs(1);
/// How many clients are connected at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take over the head of a request, and may be silent between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What a request's head may have: the least that the server takes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long is waited before the next client is admitted where the system admits none: the process may have too many files open.
const REFUSED_DELAY: Duration = Duration::from_millis(100);

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
    /// Who asks for metrics.
    pub scrapes: Scrapes,
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
        let router = router(subject);
        let mut clients = Clients::default();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, from)) => clients.admit(answer(socket, router.clone().layer(Extension(from.ip())), stop.clone())),
                    Err(_) => tokio::time::sleep(REFUSED_DELAY).await,
                },
                Some(_) = clients.tasks.join_next() => {}
            }
        }
        // A client that keeps its connection open does not keep the process.
        let ended = async { while clients.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSING, ended).await.is_err() {
            clients.tasks.shutdown().await;
        }
    }
}

/// Who is connected, the oldest first.
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

/// Answers one client until it leaves, or the server is to end.
async fn answer(socket: TcpStream, router: Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // A client that leaves in the middle, or says what is no HTTP, is nobody's concern.
    let is_over = tokio::select! { biased;
        _ = connection.as_mut() => true,
        () = stop.cancelled() => false,
    };
    if !is_over {
        connection.as_mut().graceful_shutdown();
        connection.await.ok();
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

async fn metrics(
    State(Subject { metrics, health, scrapes }): State<Subject>,
    Extension(from): Extension<IpAddr>,
    headers: HeaderMap,
) -> Response {
    let text = metrics.render(&health.lag(), health.state(), tokio::time::Instant::now());
    scrapes.note((from, headers.get(header::USER_AGENT).cloned()));
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
