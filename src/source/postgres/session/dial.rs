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

/// What is known of a connection once it is made.
pub(super) struct Connected {
    /// What a proof of who we are can be bound to.
    pub(super) binding: Option<Vec<u8>>,
    pub(super) peer: Option<SocketAddr>,
}

/// Connects, to where the name leads or to this very peer; encrypted where that is asked for.
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

/// Asks for TLS by the byte that the server answers with (PostgreSQL documentation, 55.2.10).
async fn ask_for_tls(tcp: &mut TcpStream, address: &str) -> Result<(), Error> {
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
    let failed = |source| Error::Connection { address: address.to_owned(), source };
    tcp.write_all(&REQUEST).await.map_err(failed)?;
    // One byte and no more: what came before the encryption must not be read as if it had come inside.
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
