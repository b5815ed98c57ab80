//! Tokens, as they are written: those that are sent as they are, and those that are signed.

use super::{BodyDigest, ListedHeaders, RemoteKeys, SecretForm};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

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
    /// A string in the JSON body, by RFC 6901 pointer; `*` stands for every item of an array.
    pub json: Option<String>,
    /// A field of a form body.
    pub form: Option<String>,
}

/// A JSON Web Token or JWS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// Where the token stands.
    pub token: TokenPlace,
    /// The accepted algorithms.
    pub algorithms: Vec<JwtAlgorithm>,
    /// What the payload is, where the token does not carry it.
    pub detached: Option<String>,
    /// What claims must be: by name or JSON pointer, one text or several of which one must be it.
    #[serde(default)]
    pub claims: BTreeMap<String, Texts>,
    /// What members of the protected header must be.
    #[serde(default)]
    pub header: BTreeMap<String, Texts>,
    /// The claim that holds the body's digest; computed again.
    pub body_digest: Option<BodyDigest>,
    /// Whether `exp` must be there. Default `required`.
    pub expiry: Option<Expiry>,
    /// How old `iat` may be; it must be there then.
    pub issued_at: Option<IssuedAt>,
    /// How long after its end a token is still taken. Default `0s`. That the sender's clock runs ahead by up to a minute
    /// is always allowed for.
    pub leeway: Option<String>,
    /// How the provider hands out the secret.
    pub secret: Option<SecretForm>,
    /// A chain of certificates in the token.
    pub certificate_chain: Option<CertificateChain>,
    /// How headers that the message lists become `{listed_headers}`.
    pub listed_headers: Option<ListedHeaders>,
    /// Where the provider publishes keys; used with the endpoint's `key_source: remote`.
    pub remote_keys: Option<RemoteKeys>,
    /// Admits that the token says nothing about the body; the upstream is told `jwt`.
    pub unsigned_body: Option<bool>,
}

/// One text, or several, or the hash of one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, a list of texts, or `{ hash: …, of: …, encoding: … }`")]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
    /// The hash of one.
    Hashed(Hashed),
}

/// The hash of a text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hashed {
    /// The hash.
    pub hash: super::Hash,
    /// Of what.
    pub of: String,
    /// How its bytes are written.
    pub encoding: super::Encoding,
}

/// Where a token stands.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenPlace {
    /// A header.
    pub header: Option<String>,
    /// A word before the token in that header, such as `Bearer`.
    pub auth_scheme: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A string in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// A field of a form body.
    pub form: Option<String>,
    /// The whole body.
    pub body: Option<bool>,
}

/// Algorithms of JSON Web Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// ECDSA on P-521.
    Es512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Whether a token must expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// It must.
    Required,
    /// It may.
    Optional,
}

/// How old a token may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuedAt {
    /// The longest time since `iat`.
    pub max_age: String,
}

/// A chain of certificates in a token, which ends at a configured one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateChain {
    /// Where the authorities are configured.
    pub roots_from: RootsFrom,
    /// An extension that the leaf must carry.
    pub leaf_oid: Option<String>,
    /// An extension that the certificate above it must carry.
    pub intermediate_oid: Option<String>,
}

/// Where authorities are configured.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RootsFrom {
    /// The endpoint's `public_keys`, as certificates.
    PublicKeys,
}
