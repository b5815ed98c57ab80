//! The `ext_authz` gRPC service: read the question, check, record, answer.
//!
//! Every path out of here is a well-formed response. A message that cannot be decoded, a body over the limit or the
//! budget, a missed deadline and a panic are all denials; none is left to the proxy's idea of an error. What
//! remains for the proxy's `status_on_error` is that nobody answers at all.

mod codec;
mod connection;
mod desk;
mod gathering;
mod grpc;
pub mod message;
pub mod outcomes;
pub mod request;
pub mod response;
mod wire;

use crate::{
    check::Outcome,
    decision::Rejection,
    gate::{Answered, Asker, Gate, Question},
    replay::Outcomes,
    reply::trusted_names,
    traces::TRACEPARENT,
};
use bytes::Bytes;
use connection::drive;
use desk::{Answers, Asked, Call, Terms};
use futures_util::FutureExt as _;
use h2::server::SendResponse;
use http::{Request, Response, request::Parts};
use message::CheckRequest;
use outcomes::AccessLog;
use response::CheckResponse;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::Context,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

/// The service's name, as health checks ask for it.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Room for headers beside the body in one message.
const HEADROOM: usize = 1 << 20;
/// HTTP/2 windows: below this big bodies crawl, above it nothing is gained (docs/performance.md).
const WINDOW: u32 = 1 << 20;
/// Streams per connection. Envoy opens another connection when it needs more.
const MAX_STREAMS: u32 = 1024;
/// Header list of a gRPC request; Envoy's is some hundred bytes.
const MAX_HEADER_LIST: u32 = 16 << 10;

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

/// The check service, the access log service and the standard health service on one listener, told apart by path.
#[derive(Debug, Clone)]
pub struct ExtAuthz<H> {
    gate: Arc<Gate>,
    outcomes: AccessLog,
    health: H,
    stopped: watch::Receiver<bool>,
}

/// A service of gRPC's.
pub trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

impl<H: GrpcService> ExtAuthz<H> {
    /// All services over one gate. Streams that the proxy keeps open end when `stopped` is true.
    pub fn new(gate: &Arc<Gate>, stopped: watch::Receiver<bool>, health: H) -> Arc<Self> {
        let outcomes = AccessLog::new(Arc::clone(gate), stopped.clone());
        Arc::new(Self { gate: Arc::clone(gate), outcomes, health, stopped })
    }

    /// Serves connections until `stop` comes back, and then finishes what is under way.
    pub async fn serve<C>(
        self: Arc<Self>,
        mut incoming: impl Stream<Item = io::Result<C>> + Unpin,
        stop: impl Future<Output = ()>,
    ) where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Every connection holds the other end of it: to be told to stop, and to tell that it did.
        let (connections, _) = watch::channel(());
        let mut stop = pin!(stop);
        loop {
            let connection = tokio::select! {
                () = &mut stop => break,
                next = incoming.next() => match next {
                    Some(Ok(connection)) => connection,
                    Some(Err(_)) => continue,
                    None => break,
                },
            };
            let (service, mut told) = (Arc::clone(&self), connections.subscribe());
            tokio::spawn(async move {
                let stop = async { drop(told.changed().await) };
                drive(connection, stop, service).await;
            });
        }
        // Nobody accepts any more: who connects now is to learn so at once, and not to wait on a socket that still listens.
        drop(incoming);
        connections.send_replace(());
        connections.closed().await;
    }

    async fn answer_by_path(&self, (request, respond): Call) -> Result<(), h2::Error> {
        let request = request.map(|stream| Body::new(grpc::Incoming::new(stream)));
        let path = request.uri().path().trim_start_matches('/');
        let mut stopped = self.stopped.clone();
        let mut stop = pin!(async { drop(stopped.wait_for(|stopped| *stopped).await) });
        let Ok(answer) = if path.starts_with(H::NAME) {
            let mut health = self.health.clone();
            let Ok(()) = poll_fn(|context| health.poll_ready(context)).await;
            tokio::select! {
                biased;
                answer = health.call(request) => answer,
                // Who has not said yet what he wants to know holds nothing up.
                () = &mut stop => return Ok(()),
            }
        } else if path.starts_with(AccessLog::NAME) {
            self.outcomes.clone().call(request).await
        } else {
            Ok(Status::unimplemented("").into_http())
        };
        grpc::forward(answer, respond, stop).await
    }

    async fn check(&self, asked: Asked) -> CheckResponse {
        let gate = &*self.gate;
        let Asked { head, message, charge, patience } = asked;
        let question = match message {
            Ok(message) => Question::read(message),
            Err(denial) => Question::Refused(denial),
        };
        // Envoy tells its own span beside the question.
        let span = if gate.traces.are_on() { head.headers.get(TRACEPARENT) } else { None };
        let asker = Asker {
            outcomes: Outcomes::Told,
            traceparent: span.and_then(|span| span.to_str().ok()),
            patience: Some(patience),
        };
        let reply = |answered: &Answered<'_>| {
            response::respond(answered.outcome, answered.request_id, trusted_names(answered.request))
        };
        gate.answer(question, asker, charge, reply).await
    }
}

impl<H: GrpcService> Answers for Arc<ExtAuthz<H>> {
    fn terms(&self, head: &Parts) -> Option<Terms> {
        let gate = &*self.gate;
        let patience = || {
            let asked_for = grpc::timeout(&head.headers);
            asked_for.map_or(gate.limits.deadline, |patience| patience.min(gate.limits.deadline))
        };
        (head.uri.path() == CHECK).then(|| Terms {
            limit: gate.limits.body.saturating_add(HEADROOM),
            charge: gate.budget.open(),
            patience: patience(),
        })
    }

    fn answer(&self, asked: Asked, mut respond: SendResponse<Bytes>) -> impl Future<Output = ()> + Send + 'static {
        let service = Self::clone(self);
        async move {
            let taken_back = |context: &mut Context<'_>| respond.poll_reset(context);
            let check = pin!(service.check(asked));
            let answering = pin!(or_denied(check, || service.gate.fallen()));
            if let Some(answer) = grpc::unless_taken_back(taken_back, answering).await {
                // To whom it cannot be sent has gone.
                grpc::reply(answer, respond).ok();
            }
        }
    }

    fn answer_other(&self, call: Call) -> impl Future<Output = ()> + Send + 'static {
        let service = Self::clone(self);
        async move { drop(service.answer_by_path(call).await) }
    }
}

/// The answer of a check, and of one that panics a denial. What is examined is guarded by itself; this is for what is around it.
async fn or_denied(
    check: Pin<&mut impl Future<Output = CheckResponse>>,
    fallen: impl FnOnce() -> Outcome,
) -> CheckResponse {
    let answer = AssertUnwindSafe(check).catch_unwind().await;
    answer.unwrap_or_else(|_| response::respond(&fallen(), "-", std::iter::empty()))
}

impl Question {
    fn read(message: Bytes) -> Self {
        match CheckRequest::decode(message) {
            Ok(request) => Self::Read(Box::new(request)),
            Err(_) => Self::Refused(Rejection::RequestMalformed.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Decision, Fault};
    use envoy_types::pb::envoy::service::auth::v3::{CheckResponse as Told, check_response::HttpResponse};
    use prost::Message as _;

    #[tokio::test]
    async fn a_check_that_panics_is_denied() {
        let fallen = || Outcome {
            endpoint: None,
            facts: crate::check::Facts::default(),
            decision: Decision::Deny(Fault::Internal.into()),
        };
        let answer = or_denied(pin!(async { panic!("on purpose") }), fallen).await;
        let told = Told::decode(&answer.framed()[grpc::PREFIX..]).unwrap();
        assert_eq!(told.status.unwrap().code, 7);
        let Some(HttpResponse::DeniedResponse(denied)) = told.http_response else { panic!("{:?}", told.http_response) };
        assert_eq!(denied.status.unwrap().code, 503);
    }
}
