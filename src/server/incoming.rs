//! Sockets, and an accept loop that outlives trouble.
//!
//! Running out of file descriptors, or a peer that is gone before it is accepted, must not end the loop
//! (RUSTSEC-2024-0376) nor spin it: it pauses and goes on.
//!
//! A connection is accepted when there is a place for it, which it keeps until it is dropped, wherever that is. So one
//! number holds for a listener, however many threads serve it, and who is beyond it costs neither a descriptor nor memory:
//! he waits in the kernel, where the backlog is bounded too.

use super::display;
use crate::{config::process::Address, http_verify::Peer};
use anyhow::{Context as _, bail};
use std::{
    future::Future,
    io::{self, IoSlice},
    net::IpAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_stream::Stream;

const PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
pub(super) enum Bound {
    /// TCP.
    Tcp(Incoming<TcpListener>),
    /// A Unix socket.
    Unix(Incoming<UnixListener>),
}

/// Connections, for ever.
pub(super) struct Incoming<L> {
    listener: L,
    pause: Option<Pin<Box<Sleep>>>,
    places: Arc<Semaphore>,
    wanted: Option<Wanted>,
    /// The next connection's. It stays here while there is none, and when one cannot be accepted.
    place: Option<OwnedSemaphorePermit>,
}

/// A place that is waited for.
type Wanted = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A connection, and its place.
#[derive(Debug)]
pub(super) struct Placed<C> {
    connection: C,
    place: OwnedSemaphorePermit,
}

impl<C> Placed<C> {
    /// The same connection in another form. One that is lost by it has no place any more.
    pub(super) fn try_map<D>(self, form: impl FnOnce(C) -> io::Result<D>) -> io::Result<Placed<D>> {
        Ok(Placed { connection: form(self.connection)?, place: self.place })
    }
}

impl<C: Peer> Peer for Placed<C> {
    fn ip(&self) -> Option<IpAddr> {
        self.connection.ip()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Placed<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, into)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Placed<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// What both kinds of listener do.
pub(super) trait Accept {
    type Connection: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static;
    /// A connection on its way from one runtime to another.
    type Apart: Send + 'static;
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Connection>>;
    /// Takes a connection from the runtime that it is of.
    fn part(connection: Self::Connection) -> io::Result<Self::Apart>;
    /// Gives one to the runtime at hand.
    fn settle(apart: Self::Apart) -> io::Result<Self::Connection>;
}

impl Accept for TcpListener {
    type Connection = TcpStream;
    type Apart = std::net::TcpStream;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let (connection, _) = ready!(Self::poll_accept(self, context))?;
        connection.set_nodelay(true)?;
        Poll::Ready(Ok(connection))
    }

    fn part(connection: TcpStream) -> io::Result<std::net::TcpStream> {
        connection.into_std()
    }

    fn settle(apart: std::net::TcpStream) -> io::Result<TcpStream> {
        TcpStream::from_std(apart)
    }
}

impl Accept for UnixListener {
    type Connection = UnixStream;
    type Apart = std::os::unix::net::UnixStream;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let (connection, _) = ready!(Self::poll_accept(self, context))?;
        Poll::Ready(Ok(connection))
    }

    fn part(connection: UnixStream) -> io::Result<std::os::unix::net::UnixStream> {
        connection.into_std()
    }

    fn settle(apart: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
        UnixStream::from_std(apart)
    }
}

impl<L> Incoming<L> {
    fn new(listener: L, places: usize) -> Self {
        Self { listener, pause: None, places: Arc::new(Semaphore::new(places)), wanted: None, place: None }
    }
}

impl<L: Accept + Unpin> Stream for Incoming<L> {
    type Item = io::Result<Placed<L::Connection>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { listener, pause, places, wanted, place } = self.get_mut();
        loop {
            if let Some(pausing) = pause {
                ready!(pausing.as_mut().poll(context));
                *pause = None;
            }
            let free = match place.take() {
                Some(free) => free,
                None => {
                    let waiting = wanted.get_or_insert_with(|| Box::pin(Arc::clone(places).acquire_owned()));
                    let free = ready!(waiting.as_mut().poll(context));
                    *wanted = None;
                    // Nobody closes it.
                    let Ok(free) = free else { return Poll::Ready(None) };
                    free
                }
            };
            match listener.poll_accept(context) {
                Poll::Ready(Ok(connection)) => return Poll::Ready(Some(Ok(Placed { connection, place: free }))),
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    *pause = Some(Box::pin(sleep(PAUSE)));
                    *place = Some(free);
                }
                Poll::Pending => {
                    *place = Some(free);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Bound {
    /// The address, with the port the system chose where 0 was asked for.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(incoming) => incoming.listener.local_addr().map_or_else(|_| "tcp".to_owned(), |a| a.to_string()),
            Self::Unix(incoming) => {
                let address = incoming.listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "unix".to_owned(), |path| display(&Address::Unix(path.to_owned())))
            }
        }
    }
}

/// Binds a listener that takes so many connections at a time.
pub(super) async fn bind(address: &Address, socket_mode: u32, connections: usize) -> anyhow::Result<Bound> {
    let cannot = || format!("cannot listen on `{}`", display(address));
    match address {
        Address::Tcp(tcp) => {
            let listener = TcpListener::bind(tcp).await.with_context(cannot)?;
            Ok(Bound::Tcp(Incoming::new(listener, connections)))
        }
        Address::Unix(path) => {
            let listener = bind_unix(path, socket_mode).await.with_context(cannot)?;
            Ok(Bound::Unix(Incoming::new(listener, connections)))
        }
    }
}

/// A socket file outlives a killed process. One that nobody answers on is removed; one that somebody does is not.
async fn bind_unix(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => bail!("it is there and is not a socket"),
        Ok(_) if UnixStream::connect(path).await.is_ok() => bail!("another process listens on it"),
        Ok(_) => std::fs::remove_file(path).context("cannot remove the stale socket")?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).context("cannot set its mode")?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, pin::pin, sync::Mutex};
    use tokio::io::DuplexStream;
    use tokio_stream::StreamExt as _;

    /// What accepting comes to, one after the other.
    struct Told(Mutex<VecDeque<io::Result<DuplexStream>>>);

    impl Peer for DuplexStream {
        fn ip(&self) -> Option<IpAddr> {
            None
        }
    }

    impl Accept for Told {
        type Connection = DuplexStream;
        type Apart = DuplexStream;

        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<DuplexStream>> {
            self.0.lock().unwrap().pop_front().map_or(Poll::Pending, Poll::Ready)
        }

        fn part(connection: DuplexStream) -> io::Result<DuplexStream> {
            Ok(connection)
        }

        fn settle(apart: DuplexStream) -> io::Result<DuplexStream> {
            Ok(apart)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_what_cannot_be_accepted_nor_what_is_lost_keeps_a_place() {
        let connection = || Ok(tokio::io::duplex(1).0);
        let error = || Err(io::ErrorKind::ConnectionAborted.into());
        let told = [error(), connection(), error(), error(), connection(), connection()];
        let mut incoming = Incoming::new(Told(Mutex::new(told.into())), 1);
        let first = incoming.next().await.unwrap().unwrap();
        assert!(futures_util::poll!(pin!(incoming.next())).is_pending());
        assert_eq!(incoming.listener.0.lock().unwrap().len(), 4, "without a place it is not even tried");
        drop(first);
        let second = incoming.next().await.unwrap().unwrap();
        second.try_map(|_| Err::<(), _>(io::ErrorKind::Other.into())).unwrap_err();
        incoming.next().await.unwrap().unwrap();
    }
}
