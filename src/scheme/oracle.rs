//! What a handshake signs for anybody.
//!
//! Some providers check a receiver by having it compute a MAC, with the very secret that signs deliveries, of a text
//! that the caller chooses. Whoever asks can then send that text as a delivery with a signature that is right. So an
//! endpoint that answers such a challenge takes no delivery whose signed content could have been asked for: the
//! challenge's characters and length are closed sets, and a real delivery, being JSON or carrying a timestamp, lies
//! outside them.

use super::mac::Content;

/// The texts of which a challenge computes a MAC, told by which bytes they may have and how many.
#[derive(Debug, Clone)]
pub struct Oracle {
    bytes: Vec<u8>,
    longest: usize,
}

impl Oracle {
    /// An oracle over `bytes`, for texts of at most `longest` of them.
    #[must_use]
    pub fn new(bytes: Vec<u8>, longest: usize) -> Self {
        Self { bytes, longest }
    }

    /// Whether it could have been asked for `content`. Errs towards yes: literal text and echoes are not told apart.
    #[must_use]
    pub fn reaches(&self, content: &Content<'_>) -> bool {
        let length = content.iter().map(|piece| piece.len()).fold(0_usize, usize::saturating_add);
        length <= self.longest && content.iter().all(|piece| piece.iter().all(|byte| self.bytes.contains(byte)))
    }
}
