//! The borders between pieces that are signed one behind the other: nothing may be moved over them.
//!
//! Pieces that a sender writes into headers, query or form may not contain the literal that follows them. Otherwise
//! `id="a.1"`, `ts="2"` and `id="a"`, `ts="1.2"` would be one signed content, and a valid signature for one a valid
//! signature for the other. A timestamp between them is no border, since another one may stand anywhere. Where nothing marks
//! the border to the body, the body has to: by beginning as JSON or XML does.
//!
//! Here it is judged what a request may hold. How its parts are found, and in which order they are signed, is not known here.

use super::{Piece, PublicUrl};
use crate::{decision::Rejection, received::Place};

impl Piece {
    /// Whether the sender wrote it into a place whose values may not run into their neighbours, and the reason if one
    /// does. What stands in a JSON body is exempt: providers let any text stand there and do not escape it.
    pub(super) fn is_text_of_the_sender(&self) -> Option<Rejection> {
        let Self::At(place) = self else { return None };
        match place {
            Place::Header(_) => Some(Rejection::HeaderMalformed),
            Place::Query(_) | Place::Form(_) => Some(Rejection::ValueMalformed),
            Place::Json(_) | Place::Body => None,
        }
    }

    /// Whether it marks no border between what stands before and behind it: who sends may write the same text, or a moment
    /// that is just as good, anywhere into what follows.
    pub(in crate::scheme) const fn marks_no_border(&self) -> bool {
        matches!(self, Self::Timestamp | Self::Method | Self::Path | Self::PathBelow(_) | Self::Host)
    }

    /// Whether it could have taken in what follows it, where nothing marks the border between them.
    pub(in crate::scheme) const fn can_grow(&self) -> bool {
        matches!(self, Self::At(_) | Self::RawQuery | Self::Url(_) | Self::Target | Self::Path | Self::PathBelow(_))
    }

    /// Whether bytes could have been moved over the border between this piece, which is `slice`, and the body behind it:
    /// nothing in the content marks that border. JSON and XML mark it themselves, by how they begin.
    pub(super) fn flows_into_body(&self, slice: &[u8], body: &[u8]) -> Option<Rejection> {
        let begins = |byte: &u8| matches!(byte, b'{' | b'[' | b'<');
        // An endpoint may be at all paths below one; a configured path is what it is, and only a query can be added to it.
        let fixed = matches!(self, Self::Url(PublicUrl { path: Some(_), .. })) && !slice.contains(&b'?');
        let address = matches!(self, Self::Url(_) | Self::Target | Self::Path | Self::PathBelow(_)) && !fixed;
        let malformed =
            if address || *self == Self::RawQuery { Rejection::ValueMalformed } else { self.is_text_of_the_sender()? };
        let may_be_empty = !matches!(self, Self::At(_));
        let marked = body.first().map_or(may_be_empty, begins) && !slice.iter().any(begins);
        (!marked).then_some(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Inputs, SignedContent, Vocabulary};
    use super::*;
    use crate::{
        delivery::{Body, Delivery, Headers},
        received::Received,
    };

    fn parse(template: &str) -> SignedContent {
        SignedContent::parse(template, Vocabulary::default()).unwrap()
    }

    #[test]
    fn a_header_may_not_hold_its_separator() {
        let content = parse("{header:id}.{timestamp}.{body}");
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
            let received = Received::new(&delivery, b"body");
            let inputs = Inputs { timestamp: b"2", ..Inputs::default() };
            content.resolve(&received, inputs).map(|slices| slices.concat())
        };
        assert_eq!(resolve(b"a"), Ok(b"a.2.body".to_vec()));
        assert_eq!(resolve(b"a.1"), Err(Rejection::HeaderMalformed));
        assert_eq!(resolve(b""), Err(Rejection::HeaderMissing));
    }

    /// Whoever has one delivery may not make another one of it: here the beginning of the body would become part of the id,
    /// or of the path.
    #[test]
    fn a_timestamp_is_no_border() {
        let resolve =
            |template: &str, id: &'static [u8], target: &'static str, timestamp: &'static [u8], body: &'static [u8]| {
                let content = parse(template);
                let delivery = Delivery {
                    method: "POST",
                    target,
                    host: "h",
                    headers: Headers::from_lines(vec![(b"id", id)]),
                    body: Body::Whole(body),
                    peer: None,
                    route_endpoint: None,
                };
                let received = Received::new(&delivery, body);
                content.resolve(&received, Inputs { timestamp, ..Inputs::default() }).map(|slices| slices.concat())
            };
        let signed = br#"a17{"at":"18","to":[1]}"#.to_vec();
        let bare = |id, timestamp, body| resolve("{header:id}{timestamp}{body}", id, "/", timestamp, body);
        assert_eq!(bare(b"a", b"17", br#"{"at":"18","to":[1]}"#), Ok(signed));
        assert_eq!(bare(br#"a17{"at":""#, b"18", br#"","to":[1]}"#), Err(Rejection::HeaderMalformed));
        assert_eq!(bare(b"a", b"17", b""), Err(Rejection::HeaderMalformed));
        let parted = |id, timestamp, body| resolve("{header:id}{timestamp}.{body}", id, "/", timestamp, body);
        assert_eq!(parted(b"a", b"17", b"b18.c"), Ok(b"a17.b18.c".to_vec()));
        assert_eq!(parted(b"a17.b", b"18", b"c"), Err(Rejection::HeaderMalformed));

        let mixed = |id, timestamp, body| resolve("{header:id}{timestamp}{method}{body}", id, "/", timestamp, body);
        assert_eq!(mixed(b"a", b"17", br#"{"m":"18POST"}"#), Ok(br#"a17POST{"m":"18POST"}"#.to_vec()));
        assert_eq!(mixed(br#"a17POST{"m":""#, b"18", br#""}"#), Err(Rejection::HeaderMalformed));
        for template in ["{path}{body}", "{target}{body}", "{path}{timestamp}{body}"] {
            let path = |path, body| resolve(template, b"a", path, b"17", body);
            assert!(path("/hooks/a", b"{}").is_ok() && path("/hooks/a", b"").is_ok(), "{template}");
            assert_eq!(path("/hooks/a", b"b=1"), Err(Rejection::ValueMalformed), "{template}");
        }
    }
}
