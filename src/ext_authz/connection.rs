//! How a connection of HTTP/2 is read, written and worked off: in batches.
//!
//! A proxy asks many questions at once over one connection, and they arrive together. What a check costs beside its
//! hashes is mostly what it costs to come and go: a system call, a task, a wake-up. So all that has come is taken in with
//! one call, all the questions in it are answered where they are, and all the answers are written with one call.

use super::{
    MAX_HEADER_LIST, MAX_STREAMS, WINDOW,
    desk::{Answers, Call, Desk},
    gathering::Gathering,
};
use bytes::Bytes;
use futures_util::task::noop_waker_ref;
use h2::{
    Ping, PingPong,
    server::{Builder, Connection, Handshake},
};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep, timeout},
};

/// How long whoever connects may take to say that it speaks HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it is still there, and how long it may take to say so.
const ALIVE: Duration = Duration::from_secs(60);
const ANSWERS: Duration = Duration::from_secs(20);

fn handshake<C: AsyncRead + AsyncWrite + Unpin>(connection: C) -> Handshake<Gathering<C>, Bytes> {
    Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        // After a pause a proxy gives up all that it has asked, and that is no attack.
        .max_pending_accept_reset_streams(usize::try_from(MAX_STREAMS).unwrap_or(usize::MAX))
        .handshake(Gathering::new(connection))
}

/// Answers the calls that a connection brings, until it ends. When `stop` comes back the other end is told to open no more,
/// and what it has opened by then is finished.
pub(super) async fn drive<C>(connection: C, stop: impl Future<Output = ()>, service: impl Answers)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut stop = pin!(stop);
    // A connection that breaks is the proxy's to report, here and below.
    let mut connection = tokio::select! {
        // What a proxy has asked already is answered.
        biased;
        begun = timeout(HANDSHAKE, handshake(connection)) => match begun {
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
    use super::super::desk::{Asked, Terms};
    use super::*;
    use crate::{
        decision::{Denial, Fault},
        gate::budget::Budget,
    };
    use h2::{
        Reason,
        client::{self, SendRequest},
        server::SendResponse,
    };
    use http::{Request, Response, StatusCode, request::Parts};
    use std::{
        future::{pending, ready},
        sync::{Arc, Mutex},
    };
    use tokio::{
        io::duplex,
        sync::{mpsc, oneshot},
        task::JoinHandle,
        time::Instant,
    };

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
            ready(())
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

    #[tokio::test]
    async fn a_question_that_is_taken_back_is_nobodys() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (send, _, budget) = connected(pending(), telling(tell)).await;
        let (_answer, mut upload) = send.clone().send_request(request("/"), false).unwrap();
        upload.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, b'a']), false).unwrap();
        while budget.spent() == 0 {
            tokio::task::yield_now().await;
        }
        upload.send_reset(Reason::CANCEL);
        while budget.spent() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(told.try_recv().is_err());
    }

    /// More than HTTP/2 bears by itself, all in one read, and one that the proxy still wants to know.
    #[tokio::test]
    async fn that_a_proxy_gives_up_much_at_once_ends_nothing() {
        let (near, far) = duplex(1 << 20);
        let (mut send, connection) = client::handshake(near).await.unwrap();
        let reading = tokio::spawn(async move { drop(connection.await) });
        let mut given_up = Vec::new();
        for _ in 0..90 {
            given_up.push(send.send_request(request("/"), false).unwrap());
        }
        tokio::task::yield_now().await;
        for (_, upload) in &mut given_up {
            upload.send_reset(Reason::CANCEL);
        }
        let wanted = send.send_request(request("/"), true).unwrap().0;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        tokio::spawn(drive(far, pending(), Service(|_, respond| async { well(respond) }, Budget::new(0))));
        assert_eq!(wanted.await.unwrap().status(), StatusCode::OK);
        reading.abort();
    }

    #[tokio::test]
    async fn what_was_asked_before_a_stop_is_answered() {
        let (near, far) = duplex(1 << 20);
        let (mut send, connection) = client::handshake(near).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let (answer, mut upload) = send.send_request(request("/"), false).unwrap();
        upload.send_data(Bytes::from_static(&[0, 0, 0, 0, 1]), false).unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let driven = tokio::spawn(drive(far, ready(()), Service(telling(tell), Budget::new(100))));
        // It learns that it is to go elsewhere, and still says all of what it began to ask.
        while send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        upload.send_data(Bytes::from_static(b"x"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
        assert_eq!(told.recv().await.unwrap().0, Ok(Bytes::from_static(b"x")));
        driven.await.unwrap();
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
