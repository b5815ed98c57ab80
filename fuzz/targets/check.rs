//! A delivery from whoever, for an endpoint whose secret he has not: nothing panics, and what is allowed was really signed.
//!
//! It goes the whole way, from Envoy's bytes to Envoy's bytes; and where the body can be verified as it comes in, it is, and
//! must come to the same.
#![no_main]

use envoy_types::pb::envoy::service::auth::v3::CheckRequest as Question;
use futures_util::FutureExt as _;
use hookwarden::{
    check::{self, Awaited, Examined, Outcome},
    decision::{Allowed, Decision, Denial},
    delivery::{self, Body},
    endpoint::Mode,
    ext_authz::{message::CheckRequest, request, response},
    replay::{Holder, Outcomes},
    reply::trusted_names,
    store::Store,
};
use hookwarden_fuzz::{
    delivery::Delivery,
    lines,
    receivers::{NAME, Receiver, Receivers},
    seeds, unframed,
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use prost::Message as _;
use seen::Seen;
use std::sync::LazyLock;

#[path = "../../tests/suite/seen.rs"]
#[expect(dead_code, reason = "the tests look at more of a response")]
mod seen;

static RECEIVERS: LazyLock<Receivers> = LazyLock::new(Receivers::of_the_vectors);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { lines::mutate(data, size, max_size, seed) });

fuzz_target!(init: seeds::plant(RECEIVERS.seeds()), |text: &[u8]| {
    let delivery = Delivery::read(text);
    let receiver = RECEIVERS.find(&delivery.receiver);
    let question = delivery.question(NAME);
    let forwarded = ask(&question, receiver);
    if forwarded && receiver.endpoint.mode == Mode::Enforce {
        let objection = RECEIVERS.objection(receiver, &delivery);
        assert_eq!(objection, None, "{} lets {delivery:?} pass", receiver.endpoint.provider);
    }
});

/// Asks, and says whether Envoy would forward it.
fn ask(question: &Question, receiver: &Receiver) -> bool {
    let request = CheckRequest::decode(question.encode_to_vec().into()).expect("what Envoy's types write can be read");
    let Ok(delivery) = request.delivery() else { return false };
    let outcome = settle(check::examine(&delivery, receiver.now, &receiver.endpoints), receiver);
    if let (Body::Whole(body), Some(pieces)) = (delivery.body, by_pieces(&delivery, receiver)) {
        assert_eq!(outcome.decision.as_str(), pieces.as_str(), "in pieces {} is judged otherwise", body.len());
        if let Decision::Allow(_) = outcome.decision {
            assert_eq!(outcome.decision.reason(), pieces.reason());
        }
    }
    if let Decision::Allow(Allowed::Observed(_)) = &outcome.decision {
        assert_eq!(receiver.endpoint.mode, Mode::Observe);
    }
    let response = response::respond(&outcome, request::request_id(&request), trusted_names(&request));
    let seen = Seen::of(unframed(&response.framed()));
    assert_eq!(seen.forwarded, matches!(outcome.decision, Decision::Allow(_)));
    assert_eq!(seen.reason(), outcome.decision.reason());
    seen.forwarded
}

/// What it comes to where the body comes in pieces; nothing where it is to be taken in whole.
fn by_pieces(delivery: &delivery::Delivery<'_>, receiver: &Receiver) -> Option<Decision> {
    let Body::Whole(body) = delivery.body else { return None };
    let mut pieces = match check::await_body(delivery, receiver.now, &receiver.endpoints) {
        Ok(Awaited::Pieces(pieces)) => pieces,
        Ok(Awaited::Whole(_)) => return None,
        Err(denial) => return Some(Decision::Deny(denial)),
    };
    // An odd place to part it, so that a piece ends within a block of the hash.
    let (first, second) = body.split_at(body.len() / 3);
    for piece in [first, second] {
        if let Err(rejection) = pieces.update(piece) {
            return Some(Decision::Deny(Denial::from(rejection)));
        }
    }
    Some(settle(pieces.finish(receiver.now), receiver).decision)
}

/// The second half of a check, before a store that remembers nothing: one that does would refuse what was there before.
fn settle(examined: Examined, receiver: &Receiver) -> Outcome {
    let store = Store::in_memory();
    let settled = check::settle(examined, Holder::NOBODY, Outcomes::Told, &store, receiver.now);
    settled.now_or_never().expect("memory keeps nobody waiting")
}
