//! The `ext_authz` gRPC service: read the question, check, record, answer.
//!
//! Every path out of here is a well-formed response. A message that cannot be decoded, a body over the limit or the
//! budget, a missed deadline and a panic are all denials; none is left to the proxy's idea of an error. What
//! remains for the proxy's `status_on_error` is that nobody answers at all.

pub mod budget;
mod codec;
pub mod message;
pub mod outcomes;
pub mod request;
pub mod response;

use crate::{
    check::{self, Examined, Outcome},
    clock::{Clock, Now},
    config::compile::Limits,
    decision::{Decision, Denial, Fault, Rejection},
    endpoint::Endpoints,
    replay::Holder,
    store::Store,
    telemetry::{CheckEvent, Telemetry},
};
use arc_swap::ArcSwap;
use budget::{Budget, Charge, Metered};
use bytes::Bytes;
use codec::{Messages, Read};
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use message::CheckRequest;
use outcomes::AccessLog;
use prost::Message as _;
use response::TRUSTED_PREFIX;
use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{Semaphore, watch};
use tonic::{
    Code, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
};
use tower_service::Service;

/// The service's name, as health checks ask for it.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Room for headers beside the body in one message.
const HEADROOM: usize = 1 << 20;
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
    /// Bounds, as they were at start.
    pub limits: Limits,
    /// Bytes of bodies in flight.
    pub budget: Arc<Budget>,
    /// How many large bodies may be examined at once: more than there are cores only cost memory.
    pub examiners: Arc<Semaphore>,
}

/// Places for the examination of large bodies, one for each core.
#[must_use]
pub fn examiners() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)))
}

impl Gate {
    /// Answers one question.
    async fn answer(self: Arc<Self>, question: Question, charge: Arc<Charge>) -> CheckResponse {
        let begun = self.clock.now();
        let endpoints = self.endpoints.load_full();
        let (request, outcome) = match question {
            Question::Read(request) => {
                let deadline =
                    tokio::time::timeout(self.limits.deadline, self.decide(request, charge, endpoints, begun));
                match deadline.await {
                    Ok(decided) => decided,
                    Err(_) => (CheckRequest::default(), denied(Fault::DeadlineExceeded)),
                }
            }
            Question::Refused(denial) => (CheckRequest::default(), denied(denial)),
        };
        let request_id = request::request_id(&request);
        let took = self.clock.now().monotonic.saturating_sub(begun.monotonic);
        self.telemetry.record(&CheckEvent { outcome: &outcome, request: &request, request_id, at: begun.wall, took });
        response::respond(&outcome, request_id, trusted_names(&request))
    }

    async fn decide(
        &self,
        request: CheckRequest,
        charge: Arc<Charge>,
        endpoints: Arc<Endpoints>,
        now: Now,
    ) -> (CheckRequest, Outcome) {
        let (request, examined) = if request.body_length() > OFFLOAD_ABOVE {
            let Ok(examiner) = Arc::clone(&self.examiners).acquire_owned().await else {
                return (CheckRequest::default(), denied(Fault::Internal));
            };
            let work = tokio::task::spawn_blocking(move || {
                // The work outlives a caller that gives up; its bytes and its place are free only when it is done.
                let _held = (examiner, charge);
                let examined = examine(&request, now, &endpoints);
                (request, examined)
            });
            match work.await {
                Ok(done) => done,
                Err(_) => (CheckRequest::default(), Err(Fault::Internal.into())),
            }
        } else {
            let examined = examine(&request, now, &endpoints);
            (request, examined)
        };
        let outcome = match examined {
            Ok(examined) => {
                let holder = Holder::of(request.http().map_or(&[], |http| &http.id));
                check::settle(examined, holder, &self.store, now).await
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
}

impl Gate {
    /// Takes in what became of a delivery.
    async fn conclude(&self, outcome: &outcomes::Outcome) {
        let concluded = match outcome.claim {
            Some(claim) => Some(self.store.conclude(claim, outcome.conclusion).await),
            None => None,
        };
        self.telemetry.concluded(outcome, concluded);
    }
}

/// Examines, and turns a panic into a fault of this one check. Nothing that is shared is held across it.
fn examine(request: &CheckRequest, now: Now, endpoints: &Endpoints) -> Result<Examined, Denial> {
    catch_unwind(AssertUnwindSafe(|| {
        let delivery = request.delivery()?;
        Ok(check::examine(&delivery, now, endpoints))
    }))
    .unwrap_or(Err(Fault::Internal.into()))
}

fn denied(denial: impl Into<Denial>) -> Outcome {
    Outcome { endpoint: None, facts: check::Facts::default(), decision: Decision::Deny(denial.into()) }
}

/// Names with the trusted prefix that the client sent.
fn trusted_names(request: &CheckRequest) -> impl Iterator<Item = &[u8]> {
    let http = request.http();
    let lines = http
        .and_then(|http| http.header_map.as_ref())
        .into_iter()
        .flat_map(|map| map.headers.iter().map(|line| &line.key));
    let joined = http.into_iter().flat_map(|http| http.headers.iter().map(|entry| &entry.key));
    lines.chain(joined).map(AsRef::as_ref).filter(|name: &&[u8]| is_trusted_name(name))
}

/// Whether an upstream could read a name as one of ours: CGI and its heirs take `_` for `-`.
fn is_trusted_name(name: &[u8]) -> bool {
    let as_read = name.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() });
    as_read.take(TRUSTED_PREFIX.len()).eq(TRUSTED_PREFIX.bytes())
}

/// A question, or why it cannot be put.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one, and it is moved, not kept")]
enum Question {
    Read(CheckRequest),
    Refused(Denial),
}

impl Read for Question {
    fn read(message: Bytes) -> Self {
        CheckRequest::decode(message).map_or_else(|_| Self::Refused(Rejection::RequestMalformed.into()), Self::Read)
    }
}

/// The gRPC service over a [`Gate`].
#[derive(Debug, Clone)]
pub struct Authorization(Arc<Gate>);

impl Authorization {
    /// A service over `gate`.
    #[must_use]
    pub fn new(gate: Arc<Gate>) -> Self {
        Self(gate)
    }

    fn codec(&self) -> Grpc<Messages<Question, CheckResponse>> {
        Grpc::new(Messages::default()).max_decoding_message_size(self.0.limits.body.saturating_add(HEADROOM))
    }

    async fn call(self, request: http::Request<Body>) -> http::Response<Body> {
        let charge = self.0.budget.open();
        let metered = request.map(|body| Metered::new(body, Arc::clone(&charge)));
        let check = |denial| Check { gate: Arc::clone(&self.0), charge: Arc::clone(&charge), denial };
        let response = self.codec().unary(check(None), metered).await;
        let denial: Denial = match Status::from_header_map(response.headers()).map(|status| status.code()) {
            None | Some(Code::Ok | Code::Unimplemented) => return response,
            _ if charge.refused() => Fault::Overloaded.into(),
            Some(Code::OutOfRange) => Rejection::BodyTooLarge.into(),
            Some(_) => Rejection::RequestMalformed.into(),
        };
        // The message could not be read. Ask an empty question instead, to which the answer is that denial.
        let empty = http::Request::new(Body::new(EmptyMessage(true)));
        self.codec().unary(check(Some(denial)), empty).await
    }
}

/// One call: the question is answered, or refused before it was read.
struct Check {
    gate: Arc<Gate>,
    charge: Arc<Charge>,
    denial: Option<Denial>,
}

impl UnaryService<Question> for Check {
    type Response = CheckResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<CheckResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Question>) -> Self::Future {
        let (gate, charge) = (Arc::clone(&self.gate), Arc::clone(&self.charge));
        let question = self.denial.map_or_else(|| request.into_inner(), Question::Refused);
        Box::pin(async move { Ok(tonic::Response::new(gate.answer(question, charge).await)) })
    }
}

/// A gRPC message without content: no compression, length zero.
struct EmptyMessage(bool);

impl http_body::Body for EmptyMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let frame = self.0.then(|| Ok(http_body::Frame::data(Bytes::from_static(&[0; 5]))));
        self.0 = false;
        Poll::Ready(frame)
    }
}

impl NamedService for Authorization {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for Authorization {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != CHECK {
            return Box::pin(async { Ok(Status::unimplemented("").into_http()) });
        }
        let service = self.clone();
        Box::pin(async move { Ok(service.call(request).await) })
    }
}

/// The check service, the access log service and the standard health service on one listener, told apart by path. A
/// router would do the same for four per cent of a check.
#[derive(Debug, Clone)]
pub struct Routes<H> {
    check: Authorization,
    outcomes: AccessLog,
    health: H,
}

impl<H> Routes<H> {
    /// All services over one gate. Streams that the proxy keeps open end when `stopped` is true.
    pub fn new(gate: &Arc<Gate>, stopped: watch::Receiver<bool>, health: H) -> Self {
        Self {
            check: Authorization::new(Arc::clone(gate)),
            outcomes: AccessLog::new(Arc::clone(gate), stopped),
            health,
        }
    }
}

impl<H> Service<http::Request<Body>> for Routes<H>
where
    H: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + NamedService,
    H::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.health.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().trim_start_matches('/');
        if path.starts_with(H::NAME) {
            Box::pin(self.health.call(request))
        } else if path.starts_with(AccessLog::NAME) {
            Service::call(&mut self.outcomes, request)
        } else {
            Service::call(&mut self.check, request)
        }
    }
}
