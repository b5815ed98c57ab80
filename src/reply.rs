//! What is said to a sender and to the application, whoever is asked to say it.
//!
//! The listeners differ in how a proxy is told to forward or to reply. What the application learns of a forwarded
//! delivery, what a refused sender is told, and what keeps an answer harmless in a browser is the same everywhere.

use crate::{
    check::Facts,
    decision::{Allowed, Answer, Denial, Rejection, Reply},
    endpoint::Endpoint,
    ext_authz::message::CheckRequest,
    replay::Duplicate,
};
use std::borrow::Cow;

/// Headers that only hookwarden may set.
pub const TRUSTED_PREFIX: &str = "x-hookwarden-";
/// All that it sets, but for `x-hookwarden-tag-…`, of which the configuration says the rest of the name. A proxy that
/// cannot remove by prefix must name each of them.
pub const TRUSTED_HEADERS: &[&str] = &[
    "x-hookwarden-delivery-id",
    "x-hookwarden-duplicate",
    "x-hookwarden-endpoint",
    "x-hookwarden-event-type",
    "x-hookwarden-provider",
    "x-hookwarden-reason",
    "x-hookwarden-secret-id",
    "x-hookwarden-verified-by",
];
/// Seconds after which a provider should try again.
const RETRY_AFTER: &str = "5";

/// What the application is told of a delivery that is forwarded.
#[must_use]
pub fn trusted_headers<'a>(
    allowed: &'a Allowed,
    facts: &'a Facts,
    endpoint: Option<&'a Endpoint>,
) -> Vec<(Cow<'static, str>, &'a str)> {
    let mut headers = Vec::with_capacity(8);
    let mut set = |name: &'static str, value: Option<&'a str>| {
        headers.extend(value.map(|value| (Cow::Borrowed(name), value)));
    };
    set("x-hookwarden-delivery-id", facts.delivery_id.as_deref());
    set("x-hookwarden-event-type", facts.event_type.as_deref());
    set("x-hookwarden-endpoint", endpoint.map(|endpoint| endpoint.name.as_str()));
    set("x-hookwarden-provider", endpoint.map(|endpoint| endpoint.provider.as_str()));
    match allowed {
        Allowed::Admitted(admitted) => {
            set("x-hookwarden-verified-by", Some(admitted.evidence().as_str()));
            set("x-hookwarden-secret-id", admitted.secret().map(|label| label.id.as_str()));
            set("x-hookwarden-duplicate", admitted.duplicate().map(Duplicate::as_str));
            let tags = admitted.secret().into_iter().flat_map(|label| &label.tags);
            headers.extend(tags.map(|(name, value)| (format!("x-hookwarden-tag-{name}").into(), value.as_str())));
        }
        Allowed::Observed(observed) => {
            set("x-hookwarden-verified-by", Some("observe"));
            set("x-hookwarden-reason", Some(observed.rejection().as_str()));
        }
    }
    headers
}

/// Names with the trusted prefix that the client sent.
pub fn trusted_names(request: &CheckRequest) -> impl Iterator<Item = &[u8]> {
    request.lines().chain(request.joined()).map(|(name, _)| name).filter(|name| is_trusted_name(name))
}

/// Whether an upstream could read a name as one of ours: CGI and its heirs take `_` for `-`.
fn is_trusted_name(name: &[u8]) -> bool {
    // Hardly any begins like ours.
    if !matches!(name, [b'x' | b'X', b'-' | b'_', b'h' | b'H', ..]) {
        return false;
    }
    let as_read = name.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() });
    as_read.take(TRUSTED_PREFIX.len()).eq(TRUSTED_PREFIX.bytes())
}

/// An answer, with what keeps a browser from making anything of it: it is served from the operator's own origin.
#[must_use]
pub fn answered(answer: &Answer) -> Reply {
    let mut reply = answer.reply.clone();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'"),
    ] {
        if !reply.headers.iter().any(|(other, _)| other == name) {
            reply.headers.push((name.to_owned(), value.to_owned()));
        }
    }
    reply
}

/// What a refused sender gets: a status and an id to ask about, unless the configuration has a text.
#[must_use]
pub fn refusal(denial: Denial, endpoint: Option<&Endpoint>, request_id: &str) -> Reply {
    let (status, body) = match denial {
        Denial::Rejection(rejection) => endpoint
            .and_then(|endpoint| endpoint.refusals.find(rejection))
            .map_or((rejection.status(), None), |refusal| refusal.reply(rejection)),
        Denial::Fault(fault) => (fault.status(), None),
    };
    let (content_type, body) = body.map_or_else(
        || ("text/plain; charset=utf-8", format!("rejected, request {request_id}\n")),
        |(content_type, text)| (*content_type, text.clone()),
    );
    let mut headers = vec![
        ("content-type".to_owned(), content_type.to_owned()),
        ("x-content-type-options".to_owned(), "nosniff".to_owned()),
        ("x-hookwarden-request-id".to_owned(), request_id.to_owned()),
    ];
    match (denial, endpoint) {
        (Denial::Rejection(Rejection::MethodNotAllowed), Some(endpoint)) => {
            headers.push(("allow".to_owned(), endpoint.allow()));
        }
        (Denial::Rejection(Rejection::TooManyGuesses), _) => {
            headers.push(("retry-after".to_owned(), "60".to_owned()));
        }
        (Denial::Fault(_), _) => headers.push(("retry-after".to_owned(), RETRY_AFTER.to_owned())),
        (Denial::Rejection(_), _) => {}
    }
    Reply { status, headers, body }
}

/// A reply that no proxy chokes on: a status that ends an exchange, no body where there can be none (envoy-facts 4.3),
/// and no value that could end a line, though none can get here.
#[must_use]
pub fn sendable(mut reply: Reply) -> Reply {
    let clean = |value: &str| value.bytes().all(|b| b == b'\t' || (b' '..0x7f).contains(&b));
    if !(200..=599).contains(&reply.status) {
        reply.status = 503;
    }
    reply.headers.retain(|(_, value)| clean(value));
    if matches!(reply.status, 204 | 205 | 304) {
        reply.body.clear();
    }
    reply
}
