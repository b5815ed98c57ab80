//! The endpoints of the vectors, with secrets that are in no seed, and what their providers really signed.
//!
//! An allow is judged twice. Of every endpoint that claims to sign bodies: the body must be one that a vector shows as signed.
//! Of some, whose signatures are made of what stands in the request as it is: the signature is made again, with other
//! libraries and without hookwarden's grammar, and must be somewhere in the header. What is found there may be more than the
//! provider wrote, but without the secret it cannot be there at all.

use crate::{
    delivery::Delivery,
    seeds::repository,
    vector::{self, Case},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::FutureExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookwarden::{
    check::{self, Outcome},
    clock::{Clock, Now, UnixSeconds},
    config::{self, Context},
    decision::{Allowed, Decision},
    endpoint::{Endpoint, Endpoints},
    ext_authz::message::CheckRequest,
    store::Store,
};
use prost::Message as _;
use sha2::Sha256;
use std::{
    collections::{HashMap, HashSet},
    env,
    sync::Arc,
};

/// What the endpoint is called in each configuration.
pub const NAME: &str = "vector";

/// An endpoint and its moment.
#[derive(Debug)]
pub struct Receiver {
    /// The endpoint, alone.
    pub endpoints: Endpoints,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// When it is asked.
    pub now: Now,
    /// Its secrets, as they are written; nothing where they are not written plainly.
    secrets: Vec<String>,
    /// Its keys, as they are written.
    keys: Vec<String>,
    /// Whether it signs the fields of a form and not the bytes.
    signs_fields: bool,
    /// Whether it has a tolerance of its own.
    has_tolerance: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Receivers {
    all: Vec<Receiver>,
    by_title: HashMap<String, usize>,
    /// Bodies that were signed, by somebody.
    signed: HashSet<Vec<u8>>,
    /// The same, as the fields of a form in an order of their own.
    signed_fields: HashSet<String>,
    seeds: Vec<Vec<u8>>,
    questions: Vec<Vec<u8>>,
}

impl Receivers {
    /// Reads the vectors.
    ///
    /// # Panics
    ///
    /// Where one cannot be read, of which the tests would tell too.
    #[must_use]
    pub fn of_the_vectors() -> Self {
        let mut receivers = Self {
            all: Vec::new(),
            by_title: HashMap::new(),
            signed: HashSet::new(),
            signed_fields: HashSet::new(),
            seeds: Vec::new(),
            questions: Vec::new(),
        };
        let mut known: HashMap<(String, i64), usize> = HashMap::new();
        // Some name key files, from where the tests run.
        let here = env::current_dir().expect("there is a folder");
        env::set_current_dir(repository()).expect("there is a repository");
        for (number, case) in vector::under("tests/vectors".as_ref()).into_iter().enumerate() {
            let wanted = (configuration(&case), case.now);
            let at = *known.entry(wanted).or_insert_with_key(|(text, now)| {
                receivers.all.push(Receiver::new(&case, text, *now));
                receivers.all.len() - 1
            });
            receivers.by_title.insert(case.title.clone(), at);
            // What does not match its signature was signed by nobody. All else may have been, and be refused for its age.
            if !case.expect.reason.as_deref().is_some_and(|reason| reason.ends_with("_mismatch")) {
                receivers.signed_fields.insert(fields(&case.request.bytes()));
                receivers.signed.insert(case.request.bytes());
            }
            let seed = Delivery::seed(&case, number % 4);
            receivers.questions.push(Delivery::read(&seed).question(NAME).encode_to_vec());
            receivers.seeds.push(seed);
        }
        env::set_current_dir(here).expect("it is still there");
        receivers
    }

    /// Deliveries to begin with, as texts.
    #[must_use]
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    /// The same, as questions.
    #[must_use]
    pub fn questions(&self) -> Vec<Vec<u8>> {
        self.questions.clone()
    }

    /// The one of this name, or any: every text is for somebody.
    #[must_use]
    pub fn find(&self, title: &str) -> &Receiver {
        let any = || title.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let at = self.by_title.get(title).copied().unwrap_or_else(|| any() % self.all.len());
        &self.all[at]
    }

    /// Any of them.
    #[must_use]
    pub fn at(&self, number: usize) -> &Receiver {
        &self.all[number % self.all.len()]
    }

    /// The outcome of a delivery that is allowed, made anew: nothing but a check makes one.
    ///
    /// # Panics
    ///
    /// Where none of the vectors is allowed.
    #[must_use]
    pub fn allowed(&self) -> Outcome {
        let decide = |seed: &Vec<u8>| {
            let delivery = Delivery::read(seed);
            let (receiver, question) = (self.find(&delivery.receiver), delivery.question(NAME).encode_to_vec());
            let request = CheckRequest::decode(question.into()).ok()?;
            let store = Store::in_memory();
            let asked = request.delivery().ok()?;
            check::check(&asked, receiver.now, &receiver.endpoints, &store).now_or_never()
        };
        let allowed = |outcome: &Outcome| matches!(outcome.decision, Decision::Allow(Allowed::Admitted(_)));
        self.seeds.iter().filter_map(decide).find(allowed).expect("some vector is allowed")
    }

    /// Why a delivery that was verified should not have been.
    #[must_use]
    pub fn objection(&self, receiver: &Receiver, delivery: &Delivery) -> Option<&'static str> {
        let body = delivery.body();
        let was_signed =
            self.signed.contains(&body) || (receiver.signs_fields && self.signed_fields.contains(&fields(&body)));
        if receiver.endpoint.scheme.signs_body() && !was_signed {
            return Some("nobody signed this body");
        }
        (!receiver.finds_signature(delivery, &body)).then_some("the signature made again is another one")
    }
}

impl Receiver {
    fn new(case: &Case, text: &str, now: i64) -> Self {
        let clock = Clock::fixed(UnixSeconds(now));
        let loaded = config::parse("vector", text.as_bytes(), &Context::new(clock.now()))
            .unwrap_or_else(|problems| panic!("{}: {problems}", case.title));
        let endpoints = loaded.compiled.endpoints;
        let endpoint = Arc::clone(endpoints.named(NAME).expect("there is one"));
        let written = |list: &str| {
            let items = case.endpoint[list].as_sequence().into_iter().flatten();
            let plain = items.filter(|item| item["encoding"].is_null());
            plain.filter_map(|item| item["inline"].as_str().map(str::to_owned)).collect()
        };
        let scheme = case.endpoint["provider"].as_str().and_then(hookwarden::provider::text).unwrap_or(text);
        Self {
            endpoints,
            endpoint,
            now: clock.now(),
            secrets: written("secrets"),
            keys: written("public_keys"),
            signs_fields: scheme.contains("{form:*"),
            has_tolerance: text.contains("tolerance"),
        }
    }

    /// Whether the signature stands in its header, of those that can be made again here.
    fn finds_signature(&self, delivery: &Delivery, body: &[u8]) -> bool {
        let by_secret =
            |name: &str, write: &dyn Fn(&[u8]) -> String, contents: &[Vec<u8>], key: &dyn Fn(&str) -> Vec<u8>| {
                let tags =
                    self.secrets.iter().flat_map(|secret| contents.iter().map(|content| tag(&key(secret), content)));
                let texts: Vec<String> = tags.map(|tag| write(&tag)).collect();
                texts.iter().any(|text| delivery.values(name).iter().any(|value| holds(value, text.as_bytes())))
            };
        let plain = |secret: &str| secret.as_bytes().to_vec();
        let hex = |tag: &[u8]| const_hex::encode(tag);
        let base64 = |tag: &[u8]| STANDARD.encode(tag);
        let timed = |name: &str, before: &[u8], between: &[u8]| -> Vec<Vec<u8>> {
            let moments = delivery.values(name).into_iter().flat_map(numbers).filter(|n| self.is_now(n));
            moments.map(|moment| [before, moment, between, body].concat()).collect()
        };
        match self.endpoint.provider.as_str() {
            "github" => by_secret("x-hub-signature-256", &hex, &[body.to_vec()], &plain),
            "shopify" => by_secret("x-shopify-hmac-sha256", &base64, &[body.to_vec()], &plain),
            "slack" => by_secret("x-slack-signature", &hex, &timed("x-slack-request-timestamp", b"v0:", b":"), &plain),
            "stripe" => by_secret("stripe-signature", &hex, &timed("stripe-signature", b"", b"."), &plain),
            "standard-webhooks" => {
                let ids = delivery.values("webhook-id");
                let before = ids.iter().map(|id| [id, &b"."[..]].concat());
                let contents: Vec<_> = before.flat_map(|before| timed("webhook-timestamp", &before, b".")).collect();
                let key = |secret: &str| STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap_or_default();
                by_secret("webhook-signature", &base64, &contents, &key)
            }
            "gitlab-token" => delivery
                .values("x-gitlab-token")
                .iter()
                .any(|value| self.secrets.iter().any(|s| s.as_bytes() == *value)),
            "discord" => self.keys.iter().filter_map(|key| verifying(key)).any(|key| {
                let signatures = delivery
                    .values("x-signature-ed25519")
                    .into_iter()
                    .filter_map(|text| ed25519_dalek::Signature::from_slice(&const_hex::decode(text).ok()?).ok());
                let contents = timed("x-signature-timestamp", b"", b"");
                signatures.into_iter().any(|s| contents.iter().any(|content| key.verify_strict(content, &s).is_ok()))
            }),
            _ => true,
        }
    }

    /// Whether a number is a moment near enough. Presets that judge it allow five minutes.
    fn is_now(&self, number: &[u8]) -> bool {
        let moment = std::str::from_utf8(number).ok().and_then(|text| text.parse::<i64>().ok());
        moment.is_some_and(|moment| self.has_tolerance || moment.abs_diff(self.now.wall.0) <= 300)
    }
}

fn configuration(case: &Case) -> String {
    let mut endpoint = case.endpoint.clone();
    // So that the text form of a body is judged by its content too.
    endpoint.as_mapping_mut().expect("an endpoint is a mapping").insert("text_body".into(), true.into());
    serde_json::json!({ "endpoints": { NAME: endpoint } }).to_string()
}

/// Names and values, sorted and one behind the other, which is all that a provider signs who signs fields.
fn fields(form: &[u8]) -> String {
    let mut pairs: Vec<String> = form_urlencoded::parse(form).map(|(name, value)| format!("{name}{value}")).collect();
    pairs.sort();
    pairs.concat()
}

fn tag(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key has any length");
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

fn holds(value: &[u8], text: &[u8]) -> bool {
    value.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text))
}

/// Every run of digits.
fn numbers(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| !byte.is_ascii_digit()).filter(|run| !run.is_empty())
}

fn verifying(key: &str) -> Option<ed25519_dalek::VerifyingKey> {
    let bytes: [u8; 32] = const_hex::decode(key).ok()?.try_into().ok()?;
    ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok()
}
