//! The part of `envoy.service.auth.v3.CheckRequest` that a check reads, found in the message and left where it is.
//!
//! Half of what a stock server spends on a check is the decoding of some thirty header lines into strings and maps of
//! which a check reads five. Here a text is two numbers: where it begins in the message and how long it is. Nothing is
//! copied, counted or hashed.
//!
//! It is read as Protocol Buffers prescribe: unknown fields are skipped, groups among them; of a field that comes twice the
//! last counts, and a message that comes twice is one with the fields of both; a length that leads out of the message, a
//! number that never ends and a field of another kind are errors. Whether texts are UTF-8 is decided on purpose elsewhere:
//! header names and values are bytes to everything here; method, path, host and endpoint name are judged where they are
//! read ([`request`](super::request)), and a message that fails there is denied, not answered with a gRPC error that a proxy could be
//! told to let through. Map entries are a list: order and repetition survive.
//!
//! Tag numbers are those of `envoy/service/auth/v3/attribute_context.proto`. Property tests hold this against
//! `envoy-types`.

use super::request::ENDPOINT;
use bytes::Bytes;

/// A question.
#[derive(Debug, Clone, Default)]
pub struct CheckRequest {
    /// What the texts are in.
    message: Bytes,
    is_http: bool,
    id: Span,
    method: Span,
    path: Span,
    host: Span,
    protocol: Span,
    size: i64,
    text_body: Span,
    raw_body: Bytes,
    /// Where that is in the message, if it is.
    raw_at: Span,
    /// Headers, repeated ones joined.
    joined: Vec<(Span, Span)>,
    /// Headers, one entry a line.
    lines: Vec<Line>,
    /// What the route calls its endpoint.
    endpoint: Option<Span>,
    /// The proxy's direct peer.
    peer: Span,
}

/// A text: where it begins and how long it is.
#[derive(Debug, Clone, Copy, Default)]
struct Span(usize, usize);

/// `envoy.config.core.v3.HeaderValue`
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    key: Span,
    value: Span,
    /// Where it is there, it wins.
    raw_value: Span,
}

/// Why a message cannot be read. There is nothing that anybody could do about which it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl CheckRequest {
    /// Reads a message.
    pub fn decode(message: Bytes) -> Result<Self, Malformed> {
        let mut request = Self::default();
        let mut raw_body = Span::default();
        Fields::of(&message).each(|tag, field| match tag {
            1 => field.message()?.each(|tag, field| request.attribute(tag, field, &message, &mut raw_body)),
            _ => Ok(()),
        })?;
        request.raw_body = match raw_body {
            Span(_, 0) => Bytes::new(),
            Span(begin, length) => message.slice(begin..begin.saturating_add(length)),
        };
        request.raw_at = raw_body;
        request.message = message;
        Ok(request)
    }

    /// `AttributeContext`
    fn attribute(&mut self, tag: u32, field: Field<'_>, message: &[u8], raw_body: &mut Span) -> Result<(), Malformed> {
        match tag {
            // `Peer`, `Address`, `SocketAddress`
            1 => field.message()?.each(|tag, field| match tag {
                1 => field.message()?.each(|tag, field| match tag {
                    1 => field.message()?.each(|tag, field| match tag {
                        2 => field.text().map(|text| self.peer = text),
                        _ => Ok(()),
                    }),
                    // It is one of several kinds: another takes its place.
                    2 | 3 => {
                        self.peer = Span::default();
                        Ok(())
                    }
                    _ => Ok(()),
                }),
                _ => Ok(()),
            }),
            // `Request`
            4 => field.message()?.each(|tag, field| match tag {
                2 => {
                    self.is_http = true;
                    field.message()?.each(|tag, field| self.http(tag, field, raw_body))
                }
                _ => Ok(()),
            }),
            10 => {
                let (key, value) = entry(field)?;
                if key.of(message) == ENDPOINT {
                    self.endpoint = Some(value);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `HttpRequest`
    fn http(&mut self, tag: u32, field: Field<'_>, raw_body: &mut Span) -> Result<(), Malformed> {
        let text = match tag {
            1 => &mut self.id,
            2 => &mut self.method,
            3 => {
                return entry(field).map(|entry| push(&mut self.joined, entry));
            }
            4 => &mut self.path,
            5 => &mut self.host,
            9 => {
                self.size = i64::from_le_bytes(field.number()?.to_le_bytes());
                return Ok(());
            }
            10 => &mut self.protocol,
            11 => &mut self.text_body,
            12 => raw_body,
            13 => {
                return field.message()?.each(|tag, field| match tag {
                    1 => line(field).map(|line| push(&mut self.lines, line)),
                    _ => Ok(()),
                });
            }
            _ => return Ok(()),
        };
        *text = field.text()?;
        Ok(())
    }

    /// Whether it is about HTTP at all.
    #[must_use]
    pub fn is_http(&self) -> bool {
        self.is_http
    }

    /// The proxy's stream id.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.id.of(&self.message)
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.message)
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.path.of(&self.message)
    }

    /// The authority.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.host.of(&self.message)
    }

    /// `HTTP/1.1`, `HTTP/2`, …
    #[must_use]
    pub fn protocol(&self) -> &[u8] {
        self.protocol.of(&self.message)
    }

    /// Bytes of the body, or -1 where unknown.
    #[must_use]
    pub fn size(&self) -> i64 {
        self.size
    }

    /// The body as text.
    #[must_use]
    pub fn text_body(&self) -> &[u8] {
        self.text_body.of(&self.message)
    }

    /// The body as bytes.
    #[must_use]
    pub fn raw_body(&self) -> &[u8] {
        &self.raw_body
    }

    /// The name that the route gives the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> Option<&[u8]> {
        self.endpoint.map(|name| name.of(&self.message))
    }

    /// The address of the proxy's direct peer.
    #[must_use]
    pub fn peer(&self) -> &[u8] {
        self.peer.of(&self.message)
    }

    /// Header lines, where the proxy tells lines.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.lines.iter().map(|line| {
            let value = if line.raw_value.1 == 0 { line.value } else { line.raw_value };
            (line.key.of(&self.message), value.of(&self.message))
        })
    }

    /// Headers in which repeated ones are joined, where the proxy tells these.
    pub fn joined(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.joined.iter().map(|(key, value)| (key.of(&self.message), value.of(&self.message)))
    }

    /// A question of another listener's.
    #[must_use]
    pub fn asked(told: &Told<'_>) -> Self {
        let mut text = Vec::with_capacity(1024);
        let mut keep = |part: &[u8]| {
            let span = Span(text.len(), part.len());
            text.extend_from_slice(part);
            span
        };
        let mut request = Self { is_http: true, ..Self::default() };
        request.id = keep(told.id.as_bytes());
        request.method = keep(told.method.as_bytes());
        request.path = keep(told.path.as_bytes());
        request.host = keep(told.host.as_bytes());
        request.protocol = keep(told.protocol.as_bytes());
        request.peer = keep(told.peer.unwrap_or_default().as_bytes());
        request.endpoint = told.endpoint.map(|name| keep(name.as_bytes()));
        request.lines = told
            .lines
            .iter()
            .map(|(name, value)| Line { key: keep(name), value: Span::default(), raw_value: keep(value) })
            .collect();
        request.message = text.into();
        request
    }

    /// Lets go of a body that nobody will look at again, and with it of the memory that the message was in: the rest is a few
    /// kilobytes, and moves. What is let go is given back to the system here and now, which takes its time where the body
    /// was long.
    pub fn let_go_of_body(&mut self) {
        let body = if self.raw_body.is_empty() { self.text_body } else { self.raw_at };
        let Span(begin, length) = body;
        let end = begin.saturating_add(length);
        let kept = [self.message.get(..begin), self.message.get(end..)].map(Option::unwrap_or_default).concat();
        let texts =
            [&mut self.id, &mut self.method, &mut self.path, &mut self.host, &mut self.protocol, &mut self.peer];
        let joined = self.joined.iter_mut().flat_map(|(key, value)| [key, value]);
        let lines = self.lines.iter_mut().flat_map(|line| [&mut line.key, &mut line.value, &mut line.raw_value]);
        for text in texts.into_iter().chain(&mut self.endpoint).chain(joined).chain(lines) {
            if text.0 >= end {
                text.0 = text.0.saturating_sub(length);
            }
        }
        self.message = kept.into();
        (self.raw_body, self.raw_at, self.text_body) = (Bytes::new(), Span::default(), Span::default());
    }

    /// Adds the body of another listener's question.
    pub fn set_body(&mut self, body: Bytes) {
        self.size = i64::try_from(body.len()).unwrap_or(i64::MAX);
        self.raw_body = body;
    }
}

/// What another listener was told of a request.
#[derive(Debug)]
pub struct Told<'a> {
    /// What it is called.
    pub id: &'a str,
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The authority.
    pub host: &'a str,
    /// `HTTP/1.1`; nothing where the request is only described.
    pub protocol: &'a str,
    /// The address of the proxy's peer, where it tells one.
    pub peer: Option<&'a str>,
    /// The endpoint that the proxy names, where it does.
    pub endpoint: Option<&'a str>,
    /// Header lines, names in lower case.
    pub lines: &'a [(&'a [u8], &'a [u8])],
}

/// Header lines a usual request has, so that their list is made once.
const USUAL_LINES: usize = 40;

fn push<T>(lines: &mut Vec<T>, line: T) {
    if lines.capacity() == 0 {
        lines.reserve(USUAL_LINES);
    }
    lines.push(line);
}

/// An entry of a `map<string, string>`.
fn entry(field: Field<'_>) -> Result<(Span, Span), Malformed> {
    let (mut key, mut value) = (Span::default(), Span::default());
    field.message()?.each(|tag, field| match tag {
        1 => field.text().map(|text| key = text),
        2 => field.text().map(|text| value = text),
        _ => Ok(()),
    })?;
    Ok((key, value))
}

/// `envoy.config.core.v3.HeaderValue`
fn line(field: Field<'_>) -> Result<Line, Malformed> {
    let mut line = Line::default();
    field.message()?.each(|tag, field| {
        let text = match tag {
            1 => &mut line.key,
            2 => &mut line.value,
            3 => &mut line.raw_value,
            _ => return Ok(()),
        };
        *text = field.text()?;
        Ok(())
    })?;
    Ok(line)
}

impl Span {
    /// The text, in the message it was found in.
    #[inline]
    fn of(self, message: &[u8]) -> &[u8] {
        let Self(begin, length) = self;
        message.get(begin..begin.saturating_add(length)).unwrap_or_default()
    }
}

/// The fields of a message that stands somewhere in the one that is read.
struct Fields<'m> {
    rest: &'m [u8],
    /// Where `rest` begins.
    at: usize,
}

/// The value of one field.
#[derive(Clone, Copy)]
enum Field<'m> {
    Number(u64),
    /// With where it begins.
    Bytes(&'m [u8], usize),
    /// 32 or 64 bits; no field that is read is of this kind.
    Fixed,
}

impl<'m> Field<'m> {
    fn text(self) -> Result<Span, Malformed> {
        match self {
            Self::Bytes(bytes, at) => Ok(Span(at, bytes.len())),
            Self::Number(_) | Self::Fixed => Err(Malformed),
        }
    }

    fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(..) | Self::Fixed => Err(Malformed),
        }
    }

    fn message(self) -> Result<Fields<'m>, Malformed> {
        match self {
            Self::Bytes(rest, at) => Ok(Fields { rest, at }),
            Self::Number(_) | Self::Fixed => Err(Malformed),
        }
    }
}

/// The wire type of texts and messages.
const LENGTH_DELIMITED: u8 = 2;
/// How deep groups may stand in each other. They have not been made for fifteen years.
const MAX_DEPTH: u32 = 100;

impl<'m> Fields<'m> {
    fn of(message: &'m [u8]) -> Self {
        Self { rest: message, at: 0 }
    }

    /// Takes every field in turn.
    #[inline]
    fn each(mut self, mut take: impl FnMut(u32, Field<'m>) -> Result<(), Malformed>) -> Result<(), Malformed> {
        while !self.rest.is_empty() {
            // Nearly every field is a text shorter than 128 bytes with a tag below 16: two bytes, and what they say.
            if let [key @ 0x08..0x80, length @ ..0x80, rest @ ..] = self.rest
                && key & 7 == LENGTH_DELIMITED
            {
                let (bytes, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Malformed)?;
                let at = self.at.wrapping_add(2);
                self.rest = rest;
                self.at = at.wrapping_add(bytes.len());
                take(u32::from(key >> 3), Field::Bytes(bytes, at))?;
            } else if let Some((tag, field)) = self.any()? {
                take(tag, field)?;
            }
        }
        Ok(())
    }

    /// The next field, of whatever kind; nothing for a group, which is skipped.
    #[inline(never)]
    fn any(&mut self) -> Result<Option<(u32, Field<'m>)>, Malformed> {
        let (tag, kind) = self.key()?;
        Ok(self.value(kind, tag, MAX_DEPTH)?.map(|field| (tag, field)))
    }

    fn key(&mut self) -> Result<(u32, u64), Malformed> {
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if tag == 0 || key > u64::from(u32::MAX) { Err(Malformed) } else { Ok((tag, key & 7)) }
    }

    /// The value of a field; nothing for a group, which is skipped.
    fn value(&mut self, kind: u64, tag: u32, depth: u32) -> Result<Option<Field<'m>>, Malformed> {
        Ok(Some(match kind {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let (bytes, at) = self.take(length)?;
                Field::Bytes(bytes, at)
            }
            3 => {
                self.skip_group(tag, depth.checked_sub(1).ok_or(Malformed)?)?;
                return Ok(None);
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(Malformed),
        }))
    }

    fn skip_group(&mut self, tag: u32, depth: u32) -> Result<(), Malformed> {
        loop {
            match self.key()? {
                (end, 4) => return if end == tag { Ok(()) } else { Err(Malformed) },
                (inner, kind) => self.value(kind, inner, depth)?,
            };
        }
    }

    fn take(&mut self, length: usize) -> Result<(&'m [u8], usize), Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        let at = self.at;
        self.rest = rest;
        self.at = at.saturating_add(length);
        Ok((bytes, at))
    }

    /// At most ten bytes, of which the last holds one bit.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (count, byte) in self.rest.iter().enumerate().take(10) {
            let shift = u32::try_from(count).map_err(|_| Malformed)?.saturating_mul(7);
            if shift == 63 && *byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if *byte < 0x80 {
                self.take(count.saturating_add(1))?;
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}
