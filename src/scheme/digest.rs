//! A digest that stands for the body in what was signed. It proves nothing until it is computed again over the bytes
//! that arrived, which is done here and always.

use super::{encoding::Encoding, mac::Hash};
use crate::{
    decision::Rejection,
    received::{Place, Received},
};

/// Where the digest stands and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyDigest {
    /// Where.
    pub place: Place,
    /// The hash.
    pub hash: Hash,
    /// What stands before it.
    pub prefix: String,
    /// How its bytes are written.
    pub encoding: Encoding,
}

impl BodyDigest {
    /// Whether the digest is the body's.
    pub fn judge(&self, received: &Received<'_>) -> Result<(), Rejection> {
        let text = received.read(&self.place).required(Rejection::DigestMissing, Rejection::DigestMalformed)?;
        let text = text.strip_prefix(self.prefix.as_bytes()).ok_or(Rejection::DigestMalformed)?;
        judge(self.hash, self.encoding, text, received.body)
    }
}

/// Whether `text` is the digest of `body`.
pub fn judge(hash: Hash, encoding: Encoding, text: &[u8], body: &[u8]) -> Result<(), Rejection> {
    let claimed = encoding.decode(text).filter(|c| c.len() == hash.length()).ok_or(Rejection::DigestMalformed)?;
    if hash.of(body).is(&claimed) { Ok(()) } else { Err(Rejection::DigestMismatch) }
}
