//! Texts that a provider builds from parsed values before it signs them: sorted forms, query strings, JSON lines.
//!
//! Each function is one documented construction. What they are built from is what arrived, decoded once; a sender who
//! encodes it in another way signs the same text and delivers the same values.

use crate::{decision::Rejection, json::Json, received::MAX_PARSED};
use std::{borrow::Cow, collections::BTreeMap};

/// How all fields of a form become one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormOrder {
    /// Names with their values behind them, sorted by name; repeated names in the order of the form.
    Sorted,
    /// The same, but repeated names once for each different value, sorted.
    SortedUnique,
    /// `name=value` joined by `&`, sorted by name, without some names and without empty values.
    Pairs(Vec<String>),
}

impl FormOrder {
    /// Reads `sorted`, `sorted_unique`, `pairs` or `pairs:without,these`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "sorted" => Some(Self::Sorted),
            None if text == "sorted_unique" => Some(Self::SortedUnique),
            None if text == "pairs" => Some(Self::Pairs(Vec::new())),
            Some(("pairs", without)) => Some(Self::Pairs(without.split(',').map(str::to_owned).collect())),
            _ => None,
        }
    }

    /// The text.
    #[must_use]
    pub fn render(&self, form: &[(Cow<'_, str>, Cow<'_, str>)]) -> String {
        let mut fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (&**name, &**value)).collect();
        match self {
            Self::Sorted => fields.sort_by_key(|(name, _)| *name),
            Self::SortedUnique => {
                fields.sort_unstable();
                fields.dedup();
            }
            Self::Pairs(without) => {
                fields.retain(|(name, value)| !value.is_empty() && !without.iter().any(|other| other == name));
                fields.sort_by_key(|(name, _)| *name);
                let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                return pairs.join("&");
            }
        }
        fields.iter().flat_map(|(name, value)| [*name, *value]).collect()
    }
}

/// The query of a query-string hash: decoded, without `without`, sorted by name, repeated values sorted and joined by
/// `,`, and everything percent-encoded again but for the unreserved characters of RFC 3986 §2.3.
#[must_use]
pub fn query(raw: &str, without: &str) -> String {
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        if name != without {
            parameters.entry(percent_encoded(&name)).or_default().push(percent_encoded(&value));
        }
    }
    let pairs: Vec<String> = parameters
        .into_iter()
        .map(|(name, mut values)| {
            values.sort();
            format!("{name}={}", values.join(","))
        })
        .collect();
    pairs.join("&")
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// `name LF value LF` for each member that is there, in the order given.
#[must_use]
pub fn json_lines(json: &Json, names: &[String]) -> String {
    names
        .iter()
        .filter_map(|name| json.text_at(&format!("/{name}")).map(|value| format!("{name}\n{value}\n")))
        .collect()
}

/// Most quotation marks in a document that is read: the reader compares every attribute of an element with all before
/// it, so a stranger's element of many thousands would cost a square.
const MAX_QUOTES: usize = 4096;

/// The text of the one element called `name` under the root. Documents with a type declaration are not read, so there
/// are no entities to expand.
///
/// Errors: `body_malformed` for what is not such XML, is longer than [`MAX_PARSED`] or has more than [`MAX_QUOTES`];
/// `value_missing` or `value_repeated` where there is not exactly one element of the name.
pub fn xml_text(body: &[u8], name: &str) -> Result<String, Rejection> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_PARSED);
    let text = text.filter(|text| memchr::memchr2_iter(b'"', b'\'', text.as_bytes()).nth(MAX_QUOTES).is_none());
    let document = text.and_then(|text| roxmltree::Document::parse(text).ok()).ok_or(Rejection::BodyMalformed)?;
    let mut found = document.root_element().children().filter(|node| node.has_tag_name(name));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node.text().unwrap_or_default().to_owned()),
        (None, _) => Err(Rejection::ValueMissing),
        (Some(_), Some(_)) => Err(Rejection::ValueRepeated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(order: &str, form: &str) -> String {
        let fields: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
        FormOrder::parse(order).unwrap().render(&fields)
    }

    #[test]
    fn forms() {
        assert_eq!(render("sorted", "b=2&a=x+y&b=1"), "ax yb2b1");
        assert_eq!(render("sorted_unique", "b=2&a=x&b=1&b=2"), "axb1b2");
        assert_eq!(render("pairs:sign", "b=2&sign=zz&a=x%26&c="), "a=x&&b=2");
        assert_eq!(FormOrder::parse("nope"), None);
    }

    #[test]
    fn queries() {
        assert_eq!(query("b=2&a=x%20y&jwt=t&a=b*", "jwt"), "a=b%2A,x%20y&b=2");
        assert_eq!(query("", "jwt"), "");
    }

    #[test]
    fn xml() {
        let read = |text: &str| xml_text(text.as_bytes(), "E");
        assert_eq!(read("<x><E><![CDATA[a<b]]></E><F>2</F></x>").as_deref(), Ok("a<b"));
        assert_eq!(read("<x><F/></x>"), Err(Rejection::ValueMissing));
        assert_eq!(read("<x><E>1</E><E>2</E></x>"), Err(Rejection::ValueRepeated));
        assert_eq!(read("<!DOCTYPE x [<!ENTITY e 'boom'>]><x><E>&e;</E></x>"), Err(Rejection::BodyMalformed));
        assert_eq!(read("{}"), Err(Rejection::BodyMalformed));
        let attributes = |count: usize| (0..count).map(|n| format!(" a{n}=''")).collect::<String>();
        assert_eq!(read(&format!("<x{}><E>1</E></x>", attributes(2048))).as_deref(), Ok("1"));
        assert_eq!(read(&format!("<x{}><E>1</E></x>", attributes(2049))), Err(Rejection::BodyMalformed));
    }

    #[test]
    fn lines_only_of_what_is_there() {
        let json = Json::parse(br#"{"B":"2","A":"1","C":3}"#).unwrap();
        assert_eq!(json_lines(&json, &["A".into(), "X".into(), "B".into(), "C".into()]), "A\n1\nB\n2\n");
    }
}
