//! Keyed hashes: HMAC (RFC 2104), and the plain hash over a text that holds the secret, which some providers use.
//!
//! An HMAC key becomes a keyed state at load; a check clones it and feeds it slices of the request. A plain hash is
//! weaker (SHA-2 can be extended by whoever sees one), which is why a preset that uses it says so.

use super::signature::{Candidates, MAX_TAG};
use crate::secret::Secret;
use hmac::{KeyInit, Mac};
use sha2::Digest;
use std::{borrow::Cow, fmt};
use subtle::ConstantTimeEq;

/// The hash functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// MD5: broken for collisions, still not forged inside HMAC. For providers that know nothing else.
    Md5,
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
enum KeyedMac {
    Md5(hmac::Hmac<md5::Md5>),
    Sha1(hmac::Hmac<sha1::Sha1>),
    Sha256(hmac::Hmac<sha2::Sha256>),
    Sha384(hmac::Hmac<sha2::Sha384>),
    Sha512(hmac::Hmac<sha2::Sha512>),
}

/// How a key and a content become a tag.
pub struct MacKey {
    construction: Construction,
    /// Kept only where the content itself holds it.
    secret: Option<Secret>,
}

#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and a check should not chase it")]
enum Construction {
    Hmac(KeyedMac),
    Plain(Hash),
}

/// A finished tag.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    bytes: [u8; MAX_TAG],
    length: usize,
}

/// Slices of what was signed, in order.
pub type Content<'m> = Vec<Cow<'m, [u8]>>;

impl Hash {
    /// Length of a digest in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `content`.
    #[must_use]
    pub fn digest(self, content: &[Cow<'_, [u8]>]) -> Tag {
        fn digest<D: Digest>(content: &[Cow<'_, [u8]>]) -> Tag {
            let mut hash = D::new();
            for piece in content {
                hash.update(piece);
            }
            Tag::from(hash.finalize().as_slice())
        }
        match self {
            Self::Md5 => digest::<md5::Md5>(content),
            Self::Sha1 => digest::<sha1::Sha1>(content),
            Self::Sha256 => digest::<sha2::Sha256>(content),
            Self::Sha384 => digest::<sha2::Sha384>(content),
            Self::Sha512 => digest::<sha2::Sha512>(content),
        }
    }

    /// The digest of one slice.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> Tag {
        self.digest(&[Cow::Borrowed(bytes)])
    }

    /// A MAC keyed with `secret`. HMAC takes a key of any length; that an empty one is refused is the
    /// configuration's business.
    fn keyed(self, key: &[u8]) -> Option<KeyedMac> {
        match self {
            Self::Md5 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Md5),
            Self::Sha1 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha1),
            Self::Sha256 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha256),
            Self::Sha384 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha384),
            Self::Sha512 => hmac::Hmac::new_from_slice(key).ok().map(KeyedMac::Sha512),
        }
    }
}

impl MacKey {
    /// An HMAC key. `in_content`: the signed content names the secret too.
    #[must_use]
    pub fn hmac(hash: Hash, secret: Secret, in_content: bool) -> Option<Self> {
        let construction = Construction::Hmac(hash.keyed(secret.expose())?);
        Some(Self { construction, secret: in_content.then_some(secret) })
    }

    /// The key of a plain hash, whose content names the secret.
    #[must_use]
    pub fn plain(hash: Hash, secret: Secret) -> Self {
        Self { construction: Construction::Plain(hash), secret: Some(secret) }
    }

    /// The secret, where the content holds it.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// A MAC that has taken in `content`, and takes in more; nothing where a plain hash would have to.
    #[must_use]
    pub fn begin(&self, content: &[Cow<'_, [u8]>]) -> Option<MacState> {
        match &self.construction {
            Construction::Hmac(keyed) => Some(MacState::after(keyed, content)),
            Construction::Plain(_) => None,
        }
    }

    /// The tag of `content`.
    #[must_use]
    pub fn tag(&self, content: &[Cow<'_, [u8]>]) -> Tag {
        match &self.construction {
            Construction::Plain(hash) => hash.digest(content),
            Construction::Hmac(keyed) => MacState::after(keyed, content).tag(),
        }
    }
}

/// A MAC of a content that is still coming.
#[derive(Clone)]
pub struct MacState(KeyedMac);

impl MacState {
    fn after(keyed: &KeyedMac, content: &[Cow<'_, [u8]>]) -> Self {
        let mut state = Self(keyed.clone());
        for piece in content {
            state.update(piece);
        }
        state
    }

    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            KeyedMac::Md5(mac) => mac.update(piece),
            KeyedMac::Sha1(mac) => mac.update(piece),
            KeyedMac::Sha256(mac) => mac.update(piece),
            KeyedMac::Sha384(mac) => mac.update(piece),
            KeyedMac::Sha512(mac) => mac.update(piece),
        }
    }

    /// The tag of all pieces.
    #[must_use]
    pub fn tag(self) -> Tag {
        match self.0 {
            KeyedMac::Md5(mac) => Tag::from(mac.finalize().into_bytes().as_slice()),
            KeyedMac::Sha1(mac) => Tag::from(mac.finalize().into_bytes().as_slice()),
            KeyedMac::Sha256(mac) => Tag::from(mac.finalize().into_bytes().as_slice()),
            KeyedMac::Sha384(mac) => Tag::from(mac.finalize().into_bytes().as_slice()),
            KeyedMac::Sha512(mac) => Tag::from(mac.finalize().into_bytes().as_slice()),
        }
    }
}

impl fmt::Debug for MacState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacState(redacted)")
    }
}

impl Tag {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Whether `guess` is this tag, in time that depends on the lengths alone.
    #[must_use]
    pub fn is(&self, guess: &[u8]) -> bool {
        self.bytes().ct_eq(guess).into()
    }

    /// Whether it is one of the candidates. Every one of them is compared.
    #[must_use]
    pub fn is_one_of(&self, candidates: &Candidates) -> bool {
        candidates.iter().fold(subtle::Choice::from(0), |any, candidate| any | self.bytes().ct_eq(candidate)).into()
    }
}

impl From<&[u8]> for Tag {
    /// Digests are never longer than [`MAX_TAG`].
    fn from(digest: &[u8]) -> Self {
        let mut bytes = [0; MAX_TAG];
        let length = digest.len().min(MAX_TAG);
        if let (Some(slot), Some(digest)) = (bytes.get_mut(..length), digest.get(..length)) {
            slot.copy_from_slice(digest);
        }
        Self { bytes, length }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(redacted)")
    }
}
