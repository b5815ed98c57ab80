//! How Envoy tells a request's header lines and body, in each of the forms that it can be configured to: for the tests, and for
//! the fuzz target of whole checks (`fuzz/src/delivery.rs`). What hookwarden makes of them has no place here.

use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3::attribute_context::HttpRequest,
};
use std::collections::HashMap;

/// As lines and bytes, or as joined texts in which what is not UTF-8 was replaced.
pub(crate) fn tell(
    http: &mut HttpRequest,
    lines: Vec<(String, Vec<u8>)>,
    body: &[u8],
    (raw_headers, raw_body): (bool, bool),
) {
    if raw_headers {
        let line = |(key, raw_value)| HeaderValue { key, raw_value, ..HeaderValue::default() };
        http.header_map = Some(HeaderMap { headers: lines.into_iter().map(line).collect() });
    } else {
        let mut joined: HashMap<String, String> = HashMap::new();
        for (name, value) in lines {
            let value = String::from_utf8_lossy(value.trim_ascii()).replace('\u{fffd}', "!");
            joined.entry(name).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
        }
        http.headers = joined;
    }
    if raw_body {
        http.raw_body = body.to_vec();
    } else {
        http.body = String::from_utf8_lossy(body).into_owned();
    }
}
