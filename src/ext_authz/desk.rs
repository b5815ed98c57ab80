//! Where the questions of one connection are read and answered.
//!
//! A question is answered where it is, as soon as its message is whole; only one that has to wait for something else becomes a
//! task. How bytes come and go is the [`connection`](super::connection)'s, and what a question means is for who answers it.

use super::grpc::{Incoming, Reading};
use crate::{
    decision::{Denial, Fault},
    gate::budget::Charge,
};
use bytes::Bytes;
use futures_util::task::noop_waker_ref;
use h2::{RecvStream, server::SendResponse};
use http::{Request, request::Parts};
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Nobody is waited for longer.
const LONGEST: Duration = Duration::from_secs(86_400);

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

/// Where the questions of one connection are read and answered.
pub(super) struct Desk<A, F> {
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
    pub(super) fn new(answer: A) -> Self {
        Self { answer, coming: Vec::new(), timer: None, room: None }
    }

    /// Answers what can be answered, and reads on where something has come. Says whether there was anything to do.
    pub(super) fn work(&mut self, calls: &mut Vec<Call>, service: &impl Answers) -> bool {
        let mut worked = !calls.is_empty();
        let mut nobody = Context::from_waker(noop_waker_ref());
        let mut at = 0_usize;
        while let Some(question) = self.coming.get_mut(at) {
            let before = question.reading.length();
            if let Poll::Ready(message) = question.reading.poll(&mut nobody) {
                worked = true;
                let question = self.coming.swap_remove(at);
                let patience = question.until.saturating_duration_since(Instant::now());
                if let Some(message) = message {
                    self.begin(question, message, patience);
                }
            } else {
                worked |= question.reading.length() != before;
                at = at.saturating_add(1);
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
                Poll::Ready(None) => {}
                Poll::Ready(Some(message)) => {
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
    pub(super) fn give_up(&mut self, context: &mut Context<'_>) -> bool {
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
