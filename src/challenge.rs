//! Provider handshakes, as rules: when a request is one, what of it is echoed, and what is answered.
//!
//! An echo reflects a stranger's text from the operator's own origin, so a rule names a character set and a length,
//! both closed; nothing outside them is ever sent back, escaped or not. A challenge that the provider signs is only
//! answered with a [`Verified`] in hand. A challenge that asks for a MAC of its own text is a MAC oracle: the set and
//! the length keep what it can be asked apart from what the provider signs.

use crate::{
    clock::Now,
    condition::{Condition, MAX_BODY},
    decision::{Answer, AnswerReason, Denial, Rejection, Reply},
    delivery::{Delivery, Found},
    received::{Place, Received},
    scheme::{
        Verified,
        decryption::Decryption,
        encoding::Encoding,
        mac::{Hash, MacKey},
        oracle::Oracle,
        token::Token,
    },
    secret::{Key, Secret},
};
use std::borrow::Cow;

/// A compiled challenge rule.
#[derive(Debug)]
pub struct Challenge {
    /// What conditions and echoes look at, instead of the request's own body.
    pub decrypt: Option<Decryption>,
    /// All of these must hold for a request to be this challenge.
    pub when: Vec<Condition>,
    /// Whether the provider signs it.
    pub signed: bool,
    /// A token that the request must show.
    pub token: Option<Token>,
    /// The values that are echoed.
    pub echoes: Vec<Echo>,
    /// The values that are computed from them; the answer counts them on from the echoes.
    pub derived: Vec<Derived>,
    /// Where the provider hands over a secret.
    pub enrol: Option<Place>,
    /// What is answered.
    pub respond: Respond,
}

/// Shortest and longest secret that is learned, in bytes.
const ENROLLED: std::ops::RangeInclusive<usize> = 16..=512;

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

/// A value that is computed.
#[derive(Debug)]
pub struct Derived {
    /// What the response calls it.
    pub name: String,
    /// By what.
    pub function: Function,
    /// From what.
    pub of: Template,
    /// How its bytes are written.
    pub encoding: Encoding,
}

/// What computes a value.
#[derive(Debug)]
pub enum Function {
    /// A hash that anybody can compute.
    Hash(Hash),
    /// A MAC with the first of the endpoint's secrets that is active.
    Mac(Vec<Key<MacKey>>),
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
    /// Printable ASCII but for `< > & " ' \`: sentences, and still nothing that could be markup or end a JSON string.
    Text,
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
    /// The echo, or behind the echoes the derived value, with this index.
    Value(usize),
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

impl Challenge {
    /// What it computes MACs of, for anybody.
    #[must_use]
    pub fn oracle(&self) -> Option<Oracle> {
        if self.signed {
            return None;
        }
        let (mut bytes, mut longest) = (Vec::new(), None);
        for derived in self.derived.iter().filter(|derived| matches!(derived.function, Function::Mac(_))) {
            let mut length = 0_usize;
            for part in &derived.of.0 {
                match part {
                    Part::Text(text) => {
                        bytes.extend_from_slice(text.as_bytes());
                        length = length.saturating_add(text.len());
                    }
                    Part::Value(index) => match self.echoes.get(*index) {
                        Some(echo) => {
                            bytes.extend((0..=u8::MAX).filter(|byte| echo.charset.contains(*byte)));
                            length = length.saturating_add(echo.max_length);
                        }
                        // A MAC of a value that was computed: of fixed form, but not worth telling apart.
                        None => return Some(Oracle::new((0..=u8::MAX).collect(), usize::MAX)),
                    },
                }
            }
            longest = longest.max(Some(length));
        }
        longest.map(|longest| Oracle::new(bytes, longest))
    }

    /// The first of `rules` that a request poses.
    #[must_use]
    pub fn find<'r>(rules: &'r [Self], received: &Received<'_>, now: Now) -> Option<Posed<'r>> {
        let rule = rules.iter().find(|rule| rule.is_posed_by(received, now))?;
        Some(if rule.signed { Posed::Signed(SignedChallenge(rule)) } else { Posed::Unsigned(UnsignedChallenge(rule)) })
    }

    fn is_posed_by(&self, received: &Received<'_>, now: Now) -> bool {
        let reads_body = |condition: &Condition| {
            matches!(condition, Condition::Value { place: Place::Json(_) | Place::Form(_), .. } | Condition::Empty(_))
        };
        if received.body.len() > MAX_BODY && (self.decrypt.is_some() || self.when.iter().any(reads_body)) {
            return false;
        }
        self.look_at(received, now, |received| self.when.iter().all(|condition| condition.holds(received)))
            .unwrap_or(false)
    }

    /// Looks at the request, or at what is hidden in it; nothing if that cannot be read.
    fn look_at<T>(&self, received: &Received<'_>, now: Now, look: impl FnOnce(&Received<'_>) -> T) -> Option<T> {
        match &self.decrypt {
            None => Some(look(received)),
            Some(decryption) => {
                let plain = decryption.open(received, now)?;
                let delivery = Delivery { body: crate::delivery::Body::Whole(&plain), ..received.delivery.clone() };
                Some(look(&Received::new(&delivery, &plain)))
            }
        }
    }

    fn answer(&self, received: &Received<'_>, now: Now) -> Result<Answer, Denial> {
        if let Some(token) = &self.token {
            token.verify(received, now)?;
        }
        let read = |received: &Received<'_>| {
            self.echoes.iter().map(|echo| echo.read(received)).collect::<Result<Vec<String>, Rejection>>()
        };
        let mut values = self.look_at(received, now, read).ok_or(Rejection::ChallengeMalformed)??;
        for derived in &self.derived {
            let value = derived.compute(&values, now)?;
            values.push(value);
        }
        let mut headers: Vec<(String, String)> =
            self.respond.headers.iter().map(|(name, value)| (name.clone(), value.fill(&values))).collect();
        let body = match &self.respond.body {
            Some((content_type, template)) => {
                headers.push(("content-type".to_owned(), (*content_type).to_owned()));
                template.fill(&values)
            }
            None => String::new(),
        };
        Ok(Answer { reason: AnswerReason::Challenge, reply: Reply { status: self.respond.status, headers, body } })
    }
}

impl UnsignedChallenge<'_> {
    /// The secret that is handed over with it, if one is.
    #[must_use]
    pub fn enrolled(&self, received: &Received<'_>) -> Option<Result<Secret, Rejection>> {
        let place = self.0.enrol.as_ref()?;
        Some(match received.read(place) {
            Found::One(secret) if ENROLLED.contains(&secret.len()) => Ok(Secret::new(secret.into_owned())),
            Found::One(_) | Found::Absent | Found::Repeated => Err(Rejection::ChallengeMalformed),
        })
    }

    /// The answer.
    pub fn answer(&self, received: &Received<'_>, now: Now) -> Result<Answer, Denial> {
        self.0.answer(received, now)
    }
}

impl SignedChallenge<'_> {
    /// The answer, for which the proof must be shown.
    pub fn answer(&self, received: &Received<'_>, now: Now, _proof: &Verified) -> Result<Answer, Denial> {
        self.0.answer(received, now)
    }
}

impl Echo {
    fn read(&self, received: &Received<'_>) -> Result<String, Rejection> {
        let mut value: Option<Cow<'_, str>> = None;
        for place in &self.places {
            match received.read_text(place).map_err(|_| Rejection::ChallengeMalformed)? {
                Found::Absent => {}
                Found::Repeated => return Err(Rejection::ChallengeMalformed),
                Found::One(found) => match &value {
                    Some(other) if *other != found => return Err(Rejection::ChallengeMismatch),
                    Some(_) => {}
                    None => value = Some(found),
                },
            }
        }
        value
            .filter(|v| !v.is_empty() && v.len() <= self.max_length && v.bytes().all(|b| self.charset.contains(b)))
            .map(Cow::into_owned)
            .ok_or(Rejection::ChallengeMalformed)
    }
}

impl Derived {
    fn compute(&self, values: &[String], now: Now) -> Result<String, Denial> {
        let text = self.of.fill(values).into_bytes();
        let tag = match &self.function {
            Function::Hash(hash) => hash.of(&text),
            Function::Mac(keys) => {
                let key = keys.iter().find(|key| key.is_active(now));
                key.ok_or(crate::decision::Fault::NoActiveSecret)?.value.tag(&[Cow::Owned(text)])
            }
        };
        Ok(self.encoding.encode(tag.bytes()))
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
            Self::Text => {
                (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'<' | b'>' | b'&' | b'"' | b'\'' | b'\\')
            }
        }
    }
}

impl Template {
    fn fill(&self, values: &[String]) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Value(index) => values.get(*index).map_or("", String::as_str),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Body, Headers};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_echo_leaves_its_character_set(value in ".{0,300}") {
            for (charset, never) in [(Charset::Token, &b"\"'<>&\\{}:;, "[..]), (Charset::Text, &b"\"'<>&\\"[..])] {
                let echo = Echo { name: "c".into(), places: vec![Place::Header("x-c".into())], charset, max_length: 256 };
                let delivery = Delivery {
                    method: "POST", target: "/", host: "h",
                    headers: Headers::from_lines(vec![(b"x-c", value.as_bytes())]),
                    body: Body::Whole(b""), peer: None, route_endpoint: None,
                };
                if let Ok(text) = echo.read(&Received::new(&delivery, b"")) {
                    let harmless = |b: u8| (b.is_ascii_graphic() || b == b' ') && !never.contains(&b);
                    prop_assert!(text.len() <= 256 && text.bytes().all(harmless), "{}", text);
                }
            }
        }
    }
}
