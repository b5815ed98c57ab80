//! From a proxy's request to the question, in the words of Envoy's `CheckRequest`. The only place that knows which of its
//! headers a proxy writes itself.

use super::{EndpointFrom, Original, Rules, dialect::Dialect};
use crate::{
    decision::Rejection,
    ext_authz::{
        message::{CheckRequest, Told},
        request::PARTIAL_BODY,
    },
};
use bytes::Bytes;
use http::{HeaderMap as Headers, header, request::Parts};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where paths begin that name an endpoint.
const NAMED: &str = "/verify/";
/// What is between the proxy and us, and no part of the delivery.
const HOP_BY_HOP: &[&str] = &["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"];

/// A request, as a question.
#[derive(Debug)]
pub(super) struct Asked(Box<CheckRequest>);

impl Asked {
    /// Reads a head.
    pub(super) fn read(head: &Parts, rules: &Rules, ids: &Ids) -> Result<Self, Rejection> {
        let sent = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let (named, rest) = match rules.endpoint {
            EndpointFrom::Match => (None, sent.to_owned()),
            EndpointFrom::Path => {
                let (name, rest) = split_named(sent).ok_or(Rejection::UnknownEndpoint)?;
                (Some(name), rest)
            }
        };
        let (method, host, target) = match rules.original {
            Original::AsSent => {
                let host = match head.uri.authority() {
                    Some(authority) => authority.as_str().to_owned(),
                    None => only(&head.headers, header::HOST.as_str())?.unwrap_or_default(),
                };
                (head.method.as_str().to_owned(), host, rest)
            }
            Original::Forwarded => {
                let word = |name| only(&head.headers, name)?.ok_or(Rejection::RequestMalformed);
                (word("x-forwarded-method")?, word("x-forwarded-host")?, word("x-forwarded-uri")?)
            }
        };
        let lines: Vec<(&[u8], &[u8])> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .filter(|(name, value)| is_of_the_delivery(name, value, rules))
            .collect();
        let peer = rules.peer_header.as_deref().and_then(|name| only(&head.headers, name).ok().flatten());
        Ok(Self(Box::new(CheckRequest::asked(&Told {
            id: &ids.next(),
            method: &method,
            path: &target,
            host: &host,
            protocol: if is_the_delivery(rules) { "HTTP/1.1" } else { "" },
            peer: peer.as_deref(),
            endpoint: named,
            lines: &lines,
        }))))
    }

    /// The question, as far as it is known.
    pub(super) fn message(&self) -> &CheckRequest {
        &self.0
    }

    /// Whether the body that comes with it is the delivery's, and whole when it has come.
    pub(super) fn frames_its_body(&self) -> bool {
        let cut = self.0.lines().any(|(name, _)| name == PARTIAL_BODY.as_bytes());
        !self.0.protocol().is_empty() && !cut
    }

    /// The question, with the whole body.
    pub(super) fn with_body(mut self, body: Bytes) -> Box<CheckRequest> {
        self.0.set_body(body);
        self.0
    }

    /// The question, of which the body was not taken in.
    pub(super) fn without_body(self) -> Box<CheckRequest> {
        self.0
    }
}

/// The endpoint that a path names, and the rest of it.
fn split_named(sent: &str) -> Option<(&str, String)> {
    let after = sent.strip_prefix(NAMED)?;
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (name, rest) = after.split_at_checked(end)?;
    Some((name, if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }))
}

/// The one value of a header, as text. Several are a riddle.
fn only(headers: &Headers, name: &str) -> Result<Option<String>, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(|text| Some(text.trim().to_owned())).map_err(|_| Rejection::RequestMalformed)
        }
        (Some(_), Some(_)) => Err(Rejection::RequestMalformed),
    }
}

/// Whether what the proxy sends is what it sends on. Behind `forward-auth` it is not: the request here is one that the
/// proxy makes, and without a body it may be that the proxy was not told to send it along.
fn is_the_delivery(rules: &Rules) -> bool {
    rules.original == Original::AsSent && rules.dialect != Dialect::ForwardAuth
}

/// Whether a line is the delivery's. That a body is whole is our own observation, and nobody else's word but Envoy's where
/// it makes the request; that it is not is believed of anybody. A length of 0 is the proxy's where the request is.
fn is_of_the_delivery(name: &[u8], value: &[u8], rules: &Rules) -> bool {
    let envoys = rules.original == Original::AsSent && rules.dialect == Dialect::ForwardAuth;
    let said_to_be_whole = name == PARTIAL_BODY.as_bytes() && value == b"false" && !envoys;
    let said_to_be_empty = name == b"content-length" && value == b"0" && !is_the_delivery(rules);
    !HOP_BY_HOP.iter().any(|hop| hop.as_bytes() == name) && !said_to_be_whole && !said_to_be_empty
}

/// Names for requests whose proxy gave them none: different in every process, and counted on.
#[derive(Debug)]
pub(super) struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        // Without randomness two processes may use the same names, in two logs.
        Self { process: getrandom::u64().unwrap_or_default(), next: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        format!("{:016x}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_name_its_endpoint() {
        for (sent, expected) in [
            ("/verify/hub", Some(("hub", "/"))),
            ("/verify/hub?a=/b", Some(("hub", "/?a=/b"))),
            ("/verify/hub/hooks/x?a=1", Some(("hub", "/hooks/x?a=1"))),
            ("/verify/hub/verify/other", Some(("hub", "/verify/other"))),
            ("/verify/", Some(("", "/"))),
            ("/verify", None),
            ("/hub", None),
            ("/Verify/hub", None),
        ] {
            assert_eq!(split_named(sent), expected.map(|(name, rest)| (name, rest.to_owned())), "{sent}");
        }
    }

    #[test]
    fn names_of_requests_are_words_and_differ() {
        let ids = Ids::new();
        let (one, other) = (ids.next(), ids.next());
        assert_ne!(one, other);
        assert!(one.len() <= 64 && one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    }
}
