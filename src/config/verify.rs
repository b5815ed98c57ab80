//! The HTTP listener, as it was written, to the rules it follows; and what its dialect cannot say.

use super::{
    file,
    problem::{Findings, Path},
    process::{Address, address, judge_plaintext},
};
use crate::{
    endpoint::Endpoint,
    http_verify::{EndpointFrom, Original, Rules, dialect::Dialect},
    replay::OnDuplicate,
    scheme::Scheme,
};
use http::HeaderName;
use ipnet::IpNet;
use std::net::IpAddr;

/// An HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyListener {
    /// Where.
    pub address: Address,
    /// How.
    pub rules: Rules,
}

/// The listener, where one was written.
pub(super) fn listener(
    listen: &file::Listen,
    written: Option<&file::Verify>,
    root: &Path,
    findings: &mut Findings,
) -> Option<VerifyListener> {
    let (place, path) = (root.key("listen").key("verify"), root.key("verify"));
    match (listen.verify.as_deref(), written) {
        (None, None) => None,
        // What was written could not be read, and was reported.
        (Some(_), None) if findings.problems.iter().any(|problem| problem.path.first(1).as_ref() == Some(&path)) => {
            None
        }
        (None, Some(_)) => findings.problem(&path, "is of no use without `listen.verify`"),
        (Some(_), None) => findings
            .problem(&place, "needs to know whom it answers; write `verify: { dialect: nginx-accel }` beside `listen`"),
        (Some(text), Some(written)) => {
            let address = address(text, &place, findings);
            if let Some(address) = &address {
                judge_plaintext(address, listen, &place, findings);
            }
            let rules = rules(written, &path, findings);
            if written.endpoint == Some(file::EndpointFrom::Path) {
                findings.warn(
                    &path.key("endpoint"),
                    "lets whoever writes the path choose the endpoint; the proxy must write `/verify/<endpoint>` and behind it the address exactly as it was sent, as in `proxy_pass http://hookwarden/verify/github$request_uri;`",
                );
            }
            Some(VerifyListener { address: address?, rules: rules? })
        }
    }
}

fn rules(written: &file::Verify, path: &Path, findings: &mut Findings) -> Option<Rules> {
    let dialect = match (written.dialect, written.forward_to.as_deref()) {
        (file::Dialect::NginxAccel, location) => {
            forward_to(location.unwrap_or("@app"), &path.key("forward_to"), findings)
                .map(|forward_to| Dialect::NginxAccel { forward_to })
        }
        (file::Dialect::Verdict | file::Dialect::ForwardAuth, Some(_)) => {
            findings.problem(&path.key("forward_to"), "is of no use but with `dialect: nginx-accel`")
        }
        (file::Dialect::Verdict, None) => Some(Dialect::Verdict),
        (file::Dialect::ForwardAuth, None) => Some(Dialect::ForwardAuth),
    };
    let original = match (written.original, written.dialect) {
        (Some(file::Original::Forwarded), _) | (None, file::Dialect::ForwardAuth) => Original::Forwarded,
        (Some(file::Original::AsSent), _) | (None, file::Dialect::NginxAccel | file::Dialect::Verdict) => {
            Original::AsSent
        }
    };
    let endpoint = match written.endpoint {
        None | Some(file::EndpointFrom::Match) => EndpointFrom::Match,
        Some(file::EndpointFrom::Path) => EndpointFrom::Path,
    };
    let proxies = proxies(written.proxies.as_deref(), &path.key("proxies"), findings);
    let peer_header = match written.peer_header.as_deref() {
        None => Some(None),
        Some(name) => match HeaderName::try_from(name.to_ascii_lowercase()) {
            Ok(name) => Some(Some(name.as_str().to_owned())),
            Err(_) => findings.problem(&path.key("peer_header"), "is not the name of a header; write `x-real-ip`"),
        },
    };
    Some(Rules { dialect: dialect?, endpoint, original, proxies: proxies?, peer_header: peer_header? })
}

/// A named location: any other makes a GET of a POST and another address of its address.
fn forward_to(location: &str, path: &Path, findings: &mut Findings) -> Option<String> {
    let name = location.strip_prefix('@').unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        return findings.problem(path, "is not a named location; write `\"@app\"`");
    }
    Some(location.to_owned())
}

fn proxies(written: Option<&[String]>, path: &Path, findings: &mut Findings) -> Option<Vec<IpNet>> {
    let loopback =
        [IpNet::from(IpAddr::from([127, 0, 0, 1])), IpNet::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST))];
    let Some(written) = written else { return Some(loopback.into()) };
    let mut networks = Some(Vec::new());
    for (at, text) in written.iter().enumerate() {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.iter_mut().for_each(|networks| networks.push(network)),
            Err(_) => {
                networks = findings.problem(&path.index(at), "is neither an address nor a network; write `10.0.0.0/8`");
            }
        }
    }
    networks
}

/// Says which of an endpoint's answers the dialect would make an allow of.
pub(super) fn judge(listener: &VerifyListener, endpoint: &Endpoint, path: &Path, findings: &mut Findings) {
    if listener.rules.dialect != Dialect::ForwardAuth {
        return;
    }
    let handshake = endpoint.challenges.iter().any(|challenge| (200..300).contains(&challenge.respond.status));
    let lease = endpoint.scheme.flatten().any(|member| matches!(member, Scheme::IpLease(_)));
    let duplicate = endpoint.replay.is_some_and(|rules| rules.untold.on_duplicate == OnDuplicate::Answer200);
    for (answers, what) in [
        (handshake, "answers its provider's handshake with a 2xx"),
        (lease, "answers whoever gets a lease with 200"),
        (duplicate, "answers duplicates with 200"),
    ] {
        if answers {
            findings.problem::<()>(
                path,
                format!(
                    "{what}, which the proxy of `dialect: forward-auth` would take for an allow and forward; use `ext_authz`, or the dialect `nginx-accel` or `verdict`"
                ),
            );
        }
    }
}
