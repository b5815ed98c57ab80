//! A shared token, sent as it is.
//!
//! It proves who may send, and nothing about the body: the upstream is told `verified-by: token`.

use super::{find_key, signature::after_auth_scheme};
use crate::{
    clock::Now,
    decision::{Denial, Rejection},
    delivery::Delivery,
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
    /// A header, after a scheme word such as `Bearer` where there is one.
    Header {
        /// Name in lower case.
        name: String,
        /// The scheme word.
        auth_scheme: Option<String>,
    },
    /// A query parameter. Such tokens end up in other people's access logs.
    Query(String),
}

impl Token {
    /// Verifies and says which token matched.
    pub fn verify(&self, delivery: &Delivery<'_>, now: Now) -> Result<Arc<Label>, Denial> {
        let token = self.source.find(delivery)?;
        find_key(&self.keys, now, Rejection::TokenMismatch, |secret| secret.matches(&token))
    }
}

impl TokenSource {
    /// The token a request presents.
    pub fn find<'a>(&self, delivery: &Delivery<'a>) -> Result<Cow<'a, [u8]>, Rejection> {
        let (absent, repeated) = (Rejection::TokenMissing, Rejection::TokenRepeated);
        match self {
            Self::Header { name, auth_scheme } => {
                // A token may hold a comma, so a joined repetition cannot be told apart; it will not match.
                let value = delivery.headers.line(name).required(absent, repeated)?;
                match auth_scheme {
                    Some(word) => after_auth_scheme(value, word).map(Cow::Borrowed).ok_or(Rejection::TokenMissing),
                    None => Ok(Cow::Borrowed(value)),
                }
            }
            Self::Query(name) => delivery.query_parameter(name).required(absent, repeated).map(|value| match value {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
        }
    }
}
