//! Shared secrets: bytes that cannot be printed and are wiped when dropped.
//!
//! There is no `Display`, no `PartialEq`, and `Debug` shows nothing. The only question a [`Secret`] answers about
//! a guess is [`Secret::matches`], in time that depends on neither the secret's content nor its length.

use crate::clock::{Now, UnixSeconds};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A shared secret or token, as bytes, already decoded.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes; they are wiped when the secret is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for keying a MAC. Named so that a reader stops at each use.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether `guess` is this secret. Both sides are hashed first, so the comparison is of equal lengths and
    /// tells nothing about how long the secret is.
    #[must_use]
    pub fn matches(&self, guess: &[u8]) -> bool {
        Sha256::digest(self.expose()).ct_eq(&Sha256::digest(guess)).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A secret that the provider itself hands over, in a window that the operator opens. Learned once: what is here is
/// never overwritten, or anybody who comes later could become the provider.
#[derive(Debug, Default)]
pub struct LearnedSecret(RwLock<Option<Arc<Secret>>>);

/// What came of learning a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// There was none; it is this one now.
    New,
    /// It is this one already: the provider tries again.
    Same,
    /// It is another one, and stays that.
    Refused,
}

impl LearnedSecret {
    /// The secret, if one was learned.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Secret>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Learns a secret, if there is none.
    pub fn learn(&self, secret: &[u8]) -> Lesson {
        let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            None => {
                *slot = Some(Arc::new(Secret::new(secret.to_vec())));
                Lesson::New
            }
            Some(known) if known.matches(secret) => Lesson::Same,
            Some(_) => Lesson::Refused,
        }
    }

    /// Takes back what could not be kept.
    pub fn unlearn(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What may be said aloud about a secret or public key: told upstream, in metadata and in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The `id` from the configuration.
    pub id: String,
    /// The `tags` from the configuration, sorted by name.
    pub tags: Vec<(String, String)>,
}

/// A key with its label and the time in which it may verify.
#[derive(Debug)]
pub struct Key<T> {
    /// What may be said about it.
    pub label: Arc<Label>,
    /// Not before this moment.
    pub from: Option<UnixSeconds>,
    /// Not after this moment (inclusive).
    pub until: Option<UnixSeconds>,
    /// The key itself, ready for use.
    pub value: T,
}

impl<T> Key<T> {
    /// Whether the key may verify at `now`.
    #[must_use]
    pub fn is_active(&self, now: Now) -> bool {
        self.from.is_none_or(|from| from <= now.wall) && self.until.is_none_or(|until| now.wall <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"canary".to_vec())), "Secret(redacted)");
    }

    #[test]
    fn a_secret_is_learned_once() {
        let learned = LearnedSecret::default();
        assert_eq!(learned.learn(b"first secret"), Lesson::New);
        assert_eq!(learned.learn(b"first secret"), Lesson::Same);
        assert_eq!(learned.learn(b"another one"), Lesson::Refused);
        assert!(learned.get().unwrap().matches(b"first secret"));
        learned.unlearn();
        assert_eq!(learned.learn(b"another one"), Lesson::New);
    }

    #[test]
    fn matches_only_the_whole_secret() {
        let secret = Secret::new(b"0123456789".to_vec());
        assert!(secret.matches(b"0123456789"));
        for guess in [&b""[..], b"012345678", b"01234567890", b"1123456789"] {
            assert!(!secret.matches(guess), "{guess:?}");
        }
    }
}
