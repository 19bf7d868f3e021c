//! TCP connections with keep-alive, and TLS over them.

use super::failure::Failure;
use super::tls::Handshake;
use super::trust::Trust;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// How long sent bytes may stay unacknowledged before the system closes the connection.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_mins(1);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);

/// A connected socket, encrypted or not.
#[derive(Debug)]
pub enum Socket {
    /// In plain text.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Pin<Box<SslStream<TcpStream>>>),
}

/// Connects in plain text, with settings that detect a peer which vanished without closing the connection.
///
/// # Errors
/// The system's error.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    use rustix::net::sockopt;
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&tcp, true)?;
    sockopt::set_tcp_keepidle(&tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&tcp, KEEPALIVE_IDLE / 4)?;
    sockopt::set_tcp_keepcnt(&tcp, 4)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(&tcp, u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX))?;
    Ok(tcp)
}

/// Encrypts a connection. The server must expect a TLS handshake now.
///
/// # Errors
/// [`Failure::Tls`] with the remedy, if one side does not trust the other.
pub async fn encrypt(tcp: TcpStream, host: &str, trust: &Trust) -> Result<SslStream<TcpStream>, Failure> {
    let (for_thread, host_for_thread) = (trust.clone(), host.to_owned());
    // Reading the system's authorities blocks for milliseconds.
    let made = tokio::task::spawn_blocking(move || Handshake::new(host_for_thread, &for_thread)).await;
    let handshake = made.map_err(|error| Failure::Tls(error.to_string()))??;
    let unfit = |error: openssl::error::ErrorStack| Failure::Tls(error.to_string());
    let session = handshake.connector.configure().and_then(|session| session.into_ssl(host)).map_err(unfit)?;
    let mut stream = SslStream::new(session, tcp).map_err(unfit)?;
    let connected = Pin::new(&mut stream).connect().await;
    connected.map_err(|error| handshake.failed(error.into_io_error().unwrap_or_else(io::Error::other)))?;
    Ok(stream)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => stream.as_mut().poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => stream.as_mut().poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => stream.as_mut().poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => stream.as_mut().poll_shutdown(context),
        }
    }
}
