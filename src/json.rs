//! JSON read strictly: a repeated key is refused, because two readers may each believe a different one.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value, as far as challenges need to see.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// A string.
    Text(String),
    /// An object, in order.
    Object(Vec<(String, Json)>),
    /// An array.
    Array(Vec<Json>),
    /// Null, a boolean or a number, of which nothing here asks the value.
    Other,
}

impl Json {
    /// Parses a whole text.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The string at a JSON pointer (RFC 6901).
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> Option<&str> {
        let mut value = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            value = match value {
                Self::Object(members) => members.iter().find(|(key, _)| *key == token).map(|(_, value)| value)?,
                Self::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                Self::Text(_) | Self::Other => return None,
            };
        }
        match value {
            Self::Text(text) => Some(text),
            Self::Object(_) | Self::Array(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object: Vec<(String, Json)> = Vec::new();
        // A set beside the list: looking through the list for each key would be quadratic in a stranger's object.
        let mut keys = std::collections::HashSet::new();
        while let Some((key, value)) = members.next_entry::<String, Json>()? {
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
        assert_eq!(json.text_at("/missing"), None);
    }

    #[test]
    fn repeated_keys_and_leftovers_are_refused() {
        for bad in [r#"{"a":"1","a":"2"}"#, r#"{"a":"1"} x"#, "{", ""] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse("[".repeat(100_000).as_bytes()), None, "depth is bounded");
    }
}
