//! Provider handshakes, as rules: when a request is one, what of it is echoed, and what is answered.
//!
//! An echo reflects a stranger's text from the operator's own origin, so a rule names a character set and a length,
//! both closed; nothing outside them is ever sent back, escaped or not. A challenge that the provider signs is only
//! answered with a [`Verified`] in hand.

use crate::{
    decision::{Answer, AnswerReason, Rejection, Reply},
    delivery::{Delivery, Found},
    json::Json,
    scheme::Verified,
};
use std::borrow::Cow;

/// Bodies longer than this are deliveries, not challenges, and are not parsed to find out.
pub const MAX_BODY: usize = 16 * 1024;

/// A compiled challenge rule.
#[derive(Debug)]
pub struct Challenge {
    /// All of these must hold for a request to be this challenge.
    pub when: Vec<Condition>,
    /// Whether the provider signs it.
    pub signed: bool,
    /// The values that are echoed.
    pub echoes: Vec<Echo>,
    /// What is answered.
    pub respond: Respond,
}

/// One condition on a request.
#[derive(Debug)]
pub enum Condition {
    /// The method is this one.
    Method(String),
    /// A value is there, and is this one if one is named.
    Value {
        /// Where.
        place: Place,
        /// What it must be.
        equals: Option<String>,
    },
}

/// Places of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header, name in lower case.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A string in the JSON body, by RFC 6901 pointer.
    Json(String),
}

/// A value that is echoed.
#[derive(Debug)]
pub struct Echo {
    /// What the response calls it.
    pub name: String,
    /// Where it may stand; where several are present they must be equal.
    pub places: Vec<Place>,
    /// Which characters it may have.
    pub charset: Charset,
    /// Longest value, in bytes.
    pub max_length: usize,
}

/// Closed sets of characters that may be echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// `A–Z a–z 0–9 . _ ~ + / = -`: what tokens, UUIDs and both base64 alphabets need, and nothing a browser, a
    /// header or JSON could read as more than text.
    Token,
    /// Hexadecimal digits.
    Hex,
    /// Decimal digits.
    Digits,
}

/// What is answered.
#[derive(Debug)]
pub struct Respond {
    /// HTTP status.
    pub status: u16,
    /// Header templates.
    pub headers: Vec<(String, Template)>,
    /// The body's content type and template.
    pub body: Option<(&'static str, Template)>,
}

/// Text with echoes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text from the configuration.
    Text(String),
    /// The echo with this index.
    Echo(usize),
}

/// A request that is a challenge, and whether it needs a proof before it is answered.
#[derive(Debug)]
pub enum Posed<'r> {
    /// Answered to anybody.
    Unsigned(UnsignedChallenge<'r>),
    /// Answered only to the verified.
    Signed(SignedChallenge<'r>),
}

/// A challenge that anybody may pose.
#[derive(Debug)]
pub struct UnsignedChallenge<'r>(&'r Challenge);

/// A challenge that the provider signs.
#[derive(Debug)]
pub struct SignedChallenge<'r>(&'r Challenge);

/// A body that is JSON, or is not.
type Parsed = Option<Json>;

/// The body as JSON, parsed at most once and only if a rule asks.
struct LazyJson<'b> {
    body: &'b [u8],
    /// Nothing yet, or what parsing gave.
    parsed: Option<Parsed>,
}

impl Challenge {
    /// The first of `rules` that a request poses.
    #[must_use]
    pub fn find<'r>(rules: &'r [Self], delivery: &Delivery<'_>, body: &[u8]) -> Option<Posed<'r>> {
        let mut json = LazyJson { body, parsed: None };
        let rule = rules.iter().find(|rule| rule.when.iter().all(|condition| condition.holds(delivery, &mut json)))?;
        Some(if rule.signed { Posed::Signed(SignedChallenge(rule)) } else { Posed::Unsigned(UnsignedChallenge(rule)) })
    }

    fn answer(&self, delivery: &Delivery<'_>, body: &[u8]) -> Result<Answer, Rejection> {
        let mut json = LazyJson { body, parsed: None };
        let echoes = self
            .echoes
            .iter()
            .map(|echo| echo.read(delivery, &mut json))
            .collect::<Result<Vec<String>, Rejection>>()?;
        let mut headers: Vec<(String, String)> =
            self.respond.headers.iter().map(|(name, value)| (name.clone(), value.fill(&echoes))).collect();
        let body = match &self.respond.body {
            Some((content_type, template)) => {
                headers.push(("content-type".to_owned(), (*content_type).to_owned()));
                template.fill(&echoes)
            }
            None => String::new(),
        };
        Ok(Answer { reason: AnswerReason::Challenge, reply: Reply { status: self.respond.status, headers, body } })
    }
}

impl UnsignedChallenge<'_> {
    /// The answer.
    pub fn answer(&self, delivery: &Delivery<'_>, body: &[u8]) -> Result<Answer, Rejection> {
        self.0.answer(delivery, body)
    }
}

impl SignedChallenge<'_> {
    /// The answer, for which the proof must be shown.
    pub fn answer(&self, delivery: &Delivery<'_>, body: &[u8], _proof: &Verified) -> Result<Answer, Rejection> {
        self.0.answer(delivery, body)
    }
}

impl Condition {
    fn holds(&self, delivery: &Delivery<'_>, json: &mut LazyJson<'_>) -> bool {
        match self {
            Self::Method(method) => delivery.method == method,
            // Parsing every body to look for a rare word would cost more than the signature: a body that does not
            // even contain the word, as plain bytes, is a delivery. One that hides it behind JSON escapes is too.
            Self::Value { place: Place::Json(_), equals: Some(expected) }
                if json.body.len() > MAX_BODY || memchr::memmem::find(json.body, expected.as_bytes()).is_none() =>
            {
                false
            }
            Self::Value { place, equals } => match place.read(delivery, json) {
                Found::One(value) => equals.as_ref().is_none_or(|expected| value == *expected),
                // A doubled value is certainly meant as a challenge; reading it will refuse it.
                Found::Repeated => equals.is_none(),
                Found::Absent => false,
            },
        }
    }
}

impl Place {
    fn read<'a>(&self, delivery: &Delivery<'a>, json: &'a mut LazyJson<'_>) -> Found<Cow<'a, str>> {
        match self {
            // What is not UTF-8 becomes a replacement character, which no character set contains.
            Self::Header(name) => match delivery.headers.single(name) {
                Found::One(value) => Found::One(String::from_utf8_lossy(value)),
                Found::Absent => Found::Absent,
                Found::Repeated => Found::Repeated,
            },
            Self::Query(name) => delivery.query_parameter(name),
            Self::Json(pointer) => json.text_at(pointer).map_or(Found::Absent, |text| Found::One(Cow::Borrowed(text))),
        }
    }
}

impl LazyJson<'_> {
    fn text_at(&mut self, pointer: &str) -> Option<&str> {
        let body = self.body;
        self.parsed
            .get_or_insert_with(|| if body.len() > MAX_BODY { None } else { Json::parse(body) })
            .as_ref()
            .and_then(|json| json.text_at(pointer))
    }
}

impl Echo {
    fn read(&self, delivery: &Delivery<'_>, json: &mut LazyJson<'_>) -> Result<String, Rejection> {
        let mut value: Option<String> = None;
        for place in &self.places {
            match place.read(delivery, json) {
                Found::Absent => {}
                Found::Repeated => return Err(Rejection::ChallengeMalformed),
                Found::One(found) => match &value {
                    Some(other) if *other != found => return Err(Rejection::ChallengeMismatch),
                    Some(_) => {}
                    None => value = Some(found.into_owned()),
                },
            }
        }
        value
            .filter(|v| !v.is_empty() && v.len() <= self.max_length && v.bytes().all(|b| self.charset.contains(b)))
            .ok_or(Rejection::ChallengeMalformed)
    }
}

impl Charset {
    /// Whether a byte may be echoed.
    #[must_use]
    pub const fn contains(self, byte: u8) -> bool {
        match self {
            Self::Token => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-')
            }
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Digits => byte.is_ascii_digit(),
        }
    }
}

impl Template {
    fn fill(&self, echoes: &[String]) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Echo(index) => echoes.get(*index).map_or("", String::as_str),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_echo_leaves_its_character_set(value in ".{0,300}") {
            let echo = Echo { name: "c".into(), places: vec![Place::Header("x-c".into())], charset: Charset::Token, max_length: 256 };
            let delivery = Delivery {
                method: "POST", target: "/", host: "h",
                headers: crate::delivery::Headers::from_lines(vec![(b"x-c", value.as_bytes())]),
                body: crate::delivery::Body::Whole(b""), peer: None, route_endpoint: None,
            };
            if let Ok(text) = echo.read(&delivery, &mut LazyJson { body: b"", parsed: None }) {
                let harmless = |b: u8| b.is_ascii_graphic() && !b"\"'<>&\\{}:;,".contains(&b);
                prop_assert!(text.len() <= 256 && text.bytes().all(harmless), "{}", text);
            }
        }
    }
}
