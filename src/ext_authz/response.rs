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

use super::{request::PARTIAL_BODY, wire::Message};
use crate::{
    check::{Facts, Outcome},
    decision::{Allowed, Decision, Reply},
    endpoint::Endpoint,
    reply::{answered, refusal, sendable, trusted_headers},
};
use bytes::Bytes;
use std::borrow::Cow;

/// `google.rpc.Code.PERMISSION_DENIED`; any code but OK means "send the denied response".
const NOT_FORWARDED: u32 = 7;
/// The name of a claim's id in the dynamic metadata.
pub const CLAIM: &str = "claim";
/// Room for a usual response.
const USUAL: usize = 1024;

/// A `CheckResponse`, as it goes to Envoy.
#[derive(Debug)]
pub struct CheckResponse(Message);

impl CheckResponse {
    /// Its bytes, as a message of gRPC.
    #[must_use]
    pub fn framed(self) -> Bytes {
        self.0.framed()
    }
}

/// The answer to Envoy. `sent` are the names of headers with the trusted prefix that the client sent.
#[must_use]
pub fn respond<'a>(outcome: &Outcome, request_id: &str, sent: impl Iterator<Item = &'a [u8]>) -> CheckResponse {
    let endpoint = outcome.endpoint.as_deref();
    let mut response = Message::with_capacity(USUAL);
    let reply = match &outcome.decision {
        Decision::Allow(allowed) => {
            // Written although it is the default: a status that is absent is for Envoy one that allows, and nobody shall
            // have to know that.
            response.message(STATUS, |status| status.number(STATUS_CODE, 0));
            response.message(OK_RESPONSE, |ok| forward(ok, allowed, &outcome.facts, endpoint, sent));
            None
        }
        Decision::Answer(answer) => Some(answered(answer)),
        Decision::Deny(denial) => Some(refusal(*denial, endpoint, request_id)),
    };
    if let Some(reply) = reply {
        response.message(STATUS, |status| status.number(STATUS_CODE, NOT_FORWARDED));
        response.message(DENIED_RESPONSE, |denied| withhold(denied, reply));
    }
    response.message(DYNAMIC_METADATA, |metadata| tell(metadata, outcome, request_id));
    CheckResponse(response)
}

// Field numbers of envoy/service/auth/v3/external_auth.proto …
const STATUS: u8 = 1;
const DENIED_RESPONSE: u8 = 2;
const OK_RESPONSE: u8 = 3;
const DYNAMIC_METADATA: u8 = 4;
const DENIED_STATUS: u8 = 1;
const DENIED_HEADERS: u8 = 2;
const DENIED_BODY: u8 = 3;
const OK_HEADERS: u8 = 2;
const OK_HEADERS_TO_REMOVE: u8 = 5;
// … and of the messages that it uses.
const STATUS_CODE: u8 = 1;
const HTTP_STATUS_CODE: u8 = 1;
const OPTION_HEADER: u8 = 1;
const HEADER_KEY: u8 = 1;
const HEADER_VALUE: u8 = 2;
const STRUCT_FIELDS: u8 = 1;
const ENTRY_KEY: u8 = 1;
const ENTRY_VALUE: u8 = 2;
const STRING_VALUE: u8 = 3;

/// `OkHttpResponse`
fn forward<'a>(
    ok: &mut Message,
    allowed: &Allowed,
    facts: &Facts,
    endpoint: Option<&Endpoint>,
    sent: impl Iterator<Item = &'a [u8]>,
) {
    let headers = trusted_headers(allowed, facts, endpoint);
    for (name, value) in &headers {
        header(ok, OK_HEADERS, name, value);
    }
    ok.text(OK_HEADERS_TO_REMOVE, PARTIAL_BODY);
    for name in spoofed(&headers, sent) {
        ok.text(OK_HEADERS_TO_REMOVE, name);
    }
}

/// What a client sent under the trusted prefix and is not overwritten anyway. Setting overwrites every copy;
/// removing what is set would lose ours.
fn spoofed<'a>(set: &[(Cow<'static, str>, &str)], sent: impl Iterator<Item = &'a [u8]>) -> Vec<&'a str> {
    let mut remove: Vec<&str> = Vec::new();
    for name in sent.filter_map(|name| std::str::from_utf8(name).ok()) {
        if !set.iter().any(|(other, _)| other == name) && !remove.contains(&name) {
            remove.push(name);
        }
    }
    remove
}

/// `DeniedHttpResponse`
fn withhold(denied: &mut Message, reply: Reply) {
    let Reply { status, headers, body } = sendable(reply);
    denied.message(DENIED_STATUS, |code| code.number(HTTP_STATUS_CODE, u32::from(status)));
    for (name, value) in &headers {
        header(denied, DENIED_HEADERS, name, value);
    }
    denied.text(DENIED_BODY, &body);
}

/// `HeaderValueOption`
fn header(within: &mut Message, tag: u8, name: &str, value: &str) {
    within.message(tag, |option| {
        option.message(OPTION_HEADER, |header| {
            header.text(HEADER_KEY, name);
            header.text(HEADER_VALUE, value);
        });
    });
}

/// `google.protobuf.Struct`: what the proxy's access log may say, under the filter's namespace.
fn tell(metadata: &mut Message, outcome: &Outcome, request_id: &str) {
    let mut set = |name: &str, value: &str| {
        metadata.message(STRUCT_FIELDS, |entry| {
            entry.text(ENTRY_KEY, name);
            entry.message(ENTRY_VALUE, |inner| inner.text(STRING_VALUE, value));
        });
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
            set("secret_id", &label.id);
        }
        if let Some(duplicate) = admitted.duplicate() {
            set("duplicate", duplicate.as_str());
        }
        // It comes back with the upstream's outcome.
        if let Some(claim) = admitted.claim() {
            set(CLAIM, claim.text().as_str());
        }
    }
}
