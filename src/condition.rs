//! Conditions on a request: whether it is this handshake, or of this kind.

use crate::{
    delivery::Found,
    received::{Place, Received},
};

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A value is not there.
    Absent(Place),
    /// A member of the JSON body is there and holds nothing, by pointer.
    Empty(String),
}

/// Bodies longer than this are deliveries, not handshakes, and are not parsed to find out.
pub const MAX_BODY: usize = 16 * 1024;

impl Condition {
    /// Whether a request meets it.
    #[must_use]
    pub fn holds(&self, received: &Received<'_>) -> bool {
        match self {
            Self::Method(method) => received.delivery.method == method,
            // Parsing every body to look for a rare word would cost more than the signature: a body that does not
            // even contain the word, as plain bytes, is a delivery. One that hides it behind JSON escapes is too.
            Self::Value { place: Place::Json(_), equals: Some(expected) }
                if memchr::memmem::find(received.body, expected.as_bytes()).is_none() =>
            {
                false
            }
            Self::Value { place, equals } => match received.read(place) {
                Found::One(value) => equals.as_ref().is_none_or(|expected| *value == *expected.as_bytes()),
                // A doubled value is certainly meant; reading it will refuse it.
                Found::Repeated => equals.is_none(),
                Found::Absent => false,
            },
            Self::Absent(place) => matches!(received.read(place), Found::Absent),
            Self::Empty(pointer) => {
                received.json().and_then(|json| json.at(pointer)).is_some_and(crate::json::Json::is_empty)
            }
        }
    }
}
