//! How bytes are written as text: read canonically and exactly, in one spelling each.
//!
//! Base64 has its padding (or has none, where the alphabet says so) and zero trailing bits; hexadecimal is read in
//! either case. A text that decodes to fewer or more bytes than it should is malformed, not a shorter signature
//! (RUSTSEC-2024-0010).

use super::signature::MAX_TAG;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

/// Spellings of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two digits a byte, either case.
    Hex,
    /// RFC 4648 §4, padded.
    Base64,
    /// RFC 4648 §5, not padded.
    Base64Url,
}

impl Encoding {
    /// Decodes `text` into the front of `into` and says whether it was exactly `length` bytes, canonically written.
    #[must_use]
    pub fn decode_exactly(self, text: &[u8], into: &mut [u8], length: usize) -> bool {
        match self {
            Self::Hex => {
                // The length is checked on the text too, so that no optional `0x` can hide in it.
                text.len() == length.saturating_mul(2)
                    && into.get_mut(..length).is_some_and(|slot| const_hex::decode_to_slice(text, slot).is_ok())
            }
            Self::Base64 => decode_base64(&STANDARD, text, into, length),
            Self::Base64Url => decode_base64(&URL_SAFE_NO_PAD, text, into, length),
        }
    }

    /// Decodes text of any length, canonically written.
    #[must_use]
    pub fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            // The library takes either for no part of the digits.
            Self::Hex if text.starts_with(b"0x") || text.starts_with(b"0X") => None,
            Self::Hex => const_hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Url => URL_SAFE_NO_PAD.decode(text).ok(),
        }
    }

    /// Writes bytes.
    #[must_use]
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => const_hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

fn decode_base64(engine: &impl Engine, text: &[u8], into: &mut [u8], length: usize) -> bool {
    // The decoder wants room for a whole last quantum; tags are at most 64 bytes.
    let mut room = [0_u8; MAX_TAG + 8];
    match engine.decode_slice(text, &mut room) {
        Ok(written) if written == length => match (into.get_mut(..length), room.get(..length)) {
            (Some(slot), Some(decoded)) => {
                slot.copy_from_slice(decoded);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_is_exact_and_canonical() {
        let mut slot = [0_u8; MAX_TAG];
        let tag = [0xab_u8; 20];
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
            let text = encoding.encode(&tag);
            assert!(encoding.decode_exactly(text.as_bytes(), &mut slot, 20));
            assert_eq!(slot.get(..20), Some(&tag[..]));
            for cut in 0..text.len() {
                assert!(
                    !encoding.decode_exactly(text.as_bytes().get(..cut).unwrap(), &mut slot, 20),
                    "{encoding:?} {cut}"
                );
            }
            for longer in [
                format!("{text}a"),
                format!("{text}="),
                format!(" {text}"),
                format!("{text}\n"),
                format!("0x{text}"),
                format!("{text}{text}{text}{text}"),
            ] {
                assert!(!encoding.decode_exactly(longer.as_bytes(), &mut slot, 20), "{encoding:?} {longer:?}");
            }
        }
        assert!(Encoding::Hex.decode_exactly(b"ABcd", &mut slot, 2), "hex is read in either case");
        for prefixed in ["0x", "0X", "0xcd", "0Xcd", "0Xabcd"] {
            assert!(!Encoding::Hex.decode_exactly(prefixed.as_bytes(), &mut slot, 2), "{prefixed}");
            assert_eq!(Encoding::Hex.decode(prefixed.as_bytes()), None, "{prefixed}");
        }
        assert!(!Encoding::Base64.decode_exactly(b"q6s", &mut slot, 2), "padding is not optional");
        assert!(!Encoding::Base64.decode_exactly(b"q6t=", &mut slot, 2), "trailing bits are zero");
    }
}
