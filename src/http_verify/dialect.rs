//! From an outcome to what a proxy takes for *forward it*, or for the sender's reply. What each proxy does with an answer
//! was seen by running it (nginx 1.22), or read in its documentation (Traefik 3).
//!
//! The dialect is configured and never chosen by what a request says: a client that could choose it could turn a reply
//! into an allow.

use crate::{
    decision::{Decision, Denial, Fault, Reply},
    gate::Answered,
    reply::{answered, refusal, sendable, trusted_headers},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// The header with which `verdict` says what an answer is.
pub const VERDICT: &str = "x-hookwarden-verdict";
/// What nginx obeys in an answer; none of it may come from a handshake's rules.
const NGINX_ORDERS: &str = "x-accel-";

/// How a proxy is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// nginx without a module: an allow is `X-Accel-Redirect` to an internal location, which sends the original request
    /// on; any other answer is the reply, as it is.
    NginxAccel {
        /// A named location, `@app`: any other would change method and address.
        forward_to: String,
    },
    /// Anything that can read a header (njs, OpenResty): an allow is 200 with `x-hookwarden-verdict: allow`. Every other
    /// answer, `answer` or `deny`, is the reply.
    Verdict,
    /// What takes a status alone (Traefik's `ForwardAuth`, Envoy's `http_service`): an allow is 200 with nothing in it.
    /// There is no way to reply with a 2xx, so an endpoint that would is refused when the configuration is read.
    ForwardAuth,
}

impl Dialect {
    /// The answer to a proxy.
    #[must_use]
    pub fn reply(&self, told: &Answered<'_>) -> Response<Full<Bytes>> {
        let outcome = told.outcome;
        let endpoint = outcome.endpoint.as_deref();
        let reply = match &outcome.decision {
            Decision::Allow(allowed) => {
                let headers = trusted_headers(allowed, &outcome.facts, endpoint);
                let mut headers: Vec<(String, String)> =
                    headers.into_iter().map(|(name, value)| (name.into_owned(), value.to_owned())).collect();
                match self {
                    Self::NginxAccel { forward_to } => {
                        headers.push(("x-accel-redirect".to_owned(), forward_to.clone()));
                    }
                    Self::Verdict => headers.push((VERDICT.to_owned(), "allow".to_owned())),
                    Self::ForwardAuth => {}
                }
                return response(Reply { status: 200, headers, body: String::new() });
            }
            Decision::Answer(answer) => answered(answer),
            Decision::Deny(denial) => refusal(*denial, endpoint, told.request_id),
        };
        response(self.withheld(reply, told))
    }

    /// A reply that does not forward, in a form that cannot be taken for an allow.
    fn withheld(&self, mut reply: Reply, told: &Answered<'_>) -> Reply {
        match self {
            Self::NginxAccel { .. } => reply.headers.retain(|(name, _)| !has_prefix(name, NGINX_ORDERS)),
            Self::Verdict => {
                reply.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(VERDICT));
                reply.headers.push((VERDICT.to_owned(), told.outcome.decision.as_str().to_owned()));
            }
            // The configuration has none, so this is a defect, and a defect does not forward.
            Self::ForwardAuth if (200..300).contains(&reply.status) => {
                reply = refusal(Denial::Fault(Fault::Internal), None, told.request_id);
            }
            Self::ForwardAuth => {}
        }
        reply
    }
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let Reply { status, headers, body } = sendable(reply);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    for (name, value) in headers {
        // Names and values are the configuration's, and were judged there.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
