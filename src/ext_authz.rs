//! The `ext_authz` gRPC service: read the question, check, record, answer.
//!
//! Every path out of here is a well-formed response. A message that cannot be decoded, a body over the limit or the
//! budget, a missed deadline and a panic are all denials; none is left to the proxy's idea of an error. What
//! remains for the proxy's `status_on_error` is that nobody answers at all.

mod codec;
pub mod message;
mod metered;
pub mod outcomes;
pub mod request;
pub mod response;
mod wire;

use crate::{
    decision::{Denial, Fault, Rejection},
    gate::{Asker, Gate, Question, budget::Charge},
    replay::Outcomes,
    reply::trusted_names,
    traces::TRACEPARENT,
};
use bytes::{BufMut as _, Bytes};
use codec::{Messages, Read, Write};
use message::CheckRequest;
use metered::Metered;
use outcomes::AccessLog;
use response::CheckResponse;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::watch;
use tonic::{
    Code, Status,
    body::Body,
    codec::EncodeBuf,
    server::{Grpc, NamedService, UnaryService},
};
use tower_service::Service;

/// The service's name, as health checks ask for it.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Room for headers beside the body in one message.
const HEADROOM: usize = 1 << 20;
impl Read for Question {
    fn read(message: Bytes) -> Self {
        match CheckRequest::decode(message) {
            Ok(request) => Self::Read(Box::new(request)),
            Err(_) => Self::Refused(Rejection::RequestMalformed.into()),
        }
    }
}

impl Write for CheckResponse {
    fn write(&self, into: &mut EncodeBuf<'_>) {
        into.put_slice(self.bytes());
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
        // Envoy tells its own span beside the question.
        let span = if gate.traces.are_on() { request.metadata().get(TRACEPARENT).cloned() } else { None };
        let question = self.denial.map_or_else(|| request.into_inner(), Question::Refused);
        Box::pin(async move {
            let traceparent = span.as_ref().and_then(|span| span.to_str().ok());
            let asker = Asker { outcomes: Outcomes::Told, traceparent };
            let answer = gate.answer(question, asker, charge, |answered| {
                response::respond(answered.outcome, answered.request_id, trusted_names(answered.request))
            });
            Ok(tonic::Response::new(answer.await))
        })
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
