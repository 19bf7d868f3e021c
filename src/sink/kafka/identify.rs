//! Asks the brokers which cluster they belong to, and for the ids of the topics.

use super::client::{ClientHandle, metadata};
use super::context::Context;
use super::describe::{DescribeRequest, Description};
use super::error::Error;
use super::hosts::unresolved;
use super::identity::KnownCluster;
use rdkafka::client::{Client, ClientContext};
use rdkafka::metadata::MetadataBroker;
use rdkafka::producer::Producer as _;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long all brokers together have to answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each of them has at least.
const BROKER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often to check whether the caller still waits.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Asks one broker after the other until one answers. Blocks.
pub(super) fn identify<'t>(client: &ClientHandle, topics: impl IntoIterator<Item = &'t Arc<str>>) -> Result<KnownCluster, Error> {
    // The names hold no zero byte: `topics::check_names`.
    let names: Vec<CString> = topics.into_iter().filter_map(|topic| CString::new(&**topic).ok()).collect();
    let first = names.first().and_then(|name| name.to_str().ok());
    let metadata = metadata(client, first)?;
    identify_with(client.client().client(), client.context(), metadata.brokers(), names, &|| client.is_stopping())
}

/// As [`identify`], for any client and these brokers. `is_given_up` says whether the caller no longer waits.
pub(super) fn identify_with<C: ClientContext>(
    client: &Client<C>,
    context: &Context,
    brokers: &[MetadataBroker],
    names: Vec<CString>,
    is_given_up: &dyn Fn() -> bool,
) -> Result<KnownCluster, Error> {
    if names.is_empty() {
        // No records will be sent.
        let cluster = client.fetch_cluster_id(TOTAL_TIMEOUT).ok_or_else(|| context.unreachable("the cluster did not return its id"))?;
        return Ok(KnownCluster::new(Description { cluster: Some(cluster), ..Description::default() }, names));
    }
    let timeout = (TOTAL_TIMEOUT / u32::try_from(brokers.len().max(1)).unwrap_or(1)).max(BROKER_TIMEOUT);
    let mut last_error = "the cluster has no brokers".to_owned();
    for broker in brokers {
        let mut request = DescribeRequest::send(client, broker.id(), &names, timeout);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            match request.answer(POLL_INTERVAL) {
                Some(Ok(description)) => return Ok(KnownCluster::new(description, names)),
                Some(Err(code)) => {
                    last_error = format!("{}:{}: {code}", broker.host(), broker.port());
                    break;
                }
                None => {}
            }
            if let Some(failure) = context.failure() {
                return Err(failure.clone());
            }
            if is_given_up() {
                break;
            }
        }
    }
    Err(match unresolved(brokers) {
        Some(name) => Error::Unresolved { servers: context.servers().to_owned(), name: name.to_owned() },
        None => context.unreachable(&format!("no broker returned its cluster id: {last_error}")),
    })
}
