//! Sockets, and an accept loop that outlives trouble.
//!
//! Running out of file descriptors, or a peer that is gone before it is accepted, must not end the loop
//! (RUSTSEC-2024-0376) nor spin it: it pauses and goes on.

use super::display;
use crate::{config::process::Address, http_verify::Peer};
use anyhow::{Context as _, bail};
use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{Sleep, sleep},
};
use tokio_stream::Stream;

const PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
#[derive(Debug)]
pub(super) enum Bound {
    /// TCP.
    Tcp(Incoming<TcpListener>),
    /// A Unix socket.
    Unix(Incoming<UnixListener>),
}

/// Connections, for ever.
#[derive(Debug)]
pub(super) struct Incoming<L> {
    listener: L,
    pause: Option<Pin<Box<Sleep>>>,
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

impl<L: Accept + Unpin> Stream for Incoming<L> {
    type Item = io::Result<L::Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok(connection) => return Poll::Ready(Some(Ok(connection))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}

use std::future::Future as _;

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

/// Binds a listener.
pub(super) async fn bind(address: &Address, socket_mode: u32) -> anyhow::Result<Bound> {
    let cannot = || format!("cannot listen on `{}`", display(address));
    match address {
        Address::Tcp(tcp) => {
            let listener = TcpListener::bind(tcp).await.with_context(cannot)?;
            Ok(Bound::Tcp(Incoming { listener, pause: None }))
        }
        Address::Unix(path) => {
            let listener = bind_unix(path, socket_mode).await.with_context(cannot)?;
            Ok(Bound::Unix(Incoming { listener, pause: None }))
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
