//! The `ext_authz` gRPC service: read the question, check, record, answer.
//!
//! Every path out of here is a well-formed response. A message that cannot be decoded, a body over the limit or the
//! budget, a missed deadline and a panic are all denials; none is left to the proxy's idea of an error. What
//! remains for the proxy's `status_on_error` is that nobody answers at all.

mod codec;
mod connection;
mod grpc;
pub mod message;
pub mod outcomes;
pub mod request;
pub mod response;
mod wire;

use crate::{
    decision::Rejection,
    gate::{Asker, Gate, Question},
    replay::Outcomes,
    reply::trusted_names,
    traces::TRACEPARENT,
};
use bytes::Bytes;
use connection::{Calls, Gathering, drive};
use grpc::Reply;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use message::CheckRequest;
use outcomes::AccessLog;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    time::Duration,
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
/// After how much silence a connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

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
        Arc::new(Self { gate: Arc::clone(gate), outcomes: AccessLog::new(Arc::clone(gate), stopped), health })
    }

    /// Serves connections until `stop` comes back, and then finishes what is under way.
    pub async fn serve<C>(
        self: Arc<Self>,
        mut incoming: impl Stream<Item = io::Result<C>> + Unpin,
        stop: impl Future<Output = ()>,
    ) where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
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
            let calls = Calls::default();
            let service = Arc::clone(&self);
            let answer = service_fn(move |request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(service.answer(request).await) }
            });
            let connection = http2::Builder::new(calls.clone())
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_LIST)
                .keep_alive_interval(KEEP_ALIVE)
                .auto_date_header(false)
                .serve_connection(TokioIo::new(Gathering::new(connection)), answer);
            // A connection that breaks is the proxy's to report.
            tokio::spawn(drive(graceful.watch(connection), calls));
        }
        // Nobody accepts any more: who connects now is to learn so at once, and not to wait on a socket that still listens.
        drop(incoming);
        graceful.shutdown().await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let path = request.uri().path();
        if path == CHECK {
            return self.check(request).await;
        }
        // What is rare has its room elsewhere, so that a check need not carry it along.
        Box::pin(self.answer_other(request)).await
    }

    async fn answer_other(&self, request: Request<Incoming>) -> Response<Reply> {
        let path = request.uri().path().trim_start_matches('/');
        if path.starts_with(H::NAME) {
            let mut health = self.health.clone();
            let Ok(()) = poll_fn(|context| health.poll_ready(context)).await;
            grpc::other(health.call(request.map(Body::new)).await)
        } else if path.starts_with(AccessLog::NAME) {
            grpc::other(self.outcomes.clone().call(request.map(Body::new)).await)
        } else {
            grpc::other(Ok(Status::unimplemented("").into_http()))
        }
    }

    async fn check(&self, request: Request<Incoming>) -> Response<Reply> {
        let gate = &*self.gate;
        let (head, body) = request.into_parts();
        let mut charge = gate.budget.open();
        let limit = gate.limits.body.saturating_add(HEADROOM);
        let question = match grpc::message(body, limit, &mut charge).await {
            Ok(message) => Question::read(message),
            Err(denial) => Question::Refused(denial),
        };
        // Envoy tells its own span beside the question.
        let span = if gate.traces.are_on() { head.headers.get(TRACEPARENT) } else { None };
        let asker = Asker {
            outcomes: Outcomes::Told,
            traceparent: span.and_then(|span| span.to_str().ok()),
            patience: grpc::timeout(&head.headers),
        };
        let answer = gate.answer(question, asker, charge, |answered| {
            response::respond(answered.outcome, answered.request_id, trusted_names(answered.request))
        });
        grpc::reply(answer.await)
    }
}

impl Question {
    fn read(message: Bytes) -> Self {
        match CheckRequest::decode(message) {
            Ok(request) => Self::Read(Box::new(request)),
            Err(_) => Self::Refused(Rejection::RequestMalformed.into()),
        }
    }
}
