//! A TCP socket that counts its bytes, and the async runtime that hands it to the AMQP client.
//!
//! Writing a large event over a slow line can take longer than the confirm timeout. Timeouts therefore count from the last bytes that
//! moved in either direction.

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite};
use std::fmt::{self, Debug};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A TCP socket of tokio.
pub(super) type TokioSocket = <Tokio as Reactor>::TcpStream;

/// The largest size of a heartbeat, encrypted or not. A heartbeat shows that the peer is alive, not that data moves.
const HEARTBEAT_BYTES_MAX: usize = 64;

/// The number of bytes that a socket has moved in both directions, without heartbeats. It only grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic(Arc<AtomicU64>);

impl Traffic {
    pub(super) fn count(&self, moved: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = moved
            && HEARTBEAT_BYTES_MAX < *bytes
        {
            self.0.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connected socket that counts its bytes.
pub(super) struct Socket {
    inner: TokioSocket,
    pub(super) traffic: Traffic,
}

impl FromTokioSocket for Socket {
    fn from_tokio(inner: TokioSocket) -> Self {
        Self { inner, traffic: Traffic::default() }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.get_ref().as_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.traffic.count(&read);
        read
    }

    fn poll_read_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read_vectored(context, buffers);
        self.traffic.count(&read);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.traffic.count(&written);
        written
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.traffic.count(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// Tokio's runtime with sockets of type `S`.
pub(super) struct SocketRuntime<S> {
    tokio: Tokio,
    sockets: PhantomData<fn() -> S>,
}

impl<S> Clone for SocketRuntime<S> {
    fn clone(&self) -> Self {
        Self { tokio: self.tokio.clone(), sockets: PhantomData }
    }
}

impl<S> Debug for SocketRuntime<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SocketRuntime").field(&self.tokio).finish()
    }
}

/// A runtime whose sockets count their bytes.
pub(super) type CountingRuntime = Runtime<SocketRuntime<Socket>>;

/// A runtime on top of the current tokio runtime.
pub(super) fn runtime<S: FromTokioSocket>() -> Runtime<SocketRuntime<S>> {
    Runtime::new(SocketRuntime { tokio: Tokio::current(), sockets: PhantomData })
}

/// A stream that wraps a socket of tokio.
pub(super) trait FromTokioSocket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn from_tokio(inner: TokioSocket) -> Self;
}

impl<S: FromTokioSocket> RuntimeKit for SocketRuntime<S> {}

impl<S: FromTokioSocket> Executor for SocketRuntime<S> {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.tokio.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(work)
    }
}

impl<S: FromTokioSocket> Reactor for SocketRuntime<S> {
    type TcpStream = S;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl futures_util::Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<S>> + Send + 'static {
        let connected = self.tokio.tcp_connect_addr(address);
        async move { connected.await.map(S::from_tokio) }
    }
}
