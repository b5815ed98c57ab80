//! From Envoy's question to a [`Delivery`]. The only place that knows how Envoy tells things: `headers` or
//! `header_map`, `body` or `raw_body`, and how a body that was cut shows.

use super::message::CheckRequest;
use crate::{
    decision::Rejection,
    delivery::{Body, Delivery, Headers},
};

/// The header with which Envoy says whether it cut the body. A client's own copy never reaches a check.
pub const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
/// The key under which a route names its endpoint.
pub const ENDPOINT: &[u8] = b"endpoint";

impl CheckRequest {
    /// Bytes of body that came along.
    #[must_use]
    pub fn body_length(&self) -> usize {
        self.raw_body().len().max(self.text_body().len())
    }

    /// The delivery this asks about.
    pub fn delivery(&self) -> Result<Delivery<'_>, Rejection> {
        if !self.is_http() {
            return Err(Rejection::RequestMalformed);
        }
        let headers = self.headers()?;
        let (method, target, host) = (text(self.method())?, text(self.path())?, text(self.host())?);
        if method.is_empty() || target.is_empty() {
            return Err(Rejection::RequestMalformed);
        }
        Ok(Delivery {
            method,
            target,
            host,
            body: self.whole_body(&headers),
            headers,
            peer: std::str::from_utf8(self.peer()).ok().and_then(|address| address.parse().ok()),
            route_endpoint: self.endpoint().map(text).transpose()?,
        })
    }

    fn headers(&self) -> Result<Headers<'_>, Rejection> {
        let (lines, joined) = (self.lines(), self.joined());
        // No Envoy sends both. If something in between did, the two must tell the same story.
        match (lines.len(), joined.len()) {
            (0, _) => Ok(Headers::from_joined(joined.collect())),
            (_, 0) => Ok(Headers::from_lines(lines.collect())),
            _ => {
                let (lines, joined): (Vec<_>, Vec<_>) = (lines.collect(), joined.collect());
                if agree(&lines, &joined) { Ok(Headers::from_lines(lines)) } else { Err(Rejection::HeadersAmbiguous) }
            }
        }
    }

    /// The body, or why there is none to verify.
    fn whole_body(&self, headers: &Headers<'_>) -> Body<'_> {
        let announced = Announced::by(headers);
        if announced.as_partial {
            return Body::Truncated;
        }
        // `size` is what Envoy had received, whatever it sent along; the length is what the client said it would send.
        let is_whole = |bytes: &[u8]| {
            (self.size() < 0 || i64::try_from(bytes.len()) == Ok(self.size())) && announced.length_is(bytes.len())
        };
        match (self.raw_body(), self.text_body()) {
            ([], []) if self.size() > 0 || self.expects_body(&announced) => Body::Missing,
            ([], []) => Body::Whole(&[]),
            ([], text) if is_whole(text) => Body::Text(text),
            ([], _) => Body::Altered,
            (raw, _) if is_whole(raw) => Body::Whole(raw),
            (_, _) => Body::Truncated,
        }
    }

    /// Whether an empty body is at odds with what the request says of itself: then the filter was not told to send
    /// bodies, and what the upstream would get is not nothing.
    fn expects_body(&self, announced: &Announced<'_>) -> bool {
        if !announced.length_is(0) || (announced.chunked && !announced.as_buffered) {
            return true;
        }
        // From HTTP/2 on a body needs no announcement. Without Envoy's word that it looked, none is no proof.
        // Of a request that is only described, none is for most methods no proof either.
        let bodiless_method = match self.method() {
            b"GET" | b"HEAD" => true,
            b"OPTIONS" | b"DELETE" => !self.protocol().is_empty(),
            _ => false,
        };
        let unannounced = announced.lengths.is_empty() && !announced.as_buffered;
        unannounced && !bodiless_method && !self.protocol().starts_with(b"HTTP/1")
    }
}

/// What headers say about the body.
struct Announced<'a> {
    /// Envoy says that it buffered it.
    as_buffered: bool,
    /// Envoy says that it is only a part, or says something unheard of.
    as_partial: bool,
    /// The client says that it comes in chunks.
    chunked: bool,
    /// How long the client says it is.
    lengths: Vec<&'a [u8]>,
}

impl<'a> Announced<'a> {
    fn by(headers: &Headers<'a>) -> Self {
        let mut announced = Self { as_buffered: false, as_partial: false, chunked: false, lengths: Vec::new() };
        for (name, value) in headers.iter() {
            match name {
                b"content-length" => announced.lengths.push(value),
                b"transfer-encoding" => announced.chunked = true,
                name if name == PARTIAL_BODY.as_bytes() => {
                    announced.as_buffered = true;
                    announced.as_partial |= value != b"false";
                }
                _ => {}
            }
        }
        announced
    }

    /// Whether every length that was announced is this one. With `allow_partial_message` Envoy may ask in the middle of
    /// a body and call what it has whole, when exactly `max_request_bytes` have come; this is how that shows.
    fn length_is(&self, length: usize) -> bool {
        let announced = |text: &&[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok());
        self.lengths.iter().all(|text| announced(text) == Some(length))
    }
}

/// Whether lines and joined headers hold the same names and values.
fn agree(lines: &[(&[u8], &[u8])], joined: &[(&[u8], &[u8])]) -> bool {
    let together = |name: &[u8]| {
        let values: Vec<&[u8]> = lines.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value).collect();
        values.join(&b','.to_owned())
    };
    lines.iter().all(|(name, _)| joined.iter().any(|(key, _)| key == name))
        && joined.iter().all(|(name, value)| together(name) == *value)
}

fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(bytes).map_err(|_| Rejection::RequestMalformed)
}

/// What a check is called in logs and told to the sender: the proxy's request id, else Envoy's stream id, if it is
/// a plain word.
#[must_use]
pub fn request_id(request: &CheckRequest) -> &str {
    let plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let named = request.lines().chain(request.joined()).filter(|(name, _)| *name == b"x-request-id");
    let ids = named.map(|(_, id)| id).chain([request.id()]);
    ids.filter_map(|id| std::str::from_utf8(id).ok()).find(plain).unwrap_or("-")
}
