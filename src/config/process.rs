//! What a process listens on, how much it takes in, and whom it tells: everything of a configuration that is no endpoint.

use super::{
    file,
    problem::{Findings, Path},
    scheme::duration,
    secret_source,
    verify::{self, VerifyListener},
};
use crate::{delivery::ClientAddress, secret::Secret, traces::TracesConfig};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The `ext_authz` service.
    pub ext_authz: Address,
    /// HTTP.
    pub verify: Option<VerifyListener>,
    /// Mode of Unix sockets.
    pub socket_mode: u32,
    /// Metrics and probes.
    pub admin: Option<SocketAddr>,
    /// Threads that read, check and write, for each listener but the admin's.
    pub threads: usize,
}

/// Most threads of a listener. Long before so many are busy there is a second machine.
const MAX_THREADS: usize = 64;

/// A listener's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Bounds on what is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest body in bytes.
    pub body: usize,
    /// Bytes of all bodies in flight.
    pub bodies_in_flight: usize,
    /// Longest check.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 26 << 20, bodies_in_flight: 256 << 20, deadline: Duration::from_secs(5) }
    }
}

pub(super) fn traces(written: file::Traces, path: &Path, findings: &mut Findings) -> Option<TracesConfig> {
    let otlp = written.otlp.trim_end_matches('/');
    let address = match otlp.parse::<http::Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() => match uri.path() {
            "" | "/" => format!("{otlp}/v1/traces"),
            _ => otlp.to_owned(),
        },
        Ok(_) | Err(_) => {
            return findings.problem(&path.key("otlp"), "is not an address; write `http://127.0.0.1:4318`");
        }
    };
    let sample = written.sample.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&sample) {
        return findings.problem(&path.key("sample"), "is not between 0 and 1");
    }
    Some(TracesConfig {
        address,
        ca_file: written.ca_file.map(PathBuf::from),
        sample,
        service_name: written.service_name.unwrap_or_else(|| "hookwarden".to_owned()),
    })
}

pub(super) fn reload_token(written: file::Listen, path: &Path, findings: &mut Findings) -> Option<Secret> {
    let (path, token) = (path.key("reload_token"), written.reload_token?);
    if written.admin.as_deref() == Some("off") {
        return findings.problem(&path, "stands beside `admin: off`, so nobody can show it; remove one of them");
    }
    secret_source::own_token(token, &path, findings)
}

pub(super) fn listen(
    written: &file::Listen,
    verify: Option<&file::Verify>,
    root: &Path,
    findings: &mut Findings,
) -> Listen {
    let path = root.key("listen");
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9191));
    let ext_authz = written
        .ext_authz
        .as_deref()
        .map_or(Some(Address::Tcp(default)), |text| address(text, &path.key("ext_authz"), findings));
    if let Some(address) = &ext_authz {
        judge_plaintext(address, written, &path.key("ext_authz"), findings);
    }
    let verify = verify::listener(written, verify, root, findings);
    let socket_mode = match written.socket_mode.as_deref().map(|text| u32::from_str_radix(text, 8)) {
        None => 0o660,
        Some(Ok(mode)) if mode <= 0o777 => mode,
        Some(_) => {
            findings.problem(&path.key("socket_mode"), "is not a mode in octal; write `\"0660\"`").unwrap_or(0o660)
        }
    };
    let admin = match written.admin.as_deref() {
        None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9193))),
        Some("off") => None,
        Some(text) => match text.parse() {
            Ok(address) => Some(address),
            Err(_) => findings.problem(&path.key("admin"), "is not `address:port`; write `127.0.0.1:9193` or `off`"),
        },
    };
    let threads = written.threads.unwrap_or(1);
    if !(1..=MAX_THREADS).contains(&threads) {
        findings.problem::<()>(&path.key("threads"), &format!("is not between 1 and {MAX_THREADS}"));
    }
    Listen { ext_authz: ext_authz.unwrap_or(Address::Tcp(default)), verify, socket_mode, admin, threads }
}

/// Nobody may listen to, or speak in the place of, a proxy that is somewhere else.
pub(super) fn judge_plaintext(address: &Address, listen: &file::Listen, path: &Path, findings: &mut Findings) {
    let elsewhere = matches!(address, Address::Tcp(tcp) if !is_loopback(tcp.ip()));
    if elsewhere && listen.allow_plaintext != Some(true) {
        findings.problem::<()>(
            path,
            "is not a loopback address, and whoever reaches it can ask anything; write `unix:///path`, `127.0.0.1:port`, or set `allow_plaintext: true` where the network is yours",
        );
    }
}

pub(super) fn address(text: &str, path: &Path, findings: &mut Findings) -> Option<Address> {
    if let Some(socket) = text.strip_prefix("unix:") {
        let socket = PathBuf::from(socket.strip_prefix("//").unwrap_or(socket));
        return if socket.is_absolute() {
            Some(Address::Unix(socket))
        } else {
            findings.problem(path, "is not an absolute path; write `unix:///run/hookwarden/ext_authz.sock`")
        };
    }
    match text.parse() {
        Ok(address) => Some(Address::Tcp(address)),
        Err(_) => findings.problem(path, "is neither `unix:///path` nor `address:port`; write `127.0.0.1:9191`"),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

pub(super) fn limits(written: &file::Limits, path: &Path, findings: &mut Findings) -> Limits {
    let default = Limits::default();
    let mut bytes = |field: &str, text: &Option<String>, default: usize| {
        text.as_deref().map_or(default, |text| byte_count(text, &path.key(field), findings).unwrap_or(default))
    };
    let body = bytes("body", &written.body, default.body);
    let bodies_in_flight = bytes("bodies_in_flight", &written.bodies_in_flight, default.bodies_in_flight);
    if bodies_in_flight < body {
        findings.problem::<()>(
            &path.key("bodies_in_flight"),
            "is less than `limits.body`, so the longest body could never be taken in; write at least as much",
        );
    }
    let deadline = written
        .deadline
        .as_deref()
        .map_or(Some(default.deadline), |text| duration(text, &path.key("deadline"), findings));
    if deadline.is_some_and(|d| d.is_zero()) {
        findings.problem::<()>(&path.key("deadline"), "is zero; write `5s`");
    }
    Limits { body, bodies_in_flight, deadline: deadline.unwrap_or(default.deadline) }
}

/// Reads `512KiB`, `26MiB`, `1GiB` or a number of bytes.
pub(super) fn byte_count(text: &str, path: &Path, findings: &mut Findings) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let factor: Option<usize> = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let count = number.parse::<usize>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    match count {
        Some(count) if (1..=1 << 32).contains(&count) => Some(count),
        _ => findings.problem(path, "is not a size; write bytes, `512KiB` or `26MiB`"),
    }
}

pub(super) fn client_address(written: Option<&file::ClientIp>, path: &Path, findings: &mut Findings) -> ClientAddress {
    match written {
        None | Some(file::ClientIp::Word(file::ClientIpWord::Peer)) => ClientAddress::Peer,
        Some(file::ClientIp::ForwardedFor(file::ForwardedForRule { forwarded_for })) => {
            if !(1..=16).contains(&forwarded_for.trusted_hops) {
                findings.problem::<()>(&path.key("forwarded_for").key("trusted_hops"), "is not between 1 and 16");
            }
            ClientAddress::ForwardedFor { trusted_hops: forwarded_for.trusted_hops }
        }
    }
}
