//! The webhook request as received, parsed once, borrowed, undecided.
//!
//! An adapter (`ext_authz`, the CLI) builds a [`Delivery`]; every room reads it. Values are the bytes that
//! arrived. Looking up a header says *absent*, *one* or *repeated*: there is no way to take the first of several
//! by accident.

use std::{borrow::Cow, net::IpAddr};

/// One request.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// The authority: host, perhaps with a port, in the client's spelling.
    pub host: &'a str,
    /// Header lines.
    pub headers: Headers<'a>,
    /// The body, or why there is none to verify.
    pub body: Body<'a>,
    /// The address of the proxy's direct peer.
    pub peer: Option<IpAddr>,
    /// The endpoint the proxy's route names, which no client can influence.
    pub route_endpoint: Option<&'a str>,
}

/// A body as the proxy delivered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// All bytes, exactly.
    Whole(&'a [u8]),
    /// All of it, but as text: bytes that are not UTF-8 would have been replaced.
    Text(&'a [u8]),
    /// Text of another length than what was received: certainly altered.
    Altered,
    /// A part only.
    Truncated,
    /// The request has one, but it was not sent along.
    Missing,
}

impl<'a> Delivery<'a> {
    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The query, without its `?`; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The decoded value of a query parameter (`application/x-www-form-urlencoded`).
    #[must_use]
    pub fn query_parameter(&self, name: &str) -> Found<Cow<'a, str>> {
        let mut values = form_urlencoded::parse(self.query().as_bytes()).filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (None, _) => Found::Absent,
            (Some((_, value)), None) if value.trim().is_empty() => Found::Absent,
            (Some((_, value)), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// Whether the path can be read in more than one way by something between here and the upstream
    /// (CVE-2019-9901, CVE-2021-29492 and their kin): empty or dot segments, escaped slashes, dots or NUL,
    /// backslashes, path parameters, control characters; and `#`, wherever it stands, behind which some see no address
    /// any more and others its best part.
    #[must_use]
    pub fn path_is_ambiguous(&self) -> bool {
        let path = self.path().as_bytes();
        let odd = |b: &u8| matches!(b, b'%' | b';' | b'\\' | b'.' | 0..=0x20 | 0x7f..);
        if !path.starts_with(b"/") || memchr::memchr(b'#', self.target.as_bytes()).is_some() {
            return true;
        }
        let double_slash = memchr::memmem::find(path, b"//").is_some();
        double_slash || (path.iter().any(odd) && spelled_ambiguously(path))
    }
}

fn spelled_ambiguously(path: &[u8]) -> bool {
    let escaped =
        |hex: &[u8]| path.windows(3).any(|w| w.strip_prefix(b"%").is_some_and(|rest| rest.eq_ignore_ascii_case(hex)));
    path.iter().any(|b| matches!(b, b';' | b'\\' | 0..=0x20 | 0x7f))
        || path.split(|b| *b == b'/').any(|segment| segment == b"." || segment == b"..")
        || escaped(b"2f")
        || escaped(b"5c")
        || escaped(b"2e")
        || escaped(b"00")
}

/// The result of looking for something that may occur once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<T> {
    /// Not there, or blank.
    Absent,
    /// Exactly one.
    One(T),
    /// More than one, even if equal.
    Repeated,
}

impl<T> Found<T> {
    /// The value, or the caller's word for absent or repeated.
    pub fn required<E>(self, absent: E, repeated: E) -> Result<T, E> {
        match self {
            Self::One(value) => Ok(value),
            Self::Absent => Err(absent),
            Self::Repeated => Err(repeated),
        }
    }
}

/// Header lines, names in lower case.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    lines: Vec<(&'a [u8], &'a [u8])>,
    joined: bool,
}

impl<'a> Headers<'a> {
    /// Lines as they came over the wire, one entry each.
    #[must_use]
    pub fn from_lines(lines: Vec<(&'a [u8], &'a [u8])>) -> Self {
        Self { lines, joined: false }
    }

    /// Lines in which the proxy has joined repeated headers with a comma (Envoy without `encode_raw_headers`).
    #[must_use]
    pub fn from_joined(lines: Vec<(&'a [u8], &'a [u8])>) -> Self {
        Self { lines, joined: true }
    }

    /// All lines.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.lines.iter().copied()
    }

    /// The value of a header whose syntax has commas of its own (lists, dates, parameters). Where the proxy joined
    /// repeated lines, the caller's parser is what notices.
    #[must_use]
    pub fn line(&self, name: &str) -> Found<&'a [u8]> {
        let mut values = self.lines.iter().filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| trim(value));
        match (values.next(), values.next()) {
            (None | Some([]), None) | (None, Some(_)) => Found::Absent,
            (Some(value), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// The value of a header that has no comma of its own: one in a joined list means it was repeated.
    #[must_use]
    pub fn single(&self, name: &str) -> Found<&'a [u8]> {
        let found = self.line(name);
        let is_a_list = matches!(found, Found::One(value) if value.contains(&b','));
        if self.joined && is_a_list { Found::Repeated } else { found }
    }
}

/// `value` without surrounding optional white space (RFC 9110 §5.5).
fn trim(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last.saturating_add(1));
    value.get(start..end).unwrap_or_default()
}

/// Whose address a client's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// The proxy's direct peer, which no header can change.
    Peer,
    /// The n-th entry from the right of `x-forwarded-for`, counting the proxies that append to it.
    ForwardedFor {
        /// 1 is the entry the nearest proxy wrote.
        trusted_hops: usize,
    },
}

impl ClientAddress {
    /// The client's address, with IPv4-mapped IPv6 written as IPv4, or nothing when the proxy did not tell.
    #[must_use]
    pub fn of(self, delivery: &Delivery<'_>) -> Option<IpAddr> {
        match self {
            Self::Peer => delivery.peer,
            Self::ForwardedFor { trusted_hops } => forwarded(&delivery.headers, trusted_hops),
        }
        .map(|address| address.to_canonical())
    }
}

/// Entries of all `x-forwarded-for` lines, walked from the right: only what trusted proxies appended is reached.
fn forwarded(headers: &Headers<'_>, trusted_hops: usize) -> Option<IpAddr> {
    let lines: Vec<&[u8]> =
        headers.iter().filter(|(name, _)| *name == b"x-forwarded-for").map(|(_, value)| value).collect();
    lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|b| *b == b','))
        .nth(trusted_hops.checked_sub(1)?)
        .and_then(|entry| std::str::from_utf8(trim(entry)).ok())
        .and_then(|entry| entry.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(target: &str) -> Delivery<'_> {
        Delivery {
            method: "POST",
            target,
            host: "hooks.example.com",
            headers: Headers::from_lines(vec![]),
            body: Body::Whole(b""),
            peer: None,
            route_endpoint: None,
        }
    }

    #[test]
    fn ambiguous_paths() {
        for path in [
            "",
            "hooks",
            "//hooks",
            "/a//b",
            "/a/../b",
            "/a/.",
            "/./a",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/%2e%2e/a",
            "/a%00",
            "/a;b=1",
            "/a\\b",
            "/a b",
            "/a\u{7f}",
            "/a#b",
            "/a?b#c",
            "/#/../a",
        ] {
            assert!(delivery(path).path_is_ambiguous(), "{path:?}");
        }
        for path in ["/", "/hooks", "/hooks/github.com", "/a.b/c..d", "/a%20b", "/hooks?x=//../", "/é"] {
            assert!(!delivery(path).path_is_ambiguous(), "{path:?}");
        }
    }

    #[test]
    fn repeated_headers_are_never_first_wins() {
        let raw =
            Headers::from_lines(vec![(b"x-sig", b"a"), (b"x-sig", b"a"), (b"date", b"Mon, 1"), (b"blank", b" \t")]);
        assert_eq!(raw.single("x-sig"), Found::Repeated);
        assert_eq!(raw.single("date"), Found::One(&b"Mon, 1"[..]));
        assert_eq!(raw.single("blank"), Found::Absent);
        let joined = Headers::from_joined(vec![(b"x-sig", b"a,a")]);
        assert_eq!(joined.single("x-sig"), Found::Repeated);
        assert_eq!(joined.line("x-sig"), Found::One(&b"a,a"[..]));
    }

    #[test]
    fn forwarded_for_is_walked_from_the_right() {
        let mut delivery = delivery("/");
        delivery.peer = "10.0.0.9".parse().ok();
        delivery.headers = Headers::from_lines(vec![
            (b"x-forwarded-for", b"6.6.6.6, 203.0.113.7"),
            (b"x-forwarded-for", b"::ffff:198.51.100.2"),
        ]);
        let at = |trusted_hops| ClientAddress::ForwardedFor { trusted_hops }.of(&delivery).map(|a| a.to_string());
        assert_eq!(at(1).as_deref(), Some("198.51.100.2"));
        assert_eq!(at(2).as_deref(), Some("203.0.113.7"));
        assert_eq!(at(4), None);
        assert_eq!(at(0), None);
        assert_eq!(ClientAddress::Peer.of(&delivery).map(|a| a.to_string()).as_deref(), Some("10.0.0.9"));
    }
}
