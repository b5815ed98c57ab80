//! The same delivery again.
//!
//! A claim is made on what was *signed*, never on a header that the sender could change and never on how a signature
//! is spelt: the twin of an ECDSA signature, hexadecimal in capitals and a list in another order are the same
//! delivery. It is made after the proof, so a stranger leaves nothing behind.
//!
//! A guard that breaks honest retries loses deliveries. So a claim can stay *pending* until it is known what the
//! upstream made of the delivery: an upstream that took it settles the claim, one that did not releases it, and the
//! provider's next try with the same bytes passes. And a proxy that asks twice about one request is answered twice
//! alike: a claim knows its [`Holder`].

mod digest;

pub use digest::{Digesting, Digests, SignedDigest};

use crate::clock::UnixSeconds;
use std::{
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

/// What identifies a delivery: the signed bytes, at one endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReplayKey([u8; 16]);

/// Which request of the proxy's made a claim: its stream id, in short. Nobody, where the proxy has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder([u8; 8]);

/// How an endpoint guards against replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRule {
    /// What becomes of a delivery that was there before.
    pub on_duplicate: OnDuplicate,
    /// How long a delivery is remembered.
    pub remember: Duration,
    /// How long a claim waits for the upstream's outcome; nothing where nobody tells it, and then a claim is settled
    /// at once.
    pub outcome_within: Option<Duration>,
    /// What happens while the store cannot be reached.
    pub store_failure: StoreFailure,
}

/// Whether the proxy that asks tells what the upstream made of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcomes {
    /// It does, where the configuration says so.
    Told,
    /// It cannot.
    Untold,
}

/// What becomes of a delivery that was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It is refused.
    Deny,
    /// The provider is told 200; the upstream never sees it.
    Answer200,
    /// It is forwarded, and the upstream is told.
    Mark,
}

/// What happens while the store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailure {
    /// Deliveries are refused with 503: none can be told to be new.
    Deny,
    /// This process's own memory decides: no delivery is lost, and each replica may let one copy through.
    LocalOnly,
}

/// A claim to be the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed.
    pub key: ReplayKey,
    /// By whom.
    pub holder: Holder,
    /// How, and for how long.
    pub rule: ReplayRule,
    /// When it was signed, by the signer's clock, where that is signed too.
    pub signed_at: Option<UnixSeconds>,
}

/// What a claim comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody was there before.
    First,
    /// The same request asked before, and is answered the same again.
    Again,
    /// Somebody was, and the upstream has not answered yet.
    Pending,
    /// Somebody was, and what became of it was never told. The claim is this one's now.
    Unknown,
    /// Somebody was.
    Settled,
}

/// What the upstream made of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It took it.
    Settled,
    /// It did not: the next try is the first again.
    Released,
    /// Nobody knows. The next try is let through, and said to be perhaps not the first.
    Unknown,
}

/// What the upstream is told of a delivery that is forwarded although it was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicate {
    /// It was.
    Certain,
    /// It was, but perhaps the upstream never got it.
    Possible,
}

impl ReplayKey {
    /// The key of what was signed, at an endpoint. 128 bits: a collision would take 2⁶⁴ deliveries.
    #[must_use]
    pub fn new(endpoint: &str, signed: SignedDigest) -> Self {
        let mut hasher = blake3::Hasher::new();
        // A name holds no NUL, so the border is certain.
        hasher.update(endpoint.as_bytes()).update(&[0]).update(&signed.0);
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A key from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// In one piece, and without the length, which is the same for all: a claim hashes its key some ten times.
impl Hash for ReplayKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(u128::from_ne_bytes(self.0));
    }
}

impl fmt::Debug for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplayKey({})", const_hex::encode(self.0))
    }
}

/// What is claimed and by whom, as it goes out with the check's answer and comes back with the upstream's outcome. It
/// says nothing about the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimId {
    /// What.
    pub key: ReplayKey,
    /// By whom.
    pub holder: Holder,
}

impl ClaimId {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (key, holder) = text.split_once('.')?;
        let key = ReplayKey(const_hex::decode_to_array(key).ok()?);
        Some(Self { key, holder: Holder(const_hex::decode_to_array(holder).ok()?) })
    }
}

impl ClaimId {
    /// How long its text is.
    const LENGTH: usize = 49;

    /// What goes out.
    #[must_use]
    pub fn text(&self) -> ClaimText {
        let mut text = [b'.'; Self::LENGTH];
        let (key, rest) = text.split_at_mut(32);
        // Both are exactly as long as what is written into them.
        const_hex::encode_to_slice(self.key.0, key).ok();
        const_hex::encode_to_slice(self.holder.0, rest.get_mut(1..).unwrap_or_default()).ok();
        ClaimText(text)
    }
}

/// A claim's id as text.
#[derive(Debug, Clone, Copy)]
pub struct ClaimText([u8; ClaimId::LENGTH]);

impl ClaimText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl Holder {
    /// Who asks without a stream id: never the same as anybody.
    pub const NOBODY: Self = Self([0; 8]);

    /// The holder with a stream id. Envoy's are numbers of 64 bits, which need no hash to be short.
    #[must_use]
    pub fn of(stream_id: &[u8]) -> Self {
        if let Some(number) = number(stream_id) {
            return Self(number.to_be_bytes());
        }
        if stream_id.is_empty() {
            return Self::NOBODY;
        }
        let mut short = [0; 8];
        blake3::Hasher::new().update(stream_id).finalize_xof().fill(&mut short);
        Self(short)
    }

    /// Whether it is known to be the same request.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        self == other && self != Self::NOBODY
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// A holder from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

/// The number that a text is, where it is the only one to write it; but not zero, which is nobody.
fn number(text: &[u8]) -> Option<u64> {
    if !matches!(text, [b'1'..=b'9', ..]) {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = u64::from(digit.checked_sub(b'0')?);
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(digit) }
    })
}

impl Duplicate {
    /// The stable spelling, as in `x-hookwarden-duplicate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certain => "true",
            Self::Possible => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_the_signed_bytes_and_the_endpoint_and_nothing_else() {
        let key =
            |endpoint: &str, pieces: &[&[u8]]| ReplayKey::new(endpoint, Digests::Lasting.of(pieces.iter().copied()));
        assert_eq!(key("e", &[b"ab", b"c"]), key("e", &[b"a", b"bc"]));
        assert_ne!(key("e", &[b"abc"]), key("f", &[b"abc"]));
        assert_ne!(key("e", &[b"abc"]), key("e", &[b"abd"]));
        let id = ClaimId { key: key("e", &[b"abc"]), holder: Holder::of(b"7") };
        assert_eq!(ClaimId::parse(&id.to_string()), Some(id));
        for odd in ["", ".", "zz.00", "00.00", &id.to_string()[1..], &format!("{id}00")] {
            assert_eq!(ClaimId::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn nobody_is_never_the_same() {
        assert!(Holder::of(b"7").is(Holder::of(b"7")));
        assert!(!Holder::of(b"7").is(Holder::of(b"8")));
        assert!(!Holder::NOBODY.is(Holder::NOBODY));
        assert!(!Holder::of(b"").is(Holder::NOBODY));
        assert!(Holder::of(b"0").is(Holder::of(b"0")), "an id that anybody has");
    }

    #[test]
    fn ids_that_are_written_differently_are_different_requests() {
        assert_eq!(Holder::of(b"258").bytes(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Holder::of(b"18446744073709551615").bytes(), [0xff; 8]);
        let ids = ["7", "07", "+7", "7 ", "7a", "-7", "0", "00", "18446744073709551616", "184467440737095516150"];
        for (at, one) in ids.iter().enumerate() {
            for other in &ids[at + 1..] {
                assert!(!Holder::of(one.as_bytes()).is(Holder::of(other.as_bytes())), "{one} {other}");
            }
        }
    }
}
