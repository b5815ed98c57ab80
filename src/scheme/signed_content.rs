//! The template of what a provider signs, turned into pieces of the request.
//!
//! A template such as `v0:{timestamp}:{body}` becomes literals and references once, at load. A check resolves it to
//! slices of what arrived, and these are fed to the MAC one by one: no string is built, nothing is rendered again.
//!
//! Pieces that a sender writes may not contain the literal that follows them. Otherwise `id="a.1"`, `ts="2"` and
//! `id="a"`, `ts="1.2"` would be one signed content, and a valid signature for one a valid signature for the other.

use crate::{
    decision::Rejection,
    delivery::{Delivery, Found},
};

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedContent(Vec<Piece>);

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that are always the same.
    Literal(String),
    /// The whole body.
    Body,
    /// The text of the signed timestamp, as it arrived.
    Timestamp,
    /// The method.
    Method,
    /// Path and query.
    Target,
    /// The value of a header.
    Header(String),
}

/// Why a template does not parse: the part that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPiece(pub String);

impl SignedContent {
    /// Parses a template. Braces name pieces; everything else is literal.
    pub fn parse(template: &str) -> Result<Self, UnknownPiece> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or_else(|| UnknownPiece(format!("{{{after}")))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            pieces.push(Piece::parse(name).ok_or_else(|| UnknownPiece(format!("{{{name}}}")))?);
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Whether `piece` is part of what is signed.
    #[must_use]
    pub fn contains(&self, piece: &Piece) -> bool {
        self.0.contains(piece)
    }

    /// The bytes that were signed, as slices of the request.
    pub fn resolve<'s>(
        &'s self,
        delivery: &Delivery<'s>,
        body: &'s [u8],
        timestamp: &'s [u8],
    ) -> Result<Vec<&'s [u8]>, Rejection> {
        let mut slices = Vec::with_capacity(self.0.len());
        for (piece, next) in self.0.iter().zip(self.0.iter().skip(1).map(Some).chain([None])) {
            let slice: &[u8] = match piece {
                Piece::Literal(text) => text.as_bytes(),
                Piece::Body => body,
                Piece::Timestamp => timestamp,
                Piece::Method => delivery.method.as_bytes(),
                Piece::Target => delivery.target.as_bytes(),
                Piece::Header(name) => match delivery.headers.single(name) {
                    Found::One(value) => value,
                    Found::Absent => return Err(Rejection::HeaderMissing),
                    Found::Repeated => return Err(Rejection::HeaderRepeated),
                },
            };
            if let (Piece::Header(_), Some(Piece::Literal(separator))) = (piece, next)
                && memchr::memmem::find(slice, separator.as_bytes()).is_some()
            {
                return Err(Rejection::HeaderMalformed);
            }
            slices.push(slice);
        }
        Ok(slices)
    }
}

impl Piece {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "body" => Some(Self::Body),
            "timestamp" => Some(Self::Timestamp),
            "method" => Some(Self::Method),
            "target" => Some(Self::Target),
            _ => name.strip_prefix("header:").filter(|h| !h.is_empty()).map(|h| Self::Header(h.to_ascii_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Body, Headers};

    #[test]
    fn templates_parse_to_pieces() {
        let content = SignedContent::parse("v0:{timestamp}.{header:X-Id}{body}");
        let expected = vec![
            Piece::Literal("v0:".into()),
            Piece::Timestamp,
            Piece::Literal(".".into()),
            Piece::Header("x-id".into()),
            Piece::Body,
        ];
        assert_eq!(content, Ok(SignedContent(expected)));
        for bad in ["{nope}", "{body", "{header:}"] {
            assert!(SignedContent::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_may_not_hold_its_separator() {
        let content = SignedContent::parse("{header:id}.{timestamp}.{body}").unwrap();
        let resolve = |id: &'static [u8]| {
            let delivery = Delivery {
                method: "POST",
                target: "/",
                host: "h",
                headers: Headers::from_lines(vec![(b"id", id)]),
                body: Body::Whole(b""),
                peer: None,
                route_endpoint: None,
            };
            content.resolve(&delivery, b"body", b"2").map(|slices| slices.concat())
        };
        assert_eq!(resolve(b"a"), Ok(b"a.2.body".to_vec()));
        assert_eq!(resolve(b"a.1"), Err(Rejection::HeaderMalformed));
        assert_eq!(resolve(b""), Err(Rejection::HeaderMissing));
    }
}
