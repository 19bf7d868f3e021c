//! RabbitMQ's management API, as far as a look ahead needs it: bindings and queues, which AMQP does not show.

use super::dial::dial;
use super::{Address, Options, socket};
use crate::net::secret::Secret;
use crate::net::{Failure, TlsMode, Trust};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A larger answer is not read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    /// Host and port.
    pub place: Address,
    /// Whether it is encrypted; then it is trusted as the broker is.
    pub is_encrypted: bool,
}

/// What an exchange gives to whom.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Binding {
    pub(super) destination: String,
    pub(super) destination_type: Destination,
    pub(super) routing_key: String,
}

/// What a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Destination {
    Queue,
    Exchange,
}

/// What is known of an exchange.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ExchangeFacts {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) arguments: serde_json::Map<String, serde_json::Value>,
    /// The policy that holds for it; what it says stands elsewhere.
    #[serde(default)]
    pub(super) policy: Option<String>,
}

/// What a policy says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Policy {
    pub(super) definition: serde_json::Map<String, serde_json::Value>,
}

/// What is known of a queue.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct QueueFacts {
    #[serde(default)]
    pub(super) durable: bool,
    #[serde(default)]
    pub(super) arguments: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub(super) effective_policy_definition: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) consumers: u64,
    #[serde(default)]
    pub(super) messages: u64,
    #[serde(default)]
    pub(super) message_bytes: u64,
}

impl QueueFacts {
    /// What holds for the queue, by its arguments or by a policy (which leaves the `x-` out).
    pub(super) fn holds(&self, argument: &str) -> Option<&serde_json::Value> {
        let by_policy = self.effective_policy_definition.as_ref().and_then(|policy| policy.get(argument.trim_start_matches("x-")));
        self.arguments.get(argument).or(by_policy)
    }
}

/// Asks the API for what is there; what goes wrong is told in words, since nothing depends on it but the look.
pub(super) async fn ask<T: DeserializeOwned>(options: &Options, management: &Management, path: &[&str]) -> Result<T, String> {
    find(options, management, path).await?.ok_or_else(|| format!("it answers {} to {}", StatusCode::NOT_FOUND, path.join("/")))
}

/// Asks the API for what may be there.
pub(super) async fn find<T: DeserializeOwned>(options: &Options, management: &Management, path: &[&str]) -> Result<Option<T>, String> {
    let path = path.iter().map(|part| encoded(part)).collect::<Vec<_>>().join("/");
    let answer = timeout(ANSWER_TIMEOUT, get(options, management, &format!("/api/{path}"))).await;
    let (status, body) = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| format!("its answer is not understood: {error}")),
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(format!("it refuses user {:?}; run: rabbitmqctl set_user_tags {} management", options.user, options.user))
        }
        other => Err(format!("it answers {other} to {path}; check sink.management_url")),
    }
}

async fn get(options: &Options, management: &Management, path: &str) -> Result<(StatusCode, Bytes), String> {
    let trust = if management.is_encrypted { options.trust.clone() } else { Trust { mode: TlsMode::Disable, ..options.trust.clone() } };
    let stream = dial(&socket::runtime(), &management.place, &trust).await.map_err(|failure| match failure {
        Failure::Connection(error) => {
            format!("{error}; check sink.management_url, and that the broker has it: rabbitmq-plugins enable rabbitmq_management")
        }
        Failure::Tls(reason) => reason,
    })?;
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream.compat())).await.map_err(words)?;
    let password = options.password.as_ref().map(Secret::reveal).unwrap_or_default();
    let request = Request::get(path)
        .header(header::HOST, format!("{}:{}", management.place.host, management.place.port))
        .header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{}:{password}", options.user))))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(words)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::select! { biased;
        answer = answered => answer,
        ended = connection => Err(ended.err().map_or_else(|| "it closed the connection".to_owned(), words)),
    }
}

/// A part of a path (RFC 3986, 2.1).
fn encoded(part: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut path = String::with_capacity(part.len());
    for byte in part.bytes() {
        if is_plain(byte) { path.push(char::from(byte)) } else { write!(path, "%{byte:02X}").expect("a string takes all") }
    }
    path
}
