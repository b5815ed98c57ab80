//! A signature over a provider's signed content, by a MAC or by a private key.
//!
//! The content is fed piece by piece; the body is hashed once per active secret, however many candidates a request
//! presents. Time, and the digest that stands for the body where the content names only it, are judged after the
//! signature: what is said then is said of an authentic delivery.

use super::{
    Proof,
    algorithm::Algorithm,
    digest::BodyDigest,
    find_key,
    key_ring::KeyRing,
    listed_headers::{List, ListedHeaders},
    mac::{Content, Hash, MacKey},
    oracle::Oracle,
    signature::{Group, Location, SignatureSource, enveloped},
    signed_content::{Inputs, Piece, SignedContent},
    streamed::Streamed,
    timestamp::{Tolerance, Unit},
};
use crate::{
    clock::Now,
    decision::{Denial, Fault, Rejection},
    delivery::Found,
    json::Json,
    received::{Place, Received},
    replay::SignedDigest,
    secret::{Key, Label, LearnedSecret, Secret},
};
use std::{borrow::Cow, sync::Arc};

/// Most items that are verified one by one.
const MAX_ITEMS: usize = 256;

/// A compiled scheme.
#[derive(Debug)]
pub struct Signed {
    /// What is signed.
    pub content: SignedContent,
    /// Where the signature stands.
    pub signature: SignatureSource,
    /// The signed timestamp, where the scheme has one.
    pub timestamp: Option<TimestampRule>,
    /// A digest of the body that the content names instead of the body.
    pub body_digest: Option<BodyDigest>,
    /// How headers that the message lists are rendered.
    pub listed_headers: Option<ListedHeaders>,
    /// An array in the body of which every item must verify, by pointer.
    pub each: Option<String>,
    /// Whether the signature stands for the whole body.
    pub covers_body: bool,
    /// What makes the signature.
    pub signer: Signer,
    /// What the endpoint's handshakes sign for anybody.
    pub oracles: Vec<Oracle>,
}

/// What makes signatures.
#[derive(Debug)]
pub enum Signer {
    /// A shared secret.
    Mac {
        /// Length of a tag in bytes.
        hash: Hash,
        /// The secrets, ready.
        keys: Vec<Key<MacKey>>,
        /// The secret that the provider handed over, where it does.
        learned: Option<Arc<LearnedSecret>>,
    },
    /// A private key.
    PrivateKey {
        /// By which algorithm, and no other.
        algorithm: Algorithm,
        /// Where the message names the key.
        key_id: Option<KeyIdSource>,
        /// The public keys.
        keys: KeyRing,
    },
}

/// Where a message names its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIdSource {
    /// Where.
    pub place: Place,
    /// The text is base64 of a JSON object, of which this member is meant.
    pub member: Option<String>,
}

/// Where the signed timestamp stands and how old it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampRule {
    /// Where.
    pub source: TimestampSource,
    /// How it is written.
    pub unit: Unit,
    /// How far from now.
    pub tolerance: Tolerance,
}

/// Places of a timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampSource {
    /// Somewhere in the request.
    At(Place),
    /// A `k=v` entry beside the signature.
    Field(String),
    /// An entry beside the signature, by position.
    Entry(usize),
}

impl Signed {
    /// Verifies and says which secret or key matched.
    pub fn verify(&self, received: &Received<'_>, now: Now) -> Result<Proof, Denial> {
        let proof = match &self.each {
            None => self.verify_one(received, None, now)?,
            Some(pointer) => self.verify_each(pointer, received, now)?,
        };
        if let Some(digest) = &self.body_digest {
            digest.judge(received)?;
        }
        Ok(proof)
    }

    /// Whether it can be verified while the body comes in: that stands last, nothing before it could run into it, and
    /// nothing else looks into it.
    #[must_use]
    pub fn streams(&self) -> bool {
        let outside = |place: &Place| matches!(place, Place::Header(_) | Place::Query(_));
        let signature = match &self.signature.location {
            Location::At(place) => outside(place),
            Location::Headers(_) | Location::NumberedHeader(_) => true,
            Location::Item(_) => false,
        };
        let time = match &self.timestamp {
            Some(TimestampRule { source: TimestampSource::At(place), .. }) => outside(place),
            Some(_) | None => true,
        };
        let key = match &self.signer {
            Signer::Mac { keys, learned, .. } => {
                learned.is_none() && keys.iter().all(|key| key.value.secret().is_none())
            }
            Signer::PrivateKey { .. } => false,
        };
        let looks_elsewhere = self.each.is_none()
            && self.body_digest.is_none()
            && self.listed_headers.is_none()
            && self.oracles.is_empty();
        let content = match self.content.pieces() {
            [before @ .., last, Piece::Body] => {
                let known = |piece: &Piece| {
                    matches!(piece, Piece::At(place) if outside(place))
                        || matches!(
                            piece,
                            Piece::Literal(_) | Piece::Timestamp | Piece::Method | Piece::Path | Piece::Host
                        )
                };
                // How a body begins may show what was moved out of it, and here it is not known yet.
                let mut unmarked = before.iter().rev().take_while(|piece| !matches!(piece, Piece::Literal(_)));
                let marked =
                    matches!(last, Piece::Literal(_)) || *last == Piece::Timestamp && !unmarked.any(Piece::can_grow);
                marked && before.iter().all(known)
            }
            [Piece::Body] => true,
            _ => false,
        };
        // A group of its own for each timestamp is a content of its own too.
        signature && time && key && looks_elsewhere && content && self.signature.group_separator.is_none()
    }

    /// Begins to verify; `received` has no body yet.
    pub fn stream(&self, received: &Received<'_>, now: Now) -> Result<Streamed, Denial> {
        let presented = self.signature.find(received, None)?;
        let groups = presented.groups();
        let (Signer::Mac { hash, keys, .. }, [group]) = (&self.signer, groups.as_slice()) else {
            return Err(Fault::Internal.into());
        };
        let timestamp = self.timestamp.as_ref().map(|rule| rule.find(received, group)).transpose()?;
        let signed_at = match (&self.timestamp, &timestamp) {
            (Some(rule), Some(text)) => Some((rule.unit.parse(text)?, rule.tolerance)),
            _ => None,
        };
        let inputs = Inputs { timestamp: timestamp.as_deref().unwrap_or_default(), ..Inputs::default() };
        let candidates = group.candidates(hash.length())?;
        let content = self.content.resolve(received, inputs)?;
        let active = keys.iter().filter(|key| key.is_active(now));
        let macs: Vec<_> =
            active.filter_map(|key| Some((Arc::clone(&key.label), key.value.begin(&content)?))).collect();
        if macs.is_empty() {
            return Err(Fault::NoActiveSecret.into());
        }
        let digest = received.identifying(content.iter().map(|piece| &**piece));
        Ok(Streamed { candidates, macs, digest, signed_at })
    }

    /// Every item must verify, and there must be one.
    fn verify_each(&self, pointer: &str, received: &Received<'_>, now: Now) -> Result<Proof, Denial> {
        let json = received.json().ok_or(Rejection::BodyMalformed)?;
        let Some(Json::Array(items)) = json.at(pointer) else { return Err(Rejection::BodyMalformed.into()) };
        if items.len() > MAX_ITEMS {
            return Err(Rejection::BodyMalformed.into());
        }
        let (mut first, mut signed, mut signed_at) = (None, Vec::new(), None);
        for item in items {
            let proof = self.verify_one(received, Some(item), now)?;
            first = first.or(Some(proof.label));
            signed.extend(proof.signed);
            signed_at = signed_at.max(proof.signed_at);
        }
        let label = first.ok_or(Rejection::SignatureMissing)?;
        Ok(Proof { label, signed: SignedDigest::of_all(signed), signed_at })
    }

    fn verify_one(&self, received: &Received<'_>, item: Option<&Json>, now: Now) -> Result<Proof, Denial> {
        let presented = self.signature.find(received, item)?;
        let mut failure: Option<Denial> = None;
        for group in presented.groups() {
            match self.verify_group(&group, received, item, now) {
                Ok(proof) => return Ok(proof),
                Err(denial) => failure = Some(failure.map_or(denial, |so_far| so_far.more_telling(denial))),
            }
        }
        Err(failure.unwrap_or(Rejection::SignatureMissing.into()))
    }

    fn verify_group(
        &self,
        group: &Group<'_>,
        received: &Received<'_>,
        item: Option<&Json>,
        now: Now,
    ) -> Result<Proof, Denial> {
        // A timestamp inside a body that is signed as bytes is read once it is known who wrote it; before that the
        // body is not worth parsing.
        let in_body = |rule: &TimestampRule| {
            matches!(rule.source, TimestampSource::At(Place::Json(_) | Place::Form(_)))
                && !self.content.contains(&Piece::Timestamp)
        };
        let timestamp = match &self.timestamp {
            Some(rule) if !in_body(rule) => Some(rule.find(received, group)?),
            Some(_) | None => None,
        };
        let moment = match (&self.timestamp, &timestamp) {
            (Some(rule), Some(text)) => Some(rule.unit.parse(text)?),
            _ => None,
        };
        let list = match &self.listed_headers {
            Some(rule) if matches!(rule.list, List::At(_)) => Some((rule, rule.find(received)?)),
            Some(_) | None => None,
        };
        let inputs = Inputs {
            timestamp: timestamp.as_deref().unwrap_or_default(),
            secret: &[],
            item,
            listed_headers: list.as_ref().map(|(rule, list)| (*rule, &**list)),
        };
        let mut proof = self.made_by(group, received, inputs, now)?;
        if let Some(rule) = &self.timestamp {
            let moment = match moment {
                Some(moment) => moment,
                None => rule.unit.parse(&rule.find(received, group)?)?,
            };
            rule.tolerance.judge(moment, now)?;
            proof.signed_at = Some(moment);
        }
        Ok(proof)
    }

    /// Whose secret or key made the signature.
    fn made_by<'r>(
        &'r self,
        group: &Group<'_>,
        received: &'r Received<'_>,
        inputs: Inputs<'r>,
        now: Now,
    ) -> Result<Proof, Denial> {
        match &self.signer {
            Signer::Mac { hash, keys, learned } => {
                let candidates = group.candidates(hash.length())?;
                let content = self.content.resolve(received, inputs)?;
                let judge = |label| {
                    let obtainable = self.oracles.iter().any(|oracle| oracle.reaches(&content));
                    if obtainable {
                        return Err(Rejection::SignatureObtainable.into());
                    }
                    Ok(Proof {
                        label,
                        signed: received.identify(content.iter().map(|piece| &**piece)),
                        signed_at: None,
                    })
                };
                if let Some(secret) = learned.as_ref().and_then(|learned| learned.get()) {
                    let key = MacKey::hmac(*hash, Secret::new(secret.expose().to_vec()), false);
                    if key.is_some_and(|key| key.tag(&content).is_one_of(&candidates)) {
                        return judge(Arc::new(Label { id: "enrolled".to_owned(), tags: Vec::new() }));
                    }
                    if keys.is_empty() {
                        return Err(Rejection::SignatureMismatch.into());
                    }
                }
                find_key(keys, now, Rejection::SignatureMismatch, |key| match key.secret() {
                    None => key.tag(&content).is_one_of(&candidates),
                    Some(secret) => self
                        .content
                        .resolve(received, Inputs { secret: secret.expose(), ..inputs })
                        .is_ok_and(|content| key.tag(&content).is_one_of(&candidates)),
                })
                .and_then(judge)
            }
            Signer::PrivateKey { algorithm, key_id, keys } => {
                let signatures = group.decoded()?;
                let id = key_id.as_ref().map(|source| source.find(received)).transpose()?;
                let content = whole(self.content.resolve(received, inputs)?);
                let label = keys.matching(id.as_deref(), now, |key| {
                    // RFC 8017 §8.2.2: a signature of another length than the modulus is not a signature.
                    if !signatures.iter().any(|signature| key.takes_length(signature.len())) {
                        return Err(Rejection::SignatureMalformed);
                    }
                    Ok(signatures.iter().any(|signature| key.made(*algorithm, &content, signature)))
                })?;
                Ok(Proof { label, signed: received.identify([&*content]), signed_at: None })
            }
        }
    }
}

/// A content in one piece; most are one already.
fn whole(mut content: Content<'_>) -> Cow<'_, [u8]> {
    match content.len() {
        1 => content.pop().unwrap_or_default(),
        _ => Cow::Owned(content.concat()),
    }
}

impl KeyIdSource {
    fn find<'r>(&self, received: &'r Received<'_>) -> Result<Cow<'r, str>, Rejection> {
        let text = received.read_text(&self.place)?.required(Rejection::KeyIdMissing, Rejection::KeyIdUnknown)?;
        match &self.member {
            None => Ok(text),
            Some(member) => enveloped(text.as_bytes(), member).map(Cow::Owned).ok_or(Rejection::KeyIdMissing),
        }
    }
}

impl TimestampRule {
    /// The timestamp's text, as it arrived.
    fn find<'r>(&self, received: &'r Received<'_>, group: &'r Group<'_>) -> Result<Cow<'r, [u8]>, Rejection> {
        let found = match &self.source {
            TimestampSource::At(Place::Header(name)) => borrowed(match self.unit {
                // A date has a comma of its own.
                Unit::HttpDate => received.delivery.headers.line(name),
                Unit::Seconds | Unit::Milliseconds | Unit::Rfc3339 => received.delivery.headers.single(name),
            }),
            TimestampSource::At(place) => received.read(place),
            TimestampSource::Field(name) => borrowed(group.field(name)),
            TimestampSource::Entry(position) => borrowed(group.entry(*position)),
        };
        found.required(Rejection::TimestampMissing, Rejection::TimestampRepeated)
    }
}

fn borrowed(found: Found<&[u8]>) -> Found<Cow<'_, [u8]>> {
    match found {
        Found::One(value) => Found::One(Cow::Borrowed(value)),
        Found::Absent => Found::Absent,
        Found::Repeated => Found::Repeated,
    }
}
