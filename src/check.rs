//! One check, every step, once, in order.
//!
//! The first half, [`examine`], is computation: which endpoint, whole body, challenge, proof. It touches nothing
//! but its arguments, so a large body may be examined on another thread. The second half, [`settle`], asks state.
//! [`Verified`] passes from one to the other by value: no step can be skipped, repeated or put in another order.
//!
//! The order is argued: form before content, because a part of a body must not be mistaken for a forgery;
//! challenges before proof, because most are not signed, and those that are demand the proof themselves; proof
//! before state, because strangers must not fill or probe it.

use crate::{
    admission::{Admission, Enrolment, Guard, State, admit, enrol, learn},
    challenge::{Challenge, Posed},
    clock::Now,
    decision::{Allowed, Answer, Decision, Denial, Rejection},
    delivery::{Body, ClientAddress, Delivery, Found},
    endpoint::{Endpoint, Endpoints, Mode},
    received::{Place, Received},
    replay::{Digests, Holder, OnDuplicate, Outcomes, ReplayRule},
    scheme::{Evidence, Verified, ip_lease::Grant, streamed::Streamed},
    secret::Secret,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// A decision, and the endpoint that made it.
#[derive(Debug)]
pub struct Outcome {
    /// None where no endpoint receives the request.
    pub endpoint: Option<Arc<Endpoint>>,
    /// What an allowed delivery says of itself.
    pub facts: Facts,
    /// The decision.
    pub decision: Decision,
}

/// What a delivery says of itself: short, plain words, which a verified sender wrote. Nothing is decided by them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The provider's id of the delivery.
    pub delivery_id: Option<String>,
    /// What happened.
    pub event_type: Option<String>,
}

/// Longest fact told upstream, in bytes. A longer one is left out, not cut: half an id is another id.
const MAX_FACT: usize = 128;

impl Facts {
    fn of(endpoint: &Endpoint, received: &Received<'_>) -> Self {
        let read = |place: &Option<Place>| {
            let text = received.word(place.as_ref()?)?;
            let plain = (1..=MAX_FACT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            plain.then_some(text)
        };
        Self { delivery_id: read(&endpoint.delivery_id), event_type: read(&endpoint.event_type) }
    }
}

/// What computation alone found out.
#[derive(Debug)]
pub struct Examined {
    endpoint: Option<Arc<Endpoint>>,
    /// Who could be guessing.
    guesser: Option<IpAddr>,
    finding: Result<Finding, Denial>,
}

#[derive(Debug)]
enum Finding {
    Answer(Answer),
    /// An answer for the verified only; what their proof depends on is still to be asked.
    AnswerTo(Verified, Answer),
    Enrol(Grant),
    Learn(Enrolment),
    Deliver(Verified, Facts),
}

/// Why a rejected delivery passes all the same: its endpoint observes. Only this room makes one.
#[derive(Debug)]
pub struct Observed(Rejection);

impl Observed {
    /// What it would have been rejected for.
    #[must_use]
    pub const fn rejection(&self) -> Rejection {
        self.0
    }
}

/// Decides about one delivery, asked by nobody in particular.
pub async fn check(delivery: &Delivery<'_>, now: Now, endpoints: &Endpoints, state: &impl State) -> Outcome {
    settle(examine(delivery, now, endpoints), Holder::NOBODY, Outcomes::Told, state, now).await
}

/// Everything that needs no state.
#[must_use]
pub fn examine(delivery: &Delivery<'_>, now: Now, endpoints: &Endpoints) -> Examined {
    examine_at(endpoints.find(delivery), delivery, now, endpoints)
}

/// The same, for whoever has looked already which endpoint a delivery is for.
#[must_use]
pub fn examine_at(
    endpoint: Option<&Arc<Endpoint>>,
    delivery: &Delivery<'_>,
    now: Now,
    endpoints: &Endpoints,
) -> Examined {
    let endpoint = endpoint.cloned();
    let finding = match &endpoint {
        Some(endpoint) => examine_for(endpoint, delivery, now, endpoints.digests_for(endpoint)),
        None => Err(Rejection::UnknownEndpoint.into()),
    };
    // Clients that the proxy does not tell apart are one.
    let address = |client: ClientAddress| client.of(delivery).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let guesser = endpoint.as_ref().and_then(|endpoint| endpoint.guessed_by).map(address);
    Examined { endpoint, guesser, finding }
}

fn examine_for(
    endpoint: &Endpoint,
    delivery: &Delivery<'_>,
    now: Now,
    digests: Option<&Digests>,
) -> Result<Finding, Denial> {
    at_the_door(endpoint, delivery)?;
    let body = whole_body(delivery.body, endpoint)?;

    let received = Received::new(delivery, body).identified(digests);

    match Challenge::find(&endpoint.challenges, &received, now) {
        Some(Posed::Unsigned(challenge)) => {
            let answer = challenge.answer(&received, now)?;
            return match challenge.enrolled(&received) {
                None => Ok(Finding::Answer(answer)),
                Some(secret) => enrolment(endpoint, secret?, answer, now).map(Finding::Learn),
            };
        }
        Some(Posed::Signed(challenge)) => {
            let proof = endpoint.scheme.verify(&received, now)?;
            let answer = challenge.answer(&received, now, &proof)?;
            return Ok(Finding::AnswerTo(proof, answer));
        }
        None => {}
    }
    match endpoint.scheme.enrol(delivery, now) {
        Some(grant) => grant.map(Finding::Enrol),
        None => {
            let verified = endpoint.scheme.verify(&received, now)?;
            Ok(Finding::Deliver(verified, Facts::of(endpoint, &received)))
        }
    }
}

/// Whether a delivery gets as far as being verified: for whoever wants to know beforehand what that will cost.
#[must_use]
pub fn enters(endpoint: &Endpoint, delivery: &Delivery<'_>) -> bool {
    at_the_door(endpoint, delivery).is_ok()
}

/// What is wrong with a request whatever its body is.
fn at_the_door(endpoint: &Endpoint, delivery: &Delivery<'_>) -> Result<(), Rejection> {
    if delivery.path_is_ambiguous() {
        return Err(Rejection::PathAmbiguous);
    }
    if !endpoint.methods.iter().any(|method| method == delivery.method) {
        return Err(Rejection::MethodNotAllowed);
    }
    // What follows an upgrade is no body, and would reach the upstream after the check.
    if delivery.headers.line("upgrade") != Found::Absent {
        return Err(Rejection::UpgradeRefused);
    }
    Ok(())
}

/// What to do about a body that is still to come, for a listener that can leave it where it is.
#[derive(Debug)]
pub enum Awaited {
    /// Take it in whole, up to so many bytes.
    Whole(usize),
    /// Show it piece by piece.
    Pieces(Box<Pieces>),
}

/// A delivery whose body is verified as it comes in.
#[derive(Debug)]
pub struct Pieces {
    endpoint: Arc<Endpoint>,
    facts: Facts,
    streamed: Streamed,
    length: usize,
}

/// Everything about a delivery that needs no body. What is wrong already is said before anybody sends one.
pub fn await_body(delivery: &Delivery<'_>, now: Now, endpoints: &Endpoints) -> Result<Awaited, Denial> {
    let endpoint = endpoints.find(delivery).ok_or(Rejection::UnknownEndpoint)?;
    at_the_door(endpoint, delivery)?;
    let facts_in_body = [&endpoint.delivery_id, &endpoint.event_type].into_iter().flatten().any(Place::is_in_body);
    let received = Received::new(delivery, &[]).identified(endpoints.digests_for(endpoint));
    // A handshake may be in the body. One that only observes forwards what fails here, and must know what that is.
    let streams = endpoint.challenges.is_empty() && !facts_in_body && endpoint.mode == Mode::Enforce;
    let streamed = if streams { endpoint.scheme.stream(&received, now) } else { None };
    Ok(match streamed {
        None => Awaited::Whole(endpoint.body_limit),
        Some(streamed) => Awaited::Pieces(Box::new(Pieces {
            endpoint: Arc::clone(endpoint),
            facts: Facts::of(endpoint, &received),
            streamed: streamed?,
            length: 0,
        })),
    })
}

impl Pieces {
    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), Rejection> {
        self.length = self.length.saturating_add(piece.len());
        if self.length > self.endpoint.body_limit {
            return Err(Rejection::BodyTooLarge);
        }
        self.streamed.update(piece);
        Ok(())
    }

    /// How much there may be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.endpoint.body_limit
    }

    /// How much there was.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// What was found out, now that the body is whole.
    #[must_use]
    pub fn finish(self, now: Now) -> Examined {
        let Self { endpoint, facts, streamed, .. } = self;
        let finding = Verified::by_stream(streamed, now).map(|verified| Finding::Deliver(verified, facts));
        Examined { endpoint: Some(endpoint), guesser: None, finding }
    }
}

/// A secret may be learned while the operator says so, and at no other time.
fn enrolment(endpoint: &Endpoint, secret: Secret, answer: Answer, now: Now) -> Result<Enrolment, Denial> {
    match &endpoint.enrolment {
        Some(window) if now.wall <= window.until => {
            Ok(Enrolment { endpoint: endpoint.name.clone(), secret, slot: Arc::clone(&window.slot), answer })
        }
        Some(_) | None => Err(Rejection::EnrolmentClosed.into()),
    }
}

/// Everything that needs state. `holder` is the proxy's request that this is about, and `outcomes` what it will tell.
pub async fn settle(examined: Examined, holder: Holder, outcomes: Outcomes, state: &impl State, now: Now) -> Outcome {
    let Examined { endpoint, guesser, finding } = examined;
    let finding = match guesser {
        Some(client) => heard(finding, client, state, now),
        None => finding,
    };
    let mut facts = Facts::default();
    let guard = endpoint.as_deref().and_then(|endpoint| {
        let rule = rule(endpoint, outcomes)?;
        Some(Guard { endpoint: &endpoint.name, rule, holder })
    });
    let decision = match finding {
        Ok(Finding::Answer(answer)) => Ok(Decision::Answer(answer)),
        Ok(Finding::AnswerTo(verified, answer)) => {
            Box::pin(admit(verified, None, state, now)).await.map(|_admitted| Decision::Answer(answer))
        }
        Ok(Finding::Learn(enrolment)) => Box::pin(learn(enrolment, state)).await.map(Decision::Answer),
        Ok(Finding::Enrol(grant)) => Box::pin(enrol(grant, state, now)).await.map(Decision::Answer),
        Ok(Finding::Deliver(verified, told)) => admit(verified, guard, state, now).await.map(|admission| {
            facts = told;
            match admission {
                Admission::Admitted(admitted) => Decision::Allow(Allowed::Admitted(admitted)),
                Admission::Answered(answer) => Decision::Answer(answer),
            }
        }),
        Err(denial) => Err(denial),
    };
    let decision = decision.unwrap_or_else(|denial| deny_or_observe(denial, endpoint.as_deref()));
    Outcome { endpoint, facts, decision }
}

/// What was found, unless the client guessed too often. What a signature proves is nobody's guess.
fn heard(finding: Result<Finding, Denial>, client: IpAddr, state: &impl State, now: Now) -> Result<Finding, Denial> {
    let guess = match &finding {
        Ok(Finding::Enrol(_)) | Err(Denial::Rejection(Rejection::LeaseAddressRefused)) => Some(false),
        Ok(Finding::Deliver(verified, _)) if verified.evidence() == Evidence::Basic => Some(false),
        Err(Denial::Rejection(Rejection::TokenMismatch | Rejection::CredentialsMismatch)) => Some(true),
        Ok(_) | Err(_) => None,
    };
    match guess {
        Some(wrong) if !state.hear(client, wrong, now) => Err(Rejection::TooManyGuesses.into()),
        Some(_) | None => finding,
    }
}

/// How an endpoint guards against replays. One that only observes marks them.
fn rule(endpoint: &Endpoint, outcomes: Outcomes) -> Option<ReplayRule> {
    let rules = endpoint.replay?;
    let rule = match outcomes {
        Outcomes::Told => rules.told,
        Outcomes::Untold => rules.untold,
    };
    Some(match endpoint.mode {
        Mode::Enforce => rule,
        Mode::Observe => ReplayRule { on_duplicate: OnDuplicate::Mark, ..rule },
    })
}

/// A denial stands, unless it is a failed proof at an endpoint that only observes. Faults always deny, and so does
/// everything that is wrong with the request itself: what the upstream would see is not what was examined.
fn deny_or_observe(denial: Denial, endpoint: Option<&Endpoint>) -> Decision {
    match (denial, endpoint.map(|endpoint| endpoint.mode)) {
        (Denial::Rejection(rejection), Some(Mode::Observe)) if rejection.status() == 401 => {
            Decision::Allow(Allowed::Observed(Observed(rejection)))
        }
        (denial, _) => Decision::Deny(denial),
    }
}

/// The whole body, or why there is none to verify.
fn whole_body<'a>(body: Body<'a>, endpoint: &Endpoint) -> Result<&'a [u8], Rejection> {
    let bytes = match body {
        Body::Whole(bytes) => bytes,
        // Where a byte is no UTF-8, Envoy's text has this and its upstream the byte: who has a delivery that was signed
        // with one could put any byte in its place.
        Body::Text(bytes) if endpoint.text_body && bytes.contains(&b'!') => return Err(Rejection::BodyAltered),
        Body::Text(bytes) if endpoint.text_body => bytes,
        Body::Text(_) => return Err(Rejection::BodyNotBytes),
        Body::Altered => return Err(if endpoint.text_body { Rejection::BodyAltered } else { Rejection::BodyNotBytes }),
        Body::Truncated => return Err(Rejection::BodyTruncated),
        Body::Missing => return Err(Rejection::BodyMissing),
    };
    if bytes.len() > endpoint.body_limit { Err(Rejection::BodyTooLarge) } else { Ok(bytes) }
}
