//! Opens the socket of a session, encrypted where that is configured.

use crate::net::{self, Failure, Socket, TlsMode};
use crate::source::postgres::channel_binding;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::wire::Wire;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a connection may take until it is ready.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// What is known about a connection once it is open.
pub(super) struct Connected {
    /// The TLS channel binding for SCRAM.
    pub(super) binding: Option<Vec<u8>>,
    pub(super) peer: Option<SocketAddr>,
}

/// Connects to the configured host, or to `peer` if it is given; with TLS if that is configured.
pub(super) async fn dial(options: &Options, address: &str, peer: Option<SocketAddr>) -> Result<(Wire, Connected), Error> {
    let failed = |source| Error::Connection { address: address.to_owned(), source };
    let host = peer.map_or_else(|| options.host.clone(), |peer| peer.ip().to_string());
    let mut tcp = net::connect(&host, options.port).await.map_err(failed)?;
    let peer = tcp.peer_addr().ok();
    let (socket, binding) = if options.trust.mode == TlsMode::Disable {
        (Socket::Plain(tcp), None)
    } else {
        ask_for_tls(&mut tcp, address).await?;
        let encrypted = net::encrypt(tcp, &options.host, &options.trust).await.map_err(|failure| match failure {
            Failure::Connection(source) => failed(source),
            Failure::Tls(reason) => Error::Tls { address: address.to_owned(), reason },
        })?;
        let binding = channel_binding::server_end_point(encrypted.ssl());
        (Socket::Tls(Box::pin(encrypted)), binding)
    };
    Ok((Wire::new(socket, address.to_owned()), Connected { binding, peer }))
}

/// Requests TLS; the server answers with one byte (PostgreSQL documentation, 55.2.10).
async fn ask_for_tls(tcp: &mut TcpStream, address: &str) -> Result<(), Error> {
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
    let failed = |source| Error::Connection { address: address.to_owned(), source };
    tcp.write_all(&REQUEST).await.map_err(failed)?;
    // Reads one byte and no more: bytes sent before the encryption must not be taken for encrypted ones.
    let mut answer = [0];
    tcp.read_exact(&mut answer).await.map_err(failed)?;
    match answer {
        [b'S'] => Ok(()),
        [b'N'] => Err(Error::Tls {
            address: address.to_owned(),
            reason: "the server has no TLS; set ssl = on there, or source.tls = \"disable\"".to_owned(),
        }),
        _ => Err(Error::Protocol { what: "answer to the request for TLS" }),
    }
}
