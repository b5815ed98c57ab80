//! Schemes, as they are written. The same words serve users and presets.

use super::{Jwt, SecretEncoding, Token};
use schemars::JsonSchema;
use serde::Deserialize;

// A start reads many of them, and what may stand in one is large: each has a place of its own, made where it is written.
/// How a delivery proves its sender: exactly one of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Scheme {
    /// A MAC over signed content.
    pub hmac: Option<Box<Mac>>,
    /// A plain hash over content that holds `{secret}`. Weak; for providers that know nothing else.
    pub keyed_hash: Option<Box<Mac>>,
    /// A signature by a private key over signed content.
    pub public_key: Option<Box<PublicKeySignature>>,
    /// A JSON Web Token or JWS.
    pub jwt: Option<Box<Jwt>>,
    /// A shared token, sent as it is.
    pub token: Option<Box<Token>>,
    /// A client address that showed a token once.
    pub ip_lease: Option<Box<IpLease>>,
    /// HTTP Signatures, draft-cavage 03–12.
    pub http_signature: Option<Box<HttpSignature>>,
    /// HTTP Message Signatures, RFC 9421.
    pub http_message_signature: Option<Box<HttpMessageSignature>>,
    /// HTTP Basic; the secret's text is `user:password`.
    pub basic: Option<Basic>,
    /// Networks that deliveries may come from.
    pub ip_allow: Option<IpAllow>,
    /// Every member must hold.
    pub all_of: Option<Vec<Scheme>>,
    /// One member must hold.
    pub any_of: Option<Vec<Scheme>>,
    /// The first whose conditions hold decides alone.
    pub cases: Option<Vec<Case>>,
}

/// A scheme for messages of one kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What makes a message one of this kind; all must hold.
    pub when: Vec<super::Condition>,
    /// Its scheme.
    pub scheme: Scheme,
}

/// A keyed hash over signed content.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mac {
    /// The hash.
    pub hash: Hash,
    /// What is signed: text with pieces such as `{body}`, `{timestamp}`, `{header:NAME}`; the documentation lists all.
    pub signed_content: String,
    /// Where the signature stands.
    pub signature: Signature,
    /// The signed timestamp.
    pub timestamp: Option<Timestamp>,
    /// How the provider hands out the secret.
    pub secret: Option<SecretForm>,
    /// A digest of the body that the content names instead of the body; computed again.
    pub body_digest: Option<BodyDigest>,
    /// A JSON pointer to an array of which every item must verify.
    pub each: Option<String>,
    /// How headers that the message lists become `{listed_headers}`.
    pub listed_headers: Option<ListedHeaders>,
    /// Admits that the signature does not cover the whole body; the upstream is told `partial-signature`.
    pub leaves_body_unsigned: Option<bool>,
}

/// A signature by a private key over signed content.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicKeySignature {
    /// The algorithm; exactly one.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// How an ECDSA signature is written.
    pub ecdsa_form: Option<EcdsaForm>,
    /// What is signed.
    pub signed_content: String,
    /// Where the signature stands.
    pub signature: Signature,
    /// The signed timestamp.
    pub timestamp: Option<Timestamp>,
    /// Where the message names its key. Without it, every key is tried.
    pub key_id: Option<KeyIdPlace>,
    /// A digest of the body that the content names instead of the body; computed again.
    pub body_digest: Option<BodyDigest>,
    /// How headers that the message lists become `{listed_headers}`.
    pub listed_headers: Option<ListedHeaders>,
    /// Admits that the signature does not cover the whole body; the upstream is told `partial-signature`.
    pub leaves_body_unsigned: Option<bool>,
    /// Where the provider publishes keys; used with the endpoint's `key_source: remote`.
    pub remote_keys: Option<RemoteKeys>,
}

/// Algorithms of private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-1. For senders that know nothing else.
    #[serde(rename = "rsa-pkcs1-sha1")]
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "rsa-pkcs1-sha256")]
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    #[serde(rename = "rsa-pkcs1-sha384")]
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    #[serde(rename = "rsa-pkcs1-sha512")]
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "rsa-pss-sha256")]
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384.
    #[serde(rename = "rsa-pss-sha384")]
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
    /// ECDSA on P-256 with SHA-1, in DER. For senders that know nothing else.
    #[serde(rename = "ecdsa-p256-sha1")]
    EcdsaP256Sha1,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ecdsa-p384-sha384")]
    EcdsaP384Sha384,
    /// ECDSA on P-521 with SHA-512.
    #[serde(rename = "ecdsa-p521-sha512")]
    EcdsaP521Sha512,
    /// Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
}

/// How an ECDSA signature is written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EcdsaForm {
    /// A DER sequence of two integers.
    Der,
    /// The two integers behind each other.
    P1363,
}

/// Where a message names its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyIdPlace {
    /// A header.
    pub header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A scalar in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// What the text is wrapped in.
    pub envelope: Option<Envelope>,
    /// Which member of it is meant.
    pub member: Option<String>,
}

/// What a text may be wrapped in.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// Base64 of a JSON object.
    Base64Json,
}

/// A digest of the body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyDigest {
    /// A header that holds it.
    pub header: Option<String>,
    /// A query parameter that holds it.
    pub query: Option<String>,
    /// A claim that holds it: its name, or a JSON pointer.
    pub claim: Option<String>,
    /// The hash.
    pub hash: Hash,
    /// How its bytes are written.
    pub encoding: Encoding,
    /// What stands before it.
    pub prefix: Option<String>,
}

/// Headers that a message lists as signed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedHeaders {
    /// Where the list is.
    pub list: ListPlace,
    /// What parts it. Default `,`.
    pub separator: Option<String>,
    /// A line: text with `{name}` and `{value}`.
    pub line: String,
    /// What stands between lines. Default nothing.
    pub join: Option<String>,
    /// Headers that must be listed.
    #[serde(default)]
    pub required: Vec<String>,
}

/// Where a list of headers is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPlace {
    /// A header.
    pub header: Option<String>,
    /// A member of the protected header of a JWS.
    pub protected: Option<String>,
}

/// HTTP Message Signatures.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpMessageSignature {
    /// The accepted algorithms.
    pub algorithms: Vec<MessageSignatureAlgorithm>,
    /// What every signature must cover.
    pub required: Vec<String>,
    /// Says that no digest of the body need be covered; the upstream is told `partial-signature`.
    pub leaves_body_unsigned: Option<bool>,
    /// Parameters that every signature must have.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// The `tag` that is meant.
    pub tag: Option<String>,
    /// How far `created` may lie from now, on either side. Default `5m`.
    pub tolerance: Option<String>,
    /// How the provider hands out the secret.
    pub secret: Option<SecretForm>,
    /// Where the provider publishes keys; used with the endpoint's `key_source: remote`.
    pub remote_keys: Option<RemoteKeys>,
}

/// Algorithms of HTTP Message Signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum MessageSignatureAlgorithm {
    /// Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA on P-256.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// ECDSA on P-384.
    #[serde(rename = "ecdsa-p384-sha384")]
    EcdsaP384Sha384,
    /// RSASSA-PSS with SHA-512.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "rsa-v1_5-sha256")]
    RsaPkcs1Sha256,
    /// HMAC with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

/// Networks that deliveries may come from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpAllow {
    /// Addresses, or networks such as `203.0.113.0/24`.
    pub networks: Vec<String>,
}

/// Hash functions.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// MD5. For providers that know nothing else.
    Md5,
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
    pub header: Option<String>,
    /// Several headers; what is in any of them counts.
    pub headers: Option<Vec<String>>,
    /// Headers of this name with a number from 1 behind it.
    pub numbered_header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A field of a form body.
    pub form: Option<String>,
    /// A string in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// A string in each item, by RFC 6901 pointer.
    pub item: Option<String>,
    /// What the text is wrapped in.
    pub envelope: Option<Envelope>,
    /// Which member of it is meant.
    pub member: Option<String>,
    /// A word before the value, as in `Authorization: WORD value`.
    pub auth_scheme: Option<String>,
    /// Parts whole groups, each with its own timestamp.
    pub group_separator: Option<String>,
    /// Splits the text into several signatures.
    pub separator: Option<String>,
    /// Entries are `name=value`, and this is a signature's name.
    pub field: Option<String>,
    /// What stands between name and value. Default `=`.
    pub field_separator: Option<String>,
    /// How many entries at the front are no signatures.
    pub skip: Option<usize>,
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
    /// A `name=value` entry beside the signature.
    pub field: Option<String>,
    /// An entry beside the signature, by position from 0.
    pub entry: Option<usize>,
    /// A query parameter.
    pub query: Option<String>,
    /// A field of a form body.
    pub form: Option<String>,
    /// A scalar in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// How it is written.
    pub unit: Unit,
    /// How far it may lie from now, on either side. Default `5m`.
    pub tolerance: Option<String>,
    /// How far it may lie in the future, where that differs.
    pub future_tolerance: Option<String>,
}

/// How a timestamp is written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// RFC 3339.
    Rfc3339,
    /// RFC 9110 §5.6.7.
    HttpDate,
}

/// How a provider hands out its secret.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretForm {
    /// How its bytes are written. Default `utf8`.
    pub encoding: Option<SecretEncoding>,
    /// What may stand before it, and is not part of it.
    pub prefix: Option<String>,
    /// The key is not the secret but this hash of it.
    pub digest: Option<Hash>,
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
    /// Says that no digest of the body need be covered; the upstream is told `partial-signature`.
    pub leaves_body_unsigned: Option<bool>,
    /// What `(request-target)` means. Default `path_and_query`.
    pub request_target: Option<RequestTarget>,
    /// How far the signed time may lie from now, on either side. Default `5m`.
    pub tolerance: Option<String>,
    /// Where the provider publishes keys; used with the endpoint's `key_source: remote`.
    pub remote_keys: Option<RemoteKeys>,
}

/// Keys that a provider publishes: one by one, under the id that messages name, or all in one set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteKeys {
    /// `https://host`; the key id is put behind it.
    pub base: Option<String>,
    /// The shape of a key id: literal text, and `{}` for a word.
    pub key_id: Option<String>,
    /// The shape of a whole address, which messages name: literal text, and `{}` for a word.
    pub url: Option<String>,
    /// The address of a JSON Web Key Set.
    pub jwks: Option<String>,
    /// What is there. Default `x509`.
    pub format: Option<super::KeyFormat>,
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
