//! JSON read strictly: a repeated key is refused, because two readers may each believe a different one. A tree costs
//! many times its text, so the number of its values is bounded, whatever the length of the text.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::{borrow::Cow, cell::Cell, fmt};

/// Most values of a text that is parsed, at all depths together.
pub const MAX_VALUES: usize = 100_000;

/// A JSON value, as far as anything here looks.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// A string.
    Text(String),
    /// An integer that fits 64 bits. Written as `1`, it is `1` here; no other spelling of it is JSON.
    Integer(i128),
    /// A boolean.
    Boolean(bool),
    /// An object, in order.
    Object(Vec<(String, Json)>),
    /// An array.
    Array(Vec<Json>),
    /// Null.
    Null,
    /// A number whose spelling is lost.
    Other,
}

impl Json {
    /// Parses a whole text, of no more than [`MAX_VALUES`] values.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let json = Reader(&Cell::new(MAX_VALUES)).deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(json)
    }

    /// The value at a JSON pointer (RFC 6901).
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |value, token| value.step(token))
    }

    fn step(&self, token: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                let token = token.replace("~1", "/").replace("~0", "~");
                members.iter().find(|(key, _)| *key == token).map(|(_, value)| value)
            }
            Self::Array(items) => items.get(token.parse::<usize>().ok()?),
            Self::Text(_) | Self::Integer(_) | Self::Boolean(_) | Self::Null | Self::Other => None,
        }
    }

    /// All values at a pointer in which `*` stands for every item of an array. Nothing if any of them is absent, or
    /// if there is none: what must hold for every item does not hold for no item.
    #[must_use]
    pub fn all_at(&self, pointer: &str) -> Option<Vec<&Self>> {
        let mut values = vec![self];
        for token in pointer.split('/').skip(1) {
            let mut next = Vec::with_capacity(values.len());
            for value in values {
                match (token, value) {
                    ("*", Self::Array(items)) => next.extend(items),
                    ("*", _) => return None,
                    (token, value) => next.push(value.step(token)?),
                }
            }
            values = next;
        }
        Some(values).filter(|values| !values.is_empty())
    }

    /// The text of a scalar: a string, an integer or a boolean.
    #[must_use]
    pub fn scalar(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Integer(number) => Some(Cow::Owned(number.to_string())),
            Self::Boolean(true) => Some(Cow::Borrowed("true")),
            Self::Boolean(false) => Some(Cow::Borrowed("false")),
            Self::Object(_) | Self::Array(_) | Self::Null | Self::Other => None,
        }
    }

    /// The text of the scalar at a pointer.
    #[must_use]
    pub fn scalar_at(&self, pointer: &str) -> Option<Cow<'_, str>> {
        self.at(pointer)?.scalar()
    }

    /// The string at a pointer.
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> Option<&str> {
        self.at(pointer)?.text()
    }

    /// The text of a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The items of an array.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// Whether it holds nothing: an empty object, array or string, or null.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Object(members) => members.is_empty(),
            Self::Array(items) => items.is_empty(),
            Self::Null => true,
            Self::Integer(_) | Self::Boolean(_) | Self::Other => false,
        }
    }
}

/// The scalar at a pointer, without building anything else: a reader for text that was verified and of which one word
/// is wanted. A key on the way that occurs twice gives nothing.
#[must_use]
pub fn skim(bytes: &[u8], pointer: &str) -> Option<String> {
    let tokens: Vec<String> =
        pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let found = Skim(&tokens).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found
}

struct Skim<'t>(&'t [String]);

impl<'de> DeserializeSeed<'de> for Skim<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            Ok(Reader(&Cell::new(MAX_VALUES)).deserialize(deserializer)?.scalar().map(Cow::into_owned))
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Skim<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted: Option<usize> = self.0.first().and_then(|token| token.parse().ok());
        let (mut at, mut found) = (0_usize, None);
        loop {
            if Some(at) == wanted {
                match items.next_element_seed(Skim(self.0.get(1..).unwrap_or_default()))? {
                    Some(value) => found = value,
                    None => return Ok(found),
                }
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at = at.saturating_add(1);
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut seen, mut found) = (false, None);
        while let Some(key) = members.next_key::<Cow<'de, str>>()? {
            if self.0.first().is_some_and(|token| *token == key) {
                if seen {
                    return Err(A::Error::custom("repeated key"));
                }
                seen = true;
                found = members.next_value_seed(Skim(self.0.get(1..).unwrap_or_default()))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads values, as many as are left.
#[derive(Clone, Copy)]
struct Reader<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Boolean(value))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(i128::from(number)))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(i128::from(number)))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object: Vec<(String, Json)> = Vec::new();
        // A set beside the list: looking through the list for each key would be quadratic in a stranger's object.
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom("repeated key"));
            }
            object.push((key, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers() {
        let json = Json::parse(br#"{"a":{"b/c":["x",{"~":"deep"}]},"n":1}"#).unwrap();
        assert_eq!(json.text_at("/a/b~1c/0"), Some("x"));
        assert_eq!(json.text_at("/a/b~1c/1/~0"), Some("deep"));
        assert_eq!(json.text_at("/n"), None);
        assert_eq!(json.scalar_at("/n").as_deref(), Some("1"));
        assert_eq!(json.text_at("/missing"), None);
    }

    #[test]
    fn skimming_reads_one_word() {
        let text = br#"{"a":{"b":[0,{"c":"deep"}]},"n":12,"o":{"n":"other"},"x":[]}"#;
        assert_eq!(skim(text, "/a/b/1/c").as_deref(), Some("deep"));
        assert_eq!(skim(text, "/n").as_deref(), Some("12"));
        assert_eq!(skim(text, "/o/n").as_deref(), Some("other"));
        for absent in ["/a", "/a/b", "/a/b/7", "/missing", "/n/deeper", "/x/0"] {
            assert_eq!(skim(text, absent), None, "{absent}");
        }
        assert_eq!(skim(br#"{"a":"1","a":"2"}"#, "/a"), None);
        assert_eq!(skim(br#"{"a":"1"} x"#, "/a"), None);
    }

    #[test]
    fn a_star_is_every_item() {
        let json = Json::parse(br#"{"v":[{"s":"a"},{"s":"b"}],"w":[{"s":"a"},{}],"e":[]}"#).unwrap();
        assert_eq!(json.all_at("/v/*/s").map(|all| all.len()), Some(2));
        for absent in ["/w/*/s", "/e/*/s", "/e/*", "/v/*/t", "/x/*", "/v/0/s/*"] {
            assert_eq!(json.all_at(absent), None, "{absent}");
        }
    }

    #[test]
    fn repeated_keys_and_leftovers_are_refused() {
        for bad in [r#"{"a":"1","a":"2"}"#, r#"{"a":"1"} x"#, "{", ""] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse("[".repeat(100_000).as_bytes()), None, "depth is bounded");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let text = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(Json::parse(text(MAX_VALUES).as_bytes()).is_some());
        assert_eq!(Json::parse(text(MAX_VALUES + 1).as_bytes()), None);
        assert_eq!(Json::parse(b"[] []"), None);
    }
}
