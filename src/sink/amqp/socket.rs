//! A socket that counts what goes through it, and the runtime that gives it to the client.
//!
//! A large event on a slow line is written for longer than a broker may be silent: whoever waits for an answer waits from the last
//! bytes on that went either way.

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

/// A socket of tokio's.
pub(super) type Inner = <Tokio as Reactor>::TcpStream;

/// A heartbeat, encrypted or not, is no larger: it shows that somebody is there, and not that anything goes on.
const HEARTBEAT_BYTES_MAX: usize = 64;

/// What went over a socket so far, either way, heartbeats aside. It only grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic(Arc<AtomicU64>);

impl Traffic {
    pub(super) fn note(&self, moved: &Poll<io::Result<usize>>) {
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

/// A connected socket.
pub(super) struct Socket {
    inner: Inner,
    pub(super) traffic: Traffic,
}

impl Over for Socket {
    fn over(inner: Inner) -> Self {
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
        self.traffic.note(&read);
        read
    }

    fn poll_read_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read_vectored(context, buffers);
        self.traffic.note(&read);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.traffic.note(&written);
        written
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.traffic.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// Tokio, with sockets of our own.
pub(super) struct Kit<S> {
    tokio: Tokio,
    sockets: PhantomData<fn() -> S>,
}

impl<S> Clone for Kit<S> {
    fn clone(&self) -> Self {
        Self { tokio: self.tokio.clone(), sockets: PhantomData }
    }
}

impl<S> Debug for Kit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kit").field(&self.tokio).finish()
    }
}

/// The runtime whose sockets count.
pub(super) type CountingRuntime = Runtime<Kit<Socket>>;

/// Bound to the runtime that this is called in.
pub(super) fn runtime<S: Over>() -> Runtime<Kit<S>> {
    Runtime::new(Kit { tokio: Tokio::current(), sockets: PhantomData })
}

/// What lies over a socket of tokio's.
pub(super) trait Over: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn over(inner: Inner) -> Self;
}

impl<S: Over> RuntimeKit for Kit<S> {}

impl<S: Over> Executor for Kit<S> {
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

impl<S: Over> Reactor for Kit<S> {
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
        async move { connected.await.map(S::over) }
    }
}
