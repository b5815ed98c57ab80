//! The template of what a provider signs, turned into pieces of the request.
//!
//! A template such as `v0:{timestamp}:{body}` becomes literals and references once, at load. A check resolves it to
//! slices of what arrived, and these are fed to the MAC one by one: nothing is rendered again, and what has to be
//! built (a sorted form, a digest) is built the one way that the provider documents.
//!
//! What may stand beside what, so that one signed content is one delivery, is said in [`border`].

mod border;

use super::{
    canonical,
    encoding::Encoding,
    listed_headers::ListedHeaders,
    mac::{Content, Hash},
};
use crate::{
    decision::Rejection,
    delivery::Found,
    json::Json,
    received::{Place, Received},
};
use std::borrow::Cow;

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
    /// The CRC-32 of the body (ISO 3309), in decimal.
    BodyCrc32,
    /// A digest of the body, as text.
    BodyDigest(Hash, Encoding),
    /// The text of the signed timestamp, as it arrived.
    Timestamp,
    /// The method.
    Method,
    /// Path and query.
    Target,
    /// The path.
    Path,
    /// The path below that of the configured URL.
    PathBelow(String),
    /// The query as sent, without its `?`.
    RawQuery,
    /// The authority, as the client wrote it.
    Host,
    /// The URL that the provider called, rebuilt on the configured public one.
    Url(PublicUrl),
    /// The secret itself.
    Secret,
    /// The value at a place. JSON that is absent is empty.
    At(Place),
    /// The value in the item at hand, by pointer; empty when absent.
    Item(String),
    /// Every field of the form, as one of several canonical texts.
    Form(canonical::FormOrder),
    /// The query in the canonical form of a query-string hash, without one parameter.
    CanonicalQuery(String),
    /// Several pieces, sorted by their values.
    Sorted(Vec<Piece>),
    /// The text of the one element of this name under the root of an XML body.
    Xml(String),
    /// For each of these members of a JSON object that is there: name, LF, value, LF.
    JsonLines(Vec<String>),
    /// Headers that the message lists.
    ListedHeaders,
}

/// The URL that the provider was given. Never taken from the request: a header that says so may be anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Scheme and authority.
    pub origin: String,
    /// The path, where the configuration gives one; it stands for the request's own, which a proxy may have rewritten.
    pub path: Option<String>,
}

/// Why a template does not parse: the part that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateProblem {
    /// No piece is called so.
    Unknown(String),
    /// A configured value is absent.
    NoSetting(String),
    /// `{url}` or `{public_url}` without a configured one.
    NoPublicUrl,
}

/// What a template may refer to besides the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vocabulary<'c> {
    /// Configured values, by name.
    pub settings: Option<&'c std::collections::BTreeMap<String, String>>,
    /// The configured URL.
    pub public_url: Option<&'c str>,
}

/// What a check brings to a template, besides the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'r> {
    /// The text of the timestamp.
    pub timestamp: &'r [u8],
    /// The secret, where the content holds it.
    pub secret: &'r [u8],
    /// The item at hand.
    pub item: Option<&'r Json>,
    /// How listed headers are rendered, and where the list is.
    pub listed_headers: Option<(&'r ListedHeaders, &'r str)>,
}

impl SignedContent {
    /// Parses a template. Braces name pieces; everything else is literal.
    pub fn parse(template: &str, vocabulary: Vocabulary<'_>) -> Result<Self, TemplateProblem> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or_else(|| TemplateProblem::Unknown(format!("{{{after}")))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            pieces.push(Piece::parse(name, vocabulary)?);
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

    /// Whether any piece, at any depth, is one of those meant.
    #[must_use]
    pub fn any(&self, meant: &impl Fn(&Piece) -> bool) -> bool {
        self.0.iter().any(|piece| meant(piece) || matches!(piece, Piece::Sorted(inner) if inner.iter().any(meant)))
    }

    /// Whether `piece` is part of what is signed.
    #[must_use]
    pub fn contains(&self, piece: &Piece) -> bool {
        self.any(&|other| other == piece)
    }

    /// Whether a change of the body changes what is signed.
    #[must_use]
    pub fn covers_body(&self) -> bool {
        self.any(&|piece| matches!(piece, Piece::Body | Piece::BodyDigest(..) | Piece::Form(_)))
    }

    /// The content as one text, where it depends on nothing in the request.
    #[must_use]
    pub fn constant(&self) -> Option<String> {
        self.0.iter().map(|piece| if let Piece::Literal(text) = piece { Some(text.as_str()) } else { None }).collect()
    }

    /// The bytes that were signed, as slices of the request.
    pub fn resolve<'r>(&'r self, received: &'r Received<'_>, inputs: Inputs<'r>) -> Result<Content<'r>, Rejection> {
        let mut slices = Vec::with_capacity(self.0.len());
        for (at, piece) in self.0.iter().enumerate() {
            let next = self.0.iter().skip(at.saturating_add(1)).find(|next| !next.marks_no_border());
            let slice = piece.resolve(received, inputs)?;
            if let (Some(malformed), Some(Piece::Literal(separator))) = (piece.is_text_of_the_sender(), next)
                && memchr::memmem::find(&slice, separator.as_bytes()).is_some()
            {
                return Err(malformed);
            }
            if next == Some(&Piece::Body)
                && let Some(malformed) = piece.flows_into_body(&slice, received.body)
            {
                return Err(malformed);
            }
            slices.push(slice);
        }
        Ok(slices)
    }
}

impl Piece {
    fn parse(name: &str, vocabulary: Vocabulary<'_>) -> Result<Self, TemplateProblem> {
        let unknown = || TemplateProblem::Unknown(format!("{{{name}}}"));
        let named = |text: &str| if text.is_empty() { Err(unknown()) } else { Ok(text.to_owned()) };
        let (kind, rest) = name.split_once(':').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("body", None) => Ok(Self::Body),
            ("body", Some("crc32")) => Ok(Self::BodyCrc32),
            ("body", Some(form)) => {
                let (hash, encoding) = form.split_once(':').ok_or_else(unknown)?;
                let hash = match hash {
                    "sha1" => Hash::Sha1,
                    "sha256" => Hash::Sha256,
                    "sha384" => Hash::Sha384,
                    "sha512" => Hash::Sha512,
                    "md5" => Hash::Md5,
                    _ => return Err(unknown()),
                };
                let encoding = match encoding {
                    "hex" => Encoding::Hex,
                    "base64" => Encoding::Base64,
                    "base64url" => Encoding::Base64Url,
                    _ => return Err(unknown()),
                };
                Ok(Self::BodyDigest(hash, encoding))
            }
            ("timestamp", None) => Ok(Self::Timestamp),
            ("method", None) => Ok(Self::Method),
            ("target", None) => Ok(Self::Target),
            ("path", None) => Ok(Self::Path),
            ("path", Some("*below_public_url")) => {
                let url = vocabulary.public_url.and_then(PublicUrl::parse).ok_or(TemplateProblem::NoPublicUrl)?;
                Ok(Self::PathBelow(url.path.unwrap_or_default().trim_end_matches('/').to_owned()))
            }
            ("query", None) => Ok(Self::RawQuery),
            ("query", Some(rest)) => match rest.strip_prefix("*canonical") {
                Some(without) => Ok(Self::CanonicalQuery(without.trim_start_matches(':').to_owned())),
                None => named(rest).map(|name| Self::At(Place::Query(name))),
            },
            ("host", None) => Ok(Self::Host),
            ("url", None) => {
                vocabulary.public_url.and_then(PublicUrl::parse).map(Self::Url).ok_or(TemplateProblem::NoPublicUrl)
            }
            ("public_url", None) => {
                vocabulary.public_url.map(|url| Self::Literal(url.to_owned())).ok_or(TemplateProblem::NoPublicUrl)
            }
            ("setting", Some(name)) => vocabulary
                .settings
                .and_then(|settings| settings.get(name))
                .map(|value| Self::Literal(value.clone()))
                .ok_or_else(|| TemplateProblem::NoSetting(name.to_owned())),
            ("secret", None) => Ok(Self::Secret),
            ("header", Some(name)) => Ok(Self::At(Place::Header(named(name)?.to_ascii_lowercase()))),
            ("form", Some(rest)) => match rest.strip_prefix('*') {
                Some(order) => canonical::FormOrder::parse(order).map(Self::Form).ok_or_else(unknown),
                None => named(rest).map(|name| Self::At(Place::Form(name))),
            },
            ("json", Some(pointer)) if pointer.starts_with('/') => Ok(Self::At(Place::Json(pointer.to_owned()))),
            ("item", Some(pointer)) if pointer.starts_with('/') => Ok(Self::Item(pointer.to_owned())),
            ("sorted", Some(pieces)) => pieces
                .split('|')
                .map(|piece| Self::parse(piece, vocabulary))
                .collect::<Result<_, _>>()
                .map(Self::Sorted),
            ("xml", Some(name)) => named(name).map(Self::Xml),
            ("json_lines", Some(names)) => Ok(Self::JsonLines(named(names)?.split(',').map(str::to_owned).collect())),
            ("listed_headers", None) => Ok(Self::ListedHeaders),
            _ => Err(unknown()),
        }
    }

    /// This piece, or those it is made of.
    pub fn flatten(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        if let Self::Sorted(pieces) = self {
            Box::new(pieces.iter().flat_map(Self::flatten))
        } else {
            Box::new(std::iter::once(self))
        }
    }

    fn resolve<'r>(&'r self, received: &'r Received<'_>, inputs: Inputs<'r>) -> Result<Cow<'r, [u8]>, Rejection> {
        let delivery = received.delivery;
        let owned = |text: String| Cow::Owned(text.into_bytes());
        Ok(match self {
            Self::Literal(text) => Cow::Borrowed(text.as_bytes()),
            Self::Body => Cow::Borrowed(received.body),
            Self::BodyCrc32 => owned(crc32fast::hash(received.body).to_string()),
            Self::BodyDigest(hash, encoding) => owned(encoding.encode(hash.of(received.body).bytes())),
            Self::Timestamp => Cow::Borrowed(inputs.timestamp),
            Self::Method => Cow::Borrowed(delivery.method.as_bytes()),
            Self::Target => Cow::Borrowed(delivery.target.as_bytes()),
            Self::Path => Cow::Borrowed(delivery.path().as_bytes()),
            Self::PathBelow(base) => {
                let below = delivery.path().strip_prefix(base.as_str()).ok_or(Rejection::ValueMalformed)?;
                Cow::Borrowed(if below.is_empty() { b"/" } else { below.as_bytes() })
            }
            Self::RawQuery => Cow::Borrowed(delivery.query().as_bytes()),
            Self::Host => Cow::Borrowed(delivery.host.as_bytes()),
            Self::Url(url) => owned(url.of(received)),
            Self::Secret => Cow::Borrowed(inputs.secret),
            Self::At(place) => at(received, place)?,
            Self::Item(pointer) => match inputs.item.and_then(|item| item.scalar_at(pointer)) {
                Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
                Some(Cow::Owned(text)) => owned(text),
                None => Cow::Borrowed(&[]),
            },
            Self::Form(order) => owned(order.render(received.form().ok_or(Rejection::BodyMalformed)?)),
            Self::CanonicalQuery(without) => owned(canonical::query(delivery.query(), without)),
            Self::Sorted(pieces) => {
                let mut values =
                    pieces.iter().map(|piece| piece.resolve(received, inputs)).collect::<Result<Vec<_>, _>>()?;
                values.sort();
                Cow::Owned(values.concat())
            }
            Self::Xml(name) => owned(canonical::xml_text(received.body, name)?),
            Self::JsonLines(names) => {
                owned(canonical::json_lines(received.json().ok_or(Rejection::BodyMalformed)?, names))
            }
            Self::ListedHeaders => match inputs.listed_headers {
                Some((rule, list)) => Cow::Owned(rule.render(list, received)?),
                None => Cow::Borrowed(&[]),
            },
        })
    }
}

fn at<'r>(received: &'r Received<'_>, place: &'r Place) -> Result<Cow<'r, [u8]>, Rejection> {
    let (absent, repeated) = match place {
        Place::Header(_) => (Rejection::HeaderMissing, Rejection::HeaderRepeated),
        Place::Query(_) | Place::Form(_) | Place::Body => (Rejection::ValueMissing, Rejection::ValueRepeated),
        Place::Json(pointer) => {
            return match received.json().ok_or(Rejection::BodyMalformed)?.at(pointer).map(Json::scalar) {
                // What is absent, or no scalar, is signed as nothing.
                None | Some(None) => Ok(Cow::Borrowed(&[])),
                Some(Some(Cow::Borrowed(text))) => Ok(Cow::Borrowed(text.as_bytes())),
                Some(Some(Cow::Owned(text))) => Ok(Cow::Owned(text.into_bytes())),
            };
        }
    };
    // A header that a proxy joined was repeated; a list has no business in signed content.
    let found = match place {
        Place::Header(name) => match received.delivery.headers.single(name) {
            Found::One(value) => Found::One(Cow::Borrowed(value)),
            Found::Absent => Found::Absent,
            Found::Repeated => Found::Repeated,
        },
        Place::Query(_) | Place::Form(_) | Place::Json(_) | Place::Body => received.read(place),
    };
    found.required(absent, repeated)
}

impl PublicUrl {
    /// Reads `https://host`, perhaps with a port and a path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "https" | "http"))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).filter(|(authority, _)| !authority.is_empty())?;
        let path = path.split(['?', '#']).next().filter(|path| path.len() > 1);
        Some(Self { origin: format!("{scheme}://{authority}"), path: path.map(str::to_owned) })
    }

    /// The URL of a request.
    #[must_use]
    pub fn of(&self, received: &Received<'_>) -> String {
        let delivery = received.delivery;
        match &self.path {
            None => format!("{}{}", self.origin, delivery.target),
            Some(path) if delivery.query().is_empty() => format!("{}{path}", self.origin),
            Some(path) => format!("{}{path}?{}", self.origin, delivery.query()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Body, Delivery, Headers};

    fn parse(template: &str) -> Result<SignedContent, TemplateProblem> {
        SignedContent::parse(template, Vocabulary::default())
    }

    #[test]
    fn templates_parse_to_pieces() {
        let content = parse("v0:{timestamp}.{header:X-Id}{body}");
        let expected = vec![
            Piece::Literal("v0:".into()),
            Piece::Timestamp,
            Piece::Literal(".".into()),
            Piece::At(Place::Header("x-id".into())),
            Piece::Body,
        ];
        assert_eq!(content, Ok(SignedContent(expected)));
        for bad in ["{nope}", "{body", "{header:}", "{body:sha3:hex}", "{json:x}", "{sorted:body|nope}"] {
            assert!(matches!(parse(bad), Err(TemplateProblem::Unknown(_))), "{bad}");
        }
        assert_eq!(parse("{url}"), Err(TemplateProblem::NoPublicUrl));
        assert_eq!(parse("{setting:id}"), Err(TemplateProblem::NoSetting("id".into())));
    }

    #[test]
    fn the_public_url_stands_for_what_the_proxy_saw() {
        let delivery = Delivery {
            method: "POST",
            target: "/inner?a=1",
            host: "internal:8080",
            headers: Headers::from_lines(vec![]),
            body: Body::Whole(b""),
            peer: None,
            route_endpoint: None,
        };
        let received = Received::new(&delivery, b"");
        let of = |text: &str| PublicUrl::parse(text).map(|url| url.of(&received));
        assert_eq!(of("https://hooks.example.com").as_deref(), Some("https://hooks.example.com/inner?a=1"));
        assert_eq!(of("https://h.example/outer").as_deref(), Some("https://h.example/outer?a=1"));
        for bad in ["hooks.example.com", "ftp://h", "https://", "https:///x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
