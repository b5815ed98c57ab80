//! What was written: the configuration's shape, and nothing else.
//!
//! No logic and no defaults live here; an absent field is `None` and `compile` says what that means. The JSON Schema
//! is made from these types, and a preset is written in the same words.

mod challenge;
mod process;
mod scheme;
mod token;

pub use challenge::{
    Challenge, Charset, Condition, Decrypt, DecryptLayout, Derive, Echo, OnRejection, ReplyText, Respond,
};
pub use process::{Dialect, EndpointFrom, Limits, Listen, Original, OwnToken, Redis, SecretSource, Traces, Verify};
pub use scheme::{
    Basic, BodyDigest, Case, EcdsaForm, Encoding, Envelope, Hash, HttpMessageSignature, HttpSignature,
    HttpSignatureAlgorithm, IpAllow, IpLease, KeyIdPlace, ListPlace, ListedHeaders, Mac, MessageSignatureAlgorithm,
    PublicKeySignature, RemoteKeys, RequestTarget, Scheme, SecretForm, Signature, SignatureAlgorithm, SignatureHeader,
    Timestamp, Unit,
};
pub use token::{CertificateChain, Expiry, Hashed, IssuedAt, Jwt, JwtAlgorithm, RootsFrom, Texts, Token, TokenPlace};

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// `hookwarden.yaml`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "hookwarden.yaml")]
pub struct Config {
    /// Where hookwarden listens.
    #[serde(default)]
    pub listen: Listen,
    /// Bounds on what is taken in.
    #[serde(default)]
    pub limits: Limits,
    /// `memory` (default); `file:///path/to/state.redb` to keep state over a restart; or a Redis or Valkey that replicas
    /// share: `redis://host:port/0`, `redis+unix:///path`, `redis+sentinel://host:port,host:port/master`,
    /// `redis+cluster://host:port,host:port`, and with `rediss` for TLS.
    pub store: Option<String>,
    /// How a shared store is reached.
    pub redis: Option<Redis>,
    /// Whether a change of this file, or of one that it names, reloads it. Default `true`; SIGHUP always does.
    pub watch: Option<bool>,
    /// Who tells what the application made of a delivery: `none` (default), or `access_log`, for which Envoy must send
    /// its access log to hookwarden.
    pub outcomes: Option<Outcomes>,
    /// How long an outcome is waited for. Default `60s`; longer than any route's time limit.
    pub outcome_timeout: Option<String>,
    /// Whose address a client's is: `peer` (default), or `{ forwarded_for: { trusted_hops: N } }`.
    pub client_ip: Option<ClientIp>,
    /// Whom the HTTP listener answers, and how.
    pub verify: Option<Verify>,
    /// Where a span of each check goes. Nowhere by default.
    pub traces: Option<Traces>,
    /// The receivers, by name.
    #[serde(default)]
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// Whose address a client's is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`peer` or `{ forwarded_for: { trusted_hops: N } }`")]
pub enum ClientIp {
    /// The proxy's direct peer.
    Word(ClientIpWord),
    /// An entry of `x-forwarded-for`.
    ForwardedFor(ForwardedForRule),
}

/// The one word.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientIpWord {
    /// The proxy's direct peer.
    Peer,
}

/// An entry of `x-forwarded-for`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardedForRule {
    /// Which.
    pub forwarded_for: ForwardedFor,
}

/// Which entry of `x-forwarded-for`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardedFor {
    /// How many proxies append to it; the client is that entry, counted from the right.
    #[schemars(range(min = 1, max = 16))]
    pub trusted_hops: usize,
}

/// One receiver.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Host and path, where the proxy's route does not name the endpoint.
    pub r#match: Option<Match>,
    /// A preset's name.
    pub provider: Option<String>,
    /// A scheme of your own, in the words presets use. Instead of `provider`.
    pub scheme: Option<Scheme>,
    /// Further schemes that must all hold.
    #[serde(default)]
    pub require: Vec<Scheme>,
    /// Handshakes of your own, tried before the preset's.
    #[serde(default)]
    pub challenges: Vec<Challenge>,
    /// Shared secrets and tokens.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Keys of asymmetric schemes.
    #[serde(default)]
    pub public_keys: Vec<PublicKey>,
    /// Where keys come from: `configured` (default), or `remote`, which fetches what the scheme's `remote_keys` names.
    pub key_source: Option<KeySource>,
    /// The address that the provider was given, `https://host/path`, for schemes that sign it. Never taken from the
    /// request. Without a path, the request's own counts.
    pub public_url: Option<String>,
    /// Values that the preset asks for, by name.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Lets the provider hand over its secret in a handshake, once, until a moment. It is kept in the `store`.
    pub enrolment: Option<Enrolment>,
    /// Where a delivery's id stands; told upstream. Default: the preset's.
    pub delivery_id: Option<ValuePlace>,
    /// Where a delivery's event type stands; told upstream. Default: the preset's.
    pub event_type: Option<ValuePlace>,
    /// How far a signed time may lie from now. Default: the scheme's.
    pub tolerance: Option<String>,
    /// What becomes of rejected deliveries. Default `enforce`.
    pub mode: Option<Mode>,
    /// Methods the endpoint takes. Default: the preset's.
    pub allow_methods: Option<Vec<String>>,
    /// Longest body. Default: `limits.body`.
    pub body_limit: Option<String>,
    /// Believes a body that Envoy sent as text to be the bytes. Only for proxies without `pack_as_bytes`.
    pub text_body: Option<bool>,
    /// What becomes of a delivery whose signed bytes were there before. Default: `deny` where the time is signed and a
    /// retry can be told from a replay, else `mark`, and `off` where no body is signed.
    pub on_duplicate: Option<OnDuplicate>,
    /// How long a delivery is remembered. Default: as long as it passes for fresh, and 24 h where no time is signed.
    pub remember: Option<String>,
    /// What happens while the store cannot be reached. Default `deny`.
    pub store_failure: Option<StoreFailure>,
    /// What rejected senders are told.
    pub on_rejection: Option<OnRejection>,
}

/// Who tells what the application made of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcomes {
    /// Nobody.
    None,
    /// Envoy, by its access log service.
    AccessLog,
}

/// What becomes of a delivery whose signed bytes were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicate {
    /// It is refused with 409.
    Deny,
    /// The provider is told 200, and the application does not see it.
    #[serde(rename = "answer_200")]
    Answer200,
    /// It is forwarded with `x-hookwarden-duplicate`.
    Mark,
    /// Nothing is remembered.
    Off,
}

impl OnDuplicate {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Answer200 => "answer_200",
            Self::Mark => "mark",
            Self::Off => "off",
        }
    }
}

/// What happens while the store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreFailure {
    /// Deliveries are refused with 503, and the provider tries again.
    Deny,
    /// This process's memory decides; each replica may let one copy through.
    LocalOnly,
}

/// How a provider makes another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retries {
    /// With a new time and a new signature.
    SignedAnew,
    /// With the bytes of the first.
    SameBytes,
}

/// A preset: an endpoint without what only a user knows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What the provider is called.
    pub title: String,
    /// Pages the facts come from.
    pub docs: Vec<String>,
    /// When they were read.
    pub read: String,
    /// How sure the facts are.
    pub evidence: EvidenceGrade,
    /// What an operator should know.
    pub note: Option<String>,
    /// Values that an operator must configure, and what each is.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The scheme.
    pub scheme: Scheme,
    /// Handshakes.
    #[serde(default)]
    pub challenges: Vec<Challenge>,
    /// Methods it sends.
    pub allow_methods: Option<Vec<String>>,
    /// Where a delivery's id stands.
    pub delivery_id: Option<ValuePlace>,
    /// Where a delivery's event type stands.
    pub event_type: Option<ValuePlace>,
    /// How it makes another try, where that is known.
    pub retries: Option<Retries>,
    /// What rejected senders are told.
    pub on_rejection: Option<OnRejection>,
}

/// When the provider may hand over a secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Not after this moment (RFC 3339).
    pub until: String,
}

/// Where a value stands: exactly one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ValuePlace {
    /// A header.
    pub header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A field of a form body.
    pub form: Option<String>,
    /// A scalar in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
}

/// How sure a preset's facts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceGrade {
    /// Read in the provider's own software, or run against it.
    Sdk,
    /// Read in the provider's documentation.
    Docs,
    /// Known from elsewhere; not confirmed.
    Recalled,
}

/// Host and path of an endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The host, without a port. Default: any.
    pub host: Option<String>,
    /// The exact path, or a prefix when it ends in `/*`.
    pub path: String,
}

/// What becomes of rejected deliveries.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are refused.
    Enforce,
    /// They are forwarded, marked, logged and counted.
    Observe,
}

/// A shared secret or token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// What it is called upstream, in logs and metrics.
    pub id: String,
    /// A file that holds it; one newline at its end is not part of it.
    pub file: Option<String>,
    /// An environment variable that holds it.
    pub env: Option<String>,
    /// The secret itself. Prefer a file.
    pub inline: Option<SecretText>,
    /// How its bytes are written. Default: as the provider hands it out.
    pub encoding: Option<SecretEncoding>,
    /// Not before this moment (RFC 3339).
    pub from: Option<String>,
    /// Not after this moment (RFC 3339).
    pub until: Option<String>,
    /// Told upstream as `x-hookwarden-tag-<name>`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Which scheme it is for, where an endpoint has several.
    pub r#use: Option<Use>,
    /// Accepts a secret that is short or well known. For tests.
    pub allow_weak: Option<bool>,
}

/// Text that `Debug` does not show.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("redacted")
    }
}

/// How a secret's bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretEncoding {
    /// The text is the key.
    Utf8,
    /// RFC 4648 §4, padding optional.
    Base64,
    /// Hexadecimal.
    Hex,
}

/// Which scheme a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// `hmac`
    Hmac,
    /// `token`
    Token,
    /// `ip_lease`
    IpLease,
    /// `basic`
    Basic,
    /// `keyed_hash`
    KeyedHash,
    /// `jwt`
    Jwt,
    /// `http_message_signature`
    HttpMessageSignature,
    /// The `token` of a challenge.
    Challenge,
    /// The `decrypt` of a challenge.
    Decryption,
}

/// A key of an asymmetric scheme.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// The key id messages name it with; a `*` at the end stands for any continuation.
    pub id: String,
    /// A file that holds it.
    pub file: Option<String>,
    /// The key itself.
    pub inline: Option<String>,
    /// How it is written.
    pub format: KeyFormat,
    /// Accepts 1024-bit RSA. For keys a provider cannot replace.
    pub allow_rsa_1024: Option<bool>,
    /// Accepts RSA with a public exponent below 65537. For keys a provider cannot replace.
    pub allow_small_exponent: Option<bool>,
    /// Not before this moment (RFC 3339).
    pub from: Option<String>,
    /// Not after this moment (RFC 3339).
    pub until: Option<String>,
    /// Told upstream as `x-hookwarden-tag-<name>`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Where the keys of an asymmetric scheme come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// `public_keys` alone. Needs no network.
    Configured,
    /// `public_keys`, and what the provider publishes, fetched in the background.
    Remote,
}

/// How a public key is written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyFormat {
    /// `-----BEGIN PUBLIC KEY-----`
    Pem,
    /// `-----BEGIN CERTIFICATE-----`
    X509,
    /// A JSON Web Key.
    Jwk,
    /// A JSON Web Key Set; its keys answer to their own ids.
    Jwks,
    /// Base64 of a DER public key.
    SpkiBase64,
    /// The key itself in hex.
    RawHex,
    /// The key itself in base64.
    RawBase64,
}
