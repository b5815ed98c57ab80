//! What is written as a `CheckResponse` is read by Envoy's own types as it was meant, whatever texts are in it.
#![no_main]

use arbitrary::Arbitrary;
use hookwarden::{
    check::{Facts, Outcome},
    decision::{Answer, AnswerReason, Decision, Denial, Fault, Rejection, Reply},
    ext_authz::{request::PARTIAL_BODY, response},
    reply,
};
use hookwarden_fuzz::{receivers::Receivers, unframed};
use libfuzzer_sys::fuzz_target;
use seen::Seen;
use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

#[path = "../../tests/suite/seen.rs"]
mod seen;

static RECEIVERS: LazyLock<Receivers> = LazyLock::new(Receivers::of_the_vectors);

/// An outcome, in numbers and texts.
#[derive(Debug, Arbitrary)]
struct Case<'a> {
    endpoint: Option<u16>,
    decision: Kind<'a>,
    request_id: &'a str,
    delivery_id: Option<String>,
    event_type: Option<String>,
    sent: Vec<&'a [u8]>,
}

#[derive(Debug, Arbitrary)]
enum Kind<'a> {
    Rejected(u8),
    Faulted(u8),
    Answered { reason: u8, status: u16, headers: Vec<(&'a str, &'a str)>, body: &'a str, times: u16 },
    Allowed,
}

fuzz_target!(init: LazyLock::force(&RECEIVERS), |case: Case<'_>| {
    let outcome = case.outcome();
    let framed = response::respond(&outcome, case.request_id, case.sent.iter().copied()).framed();
    case.compare(&outcome, &Seen::of(unframed(&framed)));
});

fn one_of<T: Copy>(all: &[T], number: u8) -> T {
    all[usize::from(number) % all.len()]
}

impl Case<'_> {
    fn outcome(&self) -> Outcome {
        let decision = match &self.decision {
            Kind::Rejected(number) => Decision::Deny(one_of(Rejection::ALL, *number).into()),
            Kind::Faulted(number) => Decision::Deny(one_of(Fault::ALL, *number).into()),
            Kind::Answered { reason, status, headers, body, times } => {
                let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                // As long as a length in two bytes or three.
                let body = body.repeat(usize::from(*times % 2048).max(1));
                let reply = Reply { status: *status, headers, body };
                Decision::Answer(Answer { reason: one_of(AnswerReason::ALL, *reason), reply })
            }
            Kind::Allowed => return Outcome { facts: self.facts(), ..RECEIVERS.allowed() },
        };
        let endpoint = self.endpoint.map(|number| Arc::clone(&RECEIVERS.at(number.into()).endpoint));
        Outcome { endpoint, facts: self.facts(), decision }
    }

    fn facts(&self) -> Facts {
        Facts { delivery_id: self.delivery_id.clone(), event_type: self.event_type.clone() }
    }

    fn compare(&self, outcome: &Outcome, seen: &Seen) {
        let told = |name: &str| seen.metadata.get(name).map(String::as_str);
        assert_eq!(told("decision"), Some(outcome.decision.as_str()));
        assert_eq!(seen.reason(), outcome.decision.reason());
        assert_eq!(told("request_id"), Some(self.request_id));
        assert_eq!(told("delivery_id"), self.delivery_id.as_deref());
        assert_eq!(told("event_type"), self.event_type.as_deref());
        assert_eq!(told("endpoint"), outcome.endpoint.as_ref().map(|endpoint| endpoint.name.as_str()));
        let reply = match &outcome.decision {
            Decision::Allow(allowed) => {
                assert!(seen.forwarded);
                let set = reply::trusted_headers(allowed, &outcome.facts, outcome.endpoint.as_deref());
                let set: Vec<_> = set.into_iter().map(|(name, value)| (name.into_owned(), value.to_owned())).collect();
                assert_eq!(seen.headers, set);
                return self.compare_removed(seen);
            }
            Decision::Answer(answer) => reply::answered(answer),
            Decision::Deny(denial) => reply::refusal(*denial, outcome.endpoint.as_deref(), self.request_id),
        };
        assert!(!seen.forwarded);
        assert!((200..=599).contains(&seen.status), "{}", seen.status);
        assert!(seen.status == reply.status || seen.status == 503);
        assert!(seen.body == reply.body || (seen.body.is_empty() && matches!(seen.status, 204 | 205 | 304)));
        // What could end a line is left out, and nothing else.
        let whole =
            reply.headers.iter().filter(|(_, value)| !value.contains(|c: char| c != '\t' && !(' '..='~').contains(&c)));
        assert_eq!(seen.headers, whole.cloned().collect::<Vec<_>>());
        if let Decision::Deny(Denial::Fault(_)) = outcome.decision {
            assert_eq!(seen.status, 503, "a fault is one");
        }
    }

    /// Everything that the client sent under our names is removed or overwritten, once each.
    fn compare_removed(&self, seen: &Seen) {
        assert_eq!(seen.removed.first().map(String::as_str), Some(PARTIAL_BODY));
        let removed: HashSet<&str> = seen.removed.iter().skip(1).map(String::as_str).collect();
        assert_eq!(removed.len() + 1, seen.removed.len(), "{:?}", seen.removed);
        for name in self.sent.iter().filter_map(|name| std::str::from_utf8(name).ok()) {
            assert!(removed.contains(name) != seen.header(name).is_some(), "{name:?}");
        }
    }
}
