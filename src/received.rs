//! A delivery that was received whole, and what is read out of it.
//!
//! Every mechanism that looks for a value looks through here: a [`Place`] names where, [`Received::read`] says absent,
//! one or repeated. A body is parsed as JSON or as a form at most once, only if somebody asks, and only up to
//! [`MAX_PARSED`]; a body that is neither is no place to find anything in.

use crate::{
    decision::Rejection,
    delivery::{Delivery, Found},
    json::{self, Json},
    replay::{Digesting, Digests, SignedDigest},
};
use std::{borrow::Cow, cell::OnceCell};

/// Longest body that is parsed, in bytes. A longer one can be signed as bytes, but not in parts.
pub const MAX_PARSED: usize = 1 << 20;
/// Most fields of a form.
const MAX_FIELDS: usize = 1024;

/// A delivery and its whole body.
#[derive(Debug)]
pub struct Received<'m> {
    /// The request.
    pub delivery: &'m Delivery<'m>,
    /// All of its body.
    pub body: &'m [u8],
    json: OnceCell<Option<Json>>,
    form: OnceCell<Option<Form<'m>>>,
    digests: Option<&'m Digests>,
}

/// The decoded fields of an `application/x-www-form-urlencoded` body, in order.
pub type Form<'m> = Vec<(Cow<'m, str>, Cow<'m, str>)>;

/// Places of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header, name in lower case.
    Header(String),
    /// A query parameter, decoded.
    Query(String),
    /// A field of a form body, decoded.
    Form(String),
    /// A scalar in a JSON body, by RFC 6901 pointer.
    Json(String),
    /// The whole body.
    Body,
}

impl Place {
    /// Whether one has to look into the body for it.
    #[must_use]
    pub fn is_in_body(&self) -> bool {
        match self {
            Self::Header(_) | Self::Query(_) => false,
            Self::Form(_) | Self::Json(_) | Self::Body => true,
        }
    }
}

impl<'m> Received<'m> {
    /// A delivery whose whole body is `body`.
    #[must_use]
    pub fn new(delivery: &'m Delivery<'m>, body: &'m [u8]) -> Self {
        Self { delivery, body, json: OnceCell::new(), form: OnceCell::new(), digests: None }
    }

    /// The same, of which it must be known whether it was there before.
    #[must_use]
    pub fn identified(self, digests: Option<&'m Digests>) -> Self {
        Self { digests, ..self }
    }

    /// What identifies a delivery of which `pieces` were signed, where anybody wants to know.
    #[must_use]
    pub fn identify<'p>(&self, pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<SignedDigest> {
        self.digests.map(|digests| digests.of(pieces))
    }

    /// The beginning of such an identification, of pieces that are known before others.
    #[must_use]
    pub fn identifying<'p>(&self, pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<Digesting> {
        self.digests.map(|digests| {
            let mut digesting = digests.begin();
            for piece in pieces {
                digesting.update(piece);
            }
            digesting
        })
    }

    /// The body as JSON, if it is.
    #[must_use]
    pub fn json(&self) -> Option<&Json> {
        let parse = || if self.body.len() > MAX_PARSED { None } else { Json::parse(self.body) };
        self.json.get_or_init(parse).as_ref()
    }

    /// The body as a form, if it can be one.
    #[must_use]
    pub fn form(&self) -> Option<&Form<'m>> {
        let parse = || {
            if self.body.len() > MAX_PARSED {
                return None;
            }
            let fields: Form<'m> = form_urlencoded::parse(self.body).take(MAX_FIELDS.saturating_add(1)).collect();
            (fields.len() <= MAX_FIELDS).then_some(fields)
        };
        self.form.get_or_init(parse).as_ref()
    }

    /// What stands at a place.
    #[must_use]
    pub fn read<'r>(&'r self, place: &Place) -> Found<Cow<'r, [u8]>> {
        match place {
            // A value that a proxy joined shows as one that does not verify.
            Place::Header(name) => match self.delivery.headers.line(name) {
                Found::One(value) => Found::One(Cow::Borrowed(value)),
                Found::Absent => Found::Absent,
                Found::Repeated => Found::Repeated,
            },
            Place::Query(name) => bytes(self.delivery.query_parameter(name)),
            Place::Form(name) => self.form().map_or(Found::Absent, |form| bytes(field(form, name))),
            Place::Body if self.body.is_empty() => Found::Absent,
            Place::Body => Found::One(Cow::Borrowed(self.body)),
            Place::Json(pointer) => match self.json().and_then(|json| json.scalar_at(pointer)) {
                Some(text) if !text.is_empty() => bytes(Found::One(text)),
                Some(_) | None => Found::Absent,
            },
        }
    }

    /// The word at a place, where there is one. A body that nobody had to parse is only skimmed.
    #[must_use]
    pub fn word(&self, place: &Place) -> Option<String> {
        if let Place::Json(pointer) = place
            && self.json.get().is_none()
            && self.body.len() <= MAX_PARSED
        {
            return json::skim(self.body, pointer);
        }
        match self.read_text(place) {
            Ok(Found::One(text)) => Some(text.into_owned()),
            Ok(Found::Absent | Found::Repeated) | Err(_) => None,
        }
    }

    /// What stands at a place, as text.
    pub fn read_text<'r>(&'r self, place: &Place) -> Result<Found<Cow<'r, str>>, Rejection> {
        Ok(match self.read(place) {
            Found::Absent => Found::Absent,
            Found::Repeated => Found::Repeated,
            Found::One(Cow::Borrowed(value)) => {
                Found::One(Cow::Borrowed(std::str::from_utf8(value).map_err(|_| Rejection::ValueMalformed)?))
            }
            Found::One(Cow::Owned(value)) => {
                Found::One(Cow::Owned(String::from_utf8(value).map_err(|_| Rejection::ValueMalformed)?))
            }
        })
    }
}

/// The one field of a form with a name.
fn field<'r>(form: &'r Form<'_>, name: &str) -> Found<Cow<'r, str>> {
    let mut values = form.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) if value.is_empty() => Found::Absent,
        (Some(value), None) => Found::One(Cow::Borrowed(value)),
        (Some(_), Some(_)) => Found::Repeated,
    }
}

fn bytes(found: Found<Cow<'_, str>>) -> Found<Cow<'_, [u8]>> {
    match found {
        Found::Absent => Found::Absent,
        Found::Repeated => Found::Repeated,
        Found::One(Cow::Borrowed(text)) => Found::One(Cow::Borrowed(text.as_bytes())),
        Found::One(Cow::Owned(text)) => Found::One(Cow::Owned(text.into_bytes())),
    }
}
