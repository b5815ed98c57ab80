//! Bodies of one length, each of which was never there before, and the signatures that a provider would send with them.
//!
//! The number that makes a body another one stands at its end. For GitHub's HMAC, what is before it is hashed and held
//! once: a new delivery costs the load a block or two of hashing, whatever its length, so that it takes no core from the
//! server. Signatures that cost more than that were made beforehand, and are read from a file.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// As in measure.py.
const SECRET: &[u8] = b"a secret of the benchmarks";
/// Where a number goes; as long as one is.
pub const NUMBER: &str = "NUMBERNUMBERNUMB";
/// What follows the number.
const CLOSE: &str = "\"}";

/// Deliveries of one length.
pub struct Deliveries {
    beginning: Bytes,
    signatures: Signatures,
}

enum Signatures {
    /// GitHub's; of the beginning alone so far.
    Hmac(Hmac<Sha256>),
    /// Of the numbers from zero on, all of one length.
    Made(Vec<String>),
}

impl Deliveries {
    /// Of `length` bytes, or a few more where that is too short, signed as GitHub does.
    pub fn new(length: usize) -> Self {
        let beginning = beginning(length);
        let mut hashed = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length is a key");
        hashed.update(&beginning);
        Self { beginning, signatures: Signatures::Hmac(hashed) }
    }

    /// The same with signatures of their own, a line for each number from zero on. After the last of them the first comes
    /// again, with the number that it was made for: who refuses replays will say so.
    ///
    /// # Errors
    ///
    /// There is none, or they are not of one length.
    pub fn with(length: usize, signatures: &str) -> Result<Self, &'static str> {
        let made: Vec<String> = signatures.lines().map(str::to_owned).collect();
        let first = made.first().ok_or("no signature")?;
        if made.iter().any(|signature| signature.len() != first.len()) {
            return Err("signatures of several lengths");
        }
        Ok(Self { beginning: beginning(length), signatures: Signatures::Made(made) })
    }

    /// The header line of the signature, with a place for it.
    pub fn line(&self) -> (&'static str, String) {
        match self.signatures {
            Signatures::Hmac(_) => ("x-hub-signature-256", format!("sha256={}", self.place())),
            Signatures::Made(_) => ("x-signature", self.place()),
        }
    }

    /// Where a signature goes; as long as one is.
    pub fn place(&self) -> String {
        "S".repeat(match &self.signatures {
            Signatures::Hmac(_) => 64,
            Signatures::Made(made) => made.first().map_or(0, String::len),
        })
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
        match &self.signatures {
            Signatures::Hmac(hashed) => {
                let (number, mut mac) = (written(number), hashed.clone());
                mac.update(number.as_bytes());
                mac.update(CLOSE.as_bytes());
                (number, const_hex::encode(mac.finalize().into_bytes()))
            }
            Signatures::Made(made) => {
                let at = usize::try_from(number).unwrap_or(usize::MAX) % made.len();
                (written(u64::try_from(at).unwrap_or(u64::MAX)), made[at].clone())
            }
        }
    }
}

/// The body with that number.
pub fn body(length: usize, number: u64) -> Vec<u8> {
    [beginning(length).as_ref(), written(number).as_bytes(), CLOSE.as_bytes()].concat()
}

fn written(number: u64) -> String {
    format!("{number:016x}")
}

fn beginning(length: usize) -> Bytes {
    let mut beginning = br#"{"event":"push","filler":""#.to_vec();
    let before_number = br#"","number":""#;
    while beginning.len() + before_number.len() + NUMBER.len() + CLOSE.len() < length {
        beginning.push(b'a' + u8::try_from(beginning.len() % 26).unwrap_or_default());
    }
    beginning.extend_from_slice(before_number);
    beginning.into()
}

/// Bytes with places to fill in.
pub struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    signatures: Vec<usize>,
}

impl Template {
    /// With places for numbers, and for signatures where `place` stands.
    pub fn new(bytes: Vec<u8>, place: &str) -> Self {
        let all = |needle: &str| (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes())).collect();
        Self { numbers: all(NUMBER), signatures: all(place), bytes }
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
