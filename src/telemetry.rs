//! What is told about checks: one event writes one log line and the metrics, so the two cannot disagree.
//!
//! Labels come from the configuration (endpoint names) or from closed enums (decisions, reasons), never from anything
//! a sender wrote. The log holds an allow-list of fields: method, path up to its `?`, lengths and ids; never a
//! header value, a query, a body or a secret.

use crate::{
    check::Outcome,
    decision::{Allowed, AnswerReason, Decision, Denial, Fault, Rejection},
    endpoint::{Endpoints, Mode},
    ext_authz::{message::CheckRequest, outcomes::Outcome as Concluded},
    replay::Conclusion,
};
use arc_swap::ArcSwap;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

/// Upper bounds of the duration histogram, in seconds: from a small HMAC to a body at the limit.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Upper bounds of the upstream's histogram, in seconds: from a queue's word to a route's time limit.
const UPSTREAM_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What the upstream makes of deliveries.
#[derive(Debug)]
struct UpstreamMetrics {
    deliveries: IntCounterVec,
    durations: HistogramVec,
    late: IntCounter,
}

/// One check, as it is told.
#[derive(Debug)]
pub struct CheckEvent<'a> {
    /// What it came to.
    pub outcome: &'a Outcome,
    /// What was asked.
    pub request: &'a CheckRequest,
    /// What it is called.
    pub request_id: &'a str,
    /// How long its body was, as far as it was looked at.
    pub body_bytes: usize,
    /// When it was.
    pub at: crate::clock::UnixSeconds,
    /// How long it took, from the decoded question to the decision.
    pub took: Duration,
}

/// What a process holds at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Leases.
    pub leases: usize,
    /// Claims.
    pub claims: usize,
    /// Bytes of bodies.
    pub body_bytes: usize,
    /// Whether the store takes changes.
    pub store_up: bool,
}

/// The metrics of a process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    checks: IntCounterVec,
    durations: HistogramVec,
    body_bytes: IntCounterVec,
    upstream: UpstreamMetrics,
    secrets_last_used: IntGaugeVec,
    secrets_until: IntGaugeVec,
    unsigned: IntGauge,
    claims: IntGauge,
    store_up: IntGauge,
    panics: IntCounter,
    observing: IntGauge,
    generation: IntGauge,
    loaded: IntGauge,
    reload_succeeded: IntGauge,
    reloads: IntCounterVec,
    leases: IntGauge,
    bodies_in_flight: IntGauge,
    /// Handles that are kept, so that a check looks up one name and no labels.
    handles: ArcSwap<Handles>,
}

/// By name, and for deliveries to none of them; each made at its first check: most of many endpoints wait for one.
#[derive(Debug, Default)]
struct Handles {
    endpoints: HashMap<String, OnceLock<Box<EndpointHandles>>>,
    unknown: OnceLock<Box<EndpointHandles>>,
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
    last_used: IntGaugeVec,
    /// By secret id; made when one is first used, and asked under a lock that is held for one look.
    secrets: RwLock<HashMap<String, IntGauge>>,
}

/// Makes metrics that a registry keeps.
struct Kept<'r>(&'r Registry);

impl Kept<'_> {
    fn keep<M: Collector + Clone + 'static>(
        &self,
        metric: Result<M, prometheus::Error>,
    ) -> Result<M, prometheus::Error> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.keep(IntGauge::new(name, help))
    }

    fn gauges_per_secret(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), &["endpoint", "secret_id"]))
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64]) -> Result<HistogramVec, prometheus::Error> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["endpoint"]))
    }
}

impl Telemetry {
    /// Metrics in a registry of their own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let kept = Kept(&registry);
        let checks = kept.counters(
            "hookwarden_checks_total",
            "Checks by endpoint, decision and reason.",
            &["endpoint", "decision", "reason"],
        )?;
        let body_bytes =
            kept.counters("hookwarden_body_bytes_total", "Bytes of the bodies that were checked.", &["endpoint"])?;
        let reloads = kept.counters("hookwarden_config_reloads_total", "Reloads by outcome.", &["outcome"])?;
        for outcome in ["applied", "refused"] {
            reloads.with_label_values(&[outcome]);
        }
        let durations = kept.histograms(
            "hookwarden_check_duration_seconds",
            "Time from the decoded question to the decision.",
            BUCKETS,
        )?;
        let upstream = UpstreamMetrics {
            deliveries: kept.counters(
                "hookwarden_upstream_deliveries_total",
                "Deliveries that were allowed, by what the upstream made of them.",
                &["endpoint", "outcome"],
            )?,
            durations: kept.histograms(
                "hookwarden_upstream_duration_seconds",
                "Time from the first byte sent to the upstream to its last byte.",
                UPSTREAM_BUCKETS,
            )?,
            late: kept.counter(
                "hookwarden_outcomes_unmatched_total",
                "Outcomes for which no claim waited any more: late, told twice, or of another process.",
            )?,
        };
        let secrets_last_used = kept.gauges_per_secret(
            "hookwarden_secret_last_used_timestamp_seconds",
            "When a secret or key last verified a delivery.",
        )?;
        let secrets_until = kept.gauges_per_secret(
            "hookwarden_secret_until_timestamp_seconds",
            "When a secret or key ceases to verify, where that is configured.",
        )?;
        let panics =
            kept.counter("hookwarden_panics_total", "Checks that hit a defect in hookwarden and were denied.")?;
        let build = Opts::new("hookwarden_build_info", "Always 1; the labels tell the build.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        kept.keep(IntGauge::with_opts(build))?.set(1);
        let observing =
            kept.gauge("hookwarden_observe_endpoints", "Endpoints that let rejected deliveries through.")?;
        let unsigned = kept.gauge(
            "hookwarden_unsigned_endpoints",
            "Endpoints at which nothing is signed: a token, a password or an address is all the proof there is.",
        )?;
        let generation =
            kept.gauge("hookwarden_config_generation", "How many configurations have been in force since the start.")?;
        let loaded =
            kept.gauge("hookwarden_config_loaded_timestamp_seconds", "When the configuration in force was loaded.")?;
        let reload_succeeded = kept.gauge(
            "hookwarden_config_last_reload_successful",
            "Whether the last attempt to load a configuration succeeded.",
        )?;
        let leases = kept.gauge("hookwarden_leases", "Leases held, or over and not yet asked for.")?;
        let claims = kept.gauge("hookwarden_claims", "Deliveries remembered by replay guards.")?;
        let store_up = kept.gauge("hookwarden_store_up", "Whether the store took the last change.")?;
        let bodies_in_flight = kept.gauge("hookwarden_bodies_in_flight_bytes", "Bytes of the bodies being checked.")?;
        Ok(Self {
            registry,
            checks,
            durations,
            body_bytes,
            upstream,
            secrets_last_used,
            secrets_until,
            unsigned,
            claims,
            store_up,
            panics,
            observing,
            generation,
            loaded,
            reload_succeeded,
            reloads,
            leases,
            bodies_in_flight,
            handles: ArcSwap::default(),
        })
    }

    /// Makes room for the handles of a configuration that is about to be in force, and counts it.
    pub fn configured(&self, endpoints: &Endpoints, at: crate::clock::Now) {
        self.handles.store(Arc::new(Handles {
            endpoints: endpoints.iter().map(|endpoint| (endpoint.name.clone(), OnceLock::new())).collect(),
            unknown: OnceLock::new(),
        }));
        for endpoint in endpoints.iter() {
            // An endpoint to which nothing comes any more is told by counts that stand still, from a restart on.
            self.durations.with_label_values(&[&endpoint.name]);
            self.body_bytes.with_label_values(&[&endpoint.name]);
        }
        let observing = endpoints.iter().filter(|endpoint| endpoint.mode == Mode::Observe).count();
        self.observing.set(i64::try_from(observing).unwrap_or(i64::MAX));
        let unsigned = endpoints.iter().filter(|endpoint| !endpoint.scheme.signs()).count();
        self.unsigned.set(i64::try_from(unsigned).unwrap_or(i64::MAX));
        self.secrets_until.reset();
        for endpoint in endpoints.iter() {
            for (id, until) in &endpoint.ends {
                self.secrets_until.with_label_values(&[&endpoint.name, id]).set(until.0);
            }
        }
        self.loaded.set(at.wall.0);
        self.generation.inc();
        self.reload_succeeded.set(1);
    }

    /// Tells of what became of a delivery; `concluded` says whether a claim waited for it, where it has one.
    pub fn concluded(&self, outcome: &Concluded, concluded: Option<bool>) {
        // A name that is no endpoint's makes no series: the stream is told by whoever reaches the listener.
        let handles = self.handles.load();
        let name = std::str::from_utf8(&outcome.endpoint).unwrap_or_default();
        if !handles.endpoints.contains_key(name) {
            return;
        }
        let told = match outcome.conclusion {
            Conclusion::Settled => "delivered",
            Conclusion::Released => "failed",
            Conclusion::Unknown => "unknown",
        };
        self.upstream.deliveries.with_label_values(&[name, told]).inc();
        if let Some(took) = outcome.took {
            self.upstream.durations.with_label_values(&[name]).observe(took.as_secs_f64());
        }
        if concluded == Some(false) {
            self.upstream.late.inc();
        }
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
        let endpoint = event.outcome.endpoint.as_deref().and_then(|e| handles.endpoints.get_key_value(&e.name));
        let (name, made) = endpoint.map_or(("", &handles.unknown), |(name, made)| (name, made));
        let handles = made.get_or_init(|| Box::new(EndpointHandles::new(name, self)));
        handles.count(&event.outcome.decision);
        handles.durations.observe(event.took.as_secs_f64());
        if let Decision::Allow(Allowed::Admitted(admitted)) = &event.outcome.decision
            && let Some(label) = admitted.secret()
        {
            handles.used(&label.id, event.at.0);
        }
        handles.body_bytes.inc_by(u64::try_from(event.body_bytes).unwrap_or(u64::MAX));
        log(event);
    }

    /// The metrics, in the Prometheus text format.
    #[must_use]
    pub fn render(&self, held: &Held) -> String {
        for (gauge, held) in
            [(&self.leases, held.leases), (&self.claims, held.claims), (&self.bodies_in_flight, held.body_bytes)]
        {
            gauge.set(i64::try_from(held).unwrap_or(i64::MAX));
        }
        self.store_up.set(i64::from(held.store_up));
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }
}

impl EndpointHandles {
    fn new(name: &str, of: &Telemetry) -> Self {
        fn one_each<R>(all: &[R]) -> Vec<OnceLock<IntCounter>> {
            all.iter().map(|_| OnceLock::new()).collect()
        }
        Self {
            name: name.to_owned(),
            checks: of.checks.clone(),
            allowed: OnceLock::new(),
            observed: one_each(Rejection::ALL),
            answered: one_each(AnswerReason::ALL),
            rejected: one_each(Rejection::ALL),
            faulted: one_each(Fault::ALL),
            durations: of.durations.with_label_values(&[name]),
            body_bytes: of.body_bytes.with_label_values(&[name]),
            last_used: of.secrets_last_used.clone(),
            secrets: RwLock::default(),
        }
    }

    /// Notes when a secret was used. Ids come from the configuration, or from key sets that hold a bounded number.
    fn used(&self, id: &str, at: i64) {
        let known = self.secrets.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let gauge = known.unwrap_or_else(|| {
            let gauge = self.last_used.with_label_values(&[&self.name, id]);
            self.secrets.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), gauge.clone());
            gauge
        });
        gauge.set(at);
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
fn log(event: &CheckEvent<'_>) {
    macro_rules! line {
        ($level:ident) => {{
            let http = event.request.is_http().then_some(event.request);
            let endpoint = event.outcome.endpoint.as_deref();
            tracing::$level!(
                endpoint = endpoint.map(|e| e.name.as_str()),
                provider = endpoint.map(|e| e.provider.as_str()),
                decision = event.outcome.decision.as_str(),
                reason = event.outcome.decision.reason(),
                secret_id = secret_id(&event.outcome.decision),
                method = http.map(|h| shortened(h.method())),
                path = http.map(|h| shortened(h.path().split(|b| *b == b'?').next().unwrap_or_default())),
                request_id = event.request_id,
                body_bytes = event.body_bytes,
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
