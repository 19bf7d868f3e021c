//! Finds brokers whose advertised host name does not resolve on this machine.

use rdkafka::metadata::MetadataBroker;
use std::net::ToSocketAddrs as _;

/// The first host name that does not resolve.
pub(super) fn unresolved(brokers: &[MetadataBroker]) -> Option<&str> {
    brokers.iter().find(|broker| !is_resolved(broker)).map(MetadataBroker::host)
}

/// The first host name, if none of them resolves.
pub(super) fn all_unresolved(brokers: &[MetadataBroker]) -> Option<&str> {
    if brokers.iter().any(is_resolved) { None } else { brokers.first().map(MetadataBroker::host) }
}

fn is_resolved(broker: &MetadataBroker) -> bool {
    (broker.host(), u16::try_from(broker.port()).unwrap_or(0)).to_socket_addrs().is_ok()
}
