//! A delivery as a text that any bytes are:
//!
//! ```text
//! github/preset.yaml#github-2 0        who receives it, and in which of four forms Envoy tells of it
//! POST hooks.example.com /github      method, authority, path and query
//! 203.0.113.7                         the proxy's peer
//! X-Hub-Signature-256: sha256=…       header lines
//!                                     an empty line, and the body
//! {"foo":"bar"}
//! ```

use crate::{forms, vector::Case};
use envoy_types::pb::envoy::{
    config::core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
    service::auth::v3::{
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Peer, Request},
    },
};

/// A delivery, with everything of it that a sender can write.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Who receives it.
    pub receiver: String,
    /// Whether header lines are told one by one (`encode_raw_headers`).
    raw_headers: bool,
    /// Whether the body is told as bytes (`pack_as_bytes`).
    raw_body: bool,
    method: String,
    host: String,
    target: String,
    client: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Delivery {
    /// Reads a text.
    #[must_use]
    pub fn read(text: &[u8]) -> Self {
        let mut rest = text;
        let mut line = || {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, after) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + 1..]));
            rest = after;
            line
        };
        let words = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        let first = words(line());
        let (receiver, form) = first.split_once(' ').unwrap_or((&first, ""));
        let form = form.bytes().next().unwrap_or_default();
        let request = words(line());
        let mut request = request.splitn(3, ' ').map(str::to_owned);
        let mut word = || request.next().unwrap_or_default();
        let (method, host, target) = (word(), word(), word());
        let client = words(line());
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
            let value = &line[colon + 1..];
            let value = value.strip_prefix(b" ").unwrap_or(value);
            headers.push((words(&line[..colon]).to_ascii_lowercase(), value.to_vec()));
        }
        let (raw_headers, raw_body) = (form & 1 == 0, form & 2 == 0);
        let receiver = receiver.to_owned();
        Self { receiver, raw_headers, raw_body, method, host, target, client, headers, body: rest.to_vec() }
    }

    /// Writes a vector.
    #[must_use]
    pub(crate) fn seed(case: &Case, form: usize) -> Vec<u8> {
        let request = &case.request;
        let uri = request.uri();
        let (host, target) =
            (uri.authority().map_or("", |a| a.as_str()), uri.path_and_query().map_or("/", |p| p.as_str()));
        let client = request.client_ip.as_deref().unwrap_or_default();
        let mut text = format!("{} {form}\n{} {host} {target}\n{client}\n", case.title, request.method);
        for (name, value) in &request.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push('\n');
        [text.as_bytes(), &request.bytes()].concat()
    }

    /// What Envoy asks of it, where it is for the endpoint of this name.
    #[must_use]
    pub fn question(&self, endpoint: &str) -> CheckRequest {
        let mut lines: Vec<(String, Vec<u8>)> = vec![(":path".into(), self.target.clone().into())];
        if !self.body.is_empty() && !self.headers.iter().any(|(name, _)| name == "content-length") {
            lines.push(("content-length".into(), self.body.len().to_string().into()));
            lines.push(("x-envoy-auth-partial-body".into(), b"false".to_vec()));
        }
        lines.extend(self.headers.iter().cloned());
        let mut http = HttpRequest {
            id: "4242".into(),
            method: self.method.clone(),
            path: self.target.clone(),
            host: self.host.clone(),
            size: i64::try_from(self.body.len()).unwrap_or(i64::MAX),
            protocol: "HTTP/1.1".into(),
            ..HttpRequest::default()
        };
        forms::tell(&mut http, lines, &self.body, (self.raw_headers, self.raw_body));
        let socket = SocketAddress {
            address: self.client.clone(),
            port_specifier: Some(PortSpecifier::PortValue(40_000)),
            ..SocketAddress::default()
        };
        let address = Address { address: Some(address::Address::SocketAddress(socket)) };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Peer { address: Some(address), ..Peer::default() }),
                request: Some(Request { http: Some(http), ..Request::default() }),
                context_extensions: [("endpoint".to_owned(), endpoint.to_owned())].into(),
                ..AttributeContext::default()
            }),
        }
    }

    /// The bytes of the body, in the form in which they were told.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        if self.raw_body { self.body.clone() } else { String::from_utf8_lossy(&self.body).into_owned().into_bytes() }
    }

    /// Every value of a header, without the white space around it; where lines are joined, each that may have been one.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let values = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.trim_ascii());
        values.collect()
    }
}
