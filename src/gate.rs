//! One gate for every listener: what a check needs, how long it may take, and who is told of it.
//!
//! A listener brings a [`Question`] in the words of Envoy's `CheckRequest`, whatever protocol it was asked in, so that
//! there is one way from a question to a decision and nothing that one listener checks and another forgets. It leaves
//! with an [`Outcome`], which the listener puts into its protocol's words.
//!
//! Every path through here ends in an outcome. A missed deadline and a panic are denials.

pub mod budget;
pub mod examiners;

use crate::{
    check::{self, Examined, Outcome},
    clock::{Clock, Now},
    config::process::Limits,
    decision::{Decision, Denial, Fault},
    endpoint::Endpoints,
    ext_authz::{message::CheckRequest, request},
    replay::{Holder, Outcomes},
    store::Store,
    telemetry::{CheckEvent, Telemetry},
    traces::Traces,
};
use arc_swap::ArcSwap;
use budget::{Budget, Charge};
use examiners::{Examiners, Long};
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::time::timeout;

/// Bodies longer than this are hashed on another thread: at 1.5 GB/s they would hold up everybody else's check.
const OFFLOAD_ABOVE: usize = 256 << 10;

/// What a check needs, shared by all connections.
#[derive(Debug)]
pub struct Gate {
    /// The receivers in force; swapped whole by a reload, taken once by a check.
    pub endpoints: ArcSwap<Endpoints>,
    /// State; survives reloads.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Metrics and log.
    pub telemetry: Telemetry,
    /// Spans.
    pub traces: Traces,
    /// Bounds, as they were at start.
    pub limits: Limits,
    /// Bytes of bodies in flight.
    pub budget: Arc<Budget>,
    /// Where long examinations are made.
    pub examiners: Examiners,
}

/// A question, or why it cannot be put.
#[derive(Debug)]
pub enum Question {
    /// As it was read.
    Read(Box<CheckRequest>),
    /// As it was read, but for a body of so many bytes that was examined as it came in.
    Examined(Box<CheckRequest>, Examined, usize),
    /// As far as it was read, and why it is not read on.
    Judged(Box<CheckRequest>, Denial),
    /// It could not be read.
    Refused(Denial),
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Whether it will tell what became of a delivery.
    pub outcomes: Outcomes,
    /// Its own span, where it says so beside the question.
    pub traceparent: Option<&'a str>,
    /// How long it waits, where it says so.
    pub patience: Option<Duration>,
}

/// What a question came to, for whoever puts it into words.
#[derive(Debug)]
pub struct Answered<'a> {
    /// What it came to.
    pub outcome: &'a Outcome,
    /// What was asked; empty where it could not be read, or took too long.
    pub request: &'a CheckRequest,
    /// What it is called.
    pub request_id: &'a str,
}

impl Gate {
    /// Answers one question, tells of it, and lets `reply` say it in the words of whoever asked.
    pub async fn answer<R>(
        &self,
        question: Question,
        asker: Asker<'_>,
        charge: Charge,
        reply: impl FnOnce(&Answered<'_>) -> R,
    ) -> R {
        let begun = self.clock.now();
        let body_bytes = question.body_length();
        let undecided = match question {
            Question::Read(request) => Ok((request, None)),
            Question::Examined(request, examined, _) => Ok((request, Some(examined))),
            Question::Judged(request, denial) => {
                let endpoints = self.endpoints.load();
                let endpoint = request.delivery().ok().and_then(|delivery| endpoints.find(&delivery).cloned());
                Err((request, Outcome { endpoint, ..denied(denial) }))
            }
            Question::Refused(denial) => Err((Box::default(), denied(denial))),
        };
        let (request, outcome) = match undecided {
            Ok((request, examined)) => {
                let limit = asker.patience.map_or(self.limits.deadline, |patience| patience.min(self.limits.deadline));
                let deciding = pin!(self.decide(request, examined, asker.outcomes, charge, begun));
                within(limit, deciding).await.unwrap_or_else(|| (Box::default(), denied(Fault::DeadlineExceeded)))
            }
            Err(decided) => decided,
        };
        let request_id = request::request_id(&request);
        let took = self.clock.monotonic().saturating_sub(begun.monotonic);
        let event = CheckEvent { outcome: &outcome, request: &request, request_id, body_bytes, at: begun.wall, took };
        self.telemetry.record(&event);
        self.traces.record(&event, asker.traceparent);
        reply(&Answered { outcome: &outcome, request: &request, request_id })
    }

    /// What becomes of a check that panicked where nothing guards it, told of like any other. What was claimed for it stays
    /// claimed: nobody knows how far it came.
    pub(crate) fn fallen(&self) -> Outcome {
        self.telemetry.panicked();
        let (outcome, request) = (denied(Fault::Internal), CheckRequest::default());
        let at = self.clock.now().wall;
        let (request_id, body_bytes, took) = (request::request_id(&request), 0, Duration::ZERO);
        let event = CheckEvent { outcome: &outcome, request: &request, request_id, body_bytes, at, took };
        // It may be the telling that panics.
        catch_unwind(AssertUnwindSafe(|| self.telemetry.record(&event))).ok();
        outcome
    }

    async fn decide(
        &self,
        request: Box<CheckRequest>,
        examined: Option<Examined>,
        outcomes: Outcomes,
        charge: Charge,
        now: Now,
    ) -> (Box<CheckRequest>, Outcome) {
        let long = if request.body_length() > OFFLOAD_ABOVE { Long::Body } else { Long::Signature };
        let here = match (examined, long) {
            (Some(examined), _) => Some(Ok(examined)),
            (None, Long::Body) => None,
            (None, Long::Signature) => self.examine_here(&request, now),
        };
        let (request, examined) = match here {
            Some(examined) => (request, examined),
            // What is rare has its room elsewhere, so that a small check need not carry it along.
            None => Box::pin(self.examine_elsewhere(long, request, charge, now)).await,
        };
        let outcome = match examined {
            Ok(examined) => {
                // Who tells no outcomes asks once about a request.
                let holder = match outcomes {
                    Outcomes::Told => Holder::of(request.id()),
                    Outcomes::Untold => Holder::NOBODY,
                };
                check::settle(examined, holder, outcomes, &self.store, now).await
            }
            Err(denial) => {
                if denial == Fault::Internal.into() {
                    self.telemetry.panicked();
                }
                denied(denial)
            }
        };
        (request, outcome)
    }

    /// Examines at once; not if that takes long, and another one did just now.
    fn examine_here(&self, request: &CheckRequest, now: Now) -> Option<Result<Examined, Denial>> {
        let endpoints = self.endpoints.load();
        guarded(|| {
            let delivery = request.delivery()?;
            let endpoint = endpoints.find(&delivery);
            // What is refused at the door costs nothing more: it is not to wait elsewhere, nor to take the turn of one that
            // is spared that. The door is looked at twice only where what is behind it takes long.
            let long = endpoint.is_some_and(|endpoint| endpoint.takes_long && check::enters(endpoint, &delivery));
            if long && !self.examiners.spare(now) {
                return Ok(None);
            }
            Ok(Some(check::examine_at(endpoint, &delivery, now, &endpoints)))
        })
        .transpose()
    }

    /// Examines on a thread where it holds nobody up.
    async fn examine_elsewhere(
        &self,
        long: Long,
        request: Box<CheckRequest>,
        charge: Charge,
        now: Now,
    ) -> (Box<CheckRequest>, Result<Examined, Denial>) {
        let endpoints = self.endpoints.load_full();
        let work = move || {
            // The work outlives a caller that gives up; its bytes are free only when it is done.
            let _held = charge;
            let mut request = request;
            let examined = guarded(|| Ok(check::examine(&request.delivery()?, now, &endpoints)));
            // To unmap megabytes takes as long as fifty small checks, which need not wait for it.
            request.let_go_of_body();
            (request, examined)
        };
        self.examiners.run(long, work).await.unwrap_or_else(|| (Box::default(), Err(Fault::Internal.into())))
    }
}

/// What comes of `deciding`, unless that takes longer than `limit`. Nearly everything is decided before a timer would be
/// set.
///
/// It is where it is and stays there: what is handed to an asynchronous function is moved into it, and the room of a check
/// would be copied at every step.
async fn within<T>(limit: Duration, mut deciding: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let at_once = std::future::poll_fn(|context| Poll::Ready(deciding.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(decided) => Some(decided),
        Poll::Pending => timeout(limit, deciding).await.ok(),
    }
}

impl Question {
    fn body_length(&self) -> usize {
        match self {
            Self::Read(request) => request.body_length(),
            Self::Examined(_, _, length) => *length,
            Self::Judged(..) | Self::Refused(_) => 0,
        }
    }
}

/// Examines, and turns a panic into a fault of this one check. Nothing that is shared is held across it.
fn guarded<T>(examine: impl FnOnce() -> Result<T, Denial>) -> Result<T, Denial> {
    catch_unwind(AssertUnwindSafe(examine)).unwrap_or(Err(Fault::Internal.into()))
}

fn denied(denial: impl Into<Denial>) -> Outcome {
    Outcome { endpoint: None, facts: check::Facts::default(), decision: Decision::Deny(denial.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;

    #[test]
    fn a_check_that_fell_is_told_of_like_any_other() {
        let gate = Gate {
            endpoints: ArcSwap::default(),
            store: Store::in_memory(),
            clock: Clock::fixed(UnixSeconds(0)),
            telemetry: Telemetry::new().unwrap(),
            traces: Traces::default(),
            limits: Limits::default(),
            budget: Budget::new(0),
            examiners: Examiners::start(1).unwrap(),
        };
        assert_eq!(gate.fallen().decision.reason(), "internal");
        let metrics = gate.telemetry.render(&crate::telemetry::Held::default());
        for line in
            [r#"hookwarden_checks_total{decision="deny",endpoint="",reason="internal"} 1"#, "hookwarden_panics_total 1"]
        {
            assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
        }
    }
}
