//! From a request to candidate signatures.
//!
//! A provider presents one value, a list of versioned values, or `k=v` fields among which a timestamp may stand; in a
//! header, in several, in the query or in the body. All are described by one [`SignatureSource`]. What leaves is
//! bounded: at most [`MAX_CANDIDATES`] decoded signatures, and for a MAC each of exactly its length.

use super::encoding::Encoding;
use crate::{
    decision::Rejection,
    delivery::Found,
    json::Json,
    received::{Place, Received},
};
use smallvec::SmallVec;
use std::borrow::Cow;

/// More signatures in one request than any rotation needs; beyond it the request is an attack on our time.
pub const MAX_CANDIDATES: usize = 8;
/// Longest text a signature is looked for in, in bytes.
pub const MAX_TEXT: usize = 4096;
/// The longest tag: HMAC-SHA512.
pub const MAX_TAG: usize = 64;

/// Where signatures stand and how they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSource {
    /// Where.
    pub location: Location,
    /// The text is base64 of a JSON object, of which this member is meant.
    pub member: Option<String>,
    /// An authentication scheme word before the value, matched without regard to case (RFC 9110 §11.1) and followed
    /// by one space.
    pub auth_scheme: Option<String>,
    /// Parts several whole groups, each with its own timestamp.
    pub group_separator: Option<String>,
    /// Splits a group into entries.
    pub separator: Option<String>,
    /// Entries are `name=value`, and those of this name are signatures.
    pub field: Option<String>,
    /// What stands between a field's name and its value.
    pub field_separator: String,
    /// Entries before this one are no signatures.
    pub skip: usize,
    /// What every signature begins with; in a list, entries without it are other versions and are skipped.
    pub prefix: String,
    /// How the bytes are written.
    pub encoding: Encoding,
}

/// Places of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Somewhere in the request.
    At(Place),
    /// In each of these headers that is there.
    Headers(Vec<String>),
    /// In headers of this name with a number behind it, from 1.
    NumberedHeader(String),
    /// In the item at hand, by pointer.
    Item(String),
}

/// What a request presented.
#[derive(Debug)]
pub struct Presented<'r> {
    values: SmallVec<[Cow<'r, [u8]>; 1]>,
    source: &'r SignatureSource,
}

/// One group of what was presented: signatures and perhaps their timestamp.
#[derive(Debug)]
pub struct Group<'g> {
    texts: SmallVec<[&'g [u8]; 1]>,
    source: &'g SignatureSource,
}

/// Decoded candidates, each exactly as long as the MAC's tag.
#[derive(Debug)]
pub struct Candidates {
    tags: [[u8; MAX_TAG]; MAX_CANDIDATES],
    count: usize,
    length: usize,
}

impl SignatureSource {
    /// Finds what is presented.
    pub fn find<'r>(&'r self, received: &'r Received<'_>, item: Option<&'r Json>) -> Result<Presented<'r>, Rejection> {
        let (missing, repeated) = (Rejection::SignatureMissing, Rejection::SignatureRepeated);
        let mut values: SmallVec<[Cow<'r, [u8]>; 1]> = SmallVec::new();
        let mut take = |found: Found<Cow<'r, [u8]>>| match found {
            Found::One(value) => {
                values.push(value);
                Ok(true)
            }
            Found::Absent => Ok(false),
            Found::Repeated => Err(repeated),
        };
        match &self.location {
            Location::At(Place::Header(name)) => take(self.header(received, name))?,
            Location::At(place) => take(received.read(place))?,
            Location::Item(pointer) => take(match item.and_then(|item| item.scalar_at(pointer)) {
                Some(Cow::Borrowed(text)) => Found::One(Cow::Borrowed(text.as_bytes())),
                Some(Cow::Owned(text)) => Found::One(Cow::Owned(text.into_bytes())),
                None => Found::Absent,
            })?,
            Location::Headers(names) => {
                for name in names {
                    take(self.header(received, name))?;
                }
                true
            }
            Location::NumberedHeader(stem) => {
                let mut number = 1_usize;
                while number <= MAX_CANDIDATES && take(self.header(received, &format!("{stem}{number}")))? {
                    number = number.saturating_add(1);
                }
                true
            }
        };
        let values = values.into_iter().map(|value| self.unwrap(value)).collect::<Result<SmallVec<_>, _>>()?;
        if values.is_empty() { Err(missing) } else { Ok(Presented { values, source: self }) }
    }

    fn header<'r>(&self, received: &'r Received<'_>, name: &str) -> Found<Cow<'r, [u8]>> {
        let headers = &received.delivery.headers;
        // A list's syntax may have commas of its own; what a proxy joined shows as a doubled field or a bad tag.
        let found = if self.is_list() { headers.line(name) } else { headers.single(name) };
        match found {
            Found::One(value) => Found::One(Cow::Borrowed(value)),
            Found::Absent => Found::Absent,
            Found::Repeated => Found::Repeated,
        }
    }

    fn is_list(&self) -> bool {
        self.separator.is_some() || self.group_separator.is_some()
    }

    /// The value without what it is wrapped in.
    fn unwrap<'r>(&self, value: Cow<'r, [u8]>) -> Result<Cow<'r, [u8]>, Rejection> {
        if value.len() > MAX_TEXT {
            return Err(Rejection::SignatureMalformed);
        }
        let value = match (&self.auth_scheme, value) {
            (None, value) => value,
            (Some(word), Cow::Borrowed(value)) => {
                Cow::Borrowed(after_auth_scheme(value, word).ok_or(Rejection::SignatureMalformed)?)
            }
            (Some(word), Cow::Owned(value)) => {
                Cow::Owned(after_auth_scheme(&value, word).ok_or(Rejection::SignatureMalformed)?.to_vec())
            }
        };
        match &self.member {
            None => Ok(value),
            Some(member) => {
                Ok(Cow::Owned(enveloped(&value, member).ok_or(Rejection::SignatureMalformed)?.into_bytes()))
            }
        }
    }

    /// Writes signatures the way they are read, for making a signed request. `fields` are other `k=v` entries, and
    /// `positional` the entries that stand before all others.
    #[must_use]
    pub fn render(&self, signature: &[u8], fields: &[(&str, &str)], positional: &[&str]) -> String {
        let signature = format!("{}{}", self.prefix, self.encoding.encode(signature));
        let separator = self.separator.as_deref().unwrap_or(",");
        let entry = match &self.field {
            Some(field) => format!("{field}{}{signature}", self.field_separator),
            None => signature,
        };
        let entries: Vec<String> = positional
            .iter()
            .map(|text| (*text).to_owned())
            .chain(fields.iter().map(|(k, v)| format!("{k}{}{v}", self.field_separator)))
            .chain([entry])
            .collect();
        let value = entries.join(separator);
        self.auth_scheme.as_ref().map_or_else(|| value.clone(), |word| format!("{word} {value}"))
    }
}

/// The member of a JSON object that is written in base64.
#[must_use]
pub fn enveloped(value: &[u8], member: &str) -> Option<String> {
    let json = Json::parse(&Encoding::Base64.decode(value)?)?;
    json.scalar_at(&format!("/{member}")).map(Cow::into_owned)
}

/// The credentials after an authentication scheme word and exactly one space.
#[must_use]
pub fn after_auth_scheme<'a>(value: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let (scheme, rest) = value.split_at_checked(word.len())?;
    rest.strip_prefix(b" ").filter(|_| scheme.eq_ignore_ascii_case(word.as_bytes()))
}

impl Presented<'_> {
    /// The groups, of which one must hold: all values together, unless a separator parts them.
    #[must_use]
    pub fn groups(&self) -> SmallVec<[Group<'_>; 1]> {
        let source = self.source;
        match &source.group_separator {
            None => smallvec::smallvec![Group { texts: self.values.iter().map(AsRef::as_ref).collect(), source }],
            Some(separator) => self
                .values
                .iter()
                .flat_map(|value| split(value, separator.as_bytes()))
                .take(MAX_CANDIDATES)
                .map(|text| Group { texts: smallvec::smallvec![text], source })
                .collect(),
        }
    }
}

/// The parts of `text` between separators; all of it where the separator is empty.
fn split<'t>(text: &'t [u8], separator: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let at = if separator.is_empty() { None } else { memchr::memmem::find(text, separator) };
        let (entry, after) = match at {
            Some(at) => (text.get(..at)?, text.get(at.saturating_add(separator.len())..)),
            None => (text, None),
        };
        rest = after;
        Some(entry)
    })
}

impl<'g> Group<'g> {
    fn entries(&self) -> impl Iterator<Item = &'g [u8]> {
        let separator = self.source.separator.as_deref().unwrap_or_default().as_bytes();
        self.texts.iter().flat_map(move |text| split(text, separator))
    }

    fn value_of(&self, entry: &'g [u8], name: &str) -> Option<&'g [u8]> {
        entry.strip_prefix(name.as_bytes())?.strip_prefix(self.source.field_separator.as_bytes())
    }

    /// The value of the one entry `name=…`.
    #[must_use]
    pub fn field(&self, name: &str) -> Found<&'g [u8]> {
        let mut values = self.entries().filter_map(|entry| self.value_of(entry, name));
        match (values.next(), values.next()) {
            (None | Some([]), None) | (None, Some(_)) => Found::Absent,
            (Some(value), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// The entry at a position.
    #[must_use]
    pub fn entry(&self, position: usize) -> Found<&'g [u8]> {
        match self.entries().nth(position) {
            None | Some([]) => Found::Absent,
            Some(entry) => Found::One(entry),
        }
    }

    /// The texts of signatures, without their prefix.
    fn signatures(&self) -> Result<SmallVec<[&'g [u8]; 2]>, Rejection> {
        let in_a_list = self.source.is_list() || self.texts.len() > 1;
        let mut signatures = SmallVec::new();
        for entry in self.entries().skip(self.source.skip) {
            let text = match &self.source.field {
                Some(field) => self.value_of(entry, field),
                None => Some(entry),
            };
            match text.and_then(|text| text.strip_prefix(self.source.prefix.as_bytes())) {
                Some(text) => signatures.push(text),
                // Outside a list there is only this value: another prefix is a wrong form, not another version.
                None if in_a_list => {}
                None => return Err(Rejection::SignatureMalformed),
            }
        }
        match signatures.len() {
            0 => Err(Rejection::SignatureMissing),
            count if count > MAX_CANDIDATES => Err(Rejection::SignatureMalformed),
            _ => Ok(signatures),
        }
    }

    /// The candidates whose decoded length is `length` bytes. One of another length can never match, and in a list
    /// the others may; if there is none left, what was presented is malformed.
    pub fn candidates(&self, length: usize) -> Result<Candidates, Rejection> {
        let mut candidates = Candidates { tags: [[0; MAX_TAG]; MAX_CANDIDATES], count: 0, length };
        for text in self.signatures()? {
            let slot = candidates.tags.get_mut(candidates.count).ok_or(Rejection::SignatureMalformed)?;
            if self.source.encoding.decode_exactly(text, slot, length) {
                candidates.count = candidates.count.saturating_add(1);
            }
        }
        if candidates.count == 0 { Err(Rejection::SignatureMalformed) } else { Ok(candidates) }
    }

    /// The candidates, of whatever length.
    pub fn decoded(&self) -> Result<SmallVec<[Vec<u8>; 1]>, Rejection> {
        let decoded: SmallVec<[Vec<u8>; 1]> = self
            .signatures()?
            .into_iter()
            .filter_map(|text| self.source.encoding.decode(text).filter(|bytes| !bytes.is_empty()))
            .collect();
        if decoded.is_empty() { Err(Rejection::SignatureMalformed) } else { Ok(decoded) }
    }
}

impl Candidates {
    /// The tags.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.tags.iter().take(self.count).filter_map(|tag| tag.get(..self.length))
    }
}
