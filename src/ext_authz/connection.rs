//! How a connection of HTTP/2 is read, written and worked off: in batches.
//!
//! A proxy asks many questions at once over one connection, and they arrive together. What a check costs beside its
//! hashes is mostly what it costs to come and go: a system call, a task, a wake-up. So all that has come is taken in with
//! one call, all the questions in it are answered where they are, and all the answers are written with one call.

use futures_util::task::noop_waker_ref;
use hyper::rt::Executor;
use std::{
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at once: sixteen questions of a usual length.
const ROOM: usize = 64 << 10;
/// HTTP/2 asks for so many bytes when a long frame is on its way, which is then read to where it belongs.
const LONG: usize = 12 << 10;

/// Bytes that one connection may bring before the others have their turn.
const TURN: usize = 128 << 10;

/// A connection that is read in large pieces, and of which HTTP/2 is told that it takes one buffer at a time.
///
/// HTTP/2 reads some six thousand bytes at a time, and writes a `DATA` frame of 256 bytes and more by a system call of its
/// own, so that it need not be copied; of a connection that takes one buffer it copies what is shorter than 1,024. Sixteen
/// questions of 3 kB with answers of 400 bytes would be nine system calls to read and sixteen to write; so they are two. And whoever sends megabytes is read for as long as it takes to check a
/// dozen small ones, and then again when it is his turn.
#[derive(Debug)]
pub(super) struct Gathering<C> {
    connection: C,
    /// What was read and not asked for yet. Made when reading begins and kept as long as the connection, though it says
    /// nothing: that is 64 KiB for each.
    room: Vec<u8>,
    begin: usize,
    end: usize,
    /// What was read since the others had their turn.
    turn: usize,
}

impl<C> Gathering<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connection, room: Vec::new(), begin: 0, end: 0, turn: 0 }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Gathering<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, room, begin, end, turn } = &mut *self;
        if *begin == *end {
            if *turn >= TURN {
                *turn = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if into.remaining() >= LONG {
                return read(connection, context, into, turn).map_ok(|_| ());
            }
            if room.is_empty() {
                room.resize(ROOM, 0);
            }
            let count = ready!(read(connection, context, &mut ReadBuf::new(room), turn))?;
            (*begin, *end) = (0, count);
        }
        let held = room.get(*begin..*end).unwrap_or_default();
        let taken = held.get(..into.remaining()).unwrap_or(held);
        into.put_slice(taken);
        *begin = begin.saturating_add(taken.len());
        Poll::Ready(Ok(()))
    }
}

/// Reads, and counts what this turn has brought; a turn ends when there is nothing left.
fn read<C: AsyncRead + Unpin>(
    connection: &mut C,
    context: &mut Context<'_>,
    into: &mut ReadBuf<'_>,
    turn: &mut usize,
) -> Poll<io::Result<usize>> {
    let before = into.filled().len();
    let Poll::Ready(result) = Pin::new(connection).poll_read(context, into) else {
        *turn = 0;
        return Poll::Pending;
    };
    let count = into.filled().len().saturating_sub(before);
    *turn = turn.saturating_add(count);
    Poll::Ready(result.map(|()| count))
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gathering<C> {
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
        false
    }
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls that a connection brought, until they are worked off.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<Call>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(call));
    }
}

impl Calls {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers what can be answered at once, and makes a task of what has to wait. Says whether there was anything.
    fn work_off(&self) -> bool {
        let calls = self.take();
        let any = !calls.is_empty();
        for mut call in calls {
            // A task is asked again as soon as it is one, so nothing that happens meanwhile is lost on nobody.
            let mut nobody = Context::from_waker(noop_waker_ref());
            // As in a task of its own, a panic ends this call and no other.
            if let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut nobody))) {
                tokio::spawn(call);
            }
        }
        any
    }
}

/// Drives a connection that gives its calls to `calls`.
pub(super) async fn drive<C: Future>(connection: C, calls: Calls) -> C::Output {
    let mut connection = pin!(connection);
    poll_fn(|context| {
        let ended = connection.as_mut().poll(context);
        if !calls.work_off() || ended.is_ready() {
            return ended;
        }
        // The answers are still to be written. What came meanwhile has its turn after everybody else's.
        let ended = connection.as_mut().poll(context);
        context.waker().wake_by_ref();
        if ended.is_ready() {
            // Nobody waits for these any more, and each of them holds the list that it is in.
            drop(calls.take());
        }
        ended
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Whatever is asked for at a time, the bytes are the same, and the end is the end.
    #[tokio::test]
    async fn what_is_read_is_what_was_sent() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for sizes in [&[1_usize, 7, 9, 4000][..], &[6478], &[20_000, 9], &[LONG, LONG - 1], &[100_000]] {
            let (mut near, far) = tokio::io::duplex(30_000);
            let text = sent.clone();
            let sending = tokio::spawn(async move { near.write_all(&text).await });
            let mut reading = Gathering::new(far);
            let mut read = Vec::new();
            for size in sizes.iter().cycle() {
                let mut piece = vec![0; *size];
                let count = reading.read(&mut piece).await.unwrap();
                if count == 0 {
                    break;
                }
                read.extend_from_slice(&piece[..count]);
            }
            sending.await.unwrap().unwrap();
            assert!(read == sent, "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn a_call_that_waits_goes_on_and_one_that_panics_takes_nobody_along() {
        let calls = Calls::default();
        let (ask, asked) = tokio::sync::oneshot::channel::<()>();
        let (done, mut over) = tokio::sync::mpsc::unbounded_channel();
        let (first, second) = (done.clone(), done);
        calls.execute(async move {
            asked.await.ok();
            first.send("waited").ok();
        });
        calls.execute(async { panic!("on purpose") });
        calls.execute(async move {
            second.send("at once").ok();
        });
        assert!(calls.work_off());
        assert_eq!(over.try_recv(), Ok("at once"));
        assert!(over.try_recv().is_err());
        ask.send(()).unwrap();
        assert_eq!(over.recv().await, Some("waited"));
        assert!(!calls.work_off());
    }
}
