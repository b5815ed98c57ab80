//! HTTP Basic credentials (RFC 7617). The secret's text is `user:password`.

use super::{encoding::Encoding, find_key, signature::after_auth_scheme};
use crate::{
    clock::Now,
    decision::{Denial, Rejection},
    delivery::Delivery,
    secret::{Key, Label, Secret},
};
use std::sync::Arc;

/// A compiled Basic scheme.
#[derive(Debug)]
pub struct Basic {
    /// The accepted credentials, as `user:password`.
    pub keys: Vec<Key<Secret>>,
}

impl Basic {
    /// Verifies and says which credentials matched.
    pub fn verify(&self, delivery: &Delivery<'_>, now: Now) -> Result<Arc<Label>, Denial> {
        let value = delivery
            .headers
            .line("authorization")
            .required(Rejection::CredentialsMissing, Rejection::CredentialsMalformed)?;
        let text = after_auth_scheme(value, "Basic").ok_or(Rejection::CredentialsMissing)?;
        let credentials = Encoding::Base64.decode(text).ok_or(Rejection::CredentialsMalformed)?;
        find_key(&self.keys, now, Rejection::CredentialsMismatch, |secret| secret.matches(&credentials))
    }
}
