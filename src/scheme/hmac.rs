//! HMAC (RFC 2104) over a provider's signed content.
//!
//! Keys are turned into keyed MAC states at load; a check clones a state, feeds it slices of the request, and
//! compares the tag with each candidate in constant time. The body is hashed once per active secret, however many
//! candidates a header presents.

use super::{
    find_key,
    signature::{Candidates, Presented, SignatureSource},
    signed_content::SignedContent,
    timestamp::{Tolerance, Unit},
};
use crate::{
    clock::{Now, UnixSeconds},
    decision::{Denial, Rejection},
    delivery::{Delivery, Found},
    secret::{Key, Label, Secret},
};
use hmac::{KeyInit, Mac};
use std::{fmt, sync::Arc};
use subtle::ConstantTimeEq;

/// A compiled HMAC scheme.
#[derive(Debug)]
pub struct Hmac {
    /// What is signed.
    pub content: SignedContent,
    /// Where the signature stands.
    pub signature: SignatureSource,
    /// The signed timestamp, where the scheme has one.
    pub timestamp: Option<TimestampRule>,
    /// The hash.
    pub hash: Hash,
    /// The secrets, as keyed states.
    pub keys: Vec<Key<KeyedMac>>,
}

/// Where the signed timestamp stands and how old it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampRule {
    /// Where.
    pub source: TimestampSource,
    /// Its unit.
    pub unit: Unit,
    /// How far from now.
    pub tolerance: Tolerance,
}

/// Places of a timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampSource {
    /// A header of its own.
    Header(String),
    /// A `k=v` entry of the signature header.
    Field(String),
}

/// The hash functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1: broken for collisions, still sound inside HMAC.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A MAC that has already absorbed its key.
#[derive(Clone)]
pub enum KeyedMac {
    /// HMAC-SHA1.
    Sha1(hmac::Hmac<sha1::Sha1>),
    /// HMAC-SHA256.
    Sha256(hmac::Hmac<sha2::Sha256>),
    /// HMAC-SHA384.
    Sha384(hmac::Hmac<sha2::Sha384>),
    /// HMAC-SHA512.
    Sha512(hmac::Hmac<sha2::Sha512>),
}

impl Hmac {
    /// Verifies and says which secret matched.
    pub fn verify(&self, delivery: &Delivery<'_>, body: &[u8], now: Now) -> Result<Arc<Label>, Denial> {
        let presented = self.signature.find(delivery)?;
        let candidates = presented.candidates(self.hash.length())?;
        let timestamp = match &self.timestamp {
            Some(rule) => Some(rule.find(delivery, &presented)?),
            None => None,
        };
        let content = self.content.resolve(delivery, body, timestamp.map_or(&[], |t| t.text))?;
        let label =
            find_key(&self.keys, now, Rejection::SignatureMismatch, |mac| mac.made_one_of(&candidates, &content))?;
        // Only now: a timestamp is worth judging once it is known who wrote it.
        if let (Some(rule), Some(timestamp)) = (&self.timestamp, timestamp) {
            rule.tolerance.judge(timestamp.moment, now)?;
        }
        Ok(label)
    }
}

/// A timestamp as it arrived and as it is judged.
#[derive(Debug, Clone, Copy)]
struct SignedTimestamp<'a> {
    text: &'a [u8],
    moment: UnixSeconds,
}

impl TimestampRule {
    fn find<'a>(&self, delivery: &Delivery<'a>, presented: &Presented<'a>) -> Result<SignedTimestamp<'a>, Rejection> {
        let found: Found<&'a [u8]> = match &self.source {
            TimestampSource::Header(name) => delivery.headers.single(name),
            TimestampSource::Field(name) => presented.field(name),
        };
        let text = found.required(Rejection::TimestampMissing, Rejection::TimestampRepeated)?;
        Ok(SignedTimestamp { text, moment: self.unit.parse(text)? })
    }
}

impl Hash {
    /// Length of a tag in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// A MAC keyed with `secret`. HMAC takes a key of any length; that an empty one is refused is the
    /// configuration's business.
    #[must_use]
    pub fn keyed(self, secret: &Secret) -> Option<KeyedMac> {
        let key = secret.expose();
        match self {
            Self::Sha1 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha1),
            Self::Sha256 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha256),
            Self::Sha384 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha384),
            Self::Sha512 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha512),
        }
    }
}

impl KeyedMac {
    /// Whether one of the candidates is the MAC of `content`. Every candidate is compared, in constant time.
    #[must_use]
    pub fn made_one_of(&self, candidates: &Candidates, content: &[&[u8]]) -> bool {
        fn any<M: Mac>(mut mac: M, candidates: &Candidates, content: &[&[u8]]) -> bool {
            for piece in content {
                mac.update(piece);
            }
            let tag = mac.finalize().into_bytes();
            candidates
                .iter()
                .fold(subtle::Choice::from(0), |any, candidate| any | tag.as_slice().ct_eq(candidate))
                .into()
        }
        match self {
            Self::Sha1(mac) => any(mac.clone(), candidates, content),
            Self::Sha256(mac) => any(mac.clone(), candidates, content),
            Self::Sha384(mac) => any(mac.clone(), candidates, content),
            Self::Sha512(mac) => any(mac.clone(), candidates, content),
        }
    }

    /// The MAC of `content`, for making a signed request.
    #[must_use]
    pub fn tag(&self, content: &[&[u8]]) -> Vec<u8> {
        fn tag<M: Mac>(mut mac: M, content: &[&[u8]]) -> Vec<u8> {
            for piece in content {
                mac.update(piece);
            }
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            Self::Sha1(mac) => tag(mac.clone(), content),
            Self::Sha256(mac) => tag(mac.clone(), content),
            Self::Sha384(mac) => tag(mac.clone(), content),
            Self::Sha512(mac) => tag(mac.clone(), content),
        }
    }
}

impl fmt::Debug for KeyedMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedMac(redacted)")
    }
}
