//! From a decision to Envoy's answer. The only constructor of a `CheckResponse`, and the only table of statuses.
//!
//! Three shapes exist. *OK with `ok_response`* forwards. *Not OK with `denied_response`* replies; an answer to a
//! handshake is such a reply with status 200, and is no denial. Nothing else is ever built: an empty response, an OK
//! status alone, or OK with a denied response would all *allow* (envoy-facts 4.6).
//!
//! A fault is a denied 503, not a gRPC error and not an `error_response`: those two let the proxy's
//! `failure_mode_allow` turn "we could not tell" into an allow.
//!
//! `append` and `append_action` are never set (4.4, 5.1), and no header is both set and removed (5.2).

use super::request::PARTIAL_BODY;
use crate::{
    check::{Facts, Outcome},
    decision::{Allowed, Decision, Reply},
    endpoint::Endpoint,
    reply::{answered, refusal, sendable, trusted_headers},
    secret::Label,
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption},
        service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse},
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{Struct, Value, value::Kind},
        rpc::Status,
    },
};

/// `google.rpc.Code.PERMISSION_DENIED`; any code but OK means "send the denied response".
const NOT_FORWARDED: i32 = 7;
/// The name of a claim's id in the dynamic metadata.
pub const CLAIM: &str = "claim";

/// The answer to Envoy. `sent` are the names of headers with the trusted prefix that the client sent.
#[must_use]
pub fn respond<'a>(outcome: &Outcome, request_id: &str, sent: impl Iterator<Item = &'a [u8]>) -> CheckResponse {
    let endpoint = outcome.endpoint.as_deref();
    let (code, http_response) = match &outcome.decision {
        Decision::Allow(allowed) => (0, HttpResponse::OkResponse(forward(allowed, &outcome.facts, endpoint, sent))),
        Decision::Answer(answer) => (NOT_FORWARDED, HttpResponse::DeniedResponse(denied(answered(answer)))),
        Decision::Deny(denial) => {
            (NOT_FORWARDED, HttpResponse::DeniedResponse(denied(refusal(*denial, endpoint, request_id))))
        }
    };
    CheckResponse {
        status: Some(Status { code, ..Status::default() }),
        dynamic_metadata: Some(metadata(outcome, request_id)),
        http_response: Some(http_response),
    }
}

fn forward<'a>(
    allowed: &Allowed,
    facts: &Facts,
    endpoint: Option<&Endpoint>,
    sent: impl Iterator<Item = &'a [u8]>,
) -> OkHttpResponse {
    let headers: Vec<_> =
        trusted_headers(allowed, facts, endpoint).iter().map(|(name, value)| header(name, value)).collect();
    let headers_to_remove = spoofed(&headers, sent);
    OkHttpResponse { headers, headers_to_remove, ..OkHttpResponse::default() }
}

/// What a client sent under the trusted prefix and is not overwritten anyway. Setting overwrites every copy;
/// removing what is set would lose ours.
fn spoofed<'a>(set: &[HeaderValueOption], sent: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let is_set = |name: &str| set.iter().any(|h| h.header.as_ref().is_some_and(|h| h.key == name));
    let mut remove = vec![PARTIAL_BODY.to_owned()];
    for name in sent.filter_map(|name| std::str::from_utf8(name).ok()) {
        if !is_set(name) && !remove.iter().any(|other| other == name) {
            remove.push(name.to_owned());
        }
    }
    remove
}

/// A reply in Envoy's words.
fn denied(reply: Reply) -> DeniedHttpResponse {
    let reply = sendable(reply);
    let headers = reply.headers.iter().map(|(name, value)| header(name, value)).collect();
    DeniedHttpResponse { status: Some(HttpStatus { code: i32::from(reply.status) }), headers, body: reply.body }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        ..HeaderValueOption::default()
    }
}

/// What the proxy's access log may say, under the filter's namespace.
fn metadata(outcome: &Outcome, request_id: &str) -> Struct {
    let mut fields = std::collections::HashMap::with_capacity(8);
    let mut set = |name: &str, value: &str| {
        fields.insert(name.to_owned(), Value { kind: Some(Kind::StringValue(value.to_owned())) });
    };
    set("decision", outcome.decision.as_str());
    set("reason", outcome.decision.reason());
    set("request_id", request_id);
    if let Some(endpoint) = &outcome.endpoint {
        set("endpoint", &endpoint.name);
        set("provider", &endpoint.provider);
    }
    for (name, fact) in [("delivery_id", &outcome.facts.delivery_id), ("event_type", &outcome.facts.event_type)] {
        if let Some(fact) = fact {
            set(name, fact);
        }
    }
    if let Decision::Allow(Allowed::Admitted(admitted)) = &outcome.decision {
        set("verified_by", admitted.evidence().as_str());
        if let Some(label) = admitted.secret() {
            let label: &Label = label;
            set("secret_id", &label.id);
        }
        if let Some(duplicate) = admitted.duplicate() {
            set("duplicate", duplicate.as_str());
        }
        // It comes back with the upstream's outcome.
        if let Some(claim) = admitted.claim() {
            set(CLAIM, &claim.to_string());
        }
    }
    Struct { fields }
}
