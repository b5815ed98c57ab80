//! How long a connection may take over a request's head, and how long it may be idle between requests.
//!
//! Only this stream sees when the first byte of a head arrives; only the service knows when the head is whole. They share
//! a [`Pace`]. While a request is under way its body has a time of its own.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// From the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(5);
/// Between requests. Longer than nginx keeps an idle connection, which is 60 s: of two ends, the one that may send should
/// be the one that closes.
const IDLE: Duration = Duration::from_secs(75);

const WAITING: u8 = 0;
const IN_HEAD: u8 = 1;
const IN_REQUEST: u8 = 2;

/// Where a connection is.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU8);

impl Pace {
    /// A head is whole; its request is under way until what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> impl Drop + use<> {
        self.0.store(IN_REQUEST, Ordering::Relaxed);
        Under(Arc::clone(self))
    }
}

struct Under(Arc<Pace>);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.0.store(WAITING, Ordering::Relaxed);
    }
}

/// A stream that ends when its sender takes too long.
#[derive(Debug)]
pub(super) struct Paced<C> {
    connection: C,
    pace: Arc<Pace>,
    /// What the timer was set for.
    timed: u8,
    timer: Pin<Box<Sleep>>,
}

impl<C> Paced<C> {
    pub(super) fn new(connection: C, pace: Arc<Pace>) -> Self {
        Self { connection, pace, timed: WAITING, timer: Box::pin(sleep(IDLE)) }
    }

    fn time(&mut self, state: u8, limit: Duration) {
        if self.timed != state {
            self.timed = state;
            self.timer.as_mut().set(sleep(limit));
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Paced<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, into);
        let came = into.filled().len() > before;
        if came && self.pace.0.load(Ordering::Relaxed) == WAITING {
            self.pace.0.store(IN_HEAD, Ordering::Relaxed);
        }
        match self.pace.0.load(Ordering::Relaxed) {
            WAITING => self.time(WAITING, IDLE),
            IN_HEAD => self.time(IN_HEAD, HEAD),
            _ => {
                self.timed = IN_REQUEST;
                return read;
            }
        }
        if read.is_pending() && self.timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Paced<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, pieces)
    }
}
