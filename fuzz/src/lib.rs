//! What the fuzz targets share: where they begin, how an input becomes another one, and what is held against what.
//!
//! An input is as near to what a stranger sends as a mutation can change without breaking it: a question is the bytes that go
//! over the wire, a delivery is a text of lines. So whatever libFuzzer finds can be read, and kept as a test.

pub mod chance;
pub mod delivery;
pub mod lines;
pub mod receivers;
pub mod seeds;
pub mod wire;

#[path = "../../tests/suite/agreement.rs"]
mod agreement;
#[path = "../../tests/suite/forms.rs"]
mod forms;
#[path = "../../tests/suite/places.rs"]
mod places;
#[path = "../../tests/suite/vector.rs"]
#[expect(dead_code, reason = "the tests look at more of a vector")]
mod vector;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use prost::Message as _;

/// The property of the property tests: our decoder and Envoy's own types read the same.
pub fn agree_on(question: &[u8]) {
    agreement::compare(question);
}

/// What of an operator's text has no place in it, of the problems that are told.
#[must_use]
pub fn misplaced(problems: &str, text: &[u8]) -> Option<String> {
    places::misplaced(problems, text)
}

/// A response as it goes to Envoy, read by Envoy's own types.
///
/// # Panics
///
/// Where its frame is not one of gRPC's, and where it is no response.
#[must_use]
pub fn unframed(framed: &[u8]) -> CheckResponse {
    let (prefix, message) = framed.split_at(5);
    let length = u32::try_from(message.len()).expect("a response is short");
    assert_eq!(prefix, [&[0][..], &length.to_be_bytes()].concat(), "not compressed, and so long");
    CheckResponse::decode(message).expect("it is a response")
}
