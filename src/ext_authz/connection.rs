//! How a connection of HTTP/2 is read, written and worked off: in batches.
//!
//! A proxy asks many questions at once over one connection, and they arrive together. What a check costs beside its
//! hashes is mostly what it costs to come and go: a system call, a task, a wake-up. So all that has come is taken in with
//! one call, all the questions in it are answered where they are, and all the answers are written with one call.

use super::{
    MAX_HEADER_LIST, MAX_STREAMS, WINDOW,
    grpc::{Incoming, Reading},
};
use crate::{
    decision::{Denial, Fault},
    gate::budget::Charge,
};
use bytes::Bytes;
use futures_util::task::noop_waker_ref;
use h2::{
    Ping, PingPong, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Request, request::Parts};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

/// How long whoever connects may take to say that it speaks HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it is still there, and how long it may take to say so.
const ALIVE: Duration = Duration::from_secs(60);
const ANSWERS: Duration = Duration::from_secs(20);
/// Nobody is waited for longer.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Bytes of answers that a stream holds for a proxy that does not read them.
const MAX_UNSENT: usize = 400 << 10;

/// Bytes that are read at once: sixteen questions of a usual length.
const ROOM: usize = 64 << 10;
/// HTTP/2 asks for so many bytes when a long frame is on its way, which is then read to where it belongs.
const LONG: usize = 12 << 10;
/// Bytes that one connection may bring before the others have their turn.
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
struct Gathering<C> {
    connection: C,
    /// What was read and not asked for yet, and the room that it is in; without that, there is none.
    room: Vec<u8>,
    begin: usize,
    end: usize,
    /// What was read since the others had their turn.
    turn: usize,
}

impl<C> Gathering<C> {
    fn new(connection: C) -> Self {
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
            self.room.resize(ROOM, 0);
        }
        let mut room = ReadBuf::new(&mut self.room);
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

/// A call as it came, and the way to answer it.
pub(super) type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// What answers the calls of a connection.
pub(super) trait Answers {
    /// How a call's message is taken in, where the call is a question: one message, one answer.
    fn terms(&self, head: &Parts) -> Option<Terms>;
    /// Answers a question.
    fn answer(&self, asked: Asked, respond: SendResponse<Bytes>) -> impl Future<Output = ()> + Send + 'static;
    /// Answers any other call, which is read by whoever answers it.
    fn answer_other(&self, call: Call) -> impl Future<Output = ()> + Send + 'static;
}

/// How a message is taken in.
#[derive(Debug)]
pub(super) struct Terms {
    /// How many bytes it may have.
    pub(super) limit: usize,
    /// Who is charged for them.
    pub(super) charge: Charge,
    /// How long whoever asks waits for an answer.
    pub(super) patience: Duration,
}

/// A question whose message is here, or of which it is known why it will not be.
#[derive(Debug)]
pub(super) struct Asked {
    /// What came before it.
    pub(super) head: Parts,
    /// The message.
    pub(super) message: Result<Bytes, Denial>,
    /// What was charged for it.
    pub(super) charge: Charge,
    /// How long whoever asks still waits.
    pub(super) patience: Duration,
}

/// Answers the calls that a connection brings, until it ends. When `stop` comes back those under way are finished, and no
/// others are taken.
pub(super) async fn drive<C>(connection: C, stop: impl Future<Output = ()>, service: impl Answers)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut stop = pin!(stop);
    let handshake = Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(MAX_UNSENT)
        .handshake(Gathering::new(connection));
    // A connection that breaks is the proxy's to report, here and below.
    let mut connection = tokio::select! {
        begun = timeout(HANDSHAKE, handshake) => match begun {
            Ok(Ok(connection)) => connection,
            Ok(Err(_)) | Err(_) => return,
        },
        () = &mut stop => return,
    };
    let mut pulse = connection.ping_pong().map(Pulse::new);
    let mut desk = Desk::new(|asked, respond| service.answer(asked, respond));
    let (mut calls, mut stopping) = (Vec::new(), false);
    poll_fn(|context| {
        // First a look of nobody's: the answers that follow would wake whoever looked, and he looks again anyway.
        let mut nobody = Context::from_waker(noop_waker_ref());
        if let Came::End = take(&mut connection, &mut nobody, &mut calls) {
            return Poll::Ready(());
        }
        if !stopping && stop.as_mut().poll(context).is_ready() {
            stopping = true;
            connection.graceful_shutdown();
        }
        if pulse.as_mut().is_some_and(|pulse| pulse.poll(context).is_ready()) {
            return Poll::Ready(());
        }
        desk.work(&mut calls, &service);
        // The answers are still to be written, and what came meanwhile is to be taken; but whoever always has more waits for the
        // others then.
        if let Came::End = take(&mut connection, context, &mut calls) {
            return Poll::Ready(());
        }
        if !desk.work(&mut calls, &service) && !desk.give_up(context) {
            return Poll::Pending;
        }
        context.waker().wake_by_ref();
        match take(&mut connection, context, &mut calls) {
            Came::End => Poll::Ready(()),
            Came::All => Poll::Pending,
        }
    })
    .await;
}

enum Came {
    /// All that has come.
    All,
    /// And nothing will any more.
    End,
}

/// Takes what a connection has brought.
fn take<C>(connection: &mut Connection<C, Bytes>, context: &mut Context<'_>, calls: &mut Vec<Call>) -> Came
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match connection.poll_accept(context) {
            Poll::Ready(Some(Ok(call))) => calls.push(call),
            Poll::Ready(Some(Err(_)) | None) => return Came::End,
            Poll::Pending => return Came::All,
        }
    }
}

/// Where the questions of one connection are read and answered.
struct Desk<A, F> {
    answer: A,
    /// Those whose message is not whole yet. Its bytes come by the connection and by nothing else, so it is looked after
    /// whenever that has brought something; nobody need be woken for it, and none needs a task.
    coming: Vec<Coming>,
    /// For the first of them that has waited too long. It is set anew when it is over and not with every message.
    timer: Option<Pin<Box<Sleep>>>,
    /// Where an answer is made: the next one takes it over, unless this one needs it longer.
    room: Option<Pin<Box<F>>>,
}

/// A question whose message is not whole.
struct Coming {
    head: Parts,
    reading: Reading<Incoming>,
    respond: SendResponse<Bytes>,
    /// When whoever asks waits no longer.
    until: Instant,
}

impl<A, F> Desk<A, F>
where
    A: Fn(Asked, SendResponse<Bytes>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    fn new(answer: A) -> Self {
        Self { answer, coming: Vec::new(), timer: None, room: None }
    }

    /// Answers what can be answered, and reads on where something has come. Says whether there was anything to do.
    fn work(&mut self, calls: &mut Vec<Call>, service: &impl Answers) -> bool {
        let mut worked = !calls.is_empty();
        let mut nobody = Context::from_waker(noop_waker_ref());
        for mut question in std::mem::take(&mut self.coming) {
            let before = question.reading.length();
            match question.reading.poll(&mut nobody) {
                Poll::Ready(message) => {
                    worked = true;
                    let patience = question.until.saturating_duration_since(Instant::now());
                    self.begin(question, message, patience);
                }
                Poll::Pending => {
                    worked |= question.reading.length() != before;
                    self.coming.push(question);
                }
            }
        }
        for (request, respond) in calls.drain(..) {
            let (head, body) = request.into_parts();
            let Some(Terms { limit, charge, patience }) = service.terms(&head) else {
                begin(service.answer_other((Request::from_parts(head, body), respond)), &mut None);
                continue;
            };
            let mut reading = Reading::new(Incoming::new(body), limit, charge);
            match reading.poll(&mut nobody) {
                Poll::Ready(message) => {
                    let asked = Asked { head, message, charge: reading.into_charge(), patience };
                    begin((self.answer)(asked, respond), &mut self.room);
                }
                Poll::Pending => {
                    let now = Instant::now();
                    let until = now.checked_add(patience.min(LONGEST)).unwrap_or(now);
                    self.coming.push(Coming { head, reading, respond, until });
                }
            }
        }
        worked
    }

    fn begin(&mut self, coming: Coming, message: Result<Bytes, Denial>, patience: Duration) {
        let Coming { head, reading, respond, .. } = coming;
        let asked = Asked { head, message, charge: reading.into_charge(), patience };
        begin((self.answer)(asked, respond), &mut self.room);
    }

    /// Answers those that have waited too long. Says whether there were any.
    fn give_up(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some(first) = self.coming.iter().map(|question| question.until).min() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(first)));
            if timer.is_elapsed() || timer.deadline() > first {
                timer.as_mut().reset(first);
            }
            if timer.as_mut().poll(context).is_pending() {
                break;
            }
            let now = Instant::now();
            let (late, coming): (Vec<_>, _) =
                std::mem::take(&mut self.coming).into_iter().partition(|question| question.until <= now);
            self.coming = coming;
            for question in late {
                any = true;
                self.begin(question, Err(Fault::DeadlineExceeded.into()), Duration::ZERO);
            }
        }
        any
    }
}

/// Answers at once, if that can be; what has to wait goes on as a task.
fn begin<F: Future<Output = ()> + Send + 'static>(answering: F, room: &mut Option<Pin<Box<F>>>) {
    let mut answering = match room.take() {
        Some(mut room) => {
            room.set(answering);
            room
        }
        None => Box::pin(answering),
    };
    // A task is asked again as soon as it is one, so nothing that happens meanwhile is lost on nobody.
    let mut nobody = Context::from_waker(noop_waker_ref());
    // As in a task of its own, a panic ends this call and no other.
    match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(&mut nobody))) {
        Ok(Poll::Ready(())) => *room = Some(answering),
        Ok(Poll::Pending) => drop(tokio::spawn(answering)),
        Err(_) => {}
    }
}

/// Whether a connection's other end is still there: one that vanished without a word would be kept for ever.
struct Pulse {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl Pulse {
    fn new(pings: PingPong) -> Self {
        Self { pings, timer: Box::pin(sleep(ALIVE)), asked: false }
    }

    /// Comes back when nobody answers.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && self.pings.poll_pong(context).is_ready() {
                self.asked = false;
                self.timer.set(sleep(ALIVE));
            }
            ready!(self.timer.as_mut().poll(context));
            if self.asked || self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            self.timer.set(sleep(ANSWERS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::budget::Budget;
    use h2::client::{self, SendRequest};
    use http::{Response, StatusCode};
    use std::{
        future::pending,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::{mpsc, oneshot},
        task::JoinHandle,
    };

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
        assert_eq!(reading.room.len(), ROOM, "500 bytes are in it");
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
        assert!((TURN..TURN + ROOM).contains(&took), "{took}");
        assert!(!look(&mut reading, &mut nobody));
        assert!(!look(&mut reading, &mut somebody), "the turn is over");
        assert!(woken.0.load(Ordering::Relaxed), "and comes again");
        assert!(look(&mut reading, &mut nobody));
    }

    /// Answers questions, which are all calls but those to `/other`, with a function.
    struct Service<A>(A, Arc<Budget>);

    impl<A, F> Answers for Service<A>
    where
        A: Fn(Option<Asked>, SendResponse<Bytes>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        fn terms(&self, head: &Parts) -> Option<Terms> {
            let patience = Duration::from_secs(5);
            (head.uri.path() != "/other").then(|| Terms { limit: 1 << 20, charge: self.1.open(), patience })
        }

        fn answer(&self, asked: Asked, respond: SendResponse<Bytes>) -> impl Future<Output = ()> + Send + 'static {
            (self.0)(Some(asked), respond)
        }

        fn answer_other(&self, (_, respond): Call) -> impl Future<Output = ()> + Send + 'static {
            (self.0)(None, respond)
        }
    }

    /// A connection that is driven, and a client at its other end that has said hello and reads what comes.
    async fn connected<F>(
        stop: impl Future<Output = ()> + Send + 'static,
        answer: impl Fn(Option<Asked>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> (SendRequest<Bytes>, JoinHandle<()>, Arc<Budget>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (near, far) = duplex(1 << 20);
        let budget = Budget::new(1 << 20);
        let driven = tokio::spawn(drive(far, stop, Service(answer, Arc::clone(&budget))));
        let (send, connection) = client::handshake(near).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        (send.ready().await.unwrap(), driven, budget)
    }

    fn well(mut respond: SendResponse<Bytes>) {
        respond.send_response(Response::new(()), true).unwrap();
    }

    fn request(path: &str) -> Request<()> {
        Request::get(format!("http://test{path}")).body(()).unwrap()
    }

    async fn ask(send: &SendRequest<Bytes>, path: &str) -> client::ResponseFuture {
        send.clone().ready().await.unwrap().send_request(request(path), true).unwrap().0
    }

    #[tokio::test]
    async fn a_call_that_waits_goes_on_and_one_that_panics_takes_nobody_along() {
        let (go_on, asked_on) = oneshot::channel::<()>();
        let asked_on = Mutex::new(Some(asked_on));
        let (send, ..) = connected(pending(), move |asked, respond| {
            let path = asked.map(|asked| asked.head.uri.path().to_owned()).unwrap_or_default();
            let waits = if path == "/waits" { asked_on.lock().unwrap().take() } else { None };
            async move {
                assert_ne!(path, "/panics");
                if let Some(waits) = waits {
                    waits.await.unwrap();
                }
                well(respond);
            }
        })
        .await;
        let waits = ask(&send, "/waits").await;
        let (panics, at_once, other) = (ask(&send, "/panics").await, ask(&send, "/").await, ask(&send, "/other").await);
        assert_eq!(at_once.await.unwrap().status(), StatusCode::OK);
        assert_eq!(other.await.unwrap().status(), StatusCode::OK);
        assert!(panics.await.unwrap_err().is_reset());
        go_on.send(()).unwrap();
        assert_eq!(waits.await.unwrap().status(), StatusCode::OK);
        assert_eq!(ask(&send, "/").await.await.unwrap().status(), StatusCode::OK, "and others are answered after it");
    }

    #[tokio::test]
    async fn what_is_under_way_is_finished_before_a_connection_stops() {
        let (stop, stopped) = oneshot::channel::<()>();
        let (go_on, waits) = oneshot::channel::<()>();
        let (begun, mut has_begun) = mpsc::unbounded_channel();
        let waits = Mutex::new(Some(waits));
        let (send, driven, _) = connected(async { drop(stopped.await) }, move |_, respond| {
            begun.send(()).unwrap();
            let waits = waits.lock().unwrap().take();
            async move {
                waits.unwrap().await.unwrap();
                well(respond);
            }
        })
        .await;
        let asked = ask(&send, "/").await;
        has_begun.recv().await.unwrap();
        stop.send(()).unwrap();
        // The client learns that it is to go elsewhere while the call is still under way.
        while send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!driven.is_finished());
        go_on.send(()).unwrap();
        assert_eq!(asked.await.unwrap().status(), StatusCode::OK);
        driven.await.unwrap();
    }

    /// What every question was, and how much patience there was left.
    fn telling(
        tell: mpsc::UnboundedSender<(Result<Bytes, Denial>, Duration)>,
    ) -> impl Fn(Option<Asked>, SendResponse<Bytes>) -> std::future::Ready<()> + Send + Sync + 'static {
        move |asked, respond| {
            let Asked { message, patience, .. } = asked.unwrap();
            tell.send((message, patience)).unwrap();
            well(respond);
            std::future::ready(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_may_come_in_pieces_and_its_time_is_the_askers() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (send, _, budget) = connected(pending(), telling(tell)).await;
        let (answer, mut upload) = send.clone().send_request(request("/"), false).unwrap();
        upload.send_data(Bytes::from_static(&[0, 0, 0, 0, 6, b'a', b'b']), false).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(budget.spent(), 7);
        // Others are answered meanwhile.
        let (other, mut small) = send.clone().send_request(request("/"), false).unwrap();
        small.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, b'x']), true).unwrap();
        other.await.unwrap();
        assert_eq!(told.recv().await.unwrap(), (Ok(Bytes::from_static(b"x")), Duration::from_secs(5)));
        upload.send_data(Bytes::from_static(b"cd"), false).unwrap();
        sleep(Duration::from_secs(1)).await;
        upload.send_data(Bytes::from_static(b"ef"), true).unwrap();
        answer.await.unwrap();
        let (message, patience) = told.recv().await.unwrap();
        assert_eq!((message, patience.as_secs()), (Ok(Bytes::from_static(b"abcdef")), 3));
        assert_eq!(budget.spent(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_too_long_to_ask_is_answered_and_nobody_else_is() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (send, _, budget) = connected(pending(), telling(tell)).await;
        let begun = Instant::now();
        let mut uploads = Vec::new();
        for second in 0..3 {
            let (answer, mut upload) = send.clone().send_request(request("/"), false).unwrap();
            upload.send_data(Bytes::from_static(&[0, 0, 0, 0, 1]), false).unwrap();
            uploads.push((answer, upload, second));
            sleep(Duration::from_secs(1)).await;
        }
        for (answer, mut upload, second) in uploads {
            if second == 1 {
                upload.send_data(Bytes::from_static(b"x"), true).unwrap();
                assert_eq!(told.recv().await.unwrap().0, Ok(Bytes::from_static(b"x")));
            } else {
                assert_eq!(told.recv().await.unwrap(), (Err(Fault::DeadlineExceeded.into()), Duration::ZERO));
                assert_eq!(begun.elapsed().as_secs(), 5 + second);
            }
            answer.await.unwrap();
        }
        assert_eq!(budget.spent(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_cut() {
        let (_silent, far) = duplex(1000);
        let begun = Instant::now();
        drive(far, pending(), Service(|_, _| async {}, Budget::new(0))).await;
        assert_eq!(begun.elapsed().as_secs(), HANDSHAKE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_vanished_is_cut_and_who_is_there_is_not() {
        let answer = |_, respond| async { well(respond) };
        let (send, mut driven, _) = connected(pending(), answer).await;
        assert!(timeout(Duration::from_secs(3600), &mut driven).await.is_err(), "there, and has nothing to ask");
        assert_eq!(ask(&send, "/").await.await.unwrap().status(), StatusCode::OK);
        // Nobody reads what comes any more, and nobody hangs up.
        let begun = Instant::now();
        let (near, far) = duplex(1 << 20);
        let gone = tokio::spawn(drive(far, pending(), Service(answer, Budget::new(0))));
        let (_send, _connection) = client::handshake(near).await.unwrap();
        gone.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), (ALIVE + ANSWERS).as_secs());
    }
}
