//! Keyed hashes: HMAC (RFC 2104), and the plain hash over a text that holds the secret, which some providers use.
//!
//! An HMAC key becomes a keyed state at load; a check clones it and feeds it slices of the request. A plain hash is
//! weaker (SHA-2 can be extended by whoever sees one), which is why a preset that uses it says so.
//!
//! Two libraries compute them, and the processor says which. Where it has instructions for SHA-1 and SHA-256, `RustCrypto`
//! uses them and nobody is faster. Where it has not, as x86 servers older than Ice Lake and Zen, `RustCrypto`'s portable code
//! takes 1.8 times as long for SHA-256 as AWS-LC's vector code, and a hash is the most of what a check costs. For SHA-512,
//! of which fewer have instructions, AWS-LC takes three quarters of the time on those servers, and as long on newer ones.

use super::signature::{Candidates, MAX_TAG};
use crate::secret::Secret;
use aws_lc_rs::{digest as aws_lc_digest, hmac as aws_lc};
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

/// Who computes a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// With the processor's instructions for SHA, or in portable code.
    RustCrypto,
    /// With the processor's vectors. It has no MD5 here, which `RustCrypto` computes always.
    AwsLc,
}

impl Library {
    /// The faster one on this processor.
    #[must_use]
    pub fn faster_at(
        #[cfg_attr(not(target_arch = "aarch64"), expect(unused_variables, reason = "elsewhere all are alike"))]
        hash: Hash,
    ) -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_instructions = std::arch::is_x86_feature_detected!("sha");
        #[cfg(target_arch = "aarch64")]
        let has_instructions = match hash {
            Hash::Md5 | Hash::Sha1 | Hash::Sha256 => std::arch::is_aarch64_feature_detected!("sha2"),
            // Those for SHA-512 came with those for SHA-3.
            Hash::Sha384 | Hash::Sha512 => std::arch::is_aarch64_feature_detected!("sha3"),
        };
        // Of others nothing is known.
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_instructions = true;
        if has_instructions { Self::RustCrypto } else { Self::AwsLc }
    }
}

/// `RustCrypto`'s MAC that has already absorbed its key.
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
    HmacByAwsLc(Box<aws_lc::Key>),
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
        self.digest_by(Library::faster_at(self), content)
    }

    /// The same by one library.
    #[must_use]
    pub fn digest_by(self, library: Library, content: &[Cow<'_, [u8]>]) -> Tag {
        fn digest<D: Digest>(content: &[Cow<'_, [u8]>]) -> Tag {
            let mut hash = D::new();
            for piece in content {
                hash.update(piece);
            }
            Tag::from(hash.finalize().as_slice())
        }
        if let (Library::AwsLc, Some(algorithm)) = (library, self.in_aws_lc()) {
            let mut hash = aws_lc_digest::Context::new(algorithm.digest_algorithm());
            for piece in content {
                hash.update(piece);
            }
            return Tag::from(hash.finish().as_ref());
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

    /// What AWS-LC calls it.
    fn in_aws_lc(self) -> Option<aws_lc::Algorithm> {
        match self {
            Self::Md5 => None,
            Self::Sha1 => Some(aws_lc::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 => Some(aws_lc::HMAC_SHA256),
            Self::Sha384 => Some(aws_lc::HMAC_SHA384),
            Self::Sha512 => Some(aws_lc::HMAC_SHA512),
        }
    }

    /// The MAC of `RustCrypto`, keyed with `secret`. HMAC takes a key of any length; that an empty one is refused is
    /// the configuration's business.
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
        Self::hmac_by(Library::faster_at(hash), hash, secret, in_content)
    }

    /// The same by one library.
    #[must_use]
    pub fn hmac_by(library: Library, hash: Hash, secret: Secret, in_content: bool) -> Option<Self> {
        let construction = match (library, hash.in_aws_lc()) {
            (Library::AwsLc, Some(algorithm)) => {
                Construction::HmacByAwsLc(Box::new(aws_lc::Key::new(algorithm, secret.expose())))
            }
            (Library::AwsLc, None) | (Library::RustCrypto, _) => Construction::Hmac(hash.keyed(secret.expose())?),
        };
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
        self.state().ok().map(|state| state.after(content))
    }

    /// The tag of `content`.
    #[must_use]
    pub fn tag(&self, content: &[Cow<'_, [u8]>]) -> Tag {
        match self.state() {
            Ok(state) => state.after(content).tag(),
            Err(plain) => plain.digest(content),
        }
    }

    /// A MAC of nothing yet, or the plain hash that is used in its place.
    fn state(&self) -> Result<MacState, Hash> {
        Ok(MacState(match &self.construction {
            Construction::Hmac(keyed) => Running::RustCrypto(keyed.clone()),
            Construction::HmacByAwsLc(key) => Running::AwsLc(Box::new(aws_lc::Context::with_key(key))),
            Construction::Plain(hash) => return Err(*hash),
        }))
    }
}

/// A MAC of a content that is still coming.
#[derive(Clone)]
pub struct MacState(Running);

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "the usual one, which a check should not have to fetch from elsewhere")]
enum Running {
    RustCrypto(KeyedMac),
    /// Elsewhere, being four times as long as the other.
    AwsLc(Box<aws_lc::Context>),
}

impl MacState {
    fn after(mut self, content: &[Cow<'_, [u8]>]) -> Self {
        for piece in content {
            self.update(piece);
        }
        self
    }

    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            Running::AwsLc(mac) => mac.update(piece),
            Running::RustCrypto(KeyedMac::Md5(mac)) => mac.update(piece),
            Running::RustCrypto(KeyedMac::Sha1(mac)) => mac.update(piece),
            Running::RustCrypto(KeyedMac::Sha256(mac)) => mac.update(piece),
            Running::RustCrypto(KeyedMac::Sha384(mac)) => mac.update(piece),
            Running::RustCrypto(KeyedMac::Sha512(mac)) => mac.update(piece),
        }
    }

    /// The tag of all pieces.
    #[must_use]
    pub fn tag(self) -> Tag {
        match self.0 {
            Running::AwsLc(mac) => Tag::from(mac.sign().as_ref()),
            Running::RustCrypto(KeyedMac::Md5(mac)) => Tag::from(mac.finalize().into_bytes().as_slice()),
            Running::RustCrypto(KeyedMac::Sha1(mac)) => Tag::from(mac.finalize().into_bytes().as_slice()),
            Running::RustCrypto(KeyedMac::Sha256(mac)) => Tag::from(mac.finalize().into_bytes().as_slice()),
            Running::RustCrypto(KeyedMac::Sha384(mac)) => Tag::from(mac.finalize().into_bytes().as_slice()),
            Running::RustCrypto(KeyedMac::Sha512(mac)) => Tag::from(mac.finalize().into_bytes().as_slice()),
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

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: [Hash; 5] = [Hash::Md5, Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512];

    /// Contents and keys of every length at which a hash begins another block, whole and in pieces.
    #[test]
    fn both_libraries_compute_the_same() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for hash in HASHES {
            for length in [0, 1, 55, 56, 63, 64, 65, 111, 112, 119, 127, 128, 129, 1000, 70_000] {
                let whole = [Cow::Borrowed(&bytes[..length])];
                let digest = hash.digest_by(Library::RustCrypto, &whole);
                for piece in [1, 7, 64, 1000, 70_000] {
                    let pieces: Vec<_> = bytes[..length].chunks(piece).map(Cow::Borrowed).collect();
                    assert_eq!(hash.digest_by(Library::AwsLc, &pieces).bytes(), digest.bytes(), "{hash:?} {length}");
                }
                for key in [0, 1, 63, 64, 65, 127, 128, 129, 300] {
                    let key = |library| {
                        MacKey::hmac_by(library, hash, Secret::new(bytes[5..5 + key].to_vec()), false).unwrap()
                    };
                    let tag = key(Library::RustCrypto).tag(&whole);
                    assert_eq!(tag.bytes().len(), hash.length());
                    let other = key(Library::AwsLc);
                    assert_eq!(other.tag(&whole).bytes(), tag.bytes(), "{hash:?} {length}");
                    let mut state = other.begin(&[]).unwrap();
                    bytes[..length].chunks(1000).for_each(|piece| state.update(piece));
                    assert_eq!(state.clone().tag().bytes(), tag.bytes(), "{hash:?} {length}");
                }
            }
        }
    }
}
