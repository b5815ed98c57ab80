//! Handshakes that come encrypted: AES-256-CBC (NIST SP 800-38A §6.2) under a secret shared with the provider.
//!
//! CBC alone proves nothing about who wrote the text, so what is decrypted is only ever read by a challenge rule, whose
//! echoes have a closed set of characters and a length; it is never forwarded. Every failure is the same: no text.

use super::encoding::Encoding;
use crate::{
    clock::Now,
    delivery::Found,
    received::{Place, Received},
    secret::{Key, Secret},
};
use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use base64::{
    Engine,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use sha2::{Digest, Sha256};

/// Such keys are 43 random characters, whose last one has two bits too many.
const KEY: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Length of an AES block, and of an initialisation vector.
const BLOCK: usize = 16;

/// What is decrypted, and how.
#[derive(Debug)]
pub struct Decryption {
    /// Where the text stands, in base64.
    pub place: Place,
    /// How key, vector and plain text are made up.
    pub layout: Layout,
    /// The secrets.
    pub keys: Vec<Key<Secret>>,
}

/// How key, vector and plain text are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The key is the SHA-256 of the secret; the first block is the vector; the rest is the plain text, padded.
    VectorFirst,
    /// The secret is the key in base64 without its padding; its first half is the vector; the plain text is 16 random
    /// bytes, a length of four bytes, that many bytes of text, and the receiver's id, padded to 32 bytes.
    Framed,
}

impl Decryption {
    /// The plain text, under the first active secret that opens it.
    #[must_use]
    pub fn open(&self, received: &Received<'_>, now: Now) -> Option<Vec<u8>> {
        let Found::One(text) = received.read(&self.place) else { return None };
        let sealed = Encoding::Base64.decode(&text)?;
        self.keys.iter().filter(|key| key.is_active(now)).find_map(|key| self.layout.open(&key.value, &sealed))
    }
}

impl Layout {
    fn open(self, secret: &Secret, sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::VectorFirst => {
                let key: [u8; 32] = Sha256::digest(secret.expose()).into();
                let (vector, sealed) = sealed.split_at_checked(BLOCK)?;
                unpadded(decrypt(&key, vector, sealed)?, BLOCK)
            }
            Self::Framed => {
                let key = KEY.decode([secret.expose(), b"="].concat()).ok()?;
                let plain = unpadded(decrypt(&key, key.get(..BLOCK)?, sealed)?, 32)?;
                let (length, rest) = plain.get(BLOCK..)?.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                rest.get(..length).map(<[u8]>::to_vec)
            }
        }
    }
}

fn decrypt(key: &[u8], vector: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = DecryptingKey::cbc(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
    let vector: [u8; BLOCK] = vector.try_into().ok()?;
    let mut plain = sealed.to_vec();
    key.decrypt(&mut plain, DecryptionContext::Iv128(vector.into())).ok()?;
    Some(plain)
}

/// Takes off PKCS #7 padding (RFC 5652 §6.3) of up to `block` bytes.
fn unpadded(mut plain: Vec<u8>, block: usize) -> Option<Vec<u8>> {
    let last = *plain.last()?;
    let padding = usize::from(last);
    let kept = plain.len().checked_sub(padding).filter(|_| (1..=block).contains(&padding))?;
    if !plain.get(kept..)?.iter().all(|byte| *byte == last) {
        return None;
    }
    plain.truncate(kept);
    Some(plain)
}
