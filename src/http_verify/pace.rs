//! What only the stream of a connection sees: how long a request's head takes, how long there is none, and a `#` in a
//! request's line.
//!
//! hyper drops what stands behind a `#`, and nginx sends it on to the application: what was verified would be another
//! address than what arrives. So the first line of every head is looked at before it is parsed. A head that did not begin
//! with a read of its own, because it was sent before the last answer, was not looked at, and no proxy sends such.
//!
//! Only this stream sees when the first byte of a head arrives; only the service knows when the head is whole. They share
//! a [`Pace`]. While a request is under way its body has a time of its own.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
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
pub(super) struct Pace {
    state: AtomicU8,
    /// Whether the line of the request at hand has a `#`.
    marked: AtomicBool,
}

/// A request is under way until this is dropped.
pub(super) struct Under {
    pace: Arc<Pace>,
    /// Whether its line was looked at, and is one that everybody reads alike.
    pub(super) line_is_plain: bool,
}

impl Pace {
    /// A head is whole.
    pub(super) fn request(self: &Arc<Self>) -> Under {
        let looked_at = self.state.swap(IN_REQUEST, Ordering::Relaxed) == IN_HEAD;
        let marked = self.marked.swap(false, Ordering::Relaxed);
        Under { pace: Arc::clone(self), line_is_plain: looked_at && !marked }
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.pace.state.store(WAITING, Ordering::Relaxed);
    }
}

/// A stream that ends when its sender takes too long.
#[derive(Debug)]
pub(super) struct Paced<C> {
    connection: C,
    pace: Arc<Pace>,
    /// Whether the line of the head at hand goes on.
    in_line: bool,
    /// What the timer was set for.
    timed: u8,
    timer: Pin<Box<Sleep>>,
}

impl<C> Paced<C> {
    pub(super) fn new(connection: C, pace: Arc<Pace>) -> Self {
        Self { connection, pace, in_line: false, timed: WAITING, timer: Box::pin(sleep(IDLE)) }
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
        let came = into.filled().get(before..).unwrap_or_default();
        if !came.is_empty() && self.pace.state() == WAITING {
            self.pace.state.store(IN_HEAD, Ordering::Relaxed);
            self.in_line = true;
        }
        if self.in_line {
            let end = memchr::memchr(b'\n', came);
            let line = came.get(..end.unwrap_or(came.len())).unwrap_or_default();
            if memchr::memchr(b'#', line).is_some() {
                self.pace.marked.store(true, Ordering::Relaxed);
            }
            self.in_line = end.is_none();
        }
        match self.pace.state() {
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
