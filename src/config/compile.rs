//! What a configuration means. Consumes what was written; after this nothing can be invalid.

use super::{
    challenge::{challenge, reply_body},
    file,
    problem::{Findings, Path},
    process::{Limits, Listen, byte_count, client_address, limits, listen, reload_token, traces},
    replay,
    scheme::SchemeCompiler,
    store, verify,
};
use crate::{
    challenge::Challenge,
    clock::{Now, UnixSeconds},
    decision::Rejection,
    delivery::ClientAddress,
    endpoint::{Endpoint, Endpoints, EnrolmentWindow, Match, Mode, PathMatch, Refusal, Refusals},
    key_fetcher::{KeyFetcher, Origin},
    provider::{self, Shelf},
    scheme::{Scheme, jwt::Issuer, remote_keys::RemoteKeys, signed_content::PublicUrl},
    secret::{LearnedSecret, Secret},
    store::StoreKind,
    traces::TracesConfig,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What compiling needs besides the file.
#[derive(Debug)]
pub struct Context {
    /// For certificates' validity.
    pub now: Now,
    /// What outlives a configuration.
    pub kept: Arc<Kept>,
}

/// What outlives a configuration, so that a reload changes only what was changed.
#[derive(Debug, Default)]
pub struct Kept {
    /// Tokens made by this process, by endpoint; clients were told them.
    pub generated: Mutex<BTreeMap<String, String>>,
    /// Secrets that providers handed over, by endpoint.
    pub learned: Mutex<BTreeMap<String, Arc<LearnedSecret>>>,
    /// Keys that were fetched, by where they come from and the shape of their ids.
    pub remote: Mutex<HashMap<(Origin, String), Arc<RemoteKeys>>>,
    /// What fetches keys; nothing in commands that only look.
    pub fetcher: Option<KeyFetcher>,
}

impl Kept {
    /// Puts back secrets that were learned before.
    pub fn restore(&self, secrets: Vec<(String, Secret)>) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        for (endpoint, secret) in secrets {
            learned.entry(endpoint).or_default().learn(secret.expose());
        }
    }
}

impl Context {
    /// A context in which nothing was kept and nothing is fetched.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { now, kept: Arc::default() }
    }
}

/// A configuration, ready to run.
#[derive(Debug)]
pub struct Compiled {
    /// Where to listen.
    pub listen: Listen,
    /// Bounds.
    pub limits: Limits,
    /// Which store.
    pub store: StoreKind,
    /// Whether a change of a file reloads.
    pub watch: bool,
    /// Where spans go.
    pub traces: Option<TracesConfig>,
    /// What is shown to have all this read again.
    pub reload_token: Option<Secret>,
    /// The receivers.
    pub endpoints: Endpoints,
}

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"];

/// Compiles a file. What it returns is only meant if no problem was found.
pub fn compile(config: file::Config, context: &Context, findings: &mut Findings) -> Compiled {
    let root = Path::default();
    // An endpoint that could not be read whole is not judged further: what is missing of it would only be reported
    // as missing.
    let damaged: HashSet<Path> = findings.problems.iter().filter_map(|problem| problem.path.first(2)).collect();
    let limits = limits(&config.limits, &root.key("limits"), findings);
    let client = client_address(config.client_ip.as_ref(), &root.key("client_ip"), findings);
    let store = store::store((config.store.as_deref(), config.redis.as_ref()), &root, findings);
    let outcome_within = replay::outcome_within((config.outcomes, config.outcome_timeout.as_deref()), &root, findings);
    if config.endpoints.is_empty() && damaged.is_empty() {
        findings.problem::<()>(&root.key("endpoints"), "is empty; without an endpoint every request is denied");
    }
    let listen = listen(&config.listen, config.verify.as_ref(), &root, findings);
    if listen.verify.is_some() && client != ClientAddress::Peer {
        findings.warn(
            &root.key("client_ip"),
            "goes by `x-forwarded-for`, which every proxy of `listen.verify` must then append to; one that passes it on lets clients choose their address",
        );
    }
    let mut endpoints = Endpoints::default();
    let mut presets = Shelf::of(config.endpoints.values().filter_map(|endpoint| endpoint.provider.as_ref()));
    for (name, written) in config.endpoints {
        let path = root.key("endpoints").key(&name);
        if damaged.contains(&path) {
            continue;
        }
        if written.enrolment.is_some() && store == StoreKind::Memory {
            findings.warn(
                &path.key("enrolment"),
                "is kept in memory alone; with `store: file:///…` the secret outlives the process",
            );
        }
        let place = written.r#match.as_ref().and_then(|m| r#match(m, &path.key("match"), findings));
        let written = (written, &mut presets);
        let Some(endpoint) = endpoint(&name, written, limits, (client, outcome_within), context, &path, findings)
        else {
            continue;
        };
        if let Some(listener) = &listen.verify {
            verify::judge(listener, &endpoint, &path, findings);
        }
        if let Err(rival) = endpoints.insert(endpoint, place) {
            findings.problem::<()>(
                &path.key("match"),
                format!("is matched by `{rival}` too; give one of them another `host` or `path`"),
            );
        }
    }
    let traces = config.traces.and_then(|written| traces(written, &root.key("traces"), findings));
    let watch = config.watch != Some(false);
    let reload_token = reload_token(config.listen, &root.key("listen"), findings);
    Compiled { listen, limits, store, watch, traces, reload_token, endpoints }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}

fn r#match(written: &file::Match, path: &Path, findings: &mut Findings) -> Option<Match> {
    let host = match &written.host {
        // Requests are compared without their port.
        Some(host) if host.is_empty() || host.contains(['/', '*', ' ']) || has_port(host) => {
            return findings
                .problem(&path.key("host"), "is not a host name; write `hooks.example.com`, without a port");
        }
        host => host.as_ref().map(|host| host.to_ascii_lowercase()),
    };
    let (text, prefix) = match written.path.strip_suffix("/*") {
        Some(prefix) => (format!("{prefix}/"), true),
        None => (written.path.clone(), false),
    };
    if !text.starts_with('/')
        || text.contains(['?', '#', '*', ';', '\\', ' '])
        || text.contains("//")
        || text.contains("/./")
        || text.contains("/../")
    {
        return findings.problem(&path.key("path"), "is not a path; write `/hooks`, or `/hooks/*` for all below it");
    }
    Some(Match { host, path: if prefix { PathMatch::Prefix(text) } else { PathMatch::Exact(text) } })
}

fn endpoint(
    name: &str,
    (written, presets): (file::Endpoint, &mut Shelf),
    limits: Limits,
    (client, outcome_within): (ClientAddress, Option<Duration>),
    context: &Context,
    path: &Path,
    findings: &mut Findings,
) -> Option<Endpoint> {
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return findings.problem(path, "is not a name; use up to 64 letters, digits, `-`, `_` and `.`");
    }
    let preset = preset(&written, presets, path, findings)?;
    let preset = preset.as_deref();
    judge_settings(&written, preset, path, findings);
    let none = BTreeMap::new();
    let described = preset.map_or(&none, |preset| &preset.settings);
    let enrolment = enrolment(name, &written, preset, context, path, findings);
    let learned = enrolment.as_ref().map(|window| Arc::clone(&window.slot));
    let mut compiler = SchemeCompiler::new(name, client, context, path, &written, described, learned, findings);
    let scheme = match (preset, &written.scheme) {
        (Some(preset), _) => compiler.compile(&preset.scheme, &path.key("provider")),
        (None, Some(scheme)) => compiler.compile(scheme, &path.key("scheme")),
        (None, None) => None,
    };
    let mut members: Vec<Option<Scheme>> = vec![scheme];
    for (at, required) in written.require.iter().enumerate() {
        members.push(compiler.compile(required, &path.key("require").index(at)));
    }
    let mut challenges = Vec::new();
    for (at, written) in written.challenges.iter().enumerate() {
        challenges.push(challenge(written, &mut compiler, &path.key("challenges").index(at)));
    }
    for written in preset.map(|preset| preset.challenges.as_slice()).unwrap_or_default() {
        challenges.push(challenge(written, &mut compiler, &path.key("provider")));
    }
    let challenges: Option<Vec<_>> = challenges.into_iter().collect();
    let preset_value = |own: &Option<file::ValuePlace>, of: fn(&file::Preset) -> Option<&file::ValuePlace>| match own {
        Some(_) => None,
        None => preset.and_then(of),
    };
    let delivery_id = written.delivery_id.as_ref().or(preset_value(&written.delivery_id, |p| p.delivery_id.as_ref()));
    let event_type = written.event_type.as_ref().or(preset_value(&written.event_type, |p| p.event_type.as_ref()));
    let mut value_place = |value: Option<&file::ValuePlace>, field: &str| match value {
        None => Some(None),
        Some(file::ValuePlace { header, query, form, json }) => compiler
            .place(header.as_deref(), query.as_deref(), form.as_deref(), json.as_deref(), &path.key(field))
            .map(Some),
    };
    let (delivery_id, event_type) = (value_place(delivery_id, "delivery_id"), value_place(event_type, "event_type"));
    compiler.finish(members.iter().all(Option::is_some) && challenges.is_some());
    let mut members: Vec<Scheme> = members.into_iter().collect::<Option<_>>()?;
    let mut scheme = if members.len() > 1 { Scheme::AllOf(members) } else { members.pop()? };
    let oracles: Vec<_> = challenges.iter().flatten().filter_map(Challenge::oracle).collect();
    let by_secret = |scheme: &Scheme| matches!(scheme, Scheme::Jwt(jwt) if matches!(jwt.issuer, Issuer::Mac(_)));
    if !oracles.is_empty() && scheme.flatten().any(by_secret) {
        findings.problem::<()>(
            &path.key("challenges"),
            "compute a MAC for anybody with the secret that makes tokens; say `signed: true`",
        );
    }
    scheme.beware_of(&oracles);

    let methods = methods(&written, preset, &scheme, path, findings);
    let body_limit = match written.body_limit.as_deref() {
        Some(text) => byte_count(text, &path.key("body_limit"), findings),
        None => Some(limits.body),
    };
    if body_limit.is_some_and(|limit| limit > limits.body) {
        findings.problem::<()>(&path.key("body_limit"), "is more than `limits.body`; raise that one too");
    }
    let refusals = refusals(&written, preset, path, findings);
    let retries = preset.and_then(|preset| preset.retries);
    let replay = replay::rules(&written, retries, &scheme, outcome_within, path, findings);
    Some(Endpoint {
        ends: ends(&written),
        guessed_by: scheme.can_be_guessed().then_some(client),
        takes_long: scheme.takes_long(),
        replay,
        name: name.to_owned(),
        provider: written.provider.unwrap_or_else(|| "custom".to_owned()),
        mode: match written.mode {
            Some(file::Mode::Observe) => Mode::Observe,
            None | Some(file::Mode::Enforce) => Mode::Enforce,
        },
        methods,
        body_limit: body_limit?,
        text_body: written.text_body == Some(true),
        challenges: challenges?,
        scheme,
        refusals,
        enrolment,
        delivery_id: delivery_id?,
        event_type: event_type?,
    })
}

/// Which secrets and keys have an end. That it is a moment was judged where they were compiled.
fn ends(written: &file::Endpoint) -> Vec<(String, UnixSeconds)> {
    let secrets = written.secrets.iter().map(|secret| (&secret.id, &secret.until));
    let keys = written.public_keys.iter().map(|key| (&key.id, &key.until));
    let moment = |text: &String| text.parse::<jiff::Timestamp>().ok().map(|at| UnixSeconds(at.as_second()));
    secrets.chain(keys).filter_map(|(id, until)| Some((id.clone(), moment(until.as_ref()?)?))).collect()
}

/// The window in which the provider may hand over a secret, where a handshake does.
fn enrolment(
    name: &str,
    written: &file::Endpoint,
    preset: Option<&file::Preset>,
    context: &Context,
    path: &Path,
    findings: &mut Findings,
) -> Option<EnrolmentWindow> {
    let window = written.enrolment.as_ref()?;
    let path = path.key("enrolment");
    let of_preset = preset.map(|preset| preset.challenges.as_slice()).unwrap_or_default();
    if !written.challenges.iter().chain(of_preset).any(|challenge| challenge.enrol.is_some()) {
        return findings.problem(&path, "stands beside no handshake in which the provider hands over a secret");
    }
    let Ok(until) = window.until.parse::<jiff::Timestamp>() else {
        return findings.problem(&path.key("until"), "is not a moment; write `2026-12-01T00:00:00Z`");
    };
    let mut learned = context.kept.learned.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = Arc::clone(learned.entry(name.to_owned()).or_default());
    Some(EnrolmentWindow { until: UnixSeconds(until.as_second()), slot })
}

/// Values that a preset asks for must be there, and no others.
fn judge_settings(written: &file::Endpoint, preset: Option<&file::Preset>, path: &Path, findings: &mut Findings) {
    let place = path.key("settings");
    if let Some(preset) = preset {
        for (name, text) in &preset.settings {
            if !written.settings.contains_key(name) {
                findings.problem::<()>(&place, format!("needs `{name}`: {text}"));
            }
        }
        for name in written.settings.keys().filter(|name| !preset.settings.contains_key(*name)) {
            findings.problem::<()>(&place.key(name), "is not a value that the preset asks for");
        }
    }
    for (name, value) in &written.settings {
        if value.trim().is_empty() {
            findings.problem::<()>(&place.key(name), "is empty");
        }
    }
    match &written.public_url {
        Some(url) if PublicUrl::parse(url).is_none() => {
            findings.problem::<()>(&path.key("public_url"), "is not an address; write `https://host/path`");
        }
        Some(url) if url.starts_with("http://") => {
            findings.warn(&path.key("public_url"), "is not `https`; providers sign the address they call");
        }
        Some(_) | None => {}
    }
}

#[expect(clippy::option_option, reason = "outer: whether there is an endpoint at all; inner: whether it has a preset")]
fn preset(
    written: &file::Endpoint,
    presets: &mut Shelf,
    path: &Path,
    findings: &mut Findings,
) -> Option<Option<Rc<file::Preset>>> {
    match (&written.provider, &written.scheme) {
        (Some(_), Some(_)) => findings.problem(
            &path.key("scheme"),
            "stands beside `provider`; write one of them, or put further schemes under `require`",
        ),
        (None, None) => findings.problem(path, "needs `provider` or `scheme`"),
        (None, Some(_)) => Some(None),
        (Some(name), None) => match presets.take(name) {
            Some(preset) => {
                if preset.evidence == file::EvidenceGrade::Recalled {
                    findings.warn(
                        &path.key("provider"),
                        "is a preset whose facts are recalled, not confirmed; compare a real delivery",
                    );
                }
                Some(Some(preset))
            }
            None => findings.problem(
                &path.key("provider"),
                format!("is not a preset{}; `hookwarden providers` lists them", alike(name)),
            ),
        },
    }
}

/// Presets whose names look like one that there is not.
fn alike(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let near = |preset: &&str| preset.contains(&name) || name.contains(*preset) || preset.get(..4) == name.get(..4);
    let names: Vec<String> = provider::names().filter(near).take(4).map(|preset| format!("`{preset}`")).collect();
    if names.is_empty() { String::new() } else { format!(" (there is {})", names.join(", ")) }
}

fn methods(
    written: &file::Endpoint,
    preset: Option<&file::Preset>,
    scheme: &Scheme,
    path: &Path,
    findings: &mut Findings,
) -> Vec<String> {
    let leases = scheme.flatten().any(|member| matches!(member, Scheme::IpLease(_)));
    let default = if leases { vec!["GET".to_owned(), "POST".to_owned()] } else { vec!["POST".to_owned()] };
    let methods =
        written.allow_methods.clone().or_else(|| preset.and_then(|p| p.allow_methods.clone())).unwrap_or(default);
    if methods.is_empty() || methods.iter().any(|method| !METHODS.contains(&method.as_str())) {
        findings.problem::<()>(
            &path.key("allow_methods"),
            format!("is not a list of methods; known are: {}", METHODS.join(", ")),
        );
    }
    methods
}

/// The user's word for a reason wins over the preset's; so does the user's common one.
fn refusals(written: &file::Endpoint, preset: Option<&file::Preset>, path: &Path, findings: &mut Findings) -> Refusals {
    let mut refusals = Refusals::default();
    let sources = [
        (written.on_rejection.as_ref(), path.key("on_rejection")),
        (preset.and_then(|preset| preset.on_rejection.as_ref()), path.key("provider")),
    ];
    for (source, path) in sources.iter().filter_map(|(source, path)| source.map(|source| (source, path))) {
        let common = refusal(source.status, source.text.as_deref(), source.json.as_ref(), path, findings);
        refusals.common = refusals.common.take().or(common.filter(|refusal| *refusal != Refusal::default()));
        for (reason, text) in &source.reasons {
            let path = path.key("reasons").key(reason);
            let Some(rejection) = Rejection::ALL.iter().find(|r| r.as_str() == reason) else {
                findings.problem::<()>(&path, "is not a reason; the README lists them");
                continue;
            };
            if let Some(refusal) = refusal(text.status, text.text.as_deref(), text.json.as_ref(), &path, findings) {
                refusals.by_reason.push((*rejection, refusal));
            }
        }
    }
    refusals
}

fn refusal(
    status: Option<u16>,
    text: Option<&str>,
    json: Option<&serde_json::Value>,
    path: &Path,
    findings: &mut Findings,
) -> Option<Refusal> {
    // A rejection that looks like success would tell the provider that its delivery arrived.
    if status.is_some_and(|status| !(400..=499).contains(&status)) {
        return findings.problem(&path.key("status"), "is not between 400 and 499");
    }
    Some(Refusal { status, body: reply_body(text, json, path, findings)? })
}
