//! Sockets to the broker, encrypted or not, and its greeting.

use super::Address;
use super::socket::{CountingRuntime, Socket};
use crate::net::{Failure, Handshake, TlsMode, Trust};
use async_rs::traits::Reactor as _;
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::AsyncTcpStream;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;

/// A socket as it is, or encrypted.
pub(super) type Stream = AsyncTcpStream<Socket>;

/// Said of a server of something else: of RabbitMQ's management API, for one.
pub(super) const NOT_AMQP: &str = "what answers there does not speak AMQP 0-9-1";

/// Connects, encrypted where that is asked for.
pub(super) async fn dial(runtime: &CountingRuntime, place: &Address, trust: &Trust) -> Result<Stream, Failure> {
    encrypt(socket(runtime, place).await?, place, trust).await
}

/// Connects.
pub(super) async fn socket(runtime: &CountingRuntime, place: &Address) -> Result<Socket, Failure> {
    let addresses = runtime.to_socket_addrs((place.host.clone(), place.port));
    runtime.tcp_connect(addresses).await.map_err(Failure::Connection)
}

/// Encrypts what goes over the socket, where that is asked for.
pub(super) async fn encrypt(socket: Socket, place: &Address, trust: &Trust) -> Result<Stream, Failure> {
    let stream = Stream::Plain(socket);
    if trust.mode == TlsMode::Disable {
        return Ok(stream);
    }
    let handshake = Handshake::new(place.host.clone(), trust)?;
    stream.into_openssl(&handshake.connector, &place.host).await.map_err(|error| handshake.failed(error))
}

/// A hold on a socket that a thread of the client waits on: dropped, it ends the connection, and the thread with it. A broker that
/// says nothing would else keep one for each try.
pub(super) struct Hold {
    socket: Option<TcpStream>,
}

impl Hold {
    pub(super) fn on(socket: &Socket) -> Result<Self, Failure> {
        let descriptor = socket.as_fd().try_clone_to_owned().map_err(Failure::Connection)?;
        Ok(Self { socket: Some(TcpStream::from(descriptor)) })
    }

    /// Leaves the connection to the client.
    pub(super) fn let_go(mut self) {
        self.socket = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // What fails here is a connection that has ended.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// What a broker says of itself before anybody logs in (AMQP 0-9-1, `connection.start`): the client keeps it to itself.
pub(super) struct Greeting(Vec<u8>);

impl Greeting {
    /// A property of the server: `product`, `version`, `cluster_name`.
    pub(super) fn property(&self, name: &str) -> Option<String> {
        property(&self.0, name)
    }
}

/// Asks for the greeting, on a socket of its own.
pub(super) async fn greeting(runtime: &CountingRuntime, place: &Address, trust: &Trust) -> Result<Greeting, Failure> {
    const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
    const FRAME_HEAD: usize = 7;
    const FRAME_OF_METHOD: u8 = 1;
    const GREETING_BYTES_MAX: u32 = 1 << 16;
    let mut stream = dial(runtime, place, trust).await?;
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

/// A long string of the server's properties: its name, `S`, its length and its bytes.
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
    fn a_property_of_the_greeting_is_found() {
        let frame = b"....\x0ccluster_nameS\0\0\0\x08rabbit@a\x07productS\0\0\0\x08RabbitMQ";
        assert_eq!(property(frame, "cluster_name").as_deref(), Some("rabbit@a"));
        assert_eq!(property(frame, "product").as_deref(), Some("RabbitMQ"));
        assert_eq!(property(frame, "version"), None);
        assert_eq!(property(b"\x0ccluster_nameS\0\0\xff\xff", "cluster_name"), None);
    }
}
