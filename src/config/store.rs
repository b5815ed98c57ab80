//! Which store, and how it is reached.

use super::{
    file,
    problem::{Findings, Path},
    scheme::duration,
    secret_source,
};
use crate::store::{Credentials, RedisConfig, Servers, StoreKind};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Where Redis and its sentinels listen, unless the address says otherwise.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Longest time that a server's answer is waited for, unless `redis.timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_millis(20);
const PREFIX: &str = "hookwarden";

const WANTED: &str = "is none of `memory`, `file:///absolute/path`, `redis://host:port/0`, `redis+unix:///absolute/path`, \
     `redis+sentinel://host:port,host:port/master` and `redis+cluster://host:port,host:port`";

/// The store that is meant.
pub(super) fn store(config: (Option<&str>, Option<&file::Redis>), root: &Path, findings: &mut Findings) -> StoreKind {
    let (written, redis) = config;
    let path = root.key("store");
    let text = written.unwrap_or("memory");
    let kind = if text == "memory" {
        Some(StoreKind::Memory)
    } else if let Some(file) = text.strip_prefix("file://") {
        let file = PathBuf::from(file);
        if file.is_absolute() { Some(StoreKind::File(file)) } else { findings.problem(&path, WANTED) }
    } else {
        match servers(text, &path, findings) {
            Some(found) => {
                return StoreKind::Redis(Arc::new(shared(found, redis, &root.key("redis"), findings)));
            }
            None => None,
        }
    };
    if redis.is_some() && kind.is_some() {
        findings.problem::<()>(&root.key("redis"), "is of no use without `store: redis://…`");
    }
    kind.unwrap_or(StoreKind::Memory)
}

/// Where a server is.
struct Found {
    servers: Servers,
    tls: bool,
    database: i64,
}

fn servers(text: &str, path: &Path, findings: &mut Findings) -> Option<Found> {
    let Some((scheme, rest)) = text.split_once("://") else { return findings.problem(path, WANTED) };
    // Whoever may read the configuration, or what is said about it, need not know the password.
    if rest.contains('@') {
        return findings.problem(path, "holds a name or password; write them under `redis`");
    }
    if scheme == "redis+unix" && rest.starts_with('/') {
        return Some(Found { servers: Servers::Socket(PathBuf::from(rest)), tls: false, database: 0 });
    }
    let tls = scheme.starts_with("rediss");
    let (hosts, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if scheme.ends_with("+sentinel") { SENTINEL_PORT } else { PORT };
    let Some(hosts) = hosts.split(',').map(|host| host_and_port(host, port)).collect::<Option<Vec<_>>>() else {
        return findings.problem(path, WANTED);
    };
    let number = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<u8>().ok().map(i64::from),
    };
    let found = match (scheme, hosts.as_slice()) {
        ("redis" | "rediss", [(host, port)]) => Some(Servers::One(host.clone(), *port)).zip(number(rest)),
        ("redis+sentinel" | "rediss+sentinel", _) => {
            let (master, rest) = rest.split_once('/').unwrap_or((rest, ""));
            let named = (!master.is_empty()).then(|| Servers::Sentinels(hosts, master.to_owned()));
            named.zip(number(rest))
        }
        // A cluster has one database.
        ("redis+cluster" | "rediss+cluster", _) if rest.is_empty() => Some((Servers::Cluster(hosts), 0)),
        _ => None,
    };
    match found {
        Some((servers, database)) => Some(Found { servers, tls, database }),
        None => findings.problem(path, WANTED),
    }
}

/// Reads `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_and_port(text: &str, port: u16) -> Option<(String, u16)> {
    let authority: http::uri::Authority = text.parse().ok()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = match authority.as_str().rsplit_once("]:").or_else(|| authority.as_str().rsplit_once(':')) {
        Some((before, written)) if !before.contains('[') || authority.as_str().contains("]:") => {
            written.parse().ok()?
        }
        Some(_) | None => port,
    };
    (!host.is_empty() && port > 0).then(|| (host.to_owned(), port))
}

fn shared(found: Found, written: Option<&file::Redis>, path: &Path, findings: &mut Findings) -> RedisConfig {
    let Found { servers, tls, database } = found;
    let default = file::Redis::default();
    let written = written.unwrap_or(&default);
    let sentinels = matches!(servers, Servers::Sentinels(..));
    for (field, there) in [
        ("sentinel_username", written.sentinel_username.is_some()),
        ("sentinel_password", written.sentinel_password.is_some()),
    ] {
        if there && !sentinels {
            findings.problem::<()>(&path.key(field), "is of no use without `store: redis+sentinel://…`");
        }
    }
    if written.ca_file.is_some() && !tls {
        findings.problem::<()>(&path.key("ca_file"), "is of no use without `store: rediss://…`");
    }
    let local = match &servers {
        Servers::One(host, _) => host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        Servers::Socket(_) => true,
        Servers::Sentinels(..) | Servers::Cluster(_) => false,
    };
    let mut password = |source: Option<&file::SecretSource>, field: &str| {
        let source = source?;
        if !tls && !local {
            findings.warn(&path.key(field), "goes over the network in the clear; write `rediss://`");
        }
        secret_source::password(source, &path.key(field), findings).map(Arc::new)
    };
    let credentials =
        Credentials { username: written.username.clone(), password: password(written.password.as_ref(), "password") };
    let sentinel_credentials = Credentials {
        username: written.sentinel_username.clone(),
        password: password(written.sentinel_password.as_ref(), "sentinel_password"),
    };
    let prefix = written.prefix.clone().unwrap_or_else(|| PREFIX.to_owned());
    if prefix.is_empty() || prefix.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.' | ':'))
    {
        findings.problem::<()>(&path.key("prefix"), "may have letters, digits and `-_.:` only, and not be empty");
    }
    let place = path.key("timeout");
    let deadline = written.timeout.as_deref().map_or(Some(TIMEOUT), |text| duration(text, &place, findings));
    if deadline.is_some_and(|d| !(Duration::from_millis(1)..=Duration::from_secs(2)).contains(&d)) {
        findings.problem::<()>(&place, "is not between 1ms and 2s");
    }
    RedisConfig {
        servers,
        tls,
        database,
        authorities: written
            .ca_file
            .as_deref()
            .and_then(|name| secret_source::certificates(name, &path.key("ca_file"), findings)),
        credentials,
        sentinel_credentials,
        prefix,
        deadline: deadline.unwrap_or(TIMEOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let read = |text| host_and_port(text, 1);
        assert_eq!(read("redis"), Some(("redis".to_owned(), 1)));
        assert_eq!(read("redis:6380"), Some(("redis".to_owned(), 6380)));
        assert_eq!(read("[::1]"), Some(("::1".to_owned(), 1)));
        assert_eq!(read("[::1]:6380"), Some(("::1".to_owned(), 6380)));
        for text in ["", ":1", "redis:", "redis:x", "redis:0", "redis:65536", "re dis"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
