//! From a header to candidate signatures.
//!
//! A provider presents one value, a list of versioned values, or `k=v` fields among which a timestamp may stand.
//! All are described by one [`SignatureSource`]. What leaves is bounded: at most [`MAX_CANDIDATES`] decoded tags of
//! exactly the algorithm's length. A text that decodes to fewer or more bytes is malformed, not a shorter
//! signature (RUSTSEC-2024-0010), and only the canonical spelling of base64 is read.

use crate::{
    decision::Rejection,
    delivery::{Delivery, Found},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

/// More signatures in one header than any rotation needs; beyond it the header is an attack on our time.
pub const MAX_CANDIDATES: usize = 8;
/// Longest header a signature is looked for in, in bytes.
pub const MAX_HEADER: usize = 4096;
/// The longest tag: HMAC-SHA512.
pub const MAX_TAG: usize = 64;

/// Where signatures stand and how they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSource {
    /// Header name in lower case.
    pub header: String,
    /// An authentication scheme word before the value, matched without regard to case (RFC 9110 §11.1) and followed
    /// by one space.
    pub auth_scheme: Option<String>,
    /// Splits the header into entries.
    pub separator: Option<String>,
    /// Entries are `name=value`, and those of this name are signatures.
    pub field: Option<String>,
    /// What every signature begins with; in a list, entries without it are other versions and are skipped.
    pub prefix: String,
    /// How the bytes are written.
    pub encoding: Encoding,
}

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

/// What a header presented.
#[derive(Debug)]
pub struct Presented<'a> {
    /// The header's value without its scheme word.
    value: &'a [u8],
    source: &'a SignatureSource,
}

/// Decoded candidates, each exactly as long as the algorithm's tag.
#[derive(Debug)]
pub struct Candidates {
    tags: [[u8; MAX_TAG]; MAX_CANDIDATES],
    count: usize,
    length: usize,
}

impl SignatureSource {
    /// Finds the header.
    pub fn find<'a>(&'a self, delivery: &Delivery<'a>) -> Result<Presented<'a>, Rejection> {
        // A list's syntax may have commas of its own; what a proxy joined shows as a doubled field or a bad tag.
        let found = if self.separator.is_some() {
            delivery.headers.line(&self.header)
        } else {
            delivery.headers.single(&self.header)
        };
        let value = found.required(Rejection::SignatureMissing, Rejection::SignatureRepeated)?;
        if value.len() > MAX_HEADER {
            return Err(Rejection::SignatureMalformed);
        }
        let value = match &self.auth_scheme {
            Some(word) => after_auth_scheme(value, word).ok_or(Rejection::SignatureMalformed)?,
            None => value,
        };
        Ok(Presented { value, source: self })
    }

    /// Writes signatures the way they are read, for making a signed request. `fields` are other `k=v` entries.
    #[must_use]
    pub fn render(&self, tag: &[u8], fields: &[(&str, &str)]) -> String {
        let signature = format!("{}{}", self.prefix, self.encoding.encode(tag));
        let separator = self.separator.as_deref().unwrap_or(",");
        let entry = match &self.field {
            Some(field) => format!("{field}={signature}"),
            None => signature,
        };
        let entries: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).chain([entry]).collect();
        let value = entries.join(separator);
        self.auth_scheme.as_ref().map_or_else(|| value.clone(), |word| format!("{word} {value}"))
    }
}

/// The credentials after an authentication scheme word and exactly one space.
#[must_use]
pub fn after_auth_scheme<'a>(value: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let (scheme, rest) = value.split_at_checked(word.len())?;
    rest.strip_prefix(b" ").filter(|_| scheme.eq_ignore_ascii_case(word.as_bytes()))
}

impl<'a> Presented<'a> {
    fn entries(&self) -> impl Iterator<Item = &'a [u8]> {
        let value = self.value;
        let separator = self.source.separator.as_deref().unwrap_or_default().as_bytes();
        let mut rest = Some(value);
        std::iter::from_fn(move || {
            let text = rest?;
            let at = if separator.is_empty() { None } else { memchr::memmem::find(text, separator) };
            let (entry, after) = match at {
                Some(at) => (text.get(..at)?, text.get(at.saturating_add(separator.len())..)),
                None => (text, None),
            };
            rest = after;
            Some(entry)
        })
    }

    /// The value of the one entry `name=…`.
    #[must_use]
    pub fn field(&self, name: &str) -> Found<&'a [u8]> {
        let mut values = self.entries().filter_map(|entry| field_value(entry, name));
        match (values.next(), values.next()) {
            (None | Some([]), None) | (None, Some(_)) => Found::Absent,
            (Some(value), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// The candidates whose decoded length is `length` bytes.
    pub fn candidates(&self, length: usize) -> Result<Candidates, Rejection> {
        let mut candidates = Candidates { tags: [[0; MAX_TAG]; MAX_CANDIDATES], count: 0, length };
        let in_a_list = self.source.separator.is_some();
        let mut presented = 0_usize;
        for entry in self.entries() {
            let text = match &self.source.field {
                Some(field) => field_value(entry, field),
                None => Some(entry),
            };
            let text = text.and_then(|text| text.strip_prefix(self.source.prefix.as_bytes()));
            // Outside a list there is only this value: another prefix is a wrong form, not another version.
            let Some(text) = text else {
                if in_a_list {
                    continue;
                }
                return Err(Rejection::SignatureMalformed);
            };
            presented = presented.saturating_add(1);
            candidates.push(self.source.encoding, text)?;
        }
        match (presented, candidates.count) {
            (0, _) => Err(Rejection::SignatureMissing),
            (_, 0) => Err(Rejection::SignatureMalformed),
            _ if presented > MAX_CANDIDATES => Err(Rejection::SignatureMalformed),
            _ => Ok(candidates),
        }
    }
}

fn field_value<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

impl Candidates {
    /// Adds a candidate if its text decodes to exactly the right length; one that does not can never match, and in
    /// a list the others may.
    fn push(&mut self, encoding: Encoding, text: &[u8]) -> Result<(), Rejection> {
        let slot = self.tags.get_mut(self.count).ok_or(Rejection::SignatureMalformed)?;
        if encoding.decode_exactly(text, slot, self.length) {
            self.count = self.count.saturating_add(1);
        }
        Ok(())
    }

    /// The tags.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.tags.iter().take(self.count).filter_map(|tag| tag.get(..self.length))
    }
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
            Self::Hex if text.starts_with(b"0x") => None,
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
        assert!(!Encoding::Hex.decode_exactly(b"0xcd", &mut slot, 2));
        assert!(!Encoding::Base64.decode_exactly(b"q6s", &mut slot, 2), "padding is not optional");
        assert!(!Encoding::Base64.decode_exactly(b"q6t=", &mut slot, 2), "trailing bits are zero");
    }
}
