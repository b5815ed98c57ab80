//! Headers that a message lists as signed. The message chooses what it signs; the endpoint says what it must.

use crate::{
    decision::Rejection,
    delivery::Found,
    received::{Place, Received},
};
use std::borrow::Cow;

/// More headers than any signer lists.
const MAX_LISTED: usize = 32;

/// How listed headers become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedHeaders {
    /// Where the list is.
    pub list: List,
    /// Parts the list.
    pub separator: String,
    /// What stands before a name, between it and its value, and behind that.
    pub line: (String, String, String),
    /// Stands between lines.
    pub join: String,
    /// Headers that must be listed, in lower case.
    pub required: Vec<String>,
}

/// Places of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// In the request.
    At(Place),
    /// In the protected header of a JWS.
    Protected(String),
}

impl ListedHeaders {
    /// Finds a list that stands in the request.
    pub fn find<'r>(&self, received: &'r Received<'_>) -> Result<Cow<'r, str>, Rejection> {
        match &self.list {
            List::At(place) => received.read_text(place)?.required(Rejection::HeaderMissing, Rejection::HeaderRepeated),
            List::Protected(_) => Err(Rejection::HeaderMissing),
        }
    }

    /// The lines of the headers on a list.
    pub fn render(&self, list: &str, received: &Received<'_>) -> Result<Vec<u8>, Rejection> {
        let names: Vec<&str> = list.split(self.separator.as_str()).map(str::trim).filter(|n| !n.is_empty()).collect();
        if names.len() > MAX_LISTED {
            return Err(Rejection::HeaderMalformed);
        }
        if !self.required.iter().all(|required| names.iter().any(|name| name.eq_ignore_ascii_case(required))) {
            return Err(Rejection::ComponentNotCovered);
        }
        let (before, between, behind) = &self.line;
        let mut text = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let value = match received.delivery.headers.line(&name.to_ascii_lowercase()) {
                Found::One(value) => value,
                Found::Absent => return Err(Rejection::HeaderMissing),
                Found::Repeated => return Err(Rejection::HeaderRepeated),
            };
            let join: &[u8] = if at == 0 { b"" } else { self.join.as_bytes() };
            for piece in [join, before.as_bytes(), name.as_bytes(), between.as_bytes(), value, behind.as_bytes()] {
                text.extend_from_slice(piece);
            }
        }
        Ok(text)
    }
}
