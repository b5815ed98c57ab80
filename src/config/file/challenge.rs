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
    /// A token that it must show: one of the endpoint's secrets with `use: challenge`.
    pub token: Option<super::Token>,
    /// Looks into a text that comes encrypted, instead of at the body.
    pub decrypt: Option<Decrypt>,
    /// The values that are echoed, by the name the response uses.
    #[serde(default)]
    pub echo: BTreeMap<String, Echo>,
    /// Values computed from them, by the name the response uses.
    #[serde(default)]
    pub derive: BTreeMap<String, Derive>,
    /// Where the provider hands over a secret, which is learned while the endpoint's `enrolment` is open.
    pub enrol: Option<super::ValuePlace>,
    /// What is answered.
    pub respond: Respond,
}

/// An encrypted text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decrypt {
    /// A query parameter that holds it.
    pub query: Option<String>,
    /// A string in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// How it is made up.
    pub layout: DecryptLayout,
}

/// How an encrypted text is made up; AES-256-CBC with a secret of `use: decryption`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecryptLayout {
    /// The key is the SHA-256 of the secret, and the first block is the initialisation vector.
    VectorFirst,
    /// The secret is the key in base64 without padding, and its first half is the vector; the text is framed by 16
    /// random bytes, its length, and the receiver's id.
    Framed,
}

/// A value that is computed: by `hash` or by `hmac`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// A plain hash.
    pub hash: Option<super::Hash>,
    /// A MAC with the first of the endpoint's secrets that is active.
    pub hmac: Option<super::Hash>,
    /// Of which text: echoes as `{name}`, `{setting:NAME}`, `{public_url}`.
    pub of: String,
    /// How its bytes are written.
    pub encoding: super::Encoding,
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
    /// A field of a form body.
    pub form: Option<String>,
    /// A scalar in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// What must stand there; may name `{setting:NAME}`. Default: anything.
    pub equals: Option<String>,
    /// Nothing may stand there.
    pub absent: Option<bool>,
    /// What stands there in JSON is there, and holds nothing.
    pub empty: Option<bool>,
}

/// A value that is echoed. Where it stands in several places, they must agree.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// A header.
    pub header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A scalar in the JSON body, by RFC 6901 pointer.
    pub json: Option<String>,
    /// A field of a form body.
    pub form: Option<String>,
    /// The whole body, which is text.
    pub body: Option<bool>,
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
    /// Printable ASCII but for `< > & " ' \`
    Text,
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
