//! A shared token, sent as it is.
//!
//! It proves who may send, and nothing about the body: the upstream is told `verified-by: token`.

use super::{find_key, signature::after_auth_scheme};
use crate::{
    clock::Now,
    decision::{Denial, Rejection},
    json::Json,
    received::{Place, Received},
    secret::{Key, Label, Secret},
};
use std::{borrow::Cow, sync::Arc};

/// A compiled token scheme.
#[derive(Debug)]
pub struct Token {
    /// Where the token stands.
    pub source: TokenSource,
    /// The tokens that are accepted.
    pub keys: Vec<Key<Secret>>,
}

/// Places of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// Somewhere in the request, after a scheme word such as `Bearer` where there is one. Tokens in a query end up in
    /// other people's access logs.
    At {
        /// Where.
        place: Place,
        /// The scheme word.
        auth_scheme: Option<String>,
    },
    /// In every item of a JSON array: a pointer in which `*` stands for each.
    EachJson(String),
}

impl Token {
    /// Verifies and says which token matched.
    pub fn verify(&self, received: &Received<'_>, now: Now) -> Result<Arc<Label>, Denial> {
        let tokens = self.source.find(received)?;
        find_key(&self.keys, now, Rejection::TokenMismatch, |secret| {
            // Every one is compared: how many are right is nobody's business.
            tokens.iter().fold(true, |all, token| secret.matches(token) & all)
        })
    }
}

impl TokenSource {
    /// The tokens a request presents, of which there is at least one.
    pub fn find<'r>(&self, received: &'r Received<'_>) -> Result<Vec<Cow<'r, [u8]>>, Rejection> {
        let (absent, repeated) = (Rejection::TokenMissing, Rejection::TokenRepeated);
        match self {
            Self::At { place, auth_scheme } => {
                // A token may hold a comma, so a joined repetition cannot be told apart; it will not match.
                let value = received.read(place).required(absent, repeated)?;
                let token = match auth_scheme {
                    Some(word) => Cow::Owned(after_auth_scheme(&value, word).ok_or(absent)?.to_vec()),
                    None => value,
                };
                Ok(vec![token])
            }
            Self::EachJson(pointer) => {
                let values = received.json().and_then(|json| json.all_at(pointer)).ok_or(absent)?;
                let token = |value: &'r Json| value.text().filter(|text| !text.is_empty()).ok_or(absent);
                values.into_iter().map(|value| token(value).map(|text| Cow::Borrowed(text.as_bytes()))).collect()
            }
        }
    }
}
