//! A client of RabbitMQ's management API. The preflight uses it to read bindings, queues and policies, which AMQP does not show.

use super::dial::dial;
use super::options::{Management, Options};
use super::socket;
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

/// Timeout for one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A larger response is refused.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A binding of an exchange.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Binding {
    pub(super) destination: String,
    pub(super) destination_type: DestinationType,
    pub(super) routing_key: String,
}

/// What a binding routes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DestinationType {
    Queue,
    Exchange,
}

/// An exchange as the API describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ExchangeFacts {
    #[serde(default)]
    pub(super) arguments: serde_json::Map<String, serde_json::Value>,
    /// The name of the policy that applies to it.
    #[serde(default)]
    pub(super) policy: Option<String>,
}

/// A policy as the API describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Policy {
    pub(super) definition: serde_json::Map<String, serde_json::Value>,
}

/// A queue as the API describes it.
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
    /// The value in effect for an argument, from the queue's arguments or from a policy, where the name has no `x-`.
    pub(super) fn argument(&self, name: &str) -> Option<&serde_json::Value> {
        let by_policy = self.effective_policy_definition.as_ref().and_then(|policy| policy.get(name.trim_start_matches("x-")));
        self.arguments.get(name).or(by_policy)
    }
}

/// Reads a resource that may be missing. Errors are plain text: only the preflight's report depends on them.
pub(super) async fn get_if_present<T: DeserializeOwned>(
    options: &Options,
    management: &Management,
    path: &[&str],
) -> Result<Option<T>, String> {
    let path = path.iter().map(|part| encoded(part)).collect::<Vec<_>>().join("/");
    let answer = timeout(ANSWER_TIMEOUT, request(options, management, &format!("/api/{path}"))).await;
    let (status, body) = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| format!("its response is invalid: {error}")),
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(format!("it refuses user {:?}; run: rabbitmqctl set_user_tags {} management", options.user, options.user))
        }
        other => Err(format!("it answers {other} for {path}; check sink.management_url")),
    }
}

async fn request(options: &Options, management: &Management, path: &str) -> Result<(StatusCode, Bytes), String> {
    let trust = if management.is_encrypted { options.trust.clone() } else { Trust { mode: TlsMode::Disable, ..options.trust.clone() } };
    let stream = dial(&socket::runtime(), &management.address, &trust).await.map_err(|failure| match failure {
        Failure::Connection(error) => {
            format!("{error}; check sink.management_url, or run: rabbitmq-plugins enable rabbitmq_management")
        }
        Failure::Tls(reason) => reason,
    })?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream.compat())).await.map_err(text)?;
    let password = options.password.as_ref().map(Secret::reveal).unwrap_or_default();
    let request = Request::get(path)
        .header(header::HOST, management.address.to_string())
        .header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{}:{password}", options.user))))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::select! { biased;
        answer = answered => answer,
        ended = connection => Err(ended.err().map_or_else(|| "it closed the connection".to_owned(), text)),
    }
}

/// Percent-encodes a segment of a path (RFC 3986, 2.1).
fn encoded(part: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut path = String::with_capacity(part.len());
    for byte in part.bytes() {
        if is_plain(byte) { path.push(char::from(byte)) } else { write!(path, "%{byte:02X}").expect("a string takes all") }
    }
    path
}
