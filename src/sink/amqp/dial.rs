//! Sockets to the broker, encrypted or not, and its greeting.

use super::Place;
use super::socket::{CountingRuntime, Socket};
use crate::transport::{Distrust, Failure, TlsMode, Trust};
use async_rs::traits::Reactor as _;
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::AsyncTcpStream;
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A socket as it is, or encrypted.
type Stream = AsyncTcpStream<Socket>;
/// What was wrong with the server's certificate, if anything was.
type Verdict = Arc<Mutex<X509VerifyResult>>;

/// Results of `X509_verify_cert` (OpenSSL's `x509_vfy.h`).
const CERTIFICATE_EXPIRED: i32 = 10;
const SELF_SIGNED: [i32; 2] = [18, 19];
const ISSUER_UNKNOWN: [i32; 3] = [2, 20, 21];
const NAME_MISMATCH: [i32; 2] = [62, 64];

/// Said of a server of something else: of RabbitMQ's management API, for one.
pub(super) const NOT_AMQP: &str = "what answers there does not speak AMQP 0-9-1";

/// Connects, encrypted where that is asked for.
pub(super) async fn dial(runtime: &CountingRuntime, place: &Place, trust: &Trust) -> Result<Stream, Failure> {
    encrypt(socket(runtime, place).await?, place, trust).await
}

/// Connects.
pub(super) async fn socket(runtime: &CountingRuntime, place: &Place) -> Result<Socket, Failure> {
    let addresses = runtime.to_socket_addrs((place.host.clone(), place.port));
    runtime.tcp_connect(addresses).await.map_err(Failure::Connection)
}

/// Encrypts what goes over the socket, where that is asked for.
pub(super) async fn encrypt(socket: Socket, place: &Place, trust: &Trust) -> Result<Stream, Failure> {
    let stream = Stream::Plain(socket);
    if trust.mode == TlsMode::Disable {
        return Ok(stream);
    }
    let verdict = Verdict::new(Mutex::new(X509VerifyResult::OK));
    let connector = connector(trust, &verdict).map_err(Failure::Tls)?;
    stream.into_openssl(&connector, &place.host).await.map_err(|error| {
        let verdict = *verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal(&error, verdict, &place.host, trust.section) {
            Some(refusal) => Failure::Tls(refusal),
            None => Failure::Connection(error),
        }
    })
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

/// Says why one side refused the handshake, and what to do; `None` where the connection broke in its middle.
fn refusal(error: &io::Error, verdict: X509VerifyResult, host: &str, section: &str) -> Option<String> {
    let distrust = match verdict.as_raw() {
        code if NAME_MISMATCH.contains(&code) => Distrust::Name,
        code if SELF_SIGNED.contains(&code) || ISSUER_UNKNOWN.contains(&code) => Distrust::Authority,
        CERTIFICATE_EXPIRED => Distrust::Expired,
        _ if verdict != X509VerifyResult::OK => return Some(format!("the server's certificate is refused: {}", verdict.error_string())),
        _ if error.to_string().contains("wrong version number") => Distrust::Unencrypted,
        // An alert of the server, or what is no TLS; else the socket ended or failed.
        _ if error.to_string().contains("SSL routines") => return Some(error.to_string()),
        _ => return None,
    };
    Some(distrust.remedy(host, section))
}

/// A file and what is wrong with it: in the system's words where it cannot be opened, which OpenSSL would wrap in its own.
fn unfit_file(path: &Path, error: &ErrorStack) -> String {
    let reason = File::open(path).err().map_or_else(|| error.to_string(), |unopened| unopened.to_string());
    format!("{}: {reason}", path.display())
}

/// What checks the server's certificate as far as the mode asks for, and shows ours.
fn connector(trust: &Trust, verdict: &Verdict) -> Result<SslConnector, String> {
    let section = trust.section;
    let unfit = |error: ErrorStack| error.to_string();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(unfit)?;
    if let Some(path) = &trust.ca_file {
        // Instead of the system's authorities, which a new builder trusts.
        builder.set_cert_store(X509StoreBuilder::new().map_err(unfit)?.build());
        builder.set_ca_file(path).map_err(|error| format!("{section}.ca_file {}", unfit_file(path, &error)))?;
    }
    if let Some((certificate, key)) = &trust.client {
        builder
            .set_certificate_chain_file(certificate)
            .map_err(|error| format!("{section}.cert_file {}", unfit_file(certificate, &error)))?;
        builder
            .set_private_key_file(key, SslFiletype::PEM)
            .and_then(|()| builder.check_private_key())
            .map_err(|error| format!("{section}.key_file {}", unfit_file(key, &error)))?;
    }
    let mode = trust.effective_mode();
    let verdict = Arc::clone(verdict);
    builder.set_verify_callback(SslVerifyMode::PEER, move |is_fit, context| {
        let is_accepted = match mode {
            TlsMode::Disable | TlsMode::Require => true,
            TlsMode::VerifyCa => is_fit || NAME_MISMATCH.contains(&context.error().as_raw()),
            TlsMode::VerifyFull => is_fit,
        };
        if !is_accepted {
            *verdict.lock().unwrap_or_else(PoisonError::into_inner) = context.error();
        }
        is_accepted
    });
    Ok(builder.build())
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
pub(super) async fn greeting(runtime: &CountingRuntime, place: &Place, trust: &Trust) -> Result<Greeting, Failure> {
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
