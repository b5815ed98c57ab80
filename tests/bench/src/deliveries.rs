//! Bodies of one length, each of which was never there before, and the signatures that GitHub would send with them.
//!
//! The number that makes a body another one stands at its end, and what is before it is hashed and held once: a new
//! delivery costs the load a block or two of hashing, whatever its length, so that it takes no core from the server.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// As in measure.py.
const SECRET: &[u8] = b"a secret of the benchmarks";
/// Where a number goes; as long as one is.
pub const NUMBER: &str = "NUMBERNUMBERNUMB";
/// Where a signature goes.
pub const SIGNATURE: &str = "SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS";
/// What follows the number.
const CLOSE: &str = "\"}";

/// Deliveries of one length.
pub struct Deliveries {
    beginning: Bytes,
    hashed: Hmac<Sha256>,
}

impl Deliveries {
    /// Of `length` bytes, or a few more where that is too short.
    pub fn new(length: usize) -> Self {
        let mut beginning = br#"{"event":"push","filler":""#.to_vec();
        let before_number = br#"","number":""#;
        while beginning.len() + before_number.len() + NUMBER.len() + CLOSE.len() < length {
            beginning.push(b'a' + u8::try_from(beginning.len() % 26).unwrap_or_default());
        }
        beginning.extend_from_slice(before_number);
        let mut hashed = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length is a key");
        hashed.update(&beginning);
        Self { beginning: beginning.into(), hashed }
    }

    /// What all of them begin with.
    pub fn beginning(&self) -> &Bytes {
        &self.beginning
    }

    /// How one of them ends that has no number yet.
    pub fn end(&self) -> String {
        format!("{NUMBER}{CLOSE}")
    }

    /// How long they are.
    pub fn length(&self) -> usize {
        self.beginning.len() + NUMBER.len() + CLOSE.len()
    }

    /// The number as it is written, and the signature of the body that has it.
    pub fn signed(&self, number: u64) -> (String, String) {
        let number = format!("{number:016x}");
        let mut mac = self.hashed.clone();
        mac.update(number.as_bytes());
        mac.update(CLOSE.as_bytes());
        (number, const_hex::encode(mac.finalize().into_bytes()))
    }
}

/// Bytes with places to fill in.
pub struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    signatures: Vec<usize>,
}

impl Template {
    pub fn new(bytes: Vec<u8>) -> Self {
        let all = |needle: &str| (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes())).collect();
        Self { numbers: all(NUMBER), signatures: all(SIGNATURE), bytes }
    }

    pub fn filled(&self, number: &str, signature: &str) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (places, what) in [(&self.numbers, number), (&self.signatures, signature)] {
            for at in places {
                bytes[*at..*at + what.len()].copy_from_slice(what.as_bytes());
            }
        }
        bytes
    }
}
