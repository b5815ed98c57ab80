//! HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530).
//!
//! The message says which components it covers; the endpoint says which ones it must. A label chooses nothing but
//! which of several signatures is meant, and several that qualify are all judged. A component that is not implemented,
//! or has parameters that are not, makes the signature unusable: what cannot be rebuilt cannot be verified.
//!
//! Order: form, algorithm, coverage, key, signature, digest, time.

use super::{
    Proof,
    algorithm::Algorithm,
    digest,
    encoding::Encoding,
    find_key,
    key_ring::KeyRing,
    mac::{Hash, MacKey},
    signed_content::PublicUrl,
    timestamp::Tolerance,
};
use crate::{
    clock::{Now, UnixSeconds},
    decision::{Denial, Rejection},
    delivery::Found,
    received::Received,
    secret::{Key, Label},
};
use sfv::{BareItem, Dictionary, FieldType, InnerList, ListEntry, Parser};
use std::{borrow::Cow, sync::Arc};

/// More components than any signer lists.
const MAX_COMPONENTS: usize = 32;
/// More signatures than any message carries.
const MAX_LABELS: usize = 4;

/// A compiled scheme.
#[derive(Debug)]
pub struct HttpMessageSignature {
    /// What every signature must cover.
    pub required: Vec<String>,
    /// Parameters that every signature must have.
    pub parameters: Vec<String>,
    /// The `tag` that is meant (RFC 9421 §2.3), where the endpoint has one.
    pub tag: Option<String>,
    /// How far `created` may lie from now.
    pub tolerance: Tolerance,
    /// What clients call this endpoint, for `@target-uri` and `@scheme`.
    pub public_url: Option<PublicUrl>,
    /// The accepted algorithms of keys.
    pub algorithms: Vec<Algorithm>,
    /// The keys.
    pub keys: KeyRing,
    /// The shared secrets of `hmac-sha256`, where that is accepted.
    pub secrets: Vec<Key<MacKey>>,
    /// Whether a covered digest is required, so that the signature stands for the body.
    pub covers_body: bool,
}

impl HttpMessageSignature {
    /// Verifies and says which key matched.
    pub fn verify(&self, received: &Received<'_>, now: Now) -> Result<Proof, Denial> {
        let inputs = dictionary(received, "signature-input")?;
        let signatures = dictionary(received, "signature")?;
        if inputs.len() > MAX_LABELS {
            return Err(Rejection::SignatureMalformed.into());
        }
        let mut failure: Option<Denial> = None;
        for (label, entry) in &inputs {
            let ListEntry::InnerList(input) = entry else { return Err(Rejection::SignatureMalformed.into()) };
            if self.tag.as_deref().is_some_and(|tag| text(input, "tag") != Some(tag)) {
                continue;
            }
            let Some(ListEntry::Item(item)) = signatures.get(label) else { continue };
            let BareItem::ByteSequence(signature) = &item.bare_item else {
                return Err(Rejection::SignatureMalformed.into());
            };
            match self.judge(input, signature, received, now) {
                Ok(proof) => return Ok(proof),
                Err(denial) => failure = Some(failure.map_or(denial, |so_far| so_far.more_telling(denial))),
            }
        }
        Err(failure.unwrap_or(Rejection::SignatureMissing.into()))
    }

    fn judge(&self, input: &InnerList, signature: &[u8], received: &Received<'_>, now: Now) -> Result<Proof, Denial> {
        for name in &self.parameters {
            if !input.params.contains_key(name.as_str()) {
                let time = matches!(name.as_str(), "created" | "expires");
                let keyid = name == "keyid";
                return Err(match (time, keyid) {
                    (true, _) => Rejection::TimestampMissing,
                    (_, true) => Rejection::KeyIdMissing,
                    _ => Rejection::SignatureMalformed,
                }
                .into());
            }
        }
        let components = components(input)?;
        for required in &self.required {
            // A header that is not there cannot be covered; one whose absence matters is required by its value.
            if !components.iter().any(|(name, _)| *name == required.as_str()) {
                return Err(Rejection::ComponentNotCovered.into());
            }
        }
        let base = self.signature_base(input, &components, received)?;
        let label = self.made_by(input, &base, signature, now)?;
        if components.iter().any(|(name, _)| *name == "content-digest") {
            judge_content_digest(received)?;
        }
        let signed_at = self.judge_time(input, now)?;
        Ok(Proof { label, signed: received.identify([base.as_slice()]), signed_at })
    }

    /// The signature base (RFC 9421 §2.5).
    fn signature_base(
        &self,
        input: &InnerList,
        components: &[(&str, Option<&str>)],
        received: &Received<'_>,
    ) -> Result<Vec<u8>, Rejection> {
        let mut base = Vec::with_capacity(512);
        for (name, parameter) in components {
            base.extend_from_slice(b"\"");
            base.extend_from_slice(name.as_bytes());
            base.extend_from_slice(b"\"");
            if let Some(parameter) = parameter {
                base.extend_from_slice(format!(";name=\"{parameter}\"").as_bytes());
            }
            base.extend_from_slice(b": ");
            base.extend_from_slice(&self.component(name, *parameter, received)?);
            base.push(b'\n');
        }
        base.extend_from_slice(b"\"@signature-params\": ");
        base.extend_from_slice(serialized(input).ok_or(Rejection::SignatureMalformed)?.as_bytes());
        Ok(base)
    }

    /// The value of a component (RFC 9421 §2.1, §2.2).
    fn component<'r>(
        &self,
        name: &str,
        parameter: Option<&str>,
        received: &'r Received<'_>,
    ) -> Result<Cow<'r, [u8]>, Rejection> {
        let delivery = received.delivery;
        let owned = |text: String| Cow::Owned(text.into_bytes());
        let public = || self.public_url.as_ref().ok_or(Rejection::ComponentNotAllowed);
        Ok(match name {
            "@method" => Cow::Borrowed(delivery.method.as_bytes()),
            "@authority" => owned(authority(delivery.host)),
            "@path" => Cow::Borrowed(delivery.path().as_bytes()),
            "@query" => owned(format!("?{}", delivery.query())),
            "@request-target" => Cow::Borrowed(delivery.target.as_bytes()),
            "@target-uri" => owned(public()?.of(received)),
            "@scheme" => owned(public()?.origin.split("://").next().unwrap_or_default().to_owned()),
            "@query-param" => {
                let found = delivery.query_parameter(parameter.ok_or(Rejection::ComponentNotAllowed)?);
                let value = found.required(Rejection::ValueMissing, Rejection::ValueRepeated)?;
                // RFC 9421 §2.2.8: encoded again, the way of application/x-www-form-urlencoded with %20.
                owned(form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20"))
            }
            name if name.starts_with('@') => return Err(Rejection::ComponentNotAllowed),
            name => {
                let value = match name {
                    "content-digest" => required_line(received, name, Rejection::DigestMissing)?,
                    _ => required_line(received, name, Rejection::HeaderMissing)?,
                };
                Cow::Borrowed(value)
            }
        })
    }

    fn made_by(&self, input: &InnerList, base: &[u8], signature: &[u8], now: Now) -> Result<Arc<Label>, Denial> {
        let named = text(input, "alg");
        let hmac = !self.secrets.is_empty() && named.is_none_or(|name| name == "hmac-sha256");
        let algorithms: Vec<Algorithm> = self
            .algorithms
            .iter()
            .copied()
            .filter(|algorithm| named.is_none() || algorithm.rfc9421_name() == named)
            .collect();
        if !hmac && algorithms.is_empty() {
            return Err(Rejection::AlgorithmNotAllowed.into());
        }
        if algorithms.is_empty() {
            if signature.len() != Hash::Sha256.length() {
                return Err(Rejection::SignatureMalformed.into());
            }
            let content = [Cow::Borrowed(base)];
            return find_key(&self.secrets, now, Rejection::SignatureMismatch, |key| key.tag(&content).is(signature));
        }
        // The key says which algorithm it is for; the message's word was only compared with ours.
        self.keys.matching(text(input, "keyid"), now, |key| {
            Ok(algorithms.iter().any(|algorithm| key.made(*algorithm, base, signature)))
        })
    }

    /// Judges the moments; says when it was signed.
    fn judge_time(&self, input: &InnerList, now: Now) -> Result<Option<UnixSeconds>, Rejection> {
        let created = moment(input, "created")?;
        if let Some(created) = created {
            self.tolerance.judge(created, now)?;
        }
        match moment(input, "expires")? {
            Some(expires) if expires < now.wall => Err(Rejection::TimestampTooOld),
            Some(_) | None => Ok(created),
        }
    }
}

fn dictionary(received: &Received<'_>, name: &str) -> Result<Dictionary, Rejection> {
    let value = required_line(received, name, Rejection::SignatureMissing)?;
    if value.len() > 8192 {
        return Err(Rejection::SignatureMalformed);
    }
    Parser::new(value).parse::<Dictionary>().map_err(|_| Rejection::SignatureMalformed)
}

fn required_line<'r>(received: &'r Received<'_>, name: &str, missing: Rejection) -> Result<&'r [u8], Rejection> {
    let repeated = match name {
        "signature" | "signature-input" => Rejection::SignatureRepeated,
        "content-digest" => Rejection::DigestMalformed,
        _ => Rejection::HeaderRepeated,
    };
    match received.delivery.headers.line(name) {
        Found::One(value) => Ok(value),
        Found::Absent => Err(missing),
        Found::Repeated => Err(repeated),
    }
}

/// The listed components with their one known parameter.
fn components(input: &InnerList) -> Result<Vec<(&str, Option<&str>)>, Rejection> {
    let mut components: Vec<(&str, Option<&str>)> = Vec::with_capacity(input.items.len());
    if input.items.len() > MAX_COMPONENTS {
        return Err(Rejection::SignatureMalformed);
    }
    for item in &input.items {
        let BareItem::String(name) = &item.bare_item else { return Err(Rejection::SignatureMalformed) };
        let name = name.as_str();
        let parameter = match (name, item.params.len()) {
            (_, 0) => None,
            ("@query-param", 1) => match item.params.get("name") {
                Some(BareItem::String(parameter)) => Some(parameter.as_str()),
                _ => return Err(Rejection::ComponentNotAllowed),
            },
            _ => return Err(Rejection::ComponentNotAllowed),
        };
        // RFC 9421 §2.5: a component occurs once, and its name is in lower case.
        if name.bytes().any(|b| b.is_ascii_uppercase()) || components.contains(&(name, parameter)) {
            return Err(Rejection::SignatureMalformed);
        }
        components.push((name, parameter));
    }
    Ok(components)
}

fn text<'i>(input: &'i InnerList, name: &str) -> Option<&'i str> {
    input.params.get(name)?.as_string().map(sfv::StringRef::as_str)
}

fn moment(input: &InnerList, name: &str) -> Result<Option<UnixSeconds>, Rejection> {
    match input.params.get(name) {
        None => Ok(None),
        Some(BareItem::Integer(seconds)) => Ok(Some(UnixSeconds(i64::from(*seconds)))),
        Some(_) => Err(Rejection::TimestampMalformed),
    }
}

/// The inner list as RFC 8941 §4.1.1.1 writes it.
fn serialized(input: &InnerList) -> Option<String> {
    let entry = ListEntry::InnerList(input.clone());
    vec![entry].serialize()
}

/// Lower case, without the port that its scheme has anyway (RFC 9421 §2.2.3).
fn authority(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).map_or(host.clone(), str::to_owned)
}

/// Computes the body's digests again (RFC 9530 §2). Every entry of a known strong algorithm must match, and there
/// must be one.
fn judge_content_digest(received: &Received<'_>) -> Result<(), Rejection> {
    let value = required_line(received, "content-digest", Rejection::DigestMissing)?;
    let digests = Parser::new(value).parse::<Dictionary>().map_err(|_| Rejection::DigestMalformed)?;
    let mut strong = false;
    for (name, entry) in &digests {
        let hash = match name.as_str() {
            "sha-256" => Hash::Sha256,
            "sha-512" => Hash::Sha512,
            _ => continue,
        };
        let ListEntry::Item(item) = entry else { return Err(Rejection::DigestMalformed) };
        let BareItem::ByteSequence(bytes) = &item.bare_item else { return Err(Rejection::DigestMalformed) };
        let written = Encoding::Base64.encode(bytes);
        digest::judge(hash, Encoding::Base64, written.as_bytes(), received.body)?;
        strong = true;
    }
    if strong { Ok(()) } else { Err(Rejection::DigestMissing) }
}

impl HttpMessageSignature {
    /// The inner list for a request that is about to be signed with exactly the required components.
    #[must_use]
    pub fn input_to_sign(&self, key_id: &str, now: Now) -> String {
        let components: Vec<String> = self.required.iter().map(|name| format!("\"{name}\"")).collect();
        let mut parameters = format!(";created={};keyid=\"{key_id}\"", now.wall.0);
        if self.parameters.iter().any(|name| name == "expires") {
            parameters.push_str(&format!(";expires={}", now.wall.0.saturating_add(300)));
        }
        if self.parameters.iter().any(|name| name == "nonce") {
            parameters.push_str(&format!(";nonce=\"{}\"", now.wall.0));
        }
        if let Some(tag) = &self.tag {
            parameters.push_str(&format!(";tag=\"{tag}\""));
        }
        format!("({}){parameters}", components.join(" "))
    }

    /// The signature base of that.
    pub fn base_to_sign(&self, input: &str, received: &Received<'_>) -> Result<Vec<u8>, Rejection> {
        let parsed = Parser::new(&format!("sig1={input}")).parse::<Dictionary>();
        let dictionary = parsed.map_err(|_| Rejection::SignatureMalformed)?;
        let Some((_, ListEntry::InnerList(input))) = dictionary.iter().next() else {
            return Err(Rejection::SignatureMalformed);
        };
        self.signature_base(input, &components(input)?, received)
    }
}
