//! What is told about checks: one event writes one log line and the metrics, so the two cannot disagree.
//!
//! Labels come from the configuration (endpoint names) or from closed enums (decisions, reasons), never from anything
//! a sender wrote. The log holds an allow-list of fields: method, path up to its `?`, lengths and ids; never a
//! header value, a query, a body or a secret.

use crate::{
    check::Outcome,
    decision::{Allowed, AnswerReason, Decision, Denial, Fault, Rejection},
    endpoint::{Endpoints, Mode},
    ext_authz::message::CheckRequest,
};
use arc_swap::ArcSwap;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Upper bounds of the duration histogram, in seconds: from a small HMAC to a body at the limit.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// One check, as it is told.
#[derive(Debug)]
pub struct CheckEvent<'a> {
    /// What it came to.
    pub outcome: &'a Outcome,
    /// What was asked.
    pub request: &'a CheckRequest,
    /// What it is called.
    pub request_id: &'a str,
    /// How long it took, from the decoded question to the decision.
    pub took: Duration,
}

/// The metrics of a process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    checks: IntCounterVec,
    durations: HistogramVec,
    body_bytes: IntCounterVec,
    panics: IntCounter,
    observing: IntGauge,
    generation: IntGauge,
    loaded: IntGauge,
    reload_succeeded: IntGauge,
    reloads: IntCounterVec,
    leases: IntGauge,
    bodies_in_flight: IntGauge,
    /// Handles made when endpoints are, so that a check looks up one name and no labels.
    handles: ArcSwap<Handles>,
}

#[derive(Debug)]
struct Handles {
    endpoints: HashMap<String, EndpointHandles>,
    unknown: EndpointHandles,
}

/// The handles of one endpoint: a counter for every way a check can end, made when it first does. Making all of them
/// ahead would cost every endpoint a hundred series that stay at zero.
#[derive(Debug)]
struct EndpointHandles {
    name: String,
    checks: IntCounterVec,
    allowed: OnceLock<IntCounter>,
    observed: Vec<OnceLock<IntCounter>>,
    answered: Vec<OnceLock<IntCounter>>,
    rejected: Vec<OnceLock<IntCounter>>,
    faulted: Vec<OnceLock<IntCounter>>,
    durations: Histogram,
    body_bytes: IntCounter,
}

impl Telemetry {
    /// Metrics in a registry of their own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let by = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let checks = by(
            "hookwarden_checks_total",
            "Checks by endpoint, decision and reason.",
            &["endpoint", "decision", "reason"],
        )?;
        let body_bytes = by("hookwarden_body_bytes_total", "Bytes of the bodies that were checked.", &["endpoint"])?;
        let reloads = by("hookwarden_config_reloads_total", "Reloads by outcome.", &["outcome"])?;
        for outcome in ["applied", "refused"] {
            reloads.with_label_values(&[outcome]);
        }
        let durations = HistogramVec::new(
            HistogramOpts::new("hookwarden_check_duration_seconds", "Time from the decoded question to the decision.")
                .buckets(BUCKETS.to_vec()),
            &["endpoint"],
        )?;
        registry.register(Box::new(durations.clone()))?;
        let panics =
            IntCounter::new("hookwarden_panics_total", "Checks that hit a defect in hookwarden and were denied.")?;
        registry.register(Box::new(panics.clone()))?;
        let build = IntGauge::with_opts(
            Opts::new("hookwarden_build_info", "Always 1; the labels tell the build.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        let observing = gauge("hookwarden_observe_endpoints", "Endpoints that let rejected deliveries through.")?;
        let generation =
            gauge("hookwarden_config_generation", "How many configurations have been in force since the start.")?;
        let loaded =
            gauge("hookwarden_config_loaded_timestamp_seconds", "When the configuration in force was loaded.")?;
        let reload_succeeded = gauge(
            "hookwarden_config_last_reload_successful",
            "Whether the last attempt to load a configuration succeeded.",
        )?;
        let leases = gauge("hookwarden_leases", "Leases held, or over and not yet asked for.")?;
        let bodies_in_flight = gauge("hookwarden_bodies_in_flight_bytes", "Bytes of the bodies being checked.")?;
        let unknown = EndpointHandles::new("", &checks, &durations, &body_bytes);
        let handles = ArcSwap::from_pointee(Handles { endpoints: HashMap::new(), unknown });
        Ok(Self {
            registry,
            checks,
            durations,
            body_bytes,
            panics,
            observing,
            generation,
            loaded,
            reload_succeeded,
            reloads,
            leases,
            bodies_in_flight,
            handles,
        })
    }

    /// Makes the handles of a configuration that is about to be in force, and counts it.
    pub fn configured(&self, endpoints: &Endpoints, at: crate::clock::Now) {
        let handles = |name: &str| EndpointHandles::new(name, &self.checks, &self.durations, &self.body_bytes);
        self.handles.store(Arc::new(Handles {
            endpoints: endpoints.iter().map(|endpoint| (endpoint.name.clone(), handles(&endpoint.name))).collect(),
            unknown: handles(""),
        }));
        let observing = endpoints.iter().filter(|endpoint| endpoint.mode == Mode::Observe).count();
        self.observing.set(i64::try_from(observing).unwrap_or(i64::MAX));
        self.loaded.set(at.wall.0);
        self.generation.inc();
        self.reload_succeeded.set(1);
    }

    /// Counts a reload.
    pub fn reloaded(&self, applied: bool) {
        self.reloads.with_label_values(&[if applied { "applied" } else { "refused" }]).inc();
        if !applied {
            self.reload_succeeded.set(0);
        }
    }

    /// Counts a check that panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Tells of one check.
    pub fn record(&self, event: &CheckEvent<'_>) {
        let handles = self.handles.load();
        let endpoint = event.outcome.endpoint.as_deref();
        let handles = endpoint.and_then(|e| handles.endpoints.get(&e.name)).unwrap_or(&handles.unknown);
        let body_bytes = event.request.body_length();
        handles.count(&event.outcome.decision);
        handles.durations.observe(event.took.as_secs_f64());
        handles.body_bytes.inc_by(u64::try_from(body_bytes).unwrap_or(u64::MAX));
        log(event, body_bytes);
    }

    /// The metrics, in the Prometheus text format.
    #[must_use]
    pub fn render(&self, leases: usize, bodies_in_flight: usize) -> String {
        self.leases.set(i64::try_from(leases).unwrap_or(i64::MAX));
        self.bodies_in_flight.set(i64::try_from(bodies_in_flight).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }
}

impl EndpointHandles {
    fn new(endpoint: &str, checks: &IntCounterVec, durations: &HistogramVec, body_bytes: &IntCounterVec) -> Self {
        fn one_each<R>(all: &[R]) -> Vec<OnceLock<IntCounter>> {
            all.iter().map(|_| OnceLock::new()).collect()
        }
        Self {
            name: endpoint.to_owned(),
            checks: checks.clone(),
            allowed: OnceLock::new(),
            observed: one_each(Rejection::ALL),
            answered: one_each(AnswerReason::ALL),
            rejected: one_each(Rejection::ALL),
            faulted: one_each(Fault::ALL),
            durations: durations.with_label_values(&[endpoint]),
            body_bytes: body_bytes.with_label_values(&[endpoint]),
        }
    }

    fn count(&self, decision: &Decision) {
        fn at<'c, R: PartialEq>(
            counters: &'c [OnceLock<IntCounter>],
            all: &[R],
            reason: &R,
        ) -> Option<&'c OnceLock<IntCounter>> {
            all.iter().position(|r| r == reason).and_then(|index| counters.get(index))
        }
        let counter = match decision {
            Decision::Allow(Allowed::Admitted(_)) => Some(&self.allowed),
            Decision::Allow(Allowed::Observed(observed)) => at(&self.observed, Rejection::ALL, &observed.rejection()),
            Decision::Answer(answer) => at(&self.answered, AnswerReason::ALL, &answer.reason),
            Decision::Deny(Denial::Rejection(rejection)) => at(&self.rejected, Rejection::ALL, rejection),
            Decision::Deny(Denial::Fault(fault)) => at(&self.faulted, Fault::ALL, fault),
        };
        if let Some(counter) = counter {
            let labels = || [self.name.as_str(), decision.as_str(), decision.reason()];
            counter.get_or_init(|| self.checks.with_label_values(&labels())).inc();
        }
    }
}

/// Longest text of a sender's in a log line.
const MAX_LOGGED: usize = 256;

/// Deny is loud, allow is quiet, a fault is an error.
fn log(event: &CheckEvent<'_>, body_bytes: usize) {
    macro_rules! line {
        ($level:ident) => {{
            let http = event.request.http();
            let endpoint = event.outcome.endpoint.as_deref();
            tracing::$level!(
                endpoint = endpoint.map(|e| e.name.as_str()),
                provider = endpoint.map(|e| e.provider.as_str()),
                decision = event.outcome.decision.as_str(),
                reason = event.outcome.decision.reason(),
                secret_id = secret_id(&event.outcome.decision),
                method = http.map(|h| shortened(&h.method)),
                path = http.map(|h| shortened(h.path.split(|b| *b == b'?').next().unwrap_or_default())),
                request_id = event.request_id,
                body_bytes,
                duration_us = u64::try_from(event.took.as_micros()).unwrap_or(u64::MAX),
                "check"
            )
        }};
    }
    match &event.outcome.decision {
        Decision::Allow(Allowed::Admitted(_)) => line!(debug),
        Decision::Allow(Allowed::Observed(_)) => line!(warn),
        Decision::Answer(_) | Decision::Deny(Denial::Rejection(_)) => line!(info),
        Decision::Deny(Denial::Fault(_)) => line!(error),
    }
}

fn secret_id(decision: &Decision) -> Option<&str> {
    match decision {
        Decision::Allow(Allowed::Admitted(admitted)) => admitted.secret().map(|label| label.id.as_str()),
        Decision::Allow(Allowed::Observed(_)) | Decision::Answer(_) | Decision::Deny(_) => None,
    }
}

/// A sender's text, bounded, and without anything a terminal would obey.
fn shortened(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_LOGGED).unwrap_or(bytes));
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
