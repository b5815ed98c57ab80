//! Schemes, as they are written. The same words serve users and presets.

use super::SecretEncoding;
use schemars::JsonSchema;
use serde::Deserialize;

/// How a delivery proves its sender: exactly one of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Scheme {
    /// A MAC over signed content.
    pub hmac: Option<Hmac>,
    /// A shared token, sent as it is.
    pub token: Option<Token>,
    /// A client address that showed a token once.
    pub ip_lease: Option<IpLease>,
    /// HTTP Signatures, draft-cavage 03–12.
    pub http_signature: Option<HttpSignature>,
    /// HTTP Basic; the secret's text is `user:password`.
    pub basic: Option<Basic>,
    /// Every member must hold.
    pub all_of: Option<Vec<Scheme>>,
    /// One member must hold.
    pub any_of: Option<Vec<Scheme>>,
}

/// A MAC over signed content.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// The hash.
    pub hash: Hash,
    /// What is signed: text with `{body}`, `{timestamp}`, `{method}`, `{target}`, `{header:NAME}`.
    pub signed_content: String,
    /// Where the signature stands.
    pub signature: Signature,
    /// The signed timestamp.
    pub timestamp: Option<Timestamp>,
    /// How the provider hands out the secret.
    pub secret: Option<SecretForm>,
}

/// Hash functions.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// SHA-1
    Sha1,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// Where a signature stands and how it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The header.
    pub header: String,
    /// A word before the value, as in `Authorization: WORD value`.
    pub auth_scheme: Option<String>,
    /// Splits the header into several signatures.
    pub separator: Option<String>,
    /// Entries are `name=value`, and this is a signature's name.
    pub field: Option<String>,
    /// What every signature begins with.
    pub prefix: Option<String>,
    /// How its bytes are written.
    pub encoding: Encoding,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Two digits a byte.
    Hex,
    /// RFC 4648 §4.
    Base64,
    /// RFC 4648 §5, not padded.
    Base64url,
}

/// A signed timestamp.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// A header of its own.
    pub header: Option<String>,
    /// A `name=value` entry of the signature header.
    pub field: Option<String>,
    /// Its unit.
    pub unit: Unit,
    /// How far it may lie from now, on either side. Default `5m`.
    pub tolerance: Option<String>,
}

/// Units of a timestamp.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

/// How a provider hands out its secret.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretForm {
    /// How its bytes are written. Default `utf8`.
    pub encoding: Option<SecretEncoding>,
    /// What may stand before it, and is not part of it.
    pub prefix: Option<String>,
}

/// A shared token, in exactly one place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// A header.
    pub header: Option<String>,
    /// A word before the token in that header, such as `Bearer`.
    pub auth_scheme: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
}

/// A client address that showed a token once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpLease {
    /// The query parameter of the GET that shows the token.
    pub query: String,
    /// How long a lease lasts; at most `24h`, which is the default.
    pub ttl: Option<String>,
    /// Makes a random token at start, and prints it once, when no secret is configured.
    pub generate_token: Option<bool>,
    /// Lets private, loopback and link-local addresses hold a lease.
    pub allow_private_addresses: Option<bool>,
    /// What the client is told when it got a lease.
    pub granted: Option<super::ReplyText>,
}

/// HTTP Signatures.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSignature {
    /// Where the signature may stand.
    pub headers: Vec<SignatureHeader>,
    /// The accepted algorithms; the first is meant where a message names none.
    pub algorithms: Vec<HttpSignatureAlgorithm>,
    /// What every signature must cover.
    pub required: Vec<String>,
    /// What `(request-target)` means. Default `path_and_query`.
    pub request_target: Option<RequestTarget>,
    /// How far the signed time may lie from now, on either side. Default `5m`.
    pub tolerance: Option<String>,
    /// Where the provider publishes keys; used with the endpoint's `key_source: remote`.
    pub remote_keys: Option<RemoteKeys>,
}

/// Keys that a provider publishes as certificates, one by one, under the id that messages name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteKeys {
    /// `https://host`; the key id is put behind it.
    pub base: String,
    /// The shape of a key id: literal text, and `{}` for one path segment.
    pub key_id: String,
    /// Certificates to trust instead of the public ones.
    pub ca_file: Option<String>,
    /// Lets the host resolve to a private address.
    pub allow_private_addresses: Option<bool>,
}

/// Places of an HTTP signature.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureHeader {
    /// `Authorization: Signature …`
    Authorization,
    /// `Signature: …`
    Signature,
}

/// Algorithms of HTTP signatures.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum HttpSignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "rsa-sha256")]
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    #[serde(rename = "rsa-sha512")]
    RsaSha512,
    /// As the key says: for RSA the same as `rsa-sha256`.
    #[serde(rename = "hs2019")]
    Hs2019,
}

/// What `(request-target)` means.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestTarget {
    /// The path alone.
    Path,
    /// Path and query.
    PathAndQuery,
}

/// HTTP Basic. Has no settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {}
