//! Handshakes and replies, as they are written. The same words serve users and presets.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A provider's handshake.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// What makes a request this challenge; all must hold.
    pub when: Vec<Condition>,
    /// Whether the provider signs it; it is then verified before it is answered.
    pub signed: Option<bool>,
    /// The values that are echoed, by the name the response uses.
    #[serde(default)]
    pub echo: BTreeMap<String, Echo>,
    /// What is answered.
    pub respond: Respond,
}

/// One condition: a method, or one place and perhaps a value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The request's method.
    pub method: Option<String>,
    /// A header.
    pub header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A string in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// What must stand there. Default: anything.
    pub equals: Option<String>,
}

/// A value that is echoed. Where it stands in several places, they must agree.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// A header.
    pub header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A string in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// Which characters it may have. Default `token`.
    pub charset: Option<Charset>,
    /// Longest value in bytes, at most 1024. Default 256.
    pub max_length: Option<usize>,
}

/// Closed sets of characters.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Charset {
    /// `A–Z a–z 0–9 . _ ~ + / = -`
    Token,
    /// Hexadecimal digits.
    Hex,
    /// Decimal digits.
    Digits,
}

/// What a challenge is answered. `{name}` stands for an echo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// HTTP status. Default 200.
    pub status: Option<u16>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A plain-text body.
    pub text: Option<String>,
    /// A JSON body.
    pub json: Option<serde_json::Value>,
}

/// A reply without echoes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyText {
    /// HTTP status.
    pub status: Option<u16>,
    /// A plain-text body.
    pub text: Option<String>,
    /// A JSON body.
    pub json: Option<serde_json::Value>,
}

/// What rejected senders are told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnRejection {
    /// HTTP status for every failed proof.
    pub status: Option<u16>,
    /// A plain-text body.
    pub text: Option<String>,
    /// A JSON body.
    pub json: Option<serde_json::Value>,
    /// For particular reasons.
    #[serde(default)]
    pub reasons: BTreeMap<String, ReplyText>,
}
