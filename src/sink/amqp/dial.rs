//! Opens TCP and TLS connections to the broker, and reads its greeting (`connection.start`).

use super::options::Address;
use super::socket::{CountingRuntime, Socket};
use crate::net::{Failure, Handshake, TlsMode, Trust};
use async_rs::traits::Reactor as _;
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::AsyncTcpStream;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;

/// A plain or encrypted socket.
pub(super) type Stream = AsyncTcpStream<Socket>;

/// The reason for a server of another protocol, for example RabbitMQ's management API.
pub(super) const NOT_AMQP: &str = "the server does not speak AMQP 0-9-1";

/// Connects, with TLS if it is configured.
pub(super) async fn dial(runtime: &CountingRuntime, address: &Address, trust: &Trust) -> Result<Stream, Failure> {
    encrypt(socket(runtime, address).await?, address, trust).await
}

/// Connects by TCP.
pub(super) async fn socket(runtime: &CountingRuntime, address: &Address) -> Result<Socket, Failure> {
    let addresses = runtime.to_socket_addrs((address.host.clone(), address.port));
    runtime.tcp_connect(addresses).await.map_err(Failure::Connection)
}

/// Wraps the socket in TLS if it is configured.
pub(super) async fn encrypt(socket: Socket, address: &Address, trust: &Trust) -> Result<Stream, Failure> {
    let stream = Stream::Plain(socket);
    if trust.mode == TlsMode::Disable {
        return Ok(stream);
    }
    let handshake = Handshake::new(address.host.clone(), trust)?;
    stream.into_openssl(&handshake.connector, &address.host).await.map_err(|error| handshake.failed(error))
}

/// Shuts a socket down when dropped, which ends the client's thread that waits on it. Otherwise a broker that never answers would
/// leave one thread behind for each attempt to connect.
pub(super) struct ShutdownOnDrop {
    socket: Option<TcpStream>,
}

impl ShutdownOnDrop {
    pub(super) fn new(socket: &Socket) -> Result<Self, Failure> {
        let descriptor = socket.as_fd().try_clone_to_owned().map_err(Failure::Connection)?;
        Ok(Self { socket: Some(TcpStream::from(descriptor)) })
    }

    /// Leaves the socket open, for the client.
    pub(super) fn disarm(mut self) {
        self.socket = None;
    }
}

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // This fails only if the connection has ended.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// The server's properties in `connection.start` (AMQP 0-9-1), sent before the login. The client does not expose them.
pub(super) struct Greeting(Vec<u8>);

impl Greeting {
    /// A server property, such as `product`, `version` or `cluster_name`.
    pub(super) fn property(&self, name: &str) -> Option<String> {
        property(&self.0, name)
    }
}

/// Reads the greeting, on a socket of its own.
pub(super) async fn greeting(runtime: &CountingRuntime, address: &Address, trust: &Trust) -> Result<Greeting, Failure> {
    const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
    const FRAME_HEAD: usize = 7;
    const FRAME_OF_METHOD: u8 = 1;
    const GREETING_BYTES_MAX: u32 = 1 << 16;
    let mut stream = dial(runtime, address, trust).await?;
    let greeted = async {
        stream.write_all(HEADER).await?;
        stream.flush().await?;
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head).await?;
        if head[0] != FRAME_OF_METHOD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, NOT_AMQP));
        }
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(GREETING_BYTES_MAX);
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        io::Result::Ok(Greeting(frame))
    };
    greeted.await.map_err(Failure::Connection)
}

/// Finds a long string among the server's properties: name, `S`, length, bytes.
fn property(frame: &[u8], name: &str) -> Option<String> {
    let mut label = vec![u8::try_from(name.len()).ok()?];
    label.extend_from_slice(name.as_bytes());
    label.push(b'S');
    let at = memchr::memmem::find(frame, &label)? + label.len();
    let (length, rest) = frame.get(at..)?.split_first_chunk::<4>()?;
    let value = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::property;

    #[test]
    fn a_server_property_is_found() {
        let frame = b"....\x0ccluster_nameS\0\0\0\x08rabbit@a\x07productS\0\0\0\x08RabbitMQ";
        assert_eq!(property(frame, "cluster_name").as_deref(), Some("rabbit@a"));
        assert_eq!(property(frame, "product").as_deref(), Some("RabbitMQ"));
        assert_eq!(property(frame, "version"), None);
        assert_eq!(property(b"\x0ccluster_nameS\0\0\xff\xff", "cluster_name"), None);
    }
}
