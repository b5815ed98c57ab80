//! A span for each check, sent to an OpenTelemetry collector (OTLP over HTTP). Off unless the configuration names one.
//!
//! The parent is the proxy's own span, which Envoy tells beside its question. Where it tells none it is what the delivery
//! itself says (`traceparent`, W3C Trace Context), if the delivery is verified: a stranger shall choose neither the trace
//! that a span is in nor whether it is kept. What is no parent is linked. What a span tells is what the log tells: names
//! from the configuration, closed words and lengths.
//!
//! Spans are made when a check is over, so that a check without traces does nothing for them, and they are sent from a
//! thread of their own. A collector that does not answer costs spans and nothing else.

use crate::{
    decision::{Allowed, Decision, Denial},
    ext_authz::message::CheckRequest,
    telemetry::CheckEvent,
    tls,
};
use anyhow::Context as _;
use bytes::Bytes;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    time,
    trace::{Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use std::{path::PathBuf, time::Duration};

/// The header of W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";
/// Longest that a collector is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take at the end.
const LAST: Duration = Duration::from_secs(1);

/// Where spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    /// The whole address, `http://host:port/v1/traces`.
    pub address: String,
    /// Certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Which share of the traces that begin here is kept. Where a parent has decided, it has decided.
    pub sample: f64,
    /// What this process is called.
    pub service_name: String,
}

// A share is never NaN: the configuration says so.
impl Eq for TracesConfig {}

/// Makes spans, or does not.
#[derive(Debug, Default)]
pub struct Traces(Option<On>);

#[derive(Debug)]
struct On {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// Traces that go where `config` says; none without one.
    pub fn start(config: Option<&TracesConfig>) -> anyhow::Result<Self> {
        let Some(config) = config else { return Ok(Self::default()) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender::new(config)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.address)
            .with_timeout(TIMEOUT)
            .build()
            .context("cannot make the exporter of traces")?;
        let resource = Resource::builder_empty()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample))))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("hookwarden");
        Ok(Self(Some(On { tracer, provider, propagator: TraceContextPropagator::new() })))
    }

    /// Whether anybody wants spans.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Makes the span of a check. `proxy` is what the proxy said of its own, in the form of a `traceparent`.
    pub fn record(&self, event: &CheckEvent<'_>, proxy: Option<&str>) {
        let Some(On { tracer, propagator, .. }) = &self.0 else { return };
        let read = |text: Option<&str>| {
            let context = propagator.extract_with_context(&Context::new(), &Parent(text));
            context.span().span_context().clone()
        };
        let (proxy, sender) = (read(proxy), read(traceparent(event.request)));
        let verified = matches!(event.outcome.decision, Decision::Allow(Allowed::Admitted(_)));
        let parent = if !proxy.is_valid() && verified { &sender } else { &proxy };
        let linked = sender.is_valid() && parent.trace_id() != sender.trace_id();
        let end = time::now();
        let mut span = tracer
            .span_builder("hookwarden check")
            .with_kind(SpanKind::Server)
            .with_start_time(end.checked_sub(event.took).unwrap_or(end))
            .with_attributes(attributes(event))
            .with_links(if linked { vec![Link::with_context(sender.clone())] } else { Vec::new() })
            .start_with_context(tracer, &under(parent));
        if let Decision::Deny(Denial::Fault(fault)) = &event.outcome.decision {
            span.set_status(Status::error(fault.as_str()));
        }
        span.end_with_timestamp(end);
    }

    /// Sends what is left.
    pub fn finish(&self) {
        if let Some(On { provider, .. }) = &self.0
            && let Err(error) = provider.shutdown_with_timeout(LAST)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn under(parent: &SpanContext) -> Context {
    let root = Context::new();
    if parent.is_valid() { root.with_remote_span_context(parent.clone()) } else { root }
}

/// What the delivery says of its trace. Two say nothing.
fn traceparent(request: &CheckRequest) -> Option<&str> {
    let mut values = request.lines().chain(request.joined()).filter(|(name, _)| *name == TRACEPARENT.as_bytes());
    match (values.next(), values.next()) {
        (Some((_, value)), None) => std::str::from_utf8(value).ok(),
        (None | Some(_), _) => None,
    }
}

fn attributes(event: &CheckEvent<'_>) -> Vec<KeyValue> {
    let outcome = event.outcome;
    let mut attributes = vec![
        KeyValue::new("hookwarden.decision", outcome.decision.as_str()),
        KeyValue::new("hookwarden.reason", outcome.decision.reason()),
        KeyValue::new("hookwarden.request_id", event.request_id.to_owned()),
        KeyValue::new("http.request.body.size", i64::try_from(event.body_bytes).unwrap_or(i64::MAX)),
    ];
    if let Some(endpoint) = &outcome.endpoint {
        attributes.push(KeyValue::new("hookwarden.endpoint", endpoint.name.clone()));
        attributes.push(KeyValue::new("hookwarden.provider", endpoint.provider.clone()));
    }
    if let Decision::Allow(Allowed::Admitted(admitted)) = &outcome.decision {
        attributes.push(KeyValue::new("hookwarden.verified_by", admitted.evidence().as_str()));
        let secret = admitted.secret().map(|label| KeyValue::new("hookwarden.secret_id", label.id.clone()));
        let duplicate = admitted.duplicate().map(|d| KeyValue::new("hookwarden.duplicate", d.as_str()));
        attributes.extend(secret.into_iter().chain(duplicate));
    }
    attributes
}

/// One header, as a propagator asks for it. Vendors' `tracestate` is theirs: it may hold anything, and is not sent on.
struct Parent<'a>(Option<&'a str>);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.filter(|_| key == TRACEPARENT)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|_| TRACEPARENT).collect()
    }
}

/// Sends spans with the one HTTP client there is. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Sender(ureq::Agent);

impl Sender {
    fn new(config: &TracesConfig) -> anyhow::Result<Self> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("hookwarden/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls::client(config.ca_file.as_deref())?)
            .build();
        Ok(Self(agent.new_agent()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let sent = self.0.run(request.map(|body| body.to_vec()));
        let answer = sent.inspect_err(|error| tracing::warn!(%error, "traces were not sent"))?;
        let status = answer.status();
        if !status.is_success() {
            tracing::warn!(%status, "the collector did not take traces");
        }
        let mut plain = http::Response::new(Bytes::new());
        *plain.status_mut() = status;
        Ok(plain)
    }
}
