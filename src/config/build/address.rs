//! Hosts and ports of servers, and files that their clients read.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// Host and port of `host`, `host:port`, `address`, `[address]` or `[address]:port`.
pub(super) fn host_and_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    // An IPv6 address without a port.
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    let (host, port) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, port)) => (address, Some(port.strip_prefix(':').ok_or("expected a port after the address")?)),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or("expected a port from 1 to 65535")).transpose()?;
    Ok((host, port))
}

/// Whether `text` is only a host name or address, without user, path or parameters, which may contain a secret.
pub(super) fn is_host(text: &str) -> bool {
    let is_name = !text.is_empty() && text.chars().all(|sign| sign.is_alphanumeric() || ['.', '-', '_'].contains(&sign));
    // A zone may follow a link-local address.
    is_name || text.split_once('%').map_or(text, |(address, _)| address).parse::<IpAddr>().is_ok()
}

/// Why a file cannot be read; `None` if it can.
pub(super) fn unreadable(path: &Path) -> Option<String> {
    let is_directory = || path.is_dir().then(|| "the file cannot be read: it is a directory; name the file in it".to_owned());
    match File::open(path) {
        Ok(_) => is_directory(),
        Err(error) => Some(format!("the file cannot be read: {error}; correct the path, or mount the file there")),
    }
}

/// Whether a server on this host is reached without a network.
pub(super) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{host_and_port, is_host};

    #[test]
    fn a_host_is_split_from_its_port() {
        assert_eq!(host_and_port("::1"), Ok(("::1", None)));
        assert_eq!(host_and_port("fe80::1:5432"), Ok(("fe80::1:5432", None)));
        assert_eq!(host_and_port("[::1]:6000"), Ok(("::1", Some(6000))));
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert!(["db", "db-1.example", "10.0.0.1", "::1", "fe80::1%eth0", "datenbank.zürich"].into_iter().all(is_host));
        assert!(!["", "me@db", "me:secret@db", "db;Password=x", "/run/db", "a b", "%2"].into_iter().any(is_host));
    }
}
