//! HTTP Signatures, draft-cavage-http-signatures-03 to -12, with RSA and the Digest header (RFC 3230).
//!
//! The message says which components it signed; the *endpoint* says which ones it must have. The message names an
//! algorithm; it only ever selects among those configured. The message names a key; it only ever selects among
//! those loaded, and never leads anywhere. A signature over a Digest says nothing about the body until the digest
//! is computed again over the bytes that arrived, which is done here and always.
//!
//! Order: form, algorithm, coverage, key, signature, digest, time. What is reported after the signature is said of
//! an authentic delivery.

use super::{
    Proof, algorithm, digest,
    encoding::Encoding,
    key_ring::KeyRing,
    mac::Hash,
    signature::after_auth_scheme,
    timestamp::{Tolerance, parse_http_date},
};
use crate::{
    clock::{Now, UnixSeconds},
    decision::{Denial, Rejection},
    delivery::{Delivery, Found},
    received::Received,
};

/// Longest header read, in bytes.
const MAX_HEADER: usize = 8192;
/// More components than any signer lists.
const MAX_COMPONENTS: usize = 32;

/// A compiled HTTP Signatures scheme.
#[derive(Debug)]
pub struct HttpSignature {
    /// Where the signature may stand.
    pub headers: Vec<SignatureHeader>,
    /// The accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// What every signature must cover, in lower case.
    pub required: Vec<String>,
    /// Whether a covered digest is required, so that the signature stands for the body.
    pub covers_body: bool,
    /// What `(request-target)` means.
    pub request_target: RequestTarget,
    /// How far `date`, `x-date` or `(created)` may lie from now.
    pub tolerance: Tolerance,
    /// The keys, by the id messages name them with.
    pub keys: KeyRing,
}

/// Places of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureHeader {
    /// `Authorization: Signature …`
    Authorization,
    /// `Signature: …`
    Signature,
}

/// What a signer puts into `(request-target)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestTarget {
    /// The path alone.
    Path,
    /// Path and query.
    PathAndQuery,
}

/// Algorithm labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaSha512,
    /// "Derived from the key" (drafts 11 and 12); for an RSA key that is what everybody signs: PKCS#1 v1.5, SHA-256.
    Hs2019,
}

impl HttpSignature {
    /// Verifies and says which key matched.
    pub fn verify(&self, received: &Received<'_>, now: Now) -> Result<Proof, Denial> {
        let Received { delivery, body, .. } = *received;
        let parameters = self.find(delivery)?;
        let algorithm = self.algorithm(&parameters)?;
        let components = self.components(&parameters, algorithm)?;
        let signature = Encoding::Base64.decode(parameters.signature).ok_or(Rejection::SignatureMalformed)?;
        let content = self.signed_content(&components, &parameters, delivery)?;
        let label = self.keys.matching(Some(parameters.key_id), now, |key| {
            // RFC 8017 §8.2.2: a signature of another length than the modulus is not a signature.
            if !key.takes_length(signature.len()) {
                return Err(Rejection::SignatureMalformed);
            }
            Ok(key.made(algorithm.of_key(), &content, &signature))
        })?;
        if components.contains(&"digest") {
            judge_digest(delivery, body)?;
        }
        let signed_at = self.judge_time(&components, &parameters, delivery, now)?;
        Ok(Proof { label, signed: received.identify([content.as_slice()]), signed_at })
    }

    fn find<'a>(&self, delivery: &Delivery<'a>) -> Result<Parameters<'a>, Rejection> {
        let mut found = None;
        for header in &self.headers {
            let value = match delivery.headers.line(header.name()) {
                Found::One(value) => header.parameters(value),
                Found::Repeated => return Err(Rejection::SignatureRepeated),
                Found::Absent => None,
            };
            match (value, &found) {
                (Some(_), Some(_)) => return Err(Rejection::SignatureRepeated),
                (Some(value), None) => found = Some(value),
                (None, _) => {}
            }
        }
        let value = found.ok_or(Rejection::SignatureMissing)?;
        if value.len() > MAX_HEADER {
            return Err(Rejection::SignatureMalformed);
        }
        let text = std::str::from_utf8(value).map_err(|_| Rejection::SignatureMalformed)?;
        Parameters::parse(text).ok_or(Rejection::SignatureMalformed)
    }

    fn algorithm(&self, parameters: &Parameters<'_>) -> Result<Algorithm, Rejection> {
        match parameters.algorithm {
            Some(label) => {
                self.algorithms.iter().copied().find(|a| a.label() == label).ok_or(Rejection::AlgorithmNotAllowed)
            }
            // The parameter is optional in every draft; without it the first configured one is meant.
            None => self.algorithms.first().copied().ok_or(Rejection::AlgorithmNotAllowed),
        }
    }

    /// The components the message lists, if they include all that the endpoint requires.
    fn components<'a>(&self, parameters: &Parameters<'a>, algorithm: Algorithm) -> Result<Vec<&'a str>, Rejection> {
        // Draft 02 §2.1.6 to draft 12 §2.1.6: without a list, the signature covers only the date.
        let listed: Vec<&str> = parameters.headers.unwrap_or("date").split(' ').collect();
        if listed.len() > MAX_COMPONENTS || listed.iter().any(|name| name.is_empty()) {
            return Err(Rejection::SignatureMalformed);
        }
        let doubled =
            listed.iter().enumerate().any(|(at, name)| listed.iter().skip(at.saturating_add(1)).any(|n| n == name));
        if doubled || listed.iter().any(|name| name.bytes().any(|b| b.is_ascii_uppercase())) {
            return Err(Rejection::SignatureMalformed);
        }
        // Draft 12 §2.3: with a label that begins with rsa, hmac or ecdsa these two must not be used.
        let timed = |name: &&str| matches!(*name, "(created)" | "(expires)");
        if algorithm != Algorithm::Hs2019 && listed.iter().any(timed) {
            return Err(Rejection::ComponentNotAllowed);
        }
        if self.required.iter().any(|required| !covers(&listed, required)) {
            return Err(Rejection::ComponentNotCovered);
        }
        Ok(listed)
    }

    /// The signing string (draft 12 §2.3): `name: value` lines joined by LF.
    fn signed_content(
        &self,
        components: &[&str],
        parameters: &Parameters<'_>,
        delivery: &Delivery<'_>,
    ) -> Result<Vec<u8>, Rejection> {
        let mut content = Vec::with_capacity(256);
        for name in components {
            if !content.is_empty() {
                content.push(b'\n');
            }
            content.extend_from_slice(name.as_bytes());
            content.extend_from_slice(b": ");
            match *name {
                "(request-target)" => {
                    content.extend(delivery.method.bytes().map(|b| b.to_ascii_lowercase()));
                    content.push(b' ');
                    content.extend_from_slice(self.request_target.of(delivery).as_bytes());
                }
                "(created)" => {
                    content.extend_from_slice(parameters.created.ok_or(Rejection::TimestampMissing)?.as_bytes());
                }
                "(expires)" => {
                    content.extend_from_slice(parameters.expires.ok_or(Rejection::TimestampMissing)?.as_bytes());
                }
                "host" => content.extend_from_slice(delivery.host.as_bytes()),
                name if name.starts_with('(') => return Err(Rejection::ComponentNotAllowed),
                name => content.extend_from_slice(component_value(delivery, name)?),
            }
        }
        Ok(content)
    }

    /// Judges every signed moment; at least one must be there if the endpoint requires one. Says when it was signed.
    fn judge_time(
        &self,
        components: &[&str],
        parameters: &Parameters<'_>,
        delivery: &Delivery<'_>,
        now: Now,
    ) -> Result<Option<UnixSeconds>, Rejection> {
        let mut signed_at = None;
        for name in components {
            let moment = match *name {
                "date" | "x-date" => parse_http_date(component_value(delivery, name)?)?,
                "(created)" => whole_seconds(parameters.created)?,
                "(expires)" if whole_seconds(parameters.expires)? < now.wall => return Err(Rejection::TimestampTooOld),
                _ => continue,
            };
            self.tolerance.judge(moment, now)?;
            signed_at = signed_at.max(Some(moment));
        }
        Ok(signed_at)
    }
}

/// Whether the list covers a requirement. A moment may be signed as any of three components.
fn covers(listed: &[&str], required: &str) -> bool {
    let interchangeable = ["date", "x-date", "(created)"];
    listed.contains(&required) || (required == "date" && interchangeable.iter().any(|name| listed.contains(name)))
}

fn whole_seconds(parameter: Option<&str>) -> Result<UnixSeconds, Rejection> {
    super::timestamp::Unit::Seconds.parse(parameter.ok_or(Rejection::TimestampMissing)?.as_bytes())
}

/// The value of a signed header. Repeated ones could be joined (draft 12 §2.3 step 3), but a security-relevant
/// header that occurs twice is what an attack looks like, and no provider sends one.
fn component_value<'a>(delivery: &Delivery<'a>, name: &str) -> Result<&'a [u8], Rejection> {
    let (absent, repeated) = match name {
        "digest" => (Rejection::DigestMissing, Rejection::DigestMalformed),
        "date" | "x-date" => (Rejection::TimestampMissing, Rejection::TimestampRepeated),
        _ => (Rejection::HeaderMissing, Rejection::HeaderRepeated),
    };
    delivery.headers.line(name).required(absent, repeated)
}

/// Computes the body's digests again. Every entry of a known strong algorithm must match, and there must be one;
/// MD5 and SHA-1 prove nothing and count as unknown.
fn judge_digest(delivery: &Delivery<'_>, body: &[u8]) -> Result<(), Rejection> {
    let mut strong = false;
    for entry in component_value(delivery, "digest")?.split(|b| *b == b',') {
        let entry = std::str::from_utf8(entry).map_err(|_| Rejection::DigestMalformed)?.trim();
        let (algorithm, text) = entry.split_once('=').ok_or(Rejection::DigestMalformed)?;
        let hash = match algorithm.to_ascii_lowercase().as_str() {
            "sha-256" => Hash::Sha256,
            "sha-512" => Hash::Sha512,
            _ => continue,
        };
        digest::judge(hash, Encoding::Base64, text.as_bytes(), body)?;
        strong = true;
    }
    if strong { Ok(()) } else { Err(Rejection::DigestMissing) }
}

impl SignatureHeader {
    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Signature => "signature",
        }
    }

    /// The parameters in a header's value; other authentication schemes are none of ours.
    fn parameters(self, value: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Authorization => after_auth_scheme(value, "Signature"),
            Self::Signature => Some(value),
        }
    }
}

impl RequestTarget {
    fn of<'a>(self, delivery: &Delivery<'a>) -> &'a str {
        match self {
            Self::Path => delivery.path(),
            Self::PathAndQuery => delivery.target,
        }
    }
}

impl Algorithm {
    /// The label as messages write it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::RsaSha512 => "rsa-sha512",
            Self::Hs2019 => "hs2019",
        }
    }

    /// What a key verifies it with.
    #[must_use]
    pub const fn of_key(self) -> algorithm::Algorithm {
        match self {
            Self::RsaSha256 | Self::Hs2019 => algorithm::Algorithm::RsaPkcs1Sha256,
            Self::RsaSha512 => algorithm::Algorithm::RsaPkcs1Sha512,
        }
    }
}

/// The parameters of one signature.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Parameters<'a> {
    key_id: &'a str,
    signature: &'a [u8],
    algorithm: Option<&'a str>,
    headers: Option<&'a str>,
    created: Option<&'a str>,
    expires: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    /// Reads `name="value"` pairs (numbers may stand without quotes) separated by commas. A parameter that occurs
    /// twice, an escape inside quotes or anything left over makes the whole malformed; unknown names are ignored.
    fn parse(text: &'a str) -> Option<Self> {
        let mut seen: Vec<(&str, &str)> = Vec::with_capacity(6);
        let mut rest = text;
        loop {
            let (name, after) = rest.trim_start_matches(' ').split_once('=')?;
            let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
                quoted.split_once('"')?
            } else {
                let end = after.find(',').unwrap_or(after.len());
                after.split_at_checked(end).filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()))?
            };
            let name_is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
            if !name_is_plain || value.contains('\\') || seen.iter().any(|(other, _)| *other == name) {
                return None;
            }
            seen.push((name, value));
            let after = after.trim_start_matches(' ');
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix(',')?;
        }
        let get = |name: &str| seen.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        Some(Self {
            key_id: get("keyId").filter(|id| !id.is_empty())?,
            signature: get("signature").filter(|signature| !signature.is_empty())?.as_bytes(),
            algorithm: get("algorithm"),
            headers: get("headers"),
            created: get("created"),
            expires: get("expires"),
        })
    }
}

/// The text of the header's parameters, for making a signed request.
#[must_use]
pub fn render_parameters(key_id: &str, algorithm: Algorithm, components: &[String], signature: &[u8]) -> String {
    format!(
        "keyId=\"{key_id}\",algorithm=\"{}\",headers=\"{}\",signature=\"{}\"",
        algorithm.label(),
        components.join(" "),
        Encoding::Base64.encode(signature),
    )
}

impl HttpSignature {
    /// The signing string for a request that is about to be signed with exactly the required components.
    pub fn content_to_sign(&self, delivery: &Delivery<'_>) -> Result<Vec<u8>, Rejection> {
        let components: Vec<&str> = self.required.iter().map(String::as_str).collect();
        self.signed_content(&components, &Parameters::default(), delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_strictly() {
        let read = Parameters::parse(r#"keyId="k",algorithm="rsa-sha256",created=12, headers="a b",signature="c2ln""#)
            .unwrap();
        assert_eq!((read.key_id, read.headers, read.created), ("k", Some("a b"), Some("12")));
        for bad in [
            "",
            "keyId",
            r#"keyId="k""#,
            r#"keyId="k",signature="x",keyId="k""#,
            r#"keyId="k",signature="x" junk"#,
            r#"keyId="k",signature="x","#,
            r#"keyId="k\"",signature="x""#,
            r#"keyId="",signature="x""#,
            r#"keyId="k",signature="x",created=1a"#,
            r#"keyId="k",signature="x"#,
        ] {
            assert_eq!(Parameters::parse(bad), None, "{bad}");
        }
    }
}
