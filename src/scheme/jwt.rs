//! JSON Web Tokens and JWS (RFC 7515, 7519): compact, detached, or as the whole body.
//!
//! The token names an algorithm; it only ever has to be one of those configured, and a key takes only the algorithms
//! it was loaded for, so neither `none` nor a public key used as an HMAC secret can be reached. `jku`, `jwk` and `x5u`
//! are not looked at. A token says nothing about the body unless it carries the body's digest, or is the body.
//!
//! Order: form, algorithm, key, signature, digest, claims, time.

use super::{
    Proof,
    algorithm::Algorithm,
    certificate_chain::CertificateChain,
    digest,
    encoding::Encoding,
    find_key,
    key_ring::KeyRing,
    listed_headers::{List, ListedHeaders},
    mac::{Hash, MacKey},
    signature::after_auth_scheme,
    signed_content::{Inputs, SignedContent},
    timestamp::Tolerance,
};
use crate::{
    clock::{Now, UnixSeconds},
    decision::{Denial, Rejection},
    json::Json,
    received::{MAX_PARSED, Place, Received},
    secret::{Key, Label},
};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// Longest token in a header, a query or a member of the body, and longest protected header anywhere, in bytes. A
/// protected header is parsed before anybody has proven anything.
const MAX_TOKEN: usize = 64 * 1024;

/// How far a sender's clock may run ahead of ours: a token that is a little early is no forgery.
const CLOCKS: Duration = Duration::from_secs(60);

/// A compiled JWT scheme.
#[derive(Debug)]
pub struct Jwt {
    /// Where the token stands.
    pub source: TokenPlace,
    /// What the payload is, where the token does not carry it.
    pub detached: Option<SignedContent>,
    /// How headers that the protected header lists are rendered.
    pub listed_headers: Option<ListedHeaders>,
    /// What the protected header must say.
    pub header: Vec<Claim>,
    /// What the payload must say.
    pub claims: Vec<Claim>,
    /// The claim that holds the body's digest.
    pub body_digest: Option<DigestClaim>,
    /// Which moments must be there.
    pub time: TimeRule,
    /// Whether the token stands for the whole body.
    pub covers_body: bool,
    /// Who makes tokens.
    pub issuer: Issuer,
}

/// Places of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// Somewhere in the request, perhaps behind a word such as `Bearer`.
    At(Place, Option<String>),
    /// The whole body.
    Body,
}

/// One thing that a token must say.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Where, by JSON pointer.
    pub pointer: String,
    /// One of these texts.
    pub any_of: Vec<SignedContent>,
    /// Not the text, but its hash.
    pub hashed: Option<(Hash, Encoding)>,
}

impl Claim {
    /// The texts, of which it must be one.
    pub fn wanted(&self, received: &Received<'_>) -> Result<Vec<Vec<u8>>, Rejection> {
        self.any_of
            .iter()
            .map(|template| {
                let text = template.resolve(received, Inputs::default())?.concat();
                Ok(match self.hashed {
                    None => text,
                    Some((hash, encoding)) => encoding.encode(hash.of(&text).bytes()).into_bytes(),
                })
            })
            .collect()
    }
}

/// The claim that holds the body's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestClaim {
    /// Where, by JSON pointer.
    pub pointer: String,
    /// The hash.
    pub hash: Hash,
    /// How its bytes are written.
    pub encoding: Encoding,
}

/// Which moments a token must carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRule {
    /// `exp` must be there.
    pub expiry_required: bool,
    /// `iat` must be there and no older.
    pub max_age: Option<Duration>,
    /// How long after its end a token is still taken.
    pub leeway: Duration,
}

/// Who makes tokens.
#[derive(Debug)]
pub enum Issuer {
    /// Who shares a secret, for each accepted hash.
    Mac(Vec<(Hash, Vec<Key<MacKey>>)>),
    /// Who has a private key.
    PrivateKey {
        /// The accepted algorithms.
        algorithms: Vec<Algorithm>,
        /// The public keys.
        keys: KeyRing,
    },
    /// Whose certificate, in the token, comes from a configured authority.
    Chain {
        /// The accepted algorithms.
        algorithms: Vec<Algorithm>,
        /// The authorities, and what certificates must look like.
        chain: CertificateChain,
    },
}

/// A token in its parts.
struct Token<'t> {
    /// Header and payload as they were signed.
    signing_input: Cow<'t, [u8]>,
    header: Json,
    /// As it was carried; parsed once it is known who wrote it. Nothing for a detached one.
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Jwt {
    /// Verifies and says which secret or key matched.
    pub fn verify(&self, received: &Received<'_>, now: Now) -> Result<Proof, Denial> {
        let text = self.source.find(received)?;
        let token = self.parse(&text, received)?;
        let label = self.issued(&token, now)?;
        hold(&self.header, &token.header, received, Rejection::ClaimMissing, Rejection::ClaimMismatch)?;
        let signed = received.identify([&*token.signing_input]);
        let proof = Proof { label, signed, signed_at: None };
        if self.detached.is_some() {
            return Ok(proof);
        }
        let payload = Json::parse(&token.payload).ok_or(Rejection::ClaimMissing)?;
        if let Some(rule) = &self.body_digest {
            let text = payload.text_at(&rule.pointer).ok_or(Rejection::DigestMissing)?;
            // Padding is optional in base64url, and providers differ.
            let text = if rule.encoding == Encoding::Base64Url { text.trim_end_matches('=') } else { text };
            digest::judge(rule.hash, rule.encoding, text.as_bytes(), received.body)?;
        }
        hold(&self.claims, &payload, received, Rejection::ClaimMissing, Rejection::ClaimMismatch)?;
        let signed_at = self.time.judge(&payload, now)?;
        Ok(Proof { signed_at, ..proof })
    }

    fn parse<'t>(&self, text: &'t [u8], received: &Received<'_>) -> Result<Token<'t>, Rejection> {
        let malformed = Rejection::SignatureMalformed;
        let mut parts = text.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        let decode = |part: &[u8]| Encoding::Base64Url.decode(part);
        if header.len() > MAX_TOKEN {
            return Err(malformed);
        }
        let read = Json::parse(&decode(header).ok_or(malformed)?).filter(|json| matches!(json, Json::Object(_)));
        let protected = read.ok_or(malformed)?;
        // RFC 7515 §4.1.11: what is critical and not understood makes the whole invalid; RFC 7797's `b64` is one such.
        if protected.at("/crit").is_some() || protected.at("/b64").is_some() {
            return Err(malformed);
        }
        let signature = decode(signature).filter(|s| !s.is_empty()).ok_or(malformed)?;
        let (signing_input, payload) = match &self.detached {
            Some(content) if payload.is_empty() => {
                (self.detached_input(header, &protected, content, received)?, Vec::new())
            }
            // A payload that came along is not the one that would be verified.
            Some(_) => return Err(malformed),
            None => {
                let length = header.len().saturating_add(1).saturating_add(payload.len());
                (Cow::Borrowed(text.get(..length).ok_or(malformed)?), decode(payload).ok_or(malformed)?)
            }
        };
        Ok(Token { signing_input, header: protected, payload, signature })
    }

    fn detached_input(
        &self,
        header: &[u8],
        protected: &Json,
        content: &SignedContent,
        received: &Received<'_>,
    ) -> Result<Cow<'static, [u8]>, Rejection> {
        let list = match &self.listed_headers {
            Some(rule) => {
                let list = match &rule.list {
                    List::Protected(name) => protected.text_at(&format!("/{name}")).unwrap_or_default().to_owned(),
                    List::At(_) => rule.find(received)?.into_owned(),
                };
                Some((rule, list))
            }
            None => None,
        };
        let listed_headers = list.as_ref().map(|(rule, list)| (*rule, list.as_str()));
        let payload = content.resolve(received, Inputs { listed_headers, ..Inputs::default() })?.concat();
        let payload = Encoding::Base64Url.encode(&payload);
        Ok(Cow::Owned([header, b".", payload.as_bytes()].concat()))
    }

    /// Whose secret or key made the token.
    fn issued(&self, token: &Token<'_>, now: Now) -> Result<Arc<Label>, Denial> {
        let named = token.header.text_at("/alg").ok_or(Rejection::SignatureMalformed)?;
        let chosen = |algorithms: &[Algorithm]| {
            algorithms.iter().copied().find(|a| a.jws_name() == Some(named)).ok_or(Rejection::AlgorithmNotAllowed)
        };
        match &self.issuer {
            Issuer::Mac(hashes) => {
                let (hash, keys) = hashes
                    .iter()
                    .find(|(hash, _)| hash.jws_name() == Some(named))
                    .ok_or(Rejection::AlgorithmNotAllowed)?;
                if token.signature.len() != hash.length() {
                    return Err(Rejection::SignatureMalformed.into());
                }
                let content = [Cow::Borrowed(&*token.signing_input)];
                find_key(keys, now, Rejection::SignatureMismatch, |key| key.tag(&content).is(&token.signature))
            }
            Issuer::PrivateKey { algorithms, keys } => {
                let algorithm = chosen(algorithms)?;
                let id = token.header.text_at("/kid");
                // A key ring of one needs no id; among several the token must say.
                keys.matching(id, now, |key| Ok(key.made(algorithm, &token.signing_input, &token.signature)))
            }
            Issuer::Chain { algorithms, chain } => {
                let algorithm = chosen(algorithms)?;
                let (key, label) = chain.leaf(&token.header, algorithm, now)?;
                if key.made(algorithm, &token.signing_input, &token.signature) {
                    Ok(label)
                } else {
                    Err(Rejection::SignatureMismatch.into())
                }
            }
        }
    }
}

impl Hash {
    /// The name of its HMAC in JWS (RFC 7518 §3.2), where it has one.
    #[must_use]
    pub const fn jws_name(self) -> Option<&'static str> {
        match self {
            Self::Sha256 => Some("HS256"),
            Self::Sha384 => Some("HS384"),
            Self::Sha512 => Some("HS512"),
            Self::Md5 | Self::Sha1 => None,
        }
    }
}

impl TokenPlace {
    fn find<'r>(&self, received: &'r Received<'_>) -> Result<Cow<'r, [u8]>, Rejection> {
        let (missing, repeated) = (Rejection::SignatureMissing, Rejection::SignatureRepeated);
        let text = match self {
            Self::Body if received.body.is_empty() => return Err(missing),
            // A newline at the end of a body is a habit of senders; it is no part of a token.
            Self::Body => Cow::Borrowed(received.body.trim_ascii_end()),
            Self::At(place, None) => received.read(place).required(missing, repeated)?,
            Self::At(place, Some(word)) => {
                let value = received.read(place).required(missing, repeated)?;
                let token = after_auth_scheme(&value, word).ok_or(missing)?;
                Cow::Owned(token.to_vec())
            }
        };
        let longest = if *self == Self::Body { MAX_PARSED } else { MAX_TOKEN };
        if text.len() > longest { Err(Rejection::SignatureMalformed) } else { Ok(text) }
    }
}

/// Whether everything holds that a token must say.
fn hold(
    claims: &[Claim],
    json: &Json,
    received: &Received<'_>,
    missing: Rejection,
    mismatch: Rejection,
) -> Result<(), Rejection> {
    for claim in claims {
        let value = json.at(&claim.pointer).ok_or(missing)?;
        let wanted = claim.wanted(received)?;
        let is_wanted =
            |value: &Json| value.scalar().is_some_and(|text| wanted.iter().any(|wanted| *wanted == text.as_bytes()));
        // RFC 7519 §4.1.3: an audience may be a list of which one is us.
        let holds = value.items().map_or_else(|| is_wanted(value), |items| items.iter().any(is_wanted));
        if !holds {
            return Err(mismatch);
        }
    }
    Ok(())
}

impl TimeRule {
    /// Judges; says when the token was issued, where that is judged.
    fn judge(self, payload: &Json, now: Now) -> Result<Option<UnixSeconds>, Rejection> {
        let moment = |name: &str| match payload.at(&format!("/{name}")) {
            None => Ok(None),
            Some(Json::Integer(seconds)) => {
                i64::try_from(*seconds).map(|s| Some(UnixSeconds(s))).map_err(|_| Rejection::TimestampMalformed)
            }
            Some(_) => Err(Rejection::TimestampMalformed),
        };
        match moment("exp")? {
            // RFC 7519 §4.1.4: on or after it, the token is not accepted.
            Some(end) if end.plus(self.leeway) <= now.wall => return Err(Rejection::TimestampTooOld),
            None if self.expiry_required => return Err(Rejection::TimestampMissing),
            Some(_) | None => {}
        }
        if moment("nbf")?.is_some_and(|start| start > now.wall.plus(CLOCKS)) {
            return Err(Rejection::TimestampTooNew);
        }
        match (moment("iat")?, self.max_age) {
            (Some(issued), Some(age)) => {
                let tolerance = Tolerance { past: age.saturating_add(self.leeway), future: CLOCKS };
                tolerance.judge(issued, now).map(|()| Some(issued))
            }
            (None, Some(_)) => Err(Rejection::TimestampMissing),
            // A token from the future is a clock that is wrong, or a lie.
            (Some(issued), None) if issued > now.wall.plus(CLOCKS) => Err(Rejection::TimestampTooNew),
            (Some(_) | None, None) => Ok(None),
        }
    }
}
