//! A connection as HTTP/2 sees it: read in large pieces and in turns, written in one.
//!
//! This is about bytes and whose turn it is. What they mean is nobody's business here.

use futures_util::task::noop_waker_ref;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// HTTP/2 asks for so many bytes when a long frame is on its way, which is then read to where it belongs.
const LONG: usize = 12 << 10;
/// Bytes that one connection may bring before the others have their turn; the rest of a long frame may come on top. As many are
/// read at once: over TCP a read is also what has the kernel tell the other end that there is room again, which costs as much
/// as the read, and wakes whoever waits for it.
const TURN: usize = 128 << 10;

thread_local! {
    /// The room of whoever reads next. Nearly always a connection has given it back before another one reads: what it holds
    /// is taken from it in the same turn.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection that is read in large pieces, and of which HTTP/2 is told that it takes one buffer at a time.
///
/// HTTP/2 reads some six thousand bytes at a time, and writes a `DATA` frame of 256 bytes and more by a system call of its
/// own, so that it need not be copied; of a connection that takes one buffer it copies what is shorter than 1,024. Sixteen
/// questions of 3 kB with answers of 400 bytes would be nine system calls to read and sixteen to write; so they are two. And
/// whoever sends megabytes is read for as long as it takes to check a dozen small ones, and then again when it is his turn.
#[derive(Debug)]
pub(super) struct Gathering<C> {
    connection: C,
    /// What was read and not asked for yet, and the room that it is in; without that, there is none.
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

    fn give_room_back(&mut self) {
        if !self.room.is_empty() {
            SPARE.set(std::mem::take(&mut self.room));
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Gathering<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.begin == self.end {
            let read = self.fill(context, into);
            if read.is_pending() {
                self.give_room_back();
            }
            return read;
        }
        self.hand_over(into);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + Unpin> Gathering<C> {
    fn fill(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn >= TURN {
            // Who only looks whether there is something has no turn to end.
            if !context.waker().will_wake(noop_waker_ref()) {
                self.turn = 0;
                context.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        if into.remaining() >= LONG {
            return read(&mut self.connection, context, into, &mut self.turn).map_ok(|_| ());
        }
        if self.room.is_empty() {
            self.room = SPARE.take();
            // The first time on this thread, and where another connection holds the spare one.
            if self.room.is_empty() {
                self.room = vec![0; TURN];
            }
        }
        let left = TURN.saturating_sub(self.turn);
        let mut room = ReadBuf::new(self.room.get_mut(..left).unwrap_or_default());
        let count = ready!(read(&mut self.connection, context, &mut room, &mut self.turn))?;
        (self.begin, self.end) = (0, count);
        self.hand_over(into);
        Poll::Ready(Ok(()))
    }

    fn hand_over(&mut self, into: &mut ReadBuf<'_>) {
        let held = self.room.get(self.begin..self.end).unwrap_or_default();
        let taken = held.get(..into.remaining()).unwrap_or(held);
        into.put_slice(taken);
        self.begin = self.begin.saturating_add(taken.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    /// Whatever is asked for at a time, the bytes are the same, and the end is the end.
    #[tokio::test]
    async fn what_is_read_is_what_was_sent() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for sizes in [&[1_usize, 7, 9, 4000][..], &[6478], &[20_000, 9], &[LONG, LONG - 1], &[100_000]] {
            let (mut near, far) = duplex(30_000);
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

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Reads a thousand bytes, if there are any.
    fn look(reading: &mut Gathering<DuplexStream>, context: &mut Context<'_>) -> bool {
        let mut piece = [0; 1000];
        Pin::new(reading).poll_read(context, &mut ReadBuf::new(&mut piece)).is_ready()
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_holds_no_room() {
        let (mut near, far) = duplex(4000);
        let mut reading = Gathering::new(far);
        let mut nobody = Context::from_waker(noop_waker_ref());
        assert!(!look(&mut reading, &mut nobody));
        assert_eq!(reading.room.capacity(), 0);
        near.write_all(&[7; 1500]).await.unwrap();
        assert!(look(&mut reading, &mut nobody));
        assert_eq!(reading.room.len(), TURN, "500 bytes are in it");
        assert!(look(&mut reading, &mut nobody));
        assert!(!look(&mut reading, &mut nobody));
        assert_eq!(reading.room.capacity(), 0);
    }

    #[tokio::test]
    async fn a_turn_ends_for_whoever_waits_and_not_for_who_only_looks() {
        let (mut near, far) = duplex(10 * TURN);
        near.write_all(&vec![7; 3 * TURN]).await.unwrap();
        let mut reading = Gathering::new(far);
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let (mut nobody, mut somebody) = (Context::from_waker(noop_waker_ref()), Context::from_waker(&waker));
        let mut took = 0;
        while look(&mut reading, &mut nobody) {
            took += 1000;
        }
        assert_eq!(took, TURN.next_multiple_of(1000), "and no more than that");
        assert!(!look(&mut reading, &mut nobody));
        assert!(!look(&mut reading, &mut somebody), "the turn is over");
        assert!(woken.0.load(Ordering::Relaxed), "and comes again");
        assert!(look(&mut reading, &mut nobody));
    }
}
