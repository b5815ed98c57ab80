//! What the upstream made of a delivery, as the proxy's access log service tells it.
//!
//! Envoy streams one entry per finished request to `envoy.service.accesslog.v3.AccessLogService`; in it is the dynamic
//! metadata of the check, and so the id of the claim that waits. A 2xx settles the claim; any other answer, and none,
//! releases it, because a provider that was not told 2xx tries again. Where the client went away before there was an
//! answer nobody knows whether the application had it, and the next try is let through, marked.
//!
//! Only the few fields that are read are decoded, as bytes: an entry quotes what a stranger sent, and one that were
//! refused for its path would take the stream down and with it everybody's outcomes. Nothing here denies or allows;
//! a lost stream costs what [`Claimed::Unknown`](crate::replay::Claimed::Unknown) says.

use super::{codec::Entering, response::CLAIM};
use crate::{
    gate::Gate,
    replay::{ClaimId, Conclusion},
};
use bytes::Bytes;
use futures_util::future::join_all;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::{
    Status, Streaming,
    body::Body,
    server::{ClientStreamingService, Grpc, NamedService},
};
use tower_service::Service;

/// `AccessLogType.DownstreamEnd`, the entry of a request that is over.
const DOWNSTREAM_END: i32 = 6;

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entries {
    /// Of HTTP requests.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpEntries>,
}

/// `StreamAccessLogsMessage.HTTPAccessLogEntries`
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpEntries {
    /// In the order in which they ended.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<HttpEntry>,
}

/// `envoy.data.accesslog.v3.HTTPAccessLogEntry`
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpEntry {
    /// What every kind of entry has.
    #[prost(message, optional, tag = "1")]
    pub common: Option<Common>,
    /// What was answered.
    #[prost(message, optional, tag = "4")]
    pub response: Option<Response>,
}

/// `envoy.data.accesslog.v3.AccessLogCommon`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Common {
    /// From the request's start until the upstream got its first byte.
    #[prost(message, optional, tag = "7")]
    pub first_sent: Option<Span>,
    /// From the request's start until the upstream's last byte.
    #[prost(message, optional, tag = "10")]
    pub last_received: Option<Span>,
    /// Metadata that filters left.
    #[prost(message, optional, tag = "17")]
    pub metadata: Option<Metadata>,
    /// The request goes on.
    #[prost(bool, tag = "27")]
    pub intermediate: bool,
    /// Which moment of a request this is; zero where Envoy does not say.
    #[prost(int32, tag = "33")]
    pub kind: i32,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Span {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `envoy.config.core.v3.Metadata`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// By filter.
    #[prost(message, repeated, tag = "1")]
    pub filters: Vec<FilterMetadata>,
}

/// An entry of `Metadata.filter_metadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilterMetadata {
    /// The filter.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// What it left.
    #[prost(message, optional, tag = "2")]
    pub fields: Option<Fields>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fields {
    /// By name.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
}

/// An entry of `Struct.fields`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Field {
    /// Its name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<FieldValue>,
}

/// `google.protobuf.Value`, where it is text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FieldValue {
    /// The text.
    #[prost(bytes = "bytes", tag = "3")]
    pub text: Bytes,
}

/// `envoy.data.accesslog.v3.HTTPResponseProperties`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// Absent where the client went away before.
    #[prost(message, optional, tag = "1")]
    pub code: Option<Code>,
}

/// `google.protobuf.UInt32Value`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Code {
    /// The status.
    #[prost(uint32, tag = "1")]
    pub value: u32,
}

/// What became of one delivery that was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The endpoint, in its name's bytes.
    pub endpoint: Bytes,
    /// The claim that waits, and who waits.
    pub claim: Option<ClaimId>,
    /// What it comes to.
    pub conclusion: Conclusion,
    /// How long the upstream took, where it answered.
    pub took: Option<Duration>,
}

/// What the metadata of every check has.
const OURS: &[&str] = &["decision", "reason", "request_id", "endpoint"];

impl FilterMetadata {
    fn text(&self, name: &str) -> Option<Bytes> {
        let fields = &self.fields.as_ref()?.fields;
        let field = fields.iter().find(|field| field.name == name.as_bytes())?;
        Some(field.value.as_ref()?.text.clone())
    }
}

impl HttpEntry {
    /// What became of a delivery, if this is the end of one that was allowed.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let common = self.common.as_ref()?;
        if common.intermediate || !matches!(common.kind, 0 | DOWNSTREAM_END) {
            return None;
        }
        // It is under the filter's name, which is the operator's or a control plane's to choose.
        let ours = |metadata: &&FilterMetadata| OURS.iter().all(|name| metadata.text(name).is_some());
        let metadata = common.metadata.as_ref()?.filters.iter().find(ours)?;
        let field = |name: &str| metadata.text(name);
        if !matches!(&*field("decision")?, b"allow" | b"observe") {
            return None;
        }
        // The entry's own stream id is Envoy's request id, and not what the check was told.
        let claim = field(CLAIM).and_then(|text| ClaimId::parse(std::str::from_utf8(&text).ok()?));
        let code = self.response.as_ref().and_then(|response| response.code).map_or(0, |code| code.value);
        Some(Outcome {
            endpoint: field("endpoint")?,
            claim,
            conclusion: match code {
                0 => Conclusion::Unknown,
                200..=299 => Conclusion::Settled,
                _ => Conclusion::Released,
            },
            took: common
                .last_received
                .and_then(Span::duration)
                .zip(common.first_sent.and_then(Span::duration))
                .map(|(received, sent)| received.saturating_sub(sent)),
        })
    }
}

impl Span {
    fn duration(self) -> Option<Duration> {
        Some(Duration::new(u64::try_from(self.seconds).ok()?, u32::try_from(self.nanos).ok()?.min(999_999_999)))
    }
}

/// The access log service over a [`Gate`].
#[derive(Debug, Clone)]
pub struct AccessLog {
    gate: Arc<Gate>,
    stopped: watch::Receiver<bool>,
}

impl AccessLog {
    /// A service over `gate`, whose streams end when `stopped` is true: the proxy would hold them open for ever.
    #[must_use]
    pub fn new(gate: Arc<Gate>, stopped: watch::Receiver<bool>) -> Self {
        Self { gate, stopped }
    }

    /// Reads a stream to its end, which comes when the proxy goes or we do.
    async fn read(mut self, mut entries: Streaming<Entries>) {
        loop {
            let message = tokio::select! {
                message = entries.next() => message,
                // An error means that the sender is gone, which is a stop too.
                _ = self.stopped.wait_for(|stopped| *stopped) => return,
            };
            let Some(Ok(message)) = message else { return };
            // A shared store is asked about all of them at once, and not about one after the other.
            let outcomes = message.http.iter().flat_map(|http| &http.entries).filter_map(HttpEntry::outcome);
            let gate = &self.gate;
            join_all(outcomes.map(|outcome| async move { gate.conclude(&outcome).await })).await;
        }
    }
}

impl NamedService for AccessLog {
    const NAME: &'static str = "envoy.service.accesslog.v3.AccessLogService";
}

impl ClientStreamingService<Entries> for AccessLog {
    type Response = ();
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<()>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Entries>>) -> Self::Future {
        let log = self.clone();
        Box::pin(async move {
            log.read(request.into_inner()).await;
            Ok(tonic::Response::new(()))
        })
    }
}

impl Service<http::Request<Body>> for AccessLog {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let log = self.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/StreamAccessLogs") {
                Ok(Grpc::new(Entering).client_streaming(log, request).await)
            } else {
                Ok(Status::unimplemented("").into_http())
            }
        })
    }
}
