//! The HTTP listener, for proxies that do not speak `ext_authz`: nginx, Traefik, and whatever can send a request on.
//!
//! A proxy sends the delivery here, whole, before it sends it to the application. What comes back is either *forward
//! it*, in the proxy's own [`dialect`], or the reply that the sender gets. The question is put in the words of Envoy's
//! `CheckRequest` ([`request`]) and goes through the same gate; nothing is decided here.
//!
//! Only proxies that the configuration names are answered: what they say of the request is believed. A body is asked for
//! only where there is an endpoint for it and nothing is wrong without it. Where the scheme allows it is verified piece by
//! piece as it comes in and never held; elsewhere it is held within the byte budget. Whoever is slow is cut ([`pace`]),
//! so that idle hands cannot hold connections.

pub mod dialect;
mod pace;
mod request;

use crate::{
    check::{Awaited, Examined, Pieces, await_body},
    decision::{Denial, Fault, Rejection},
    gate::{Asker, Gate, Question, budget::Charge},
    replay::Outcomes,
    reply::trusted_names,
};
use bytes::{Bytes, BytesMut};
use dialect::Dialect;
use futures_util::FutureExt as _;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use ipnet::IpNet;
use pace::{Pace, Paced};
use request::Asked;
use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _};

/// How long a body may take, and how long a proxy may be silent in the middle of one.
const BODY: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes that are made room for on a proxy's word. More is made when more has come.
const AHEAD: usize = 256 << 10;
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// Header lines of a request.
const MAX_LINES: usize = 256;

/// None of these proxies tells outcomes, or a span of its own beside the delivery's.
const ASKER: Asker<'_> = Asker { outcomes: Outcomes::Untold, traceparent: None, patience: None };

/// What the listener was told of its proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How they are answered.
    pub dialect: Dialect,
    /// Where a request names its endpoint.
    pub endpoint: EndpointFrom,
    /// What a request is about.
    pub original: Original,
    /// Whose requests are answered. Whoever reaches a Unix socket may ask.
    pub proxies: Vec<IpNet>,
    /// The header in which they tell their own peer's address, in lower case.
    pub peer_header: Option<String>,
}

/// Where a request names its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointFrom {
    /// Nowhere: host and path find it.
    Match,
    /// In its path, `/verify/<endpoint>`, which the proxy's configuration writes.
    Path,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// Itself.
    AsSent,
    /// What `x-forwarded-method`, `-host` and `-uri` say, of which the proxy writes every one.
    Forwarded,
}

/// A connection's other end.
pub trait Peer {
    /// Its address; nothing for a Unix socket.
    fn ip(&self) -> Option<IpAddr>;
}

impl Peer for tokio::net::TcpStream {
    fn ip(&self) -> Option<IpAddr> {
        // A peer that is gone already is nobody's proxy.
        Some(self.peer_addr().map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical()))
    }
}

impl Peer for tokio::net::UnixStream {
    fn ip(&self) -> Option<IpAddr> {
        None
    }
}

/// The listener's service.
#[derive(Debug)]
pub struct HttpVerify {
    gate: Arc<Gate>,
    rules: Rules,
    ids: request::Ids,
    /// In which second, counted from 1.
    told_of_a_stranger: AtomicU64,
}

impl HttpVerify {
    /// A service over a gate.
    #[must_use]
    pub fn new(gate: Arc<Gate>, rules: Rules) -> Arc<Self> {
        Arc::new(Self { gate, rules, ids: request::Ids::new(), told_of_a_stranger: AtomicU64::new(0) })
    }

    /// Serves connections until `stop` comes back, and then finishes what is under way.
    pub async fn serve<C>(
        self: Arc<Self>,
        mut incoming: impl Stream<Item = std::io::Result<C>> + Unpin,
        stop: impl Future,
    ) where
        C: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let connection = tokio::select! {
                _ = &mut stop => break,
                next = incoming.next() => match next {
                    Some(Ok(connection)) => connection,
                    Some(Err(_)) => continue,
                    None => break,
                },
            };
            if !self.answers(connection.ip()) {
                self.cut(connection.ip());
                continue;
            }
            let pace = Arc::new(Pace::default());
            let (service, paced) = (Arc::clone(&self), Arc::clone(&pace));
            let answer = service_fn(move |request| {
                let (service, pace) = (Arc::clone(&service), Arc::clone(&paced));
                async move {
                    let under = pace.request();
                    Ok::<_, Infallible>(service.answer(request, under.line_is_plain).await)
                }
            });
            let connection = http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_LINES)
                .half_close(false)
                .serve_connection(TokioIo::new(Paced::new(connection, pace)), answer);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // A connection that breaks is the proxy's to report.
                connection.await.ok();
            });
        }
        // Nobody accepts any more, so nobody is to wait on a socket that still listens.
        drop(incoming);
        graceful.shutdown().await;
    }

    /// Says that a stranger's connection was cut: once a second, however many there are.
    fn cut(&self, peer: Option<IpAddr>) {
        let now = self.gate.clock.now().monotonic.as_secs().saturating_add(1);
        if self.told_of_a_stranger.swap(now, Ordering::Relaxed) != now {
            tracing::warn!(peer = peer.map(tracing::field::display), "is not among `verify.proxies`; cut");
        }
    }

    /// Whether a peer is a proxy of ours.
    fn answers(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| self.rules.proxies.iter().any(|network| network.contains(&peer)))
    }

    async fn answer(&self, request: Request<Incoming>, line_is_plain: bool) -> Response<Full<Bytes>> {
        let (head, mut body) = request.into_parts();
        let mut charge = self.gate.budget.open();
        let question = match Asked::read(&head, &self.rules, &self.ids) {
            Ok(asked) if !line_is_plain => Question::Judged(asked.without_body(), Rejection::PathAmbiguous.into()),
            Ok(asked) => {
                // A panic is a fault of this one check. Nothing that is shared is held across it.
                let taken =
                    AssertUnwindSafe(self.take_in(&asked, &head.headers, &mut body, &mut charge)).catch_unwind();
                let taken = taken.await.unwrap_or_else(|_| {
                    self.gate.telemetry.panicked();
                    Err(Fault::Internal.into())
                });
                match taken {
                    Ok(TakenIn::Whole(bytes)) => Question::Read(asked.with_body(bytes)),
                    Ok(TakenIn::Examined(examined, length)) => {
                        Question::Examined(asked.without_body(), examined, length)
                    }
                    // The endpoint is known, and so is what is wrong: it is told of like any other check.
                    Err(denial) => Question::Judged(asked.without_body(), denial),
                }
            }
            Err(rejection) => Question::Refused(rejection.into()),
        };
        // From one that does not send, nothing is to be had.
        let silent = [Rejection::BodyTimeout, Rejection::BodyTruncated].map(Denial::from);
        if !matches!(&question, Question::Judged(_, denial) if silent.contains(denial)) {
            self.drain(&mut body).await;
        }
        let gate = &self.gate;
        gate.answer(question, ASKER, charge, |answered| self.rules.dialect.reply(answered)).await
    }

    /// What becomes of a body: verified as it comes in, held, or not wanted.
    async fn take_in(
        &self,
        asked: &Asked,
        headers: &http::HeaderMap,
        body: &mut Incoming,
        charge: &mut Charge,
    ) -> Result<TakenIn, Denial> {
        // What a proxy cannot remove would reach the application as if it were ours.
        if trusted_names(asked.message()).next().is_some() {
            return Err(Rejection::TrustedHeaderSent.into());
        }
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let taking = async {
            match await_body(&asked.message().delivery()?, self.gate.clock.now(), &self.gate.endpoints.load_full())? {
                Awaited::Pieces(pieces) if announced.is_some_and(|length: usize| length > pieces.limit()) => {
                    Err(Rejection::BodyTooLarge.into())
                }
                Awaited::Pieces(pieces) if asked.frames_its_body() => self.examine(*pieces, body).await,
                // Of a request that is only described, or says that it was cut, a body has more to prove.
                Awaited::Pieces(pieces) => hold(pieces.limit(), announced, body, charge).await,
                Awaited::Whole(limit) => hold(limit, announced, body, charge).await,
            }
        };
        timeout(BODY, taking).await.unwrap_or_else(|_| Err(Rejection::BodyTimeout.into()))
    }

    /// Verifies a body as it comes in.
    async fn examine(&self, mut pieces: Pieces, body: &mut Incoming) -> Result<TakenIn, Denial> {
        while let Some(piece) = next_piece(body).await? {
            pieces.update(&piece)?;
        }
        let length = pieces.length();
        Ok(TakenIn::Examined(pieces.finish(self.gate.clock.now()), length))
    }

    /// Reads what nobody wants of a body: a proxy that is still sending takes a closed connection for a broken one, and
    /// the sender would not get the reply. Nothing of it is kept.
    async fn drain(&self, body: &mut Incoming) {
        let mut left = self.gate.limits.body;
        let rest = async {
            while left > 0 {
                let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await else { return };
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        };
        timeout(BODY, rest).await.ok();
    }
}

/// What was made of a body.
enum TakenIn {
    /// It is all here.
    Whole(Bytes),
    /// So many bytes of it were looked at, and none kept.
    Examined(Examined, usize),
}

/// The next piece of a body; nothing behind the last.
async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, Rejection> {
    loop {
        let frame = timeout(SILENCE, body.frame()).await.map_err(|_| Rejection::BodyTimeout)?;
        // Cut short, or framed wrongly: then nobody waits for an answer, or shall get a good one.
        let Some(frame) = frame.transpose().map_err(|_| Rejection::BodyTruncated)? else { return Ok(None) };
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
}

/// Takes a body in, within the budget.
async fn hold(
    limit: usize,
    announced: Option<usize>,
    body: &mut Incoming,
    charge: &mut Charge,
) -> Result<TakenIn, Denial> {
    if announced.is_some_and(|announced| announced > limit) {
        return Err(Rejection::BodyTooLarge.into());
    }
    let mut whole = BytesMut::with_capacity(announced.unwrap_or_default().min(AHEAD));
    while let Some(piece) = next_piece(body).await? {
        if whole.len().saturating_add(piece.len()) > limit {
            return Err(Rejection::BodyTooLarge.into());
        }
        if !charge.take(piece.len()) {
            return Err(Fault::Overloaded.into());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(TakenIn::Whole(whole.freeze()))
}
