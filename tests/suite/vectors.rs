//! Every vector, through the core and again over the wire in each form that Envoy knows.

use crate::suite::{
    gate::{self, Asked, FORMS, Form, Seen},
    vector::{self, Case, Expect},
};
use hookwarden::{
    check,
    clock::{Clock, Now, UnixSeconds},
    config::{self, Context},
    decision::{Allowed, Decision},
    delivery::{Body, Delivery, Headers},
    endpoint::Endpoints,
    provider,
    received::Received,
    replay::Digests,
    reply,
    store::Store,
};
use std::collections::BTreeSet;

fn configuration(case: &Case) -> String {
    let mut endpoint = case.endpoint.clone();
    // So that the text form of a body is judged by its content too.
    endpoint.as_mapping_mut().unwrap().insert("text_body".into(), true.into());
    serde_json::json!({ "endpoints": { "vector": endpoint } }).to_string()
}

/// Does something with a vector's delivery and the endpoint that receives it.
fn with<T>(case: &Case, work: impl FnOnce(&Delivery<'_>, &Endpoints, Now) -> T) -> T {
    let clock = Clock::fixed(UnixSeconds(case.now));
    let loaded = config::parse("vector", configuration(case).as_bytes(), &Context::new(clock.now()))
        .unwrap_or_else(|problems| panic!("{}: {problems}", case.title));
    let uri = case.request.uri();
    let names: Vec<String> = case.request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let lines = names.iter().zip(&case.request.headers).map(|(name, (_, value))| (name.as_bytes(), value.as_bytes()));
    let body = case.request.bytes();
    let delivery = Delivery {
        method: &case.request.method,
        target: uri.path_and_query().unwrap().as_str(),
        host: uri.authority().unwrap().as_str(),
        headers: Headers::from_lines(lines.collect()),
        body: Body::Whole(&body),
        peer: case.request.client_ip.as_ref().map(|address| address.parse().unwrap()),
        route_endpoint: Some("vector"),
    };
    work(&delivery, &loaded.compiled.endpoints, clock.now())
}

fn core(case: &Case) -> Expect {
    let store = Store::in_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome =
        with(case, |delivery, endpoints, now| runtime.block_on(check::check(delivery, now, endpoints, &store)));
    let mut told = Expect {
        decision: outcome.decision.as_str().to_owned(),
        reason: Some(outcome.decision.reason().to_owned()),
        status: None,
        verified_by: None,
        secret_id: None,
        headers: Vec::new(),
        body: None,
    };
    match &outcome.decision {
        Decision::Allow(Allowed::Admitted(admitted)) => {
            told.verified_by = Some(admitted.evidence().as_str().to_owned());
            told.secret_id = admitted.secret().map(|label| label.id.clone());
        }
        Decision::Allow(Allowed::Observed(_)) => {}
        Decision::Answer(answer) => {
            told.status = Some(answer.reply.status);
            told.headers.clone_from(&answer.reply.headers);
            told.body = Some(answer.reply.body.clone());
        }
        Decision::Deny(denial) => {
            let reply = reply::refusal(*denial, outcome.endpoint.as_deref(), "-");
            told.status = Some(reply.status);
            told.body = Some(reply.body);
        }
    }
    told
}

/// Whoever judges how old a delivery is says when it was signed: a store that forgot needs to know.
#[test]
fn what_is_judged_fresh_says_when_it_was_signed() {
    let mut seen = 0;
    for case in vector::all() {
        let found = with(&case, |delivery, endpoints, now| {
            let endpoint = endpoints.find(delivery).unwrap();
            let Body::Whole(body) = delivery.body else { panic!("{}", case.title) };
            let verified =
                endpoint.scheme.verify(&Received::new(delivery, body).identified(Some(&Digests::Lasting)), now).ok()?;
            let judged = endpoint.scheme.signs_body() && endpoint.scheme.fresh_for().is_some();
            Some((judged, verified.signed_at(), now.wall))
        });
        let Some((true, signed_at, now)) = found else { continue };
        seen += 1;
        let signed_at = signed_at.unwrap_or_else(|| panic!("{}", case.title));
        assert!(signed_at.distance(now) <= 24 * 3600, "{}", case.title);
    }
    assert!(seen > 100, "{seen}");
}

/// What `told` differs in from what the vector expects, of what the vector says.
fn difference(expect: &Expect, told: &Expect) -> Option<String> {
    let mut wrong = Vec::new();
    let mut compare = |what: &str, expected: Option<String>, got: Option<String>| {
        if expected.is_some() && expected != got {
            wrong.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
    };
    compare("decision", Some(expect.decision.clone()), Some(told.decision.clone()));
    compare("reason", expect.reason.clone(), told.reason.clone());
    compare("status", expect.status.map(|s| s.to_string()), told.status.map(|s| s.to_string()));
    compare("verified_by", expect.verified_by.clone(), told.verified_by.clone());
    compare("secret_id", expect.secret_id.clone(), told.secret_id.clone());
    compare("body", expect.body.clone(), told.body.clone());
    for (name, value) in &expect.headers {
        let got =
            told.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        compare(name, Some(value.clone()), got);
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

#[test]
fn every_vector_decides_as_it_says() {
    let failures: Vec<String> = vector::all()
        .iter()
        .filter_map(|case| difference(&case.expect, &core(case)).map(|wrong| format!("{}: {wrong}", case.title)))
        .collect();
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

fn asked(case: &Case) -> Asked {
    Asked {
        method: case.request.method.clone(),
        uri: case.request.uri(),
        headers: case.request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
        body: case.request.bytes(),
        client: case.request.client_ip.clone(),
        endpoint: Some("vector".to_owned()),
    }
}

fn told(seen: &Seen) -> Expect {
    Expect {
        decision: seen.metadata["decision"].clone(),
        reason: Some(seen.metadata["reason"].clone()),
        status: Some(seen.status).filter(|status| *status != 0),
        verified_by: seen.header("x-hookwarden-verified-by").map(str::to_owned),
        secret_id: seen.header("x-hookwarden-secret-id").map(str::to_owned),
        headers: seen.headers.clone(),
        // The request id is only known here.
        body: Some(seen.body.clone()),
    }
}

/// What a form loses. Joined headers hide which of two reasons a doubled header is denied for, and text hides bytes
/// that are not UTF-8, for which a `!` stands; neither may turn a denial into an allow.
fn loses(case: &Case, form: Form) -> bool {
    let names: Vec<String> = case.request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let doubled = names.iter().collect::<BTreeSet<_>>().len() < names.len();
    let body = case.request.bytes();
    (doubled && !form.raw_headers) || (!form.raw_body && (std::str::from_utf8(&body).is_err() || body.contains(&b'!')))
}

/// Whether the header that occurs twice says the same twice.
fn repeats_itself(case: &Case) -> bool {
    let lines: BTreeSet<(String, &String)> =
        case.request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    lines.len() < case.request.headers.len()
}

#[tokio::test]
async fn every_vector_decides_the_same_over_the_wire() {
    let mut failures = Vec::new();
    let (mut last, mut client) = (None, None);
    for case in vector::all() {
        // Neighbours mostly share their endpoint and their moment; one service serves them all.
        let wanted = (configuration(&case), case.now);
        let enrols = case.endpoint["enrolment"].is_mapping();
        if case.endpoint["provider"] == "verify-token" || last.as_ref() != Some(&wanted) {
            client = Some(gate::connect(gate::gate(&wanted.0, wanted.1)).await);
            last = Some(wanted);
        }
        let client = client.as_mut().unwrap();
        for form in FORMS {
            if enrols {
                // What was learned from the last form would be known to this one.
                *client = gate::connect(gate::gate(&configuration(&case), case.now)).await;
            }
            let seen = Seen::of(client.check(asked(&case).check(form)).await.unwrap().into_inner());
            assert_eq!(seen.forwarded, seen.metadata["decision"] == "allow", "{}", case.title);
            if loses(&case, form) {
                // One signature twice, in a header that is a list with commas: joined, it is a list of two, both right.
                let same_twice = case.expect.reason.as_deref() == Some("signature_repeated") && repeats_itself(&case);
                if seen.forwarded && case.expect.decision != "allow" && !same_twice {
                    failures.push(format!("{} {form:?}: forwarded", case.title));
                }
                continue;
            }
            if let Some(wrong) = difference(&case.expect, &told(&seen)) {
                failures.push(format!("{} {form:?}: {wrong}", case.title));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_preset_has_its_vectors() {
    let all = vector::all();
    for name in provider::names() {
        let own: Vec<&Case> = all.iter().filter(|case| case.title.starts_with(&format!("{name}/"))).collect();
        let has = |wanted: &dyn Fn(&Expect) -> bool| own.iter().any(|case| wanted(&case.expect));
        assert!(has(&|e| e.decision == "allow" || e.reason.as_deref() == Some("lease_granted")), "{name}: a valid one");
        assert!(
            has(&|e| e.reason.as_deref().is_some_and(|r| r.ends_with("_mismatch"))),
            "{name}: a wrong secret or body"
        );
        assert!(has(&|e| e.reason.as_deref().is_some_and(|r| r.ends_with("_missing"))), "{name}: no proof at all");
    }
}

#[test]
fn every_rejection_says_why() {
    for case in vector::all() {
        assert!(case.expect.decision != "deny" || case.expect.reason.is_some(), "{}: no reason", case.title);
    }
}

/// What the field is promised.
#[test]
fn there_are_as_many_as_promised() {
    let all = provider::all();
    let handshakes = all.values().filter(|p| !p.challenges.is_empty() || p.scheme.ip_lease.is_some());
    assert!(provider::names().count() >= 200 && handshakes.count() >= 40);
    for name in provider::names() {
        assert!(provider::vectors(name) >= 3, "{name} has {} vectors", provider::vectors(name));
    }
}

/// Adding a provider is a file and its vectors: a copy under another name, in the user's own configuration, decides as
/// the preset does, with nothing compiled anew.
#[test]
fn a_provider_is_a_file() {
    for (name, title) in
        [("slack", "slack/preset.yaml"), ("truelayer", "truelayer/preset.yaml"), ("adyen", "adyen/preset.yaml")]
    {
        let preset: serde_yaml::Value = serde_yaml::from_str(provider::text(name).unwrap()).unwrap();
        let cases: Vec<Case> = vector::all().into_iter().filter(|case| case.title.starts_with(title)).collect();
        assert!(cases.len() > 3, "{name}");
        for mut case in cases {
            let endpoint = case.endpoint.as_mapping_mut().unwrap();
            endpoint.remove("provider");
            for field in ["scheme", "challenges", "allow_methods", "on_rejection"] {
                if let Some(value) = preset.get(field) {
                    endpoint.insert(field.into(), value.clone());
                }
            }
            assert_eq!(difference(&case.expect, &core(&case)), None, "{}", case.title);
        }
    }
}

/// How many vectors of the catalogue are here; it only ever grows.
#[test]
fn the_catalogue_is_covered() {
    let here: BTreeSet<(String, String)> = vector::all()
        .into_iter()
        .filter_map(|case| Some((case.title.split('/').next()?.to_owned(), case.catalogue?)))
        .collect();
    assert!(here.len() >= 250, "{}: {here:?}", here.len());
}
