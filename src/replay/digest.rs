//! What was signed, in short.
//!
//! A digest outlives the delivery, so two contents must not have one digest, whoever wrote them. Where others read it, in a
//! file after a restart or in a store that replicas share, it is a hash that everybody computes alike. Where it never
//! leaves this process a hash under a key that nobody knows does the same for a tenth of the price: a collision cannot be
//! looked for without the key.

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::{fmt, sync::Arc};

/// What was signed, in short.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignedDigest(pub(super) [u8; 32]);

/// How signed contents are digested.
#[derive(Clone, Default)]
pub enum Digests {
    /// As everybody does, at any time: BLAKE3.
    #[default]
    Lasting,
    /// As only this process does: GMAC (NIST SP 800-38D) under a key of its own.
    OfThisProcess(Arc<LessSafeKey>),
}

/// Bytes under one tag.
const LEAF: usize = 64 << 10;
const TAG: usize = 16;

impl Digests {
    /// Digests that no other process can make, and none can foresee.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).context("the system gives no random bytes")?;
        let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_| anyhow::anyhow!("AES-GCM refuses its key"))?;
        Ok(Self::OfThisProcess(Arc::new(LessSafeKey::new(key))))
    }

    /// The digest of a content, in pieces.
    #[must_use]
    pub fn of<'p>(&self, pieces: impl IntoIterator<Item = &'p [u8]>) -> SignedDigest {
        let mut digesting = self.begin();
        let mut pieces = pieces.into_iter();
        let mut last = pieces.next().unwrap_or_default();
        for next in pieces {
            digesting.update(last);
            last = next;
        }
        digesting.finish_with(last)
    }

    /// The digest of a content that is still coming.
    #[must_use]
    pub fn begin(&self) -> Digesting {
        Digesting(match self {
            Self::Lasting => State::Lasting(Box::default()),
            Self::OfThisProcess(key) => State::OfThisProcess { key: Arc::clone(key), held: Vec::new(), leaves: None },
        })
    }
}

/// The digest of a content that is still coming.
#[derive(Debug)]
pub struct Digesting(State);

enum State {
    Lasting(Box<blake3::Hasher>),
    OfThisProcess {
        key: Arc<LessSafeKey>,
        /// What is no whole leaf yet.
        held: Vec<u8>,
        /// The tags of leaves, where there was more than one.
        leaves: Option<Box<blake3::Hasher>>,
    },
}

impl Digesting {
    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            State::Lasting(hasher) => {
                hasher.update(piece);
            }
            State::OfThisProcess { key, held, leaves } => {
                let rest = whole_leaves(key, held, leaves, piece);
                held.extend_from_slice(rest);
            }
        }
    }

    /// The digest of all pieces, one behind the other.
    #[must_use]
    pub fn finish(self) -> SignedDigest {
        self.finish_with(&[])
    }

    /// The digest of all pieces and a last one, which need not be copied.
    fn finish_with(self, piece: &[u8]) -> SignedDigest {
        match self.0 {
            State::Lasting(mut hasher) => SignedDigest(*hasher.update(piece).finalize().as_bytes()),
            State::OfThisProcess { key, mut held, mut leaves } => {
                let rest = whole_leaves(&key, &mut held, &mut leaves, piece);
                let last = if held.is_empty() {
                    tag(&key, rest)
                } else {
                    held.extend_from_slice(rest);
                    tag(&key, &held)
                };
                match leaves {
                    Some(mut leaves) => SignedDigest(*leaves.update(&last).finalize().as_bytes()),
                    None => {
                        let mut digest = [0; 32];
                        if let Some(first) = digest.first_chunk_mut::<TAG>() {
                            *first = last;
                        }
                        SignedDigest(digest)
                    }
                }
            }
        }
    }
}

/// Tags every leaf that `piece` completes; what is left begins another. A whole leaf is only tagged when there is more, so
/// that where pieces end is not seen in the digest.
fn whole_leaves<'p>(
    key: &LessSafeKey,
    held: &mut Vec<u8>,
    leaves: &mut Option<Box<blake3::Hasher>>,
    mut piece: &'p [u8],
) -> &'p [u8] {
    let mut leaf = |bytes: &[u8]| {
        leaves.get_or_insert_default().update(&tag(key, bytes));
    };
    if !held.is_empty() {
        let (more, rest) = piece.split_at_checked(LEAF.saturating_sub(held.len())).unwrap_or((piece, &[]));
        if rest.is_empty() {
            return piece;
        }
        held.extend_from_slice(more);
        leaf(held);
        held.clear();
        piece = rest;
    }
    while let Some((whole, rest)) = piece.split_at_checked(LEAF).filter(|(_, rest)| !rest.is_empty()) {
        leaf(whole);
        piece = rest;
    }
    piece
}

/// A universal hash under a secret key. That every one has the same nonce would give the key away to whoever saw the tags of
/// two contents; nobody does: a tag leaves this room only through BLAKE3, as part of a replay key.
fn tag(key: &LessSafeKey, leaf: &[u8]) -> [u8; TAG] {
    let sealed = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::from(leaf), &mut []);
    // It refuses nothing that is shorter than 2 EiB.
    sealed.ok().and_then(|tag| tag.as_ref().try_into().ok()).unwrap_or_else(|| {
        let mut tag = [0; TAG];
        blake3::Hasher::new().update(leaf).finalize_xof().fill(&mut tag);
        tag
    })
}

impl SignedDigest {
    /// One digest for several contents, whatever their order. None for none.
    #[must_use]
    pub fn of_all(mut digests: Vec<Self>) -> Option<Self> {
        match digests.as_slice() {
            [] => None,
            [one] => Some(*one),
            _ => {
                digests.sort_unstable();
                Some(Digests::Lasting.of(digests.iter().map(|digest| digest.0.as_slice())))
            }
        }
    }
}

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lasting => "Lasting",
            Self::OfThisProcess(_) => "OfThisProcess(redacted)",
        })
    }
}

impl fmt::Debug for SignedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedDigest(redacted)")
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn both() -> [Digests; 2] {
        [Digests::Lasting, Digests::of_this_process().unwrap()]
    }

    #[test]
    fn where_pieces_end_is_not_seen() {
        let sizes = [0, 1, 15, 16, 17, 2048, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF, 3 * LEAF + 5];
        for digests in both() {
            let mut seen = HashSet::new();
            for size in sizes {
                let content: Vec<u8> = (0..size).map(|n| n.to_le_bytes()[0]).collect();
                let whole = digests.of([content.as_slice()]);
                assert!(seen.insert(whole), "{size}");
                for at in [0, 1, 7, size / 2, size.saturating_sub(1), size, LEAF - 1, LEAF, LEAF + 1] {
                    let (a, b) = content.split_at(at.min(size));
                    assert_eq!(digests.of([a, b]), whole, "{digests:?} {size} at {at}");
                    assert_eq!(digests.of([a, &[], b, &[]]), whole, "{digests:?} {size} at {at}");
                }
                for step in [1000, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF] {
                    let mut digesting = digests.begin();
                    content.chunks(step).for_each(|chunk| digesting.update(chunk));
                    assert_eq!(digesting.finish(), whole, "{digests:?} {size} in steps of {step}");
                }
            }
        }
    }

    #[test]
    fn one_bit_anywhere_makes_another() {
        for digests in both() {
            let mut content = vec![0; 2 * LEAF + 100];
            let mut seen = HashSet::from([digests.of([content.as_slice()])]);
            for at in [0, 1, 15, 16, 100, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF - 1, 2 * LEAF, 2 * LEAF + 99] {
                content[at] ^= 1;
                assert!(seen.insert(digests.of([content.as_slice()])), "{digests:?} {at}");
                content[at] ^= 1;
            }
            for nothing in [&content[..LEAF], &content[..=LEAF], &content[..1], &[]] {
                assert!(seen.insert(digests.of([nothing])), "zeros count too");
            }
        }
    }

    #[test]
    fn no_other_process_makes_the_same() {
        let [a, b] = [Digests::of_this_process().unwrap(), Digests::of_this_process().unwrap()];
        assert_ne!(a.of([b"a".as_slice()]), b.of([b"a".as_slice()]));
        assert_eq!(Digests::Lasting.of([b"a".as_slice()]), Digests::Lasting.of([b"a".as_slice()]));
        let held = format!("{a:?} {:?}", a.begin());
        assert_eq!(held, "OfThisProcess(redacted) Digesting(State(redacted))");
    }

    #[test]
    fn several_contents_are_the_same_in_any_order() {
        for digests in both() {
            let digest = |text: &[u8]| digests.of([text]);
            assert_eq!(
                SignedDigest::of_all(vec![digest(b"a"), digest(b"b")]),
                SignedDigest::of_all(vec![digest(b"b"), digest(b"a")])
            );
            assert_eq!(SignedDigest::of_all(vec![digest(b"a")]), Some(digest(b"a")));
            assert_eq!(SignedDigest::of_all(vec![]), None);
        }
    }
}
