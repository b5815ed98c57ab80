//! Public keys by the id that messages name them with: those that are configured, and those a provider publishes.
//!
//! The message names a key; it only ever selects among those that are here, and never leads anywhere.

use super::{algorithm::Algorithm, find_key, public_key::PublicKey, remote_keys::RemoteKeys};
use crate::{
    clock::Now,
    decision::{Denial, Rejection},
    secret::{Key, Label},
};
use std::sync::Arc;

/// The keys of one scheme.
#[derive(Debug, Default)]
pub struct KeyRing {
    /// The keys that are configured.
    pub configured: Vec<(KeyId, Key<PublicKey>)>,
    /// Keys that the provider publishes, for ids that no configured key answers to.
    pub remote: Option<Arc<RemoteKeys>>,
}

/// Which key ids a key answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyId {
    /// This one.
    Exact(String),
    /// All that begin so.
    Prefix(String),
}

impl KeyId {
    /// Reads an id; a `*` at its end stands for any continuation.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.strip_suffix('*').map_or_else(|| Self::Exact(text.to_owned()), |prefix| Self::Prefix(prefix.to_owned()))
    }

    fn answers_to(&self, id: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Prefix(prefix) => id.starts_with(prefix.as_str()),
        }
    }
}

impl KeyRing {
    /// Whether to verify by one of these keys takes long. Those that are configured say so themselves. Those that are published
    /// come and go behind a lock, which a check that is short anyway is not to take: of them the scheme's `algorithms` tell, and
    /// an RSA key is taken for a short one, as nearly all are.
    #[must_use]
    pub fn takes_long(&self, algorithms: &[Algorithm]) -> bool {
        self.configured.iter().any(|(_, key)| key.value.takes_long())
            || (self.remote.is_some() && algorithms.iter().any(|algorithm| algorithm.takes_long()))
    }

    /// The key that `verifies`: a configured one that answers to the id, else a published one. Without an id every
    /// configured key is tried.
    pub fn matching(
        &self,
        id: Option<&str>,
        now: Now,
        verifies: impl Fn(&PublicKey) -> Result<bool, Rejection>,
    ) -> Result<Arc<Label>, Denial> {
        let mut failure: Option<Denial> = None;
        for (configured, key) in &self.configured {
            if id.is_some_and(|id| !configured.answers_to(id)) {
                continue;
            }
            match judge(key, now, &verifies) {
                Ok(label) => return Ok(label),
                Err(denial) => failure = Some(failure.map_or(denial, |so_far| so_far.more_telling(denial))),
            }
        }
        match (failure, &self.remote, id) {
            (Some(failure), _, _) => Err(failure),
            (None, Some(remote), Some(id)) => judge(&*remote.find(id, now)?, now, &verifies),
            (None, Some(_), None) => Err(Rejection::KeyIdMissing.into()),
            (None, None, _) => Err(Rejection::KeyIdUnknown.into()),
        }
    }
}

fn judge(
    key: &Key<PublicKey>,
    now: Now,
    verifies: &impl Fn(&PublicKey) -> Result<bool, Rejection>,
) -> Result<Arc<Label>, Denial> {
    let mut malformed = None;
    let found = find_key(std::slice::from_ref(key), now, Rejection::SignatureMismatch, |key| match verifies(key) {
        Ok(verified) => verified,
        Err(rejection) => {
            malformed = Some(rejection);
            false
        }
    });
    match (found, malformed) {
        (Err(Denial::Rejection(_)), Some(rejection)) => Err(rejection.into()),
        (found, _) => found,
    }
}
