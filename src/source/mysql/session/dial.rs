//! Opens the socket of a session, encrypted where that is configured.

use crate::net::{self, Failure, Socket, TlsMode};
use crate::source::mysql::error::Error;
use crate::source::mysql::options::Options;
use crate::source::mysql::server_error::ServerError;
use crate::source::mysql::session::greeting::{Greeting, capability};
use crate::source::mysql::wire::Wire;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a connection may take until it is ready.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Connects to the configured host; with TLS if that is configured. Returns the connection, on which the client's login comes next.
pub(super) async fn dial(options: &Options, address: &str) -> Result<(Wire, Greeting), Error> {
    let failed = |source| Error::Connection { address: address.to_owned(), source };
    let mut tcp = net::connect(&options.host, options.port).await.map_err(failed)?;
    let packet = first_packet(&mut tcp).await.map_err(failed)?.ok_or(Error::Protocol { what: "the server's greeting" })?;
    if packet.first() == Some(&0xFF) {
        return Err(Error::from_server(ServerError::parse(&packet), address, &options.user));
    }
    let greeting = Greeting::parse(&packet).ok_or(Error::Protocol { what: "the server's greeting" })?;
    if options.trust.mode == TlsMode::Disable {
        return Ok((Wire::new(Socket::Plain(tcp), address.to_owned(), 1), greeting));
    }
    if greeting.capabilities & capability::TLS == 0 {
        let reason = "the server has no TLS; configure ssl_cert and ssl_key there, or set source.tls = \"disable\"".to_owned();
        return Err(Error::Tls { address: address.to_owned(), reason });
    }
    tcp.write_all(&tls_request()).await.map_err(failed)?;
    let encrypted = net::encrypt(tcp, &options.host, &options.trust).await.map_err(|failure| match failure {
        Failure::Connection(source) => failed(source),
        Failure::Tls(reason) => Error::Tls { address: address.to_owned(), reason },
    })?;
    Ok((Wire::new(Socket::Tls(Box::pin(encrypted)), address.to_owned(), 2), greeting))
}

/// Reads one packet and no more: bytes sent before the encryption must not be taken for encrypted ones. `None` where its header is wrong.
async fn first_packet(tcp: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut header = [0; 4];
    tcp.read_exact(&mut header).await?;
    let [low, high, beyond, sequence] = header;
    // A server that is full may number its error with 255.
    if beyond != 0 || !matches!(sequence, 0 | 255) {
        return Ok(None);
    }
    let mut packet = vec![0; u16::from_le_bytes([low, high]).into()];
    tcp.read_exact(&mut packet).await?;
    Ok(Some(packet))
}

/// Requests TLS (MySQL documentation, "Connection Phase"): 32 bytes, as the client's login begins.
fn tls_request() -> Vec<u8> {
    let mut request = vec![32, 0, 0, 1];
    request.extend_from_slice(&super::greeting::beginning(capability::TLS));
    request
}
