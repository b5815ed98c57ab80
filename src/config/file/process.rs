//! What was written of the process itself: where it listens, how much it takes in, what is behind it and whom it tells.

use super::SecretText;
use schemars::JsonSchema;
use serde::Deserialize;

/// Where hookwarden listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The `ext_authz` gRPC service: `unix:///path` or `address:port`. Default `127.0.0.1:9191`.
    pub ext_authz: Option<String>,
    /// The HTTP listener for nginx and other proxies: `unix:///path` or `address:port`. There is none by default.
    pub verify: Option<String>,
    /// Mode of the Unix sockets, in octal. Default `"0660"`.
    pub socket_mode: Option<String>,
    /// Allows non-loopback addresses of `ext_authz` and `verify` without TLS. Whoever reaches `ext_authz` can ask anything.
    pub allow_plaintext: Option<bool>,
    /// Metrics and probes: `address:port`, or `off`. Default `127.0.0.1:9193`.
    pub admin: Option<String>,
    /// Threads that read, check and write, for each of the other listeners. Default 1, which feeds some six of Envoy's
    /// workers. A connection stays on one of them. Large bodies have threads of their own.
    #[schemars(range(min = 1, max = 64))]
    pub threads: Option<usize>,
    /// Who shows this token to `POST /reload` of the admin listener may have the configuration read again. Without it
    /// there is no such call.
    pub reload_token: Option<OwnToken>,
}

/// Where a span of each check goes: an OpenTelemetry collector.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Its OTLP address over HTTP: `http://127.0.0.1:4318`. Without a path, `/v1/traces`.
    pub otlp: String,
    /// A file of certificates, in PEM, of the authorities that are trusted instead of the public ones.
    pub ca_file: Option<String>,
    /// Which share of the traces that begin here is kept, from 0 to 1. Default 1. A proxy's or provider's own choice goes
    /// before.
    #[schemars(range(min = 0, max = 1))]
    pub sample: Option<f64>,
    /// What this process is called. Default `hookwarden`.
    pub service_name: Option<String>,
}

/// Whom the HTTP listener answers, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// How a proxy is told to forward.
    pub dialect: Dialect,
    /// Where `nginx-accel` sends what is allowed: a named location. Default `"@app"`.
    pub forward_to: Option<String>,
    /// What a request is about. Default: `forwarded` with `forward-auth`, else `as_sent`.
    pub original: Option<Original>,
    /// Where a request names its endpoint. Default `match`.
    pub endpoint: Option<EndpointFrom>,
    /// Addresses and networks of the proxies; nobody else is answered. Default: loopback. A Unix socket's peers always are.
    pub proxies: Option<Vec<String>>,
    /// The header in which the proxy tells its own peer's address, and which it overwrites: `x-real-ip`. Without it,
    /// `client_ip: peer` knows no address of what comes over HTTP.
    pub peer_header: Option<String>,
}

/// How a proxy is told to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// nginx: `X-Accel-Redirect` to an internal location; anything else is the sender's reply.
    NginxAccel,
    /// 200 with `x-hookwarden-verdict: allow`; anything else is the sender's reply. For njs and `OpenResty`.
    Verdict,
    /// An empty 200; anything else is the sender's reply, and none is a 2xx. For Traefik and Envoy's `http_service`.
    ForwardAuth,
}

/// What a request to the HTTP listener is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Original {
    /// Itself: the proxy sends the delivery as it came.
    AsSent,
    /// What `x-forwarded-method`, `-host` and `-uri` say. The proxy must write each of them.
    Forwarded,
}

/// Where a request to the HTTP listener names its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndpointFrom {
    /// Nowhere: `match` finds it by host and path.
    Match,
    /// In the path that the proxy asks, `/verify/<endpoint>`; what follows is the delivery's own.
    Path,
}

/// A token of hookwarden's own, which no provider knows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnToken {
    /// A file that holds it; one newline at its end is not part of it.
    pub file: Option<String>,
    /// An environment variable that holds it.
    pub env: Option<String>,
    /// The token itself. Prefer a file.
    pub inline: Option<SecretText>,
    /// Accepts a token that is short or well known. For tests.
    pub allow_weak: Option<bool>,
}

/// How a Redis or Valkey is reached.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// The user. Default: the server's default user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SecretSource>,
    /// The user of the sentinels.
    pub sentinel_username: Option<String>,
    /// The password of the sentinels.
    pub sentinel_password: Option<SecretSource>,
    /// A file of certificates, in PEM, of the authorities that are trusted instead of the public ones.
    pub ca_file: Option<String>,
    /// What the names of all keys begin with. Default `hookwarden`; another one for each group of replicas.
    pub prefix: Option<String>,
    /// Longest time that an answer is waited for. Default `20ms`.
    pub timeout: Option<String>,
}

/// Where a password is read from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// A file that holds it; one newline at its end is not part of it.
    pub file: Option<String>,
    /// An environment variable that holds it.
    pub env: Option<String>,
}

/// Bounds on what is taken in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest body of any endpoint. Default `26MiB`.
    pub body: Option<String>,
    /// All bodies being checked at once. Default `256MiB`.
    pub bodies_in_flight: Option<String>,
    /// Longest check. Default `5s`.
    pub deadline: Option<String>,
}
