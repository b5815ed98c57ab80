//! The traps of the proxy, each over a real gRPC connection.

use crate::suite::gate::{self, Asked, FORMS, Form, Seen, question};
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3::{
        CheckRequest, CheckResponse, attribute_context::HttpRequest, authorization_client::AuthorizationClient,
    },
};
use hookwarden::{
    config::process::Limits,
    gate::{
        budget::Budget,
        examiners::{Examiners, Long},
    },
    scheme::encoding::Encoding,
};
use std::{sync::Arc, time::Duration};
use tonic::transport::Channel;

const NOW: i64 = 1_760_000_000;
const RAW: Form = Form { raw_headers: true, raw_body: true };
const CONFIGURATION: &str = r"
endpoints:
  hub:
    match: { host: Hooks.Example.com, path: /hub }
    provider: github
    secrets: [{ id: main, inline: a secret of this test, tags: { mode: test } }]
  watched:
    provider: github
    mode: observe
    secrets: [{ id: main, inline: a secret of this test }]
  small:
    provider: github
    body_limit: 10B
    secrets: [{ id: main, inline: a secret of this test }]
  leased:
    provider: verify-token
    secrets: [{ id: token, inline: 0123456789abcdef0123 }]
";

fn sign(body: &[u8]) -> String {
    format!("sha256={}", const_hex::encode(gate::mac("a secret of this test", &[body])))
}

fn delivery(body: &[u8]) -> Asked {
    Asked {
        method: "POST".into(),
        uri: "https://hooks.example.com/hub".parse().unwrap(),
        headers: vec![
            ("x-request-id".into(), b"0f4c5f2c-6f8e-4c11-9d3a-1b8a7e2d9c55".to_vec()),
            ("X-Hub-Signature-256".into(), sign(body).into_bytes()),
        ],
        body: body.to_vec(),
        client: Some("203.0.113.7".into()),
        endpoint: Some("hub".into()),
    }
}

async fn client() -> AuthorizationClient<Channel> {
    gate::connect(gate::gate(CONFIGURATION, NOW)).await
}

async fn ask(client: &mut AuthorizationClient<Channel>, question: CheckRequest) -> Seen {
    Seen::of(client.check(question).await.unwrap().into_inner())
}

/// A valid delivery, with its HTTP part changed.
async fn ask_changed(change: impl FnOnce(&mut HttpRequest)) -> Seen {
    let mut http = delivery(b"body").http(RAW);
    change(&mut http);
    ask(&mut client().await, question(http, None, Some("hub"))).await
}

fn lines(http: &mut HttpRequest) -> &mut Vec<HeaderValue> {
    &mut http.header_map.as_mut().unwrap().headers
}

fn line(name: &str, value: &str) -> HeaderValue {
    HeaderValue { key: name.into(), raw_value: value.into(), ..HeaderValue::default() }
}

#[tokio::test]
async fn an_allow_tells_the_upstream_and_the_access_log() {
    let mut asked = delivery(b"body");
    asked.headers.push(("X-Hookwarden-Endpoint".into(), b"spoofed".to_vec()));
    asked.headers.push(("x-hookwarden-admin".into(), b"spoofed".to_vec()));
    asked.headers.push(("x_hookwarden-verified_by".into(), b"as CGI reads it".to_vec()));
    let seen = ask(&mut client().await, asked.check(RAW)).await;
    assert!(seen.forwarded);
    let set: Vec<(&str, &str)> = seen.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        set,
        [
            ("x-hookwarden-endpoint", "hub"),
            ("x-hookwarden-provider", "github"),
            ("x-hookwarden-verified-by", "signature"),
            ("x-hookwarden-secret-id", "main"),
            ("x-hookwarden-tag-mode", "test"),
        ]
    );
    assert_eq!(seen.removed, ["x-envoy-auth-partial-body", "x-hookwarden-admin", "x_hookwarden-verified_by"]);
    assert_eq!(seen.metadata["decision"], "allow");
    assert_eq!(seen.metadata["reason"], "verified");
    assert_eq!(seen.metadata["secret_id"], "main");
    assert_eq!(seen.metadata["request_id"], "0f4c5f2c-6f8e-4c11-9d3a-1b8a7e2d9c55");
}

#[tokio::test]
async fn a_denial_tells_the_sender_a_status_and_an_id_only() {
    let mut asked = delivery(b"body");
    asked.body = b"another".to_vec();
    let seen = ask(&mut client().await, asked.check(RAW)).await;
    assert_eq!((seen.forwarded, seen.status, seen.reason()), (false, 401, "signature_mismatch"));
    assert_eq!(seen.body, "rejected, request 0f4c5f2c-6f8e-4c11-9d3a-1b8a7e2d9c55\n");
    assert_eq!(seen.header("x-hookwarden-request-id"), Some("0f4c5f2c-6f8e-4c11-9d3a-1b8a7e2d9c55"));
}

#[tokio::test]
async fn endpoints_are_found_by_route_else_by_host_and_path() {
    let mut client = client().await;
    let found = async |client: &mut AuthorizationClient<Channel>, url: &str, endpoint: Option<&str>| {
        let asked = Asked { uri: url.parse().unwrap(), endpoint: endpoint.map(str::to_owned), ..delivery(b"body") };
        let seen = ask(client, asked.check(RAW)).await;
        (seen.metadata.get("endpoint").cloned().unwrap_or_default(), seen.status)
    };
    assert_eq!(found(&mut client, "https://HOOKS.example.com:8443/hub?x=1", None).await, ("hub".into(), 0));
    assert_eq!(found(&mut client, "https://hooks.example.com/hub/", None).await, (String::new(), 404));
    assert_eq!(found(&mut client, "https://other.example.com/hub", None).await, (String::new(), 404));
    assert_eq!(found(&mut client, "https://hooks.example.com/hub", Some("nobody")).await, (String::new(), 404));
    assert_eq!(found(&mut client, "https://hooks.example.com/hub", Some("")).await, (String::new(), 404));
    assert_eq!(found(&mut client, "https://hooks.example.com/a/../hub", Some("hub")).await, ("hub".into(), 400));
}

#[tokio::test]
async fn a_body_that_is_not_whole_is_never_verified() {
    type Change = Box<dyn FnOnce(&mut HttpRequest)>;
    let cases: Vec<(&str, u16, &str, Change)> = vec![
        (
            "cut, says the proxy",
            413,
            "body_truncated",
            Box::new(|http| {
                lines(http).retain(|line| line.key != "x-envoy-auth-partial-body");
                lines(http).push(line("x-envoy-auth-partial-body", "true"));
            }),
        ),
        (
            "cut, says one of two",
            413,
            "body_truncated",
            Box::new(|http| lines(http).push(line("x-envoy-auth-partial-body", "true"))),
        ),
        (
            "cut, in odd words",
            413,
            "body_truncated",
            Box::new(|http| lines(http).push(line("x-envoy-auth-partial-body", "TRUE"))),
        ),
        ("longer than what came", 413, "body_truncated", Box::new(|http| http.size += 1)),
        ("shorter than what came", 413, "body_truncated", Box::new(|http| http.size -= 1)),
        // With `allow_partial_message`, Envoy asks once `max_request_bytes` have come; if that is where a piece ends it
        // calls them whole, and forwards what follows.
        (
            "announced longer than what came",
            413,
            "body_truncated",
            Box::new(|http| {
                for line in lines(http).iter_mut().filter(|line| line.key == "content-length") {
                    line.raw_value = b"26".to_vec();
                }
            }),
        ),
        (
            "announced shorter than what came",
            413,
            "body_truncated",
            Box::new(|http| {
                for line in lines(http).iter_mut().filter(|line| line.key == "content-length") {
                    line.raw_value = b"3".to_vec();
                }
            }),
        ),
        ("announced twice", 413, "body_truncated", Box::new(|http| lines(http).push(line("content-length", "26")))),
        (
            "not sent along",
            400,
            "body_missing",
            Box::new(|http| {
                http.raw_body = Vec::new();
                http.size = 0;
                lines(http).retain(|line| line.key != "x-envoy-auth-partial-body");
            }),
        ),
        (
            "received but not sent along",
            400,
            "body_missing",
            Box::new(|http| {
                http.raw_body = Vec::new();
                lines(http).retain(|line| line.key != "content-length");
            }),
        ),
        (
            "chunked and not sent along",
            400,
            "body_missing",
            Box::new(|http| {
                (http.raw_body, http.size) = (Vec::new(), 0);
                lines(http).retain(|line| line.key != "content-length" && line.key != "x-envoy-auth-partial-body");
                lines(http).push(line("transfer-encoding", "chunked"));
            }),
        ),
        (
            "h2, unannounced and not sent along",
            400,
            "body_missing",
            Box::new(|http| {
                (http.raw_body, http.size, http.protocol) = (Vec::new(), 0, "HTTP/2".into());
                lines(http).retain(|line| line.key != "content-length" && line.key != "x-envoy-auth-partial-body");
            }),
        ),
        (
            "text",
            400,
            "body_not_bytes",
            Box::new(|http| {
                http.body = "body".into();
                http.raw_body = Vec::new();
            }),
        ),
        (
            "altered text",
            400,
            "body_not_bytes",
            Box::new(|http| {
                http.body = "bodX!".into();
                http.raw_body = Vec::new();
            }),
        ),
        ("an upgrade", 400, "upgrade_refused", Box::new(|http| lines(http).push(line("upgrade", "websocket")))),
    ];
    for (name, status, reason, change) in cases {
        let seen = ask_changed(change).await;
        assert_eq!((seen.forwarded, seen.status, seen.reason()), (false, status, reason), "{name}");
    }
}

#[tokio::test]
async fn an_empty_body_that_was_looked_at_is_whole() {
    let seen = {
        let mut http = delivery(b"").http(RAW);
        lines(&mut http).push(line("x-envoy-auth-partial-body", "false"));
        lines(&mut http).push(line("transfer-encoding", "chunked"));
        ask(&mut client().await, question(http, None, Some("hub"))).await
    };
    assert!(seen.forwarded, "{seen:?}");
}

#[tokio::test]
async fn malformed_questions_are_denied_not_errors() {
    let mut client = client().await;
    let seen = ask(&mut client, CheckRequest::default()).await;
    assert_eq!((seen.status, seen.reason()), (400, "request_malformed"));
    let seen = ask_changed(|http| http.path = String::new()).await;
    assert_eq!((seen.status, seen.reason()), (400, "request_malformed"));
    let seen = ask_changed(|http| http.headers = [("x-hub-signature-256".to_owned(), "other".to_owned())].into()).await;
    assert_eq!((seen.status, seen.reason()), (400, "headers_ambiguous"));
    let seen = ask_changed(|http| {
        let lines =
            lines(http).iter().map(|line| (line.key.clone(), String::from_utf8(line.raw_value.clone()).unwrap()));
        http.headers = lines.collect();
    });
    assert!(seen.await.forwarded, "two lists that agree are one");
    let seen = ask_changed(|http| http.header_map = Some(HeaderMap::default())).await;
    assert_eq!(seen.reason(), "body_missing".replace("body_missing", "signature_missing"));
}

#[tokio::test]
async fn header_values_may_stand_in_the_text_field() {
    let seen = ask_changed(|http| {
        for line in lines(http) {
            line.value = String::from_utf8(std::mem::take(&mut line.raw_value).clone()).unwrap();
        }
    });
    assert!(seen.await.forwarded);
}

#[tokio::test]
async fn methods_and_limits() {
    let mut client = client().await;
    let seen = ask(&mut client, Asked { method: "GET".into(), ..delivery(b"") }.check(RAW)).await;
    assert_eq!((seen.status, seen.reason(), seen.header("allow")), (405, "method_not_allowed", Some("POST")));
    let seen = ask(&mut client, Asked { endpoint: Some("small".into()), ..delivery(b"01234567890") }.check(RAW)).await;
    assert_eq!((seen.status, seen.reason()), (413, "body_too_large"));
    let seen = ask(&mut client, Asked { endpoint: Some("small".into()), ..delivery(b"0123456789") }.check(RAW)).await;
    assert!(seen.forwarded);
}

#[tokio::test]
async fn observing_lets_forgeries_through_marked_and_nothing_else() {
    let mut client = client().await;
    let mut asked = Asked { endpoint: Some("watched".into()), ..delivery(b"body") };
    asked.headers.clear();
    let seen = ask(&mut client, asked.check(RAW)).await;
    assert_eq!((seen.forwarded, seen.header("x-hookwarden-verified-by")), (true, Some("observe")));
    assert_eq!(seen.header("x-hookwarden-reason"), Some("signature_missing"));
    assert_eq!((seen.metadata["decision"].as_str(), seen.reason()), ("observe", "signature_missing"));
    let mut http = asked.http(RAW);
    http.size += 1;
    let seen = ask(&mut client, question(http, None, Some("watched"))).await;
    assert_eq!((seen.forwarded, seen.reason()), (false, "body_truncated"), "what was not seen is not let through");
}

#[tokio::test]
async fn leases_belong_to_addresses() {
    let mut client = client().await;
    let from = |address: &str, method: &str, query: &str| Asked {
        method: method.into(),
        uri: format!("https://hooks.example.com/leased{query}").parse().unwrap(),
        headers: vec![("X-Forwarded-For".into(), b"198.51.100.9".to_vec())],
        body: Vec::new(),
        client: Some(address.into()),
        endpoint: Some("leased".into()),
    };
    let post = |address: &str| from(address, "POST", "").check(RAW);
    assert_eq!(ask(&mut client, post("203.0.113.7")).await.reason(), "lease_missing");
    let seen = ask(&mut client, from("203.0.113.7", "GET", "?verify_token=0123456789abcdef0123").check(RAW)).await;
    assert_eq!((seen.status, seen.body.as_str(), seen.reason()), (200, r#"{"status":"success"}"#, "lease_granted"));
    assert_eq!(seen.header("x-content-type-options"), Some("nosniff"));
    let seen = ask(&mut client, post("203.0.113.7")).await;
    assert_eq!((seen.forwarded, seen.header("x-hookwarden-verified-by")), (true, Some("ip-lease")));
    assert!(ask(&mut client, post("::ffff:203.0.113.7")).await.forwarded, "the same address, mapped");
    assert_eq!(ask(&mut client, post("198.51.100.9")).await.reason(), "lease_missing", "a header gets no lease");
    let no_address = question(from("", "POST", "").http(RAW), None, Some("leased"));
    let seen = ask(&mut client, no_address).await;
    assert_eq!((seen.status, seen.reason(), seen.header("retry-after")), (503, "client_address_unknown", Some("5")));
}

#[tokio::test]
async fn bodies_beyond_the_limits_are_denied_well_formed() {
    let limits = Limits { body: 1 << 20, bodies_in_flight: 1 << 22, ..Limits::default() };
    let mut client = gate::connect(gate::gate_with(CONFIGURATION, NOW, |gate| gate.limits = limits)).await;
    let seen = ask(&mut client, delivery(&vec![b'x'; 3 << 20]).check(RAW)).await;
    assert_eq!((seen.forwarded, seen.status, seen.reason()), (false, 413, "body_too_large"));

    let gate = gate::gate_with(CONFIGURATION, NOW, |gate| gate.budget = Budget::new(1 << 20));
    let mut client = gate::connect(Arc::clone(&gate)).await;
    let seen = ask(&mut client, delivery(&vec![b'x'; 3 << 20]).check(RAW)).await;
    assert_eq!((seen.status, seen.reason(), seen.header("retry-after")), (503, "overloaded", Some("5")));
    assert!(ask(&mut client, delivery(b"small").check(RAW)).await.forwarded, "the budget is given back");
    assert_eq!(gate.budget.spent(), 0);
}

#[tokio::test]
async fn large_bodies_are_verified_off_the_io_thread() {
    let mut client = client().await;
    let body: Vec<u8> = (0..25 << 20).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    assert!(ask(&mut client, delivery(&body).check(RAW)).await.forwarded);
    let mut asked = delivery(&body);
    asked.body[12_345_678] ^= 1;
    assert_eq!(ask(&mut client, asked.check(RAW)).await.reason(), "signature_mismatch");
}

#[tokio::test]
async fn metrics_and_only_closed_labels() {
    let gate = gate::gate(CONFIGURATION, NOW);
    let mut client = gate::connect(Arc::clone(&gate)).await;
    let text = gate.telemetry.render(&hookwarden::telemetry::Held::default());
    let silent = r#"hookwarden_check_duration_seconds_count{endpoint="hub"} 0"#;
    assert!(text.contains(silent), "{silent}, for an alert to see that nothing comes\n{text}");
    for _ in 0..2 {
        ask(&mut client, delivery(b"body").check(RAW)).await;
    }
    for at in 0..50 {
        let uri = format!("https://hooks.example.com/stranger-{at}").parse().unwrap();
        ask(&mut client, Asked { uri, endpoint: Some(format!("stranger-{at}")), ..delivery(b"body") }.check(RAW)).await;
    }
    let text = gate.telemetry.render(&hookwarden::telemetry::Held::default());
    for expected in [
        r#"hookwarden_checks_total{decision="allow",endpoint="hub",reason="verified"} 2"#,
        r#"hookwarden_checks_total{decision="deny",endpoint="",reason="unknown_endpoint"} 50"#,
        r#"hookwarden_body_bytes_total{endpoint="hub"} 8"#,
        r#"hookwarden_check_duration_seconds_count{endpoint="hub"} 2"#,
        "hookwarden_observe_endpoints 1",
        "hookwarden_config_generation 1",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("stranger"), "a sender's words are no label");
}

/// Secrets that end, and endpoints at which nothing is signed, are told of before they surprise anybody.
#[tokio::test]
async fn what_an_operator_should_look_at_has_a_metric() {
    let gate = gate::gate(
        "endpoints:
  rotating: { provider: github, secrets: [{ id: old, inline: an old secret of the tests, until: 2026-12-01T00:00:00Z }, { id: new, inline: a new secret of the tests }] }
  leased: { provider: verify-token, secrets: [{ id: t, inline: 0123456789abcdef0123 }] }
  both: { provider: github, require: [{ basic: {} }], secrets: [{ id: a, use: hmac, inline: a secret of the tests }, { id: b, use: basic, inline: \"user:password of the tests\" }] }
",
        NOW,
    );
    let text = gate.telemetry.render(&hookwarden::telemetry::Held::default());
    let ends: Vec<&str> = text.lines().filter(|line| line.starts_with("hookwarden_secret_until_")).collect();
    assert_eq!(
        ends,
        [r#"hookwarden_secret_until_timestamp_seconds{endpoint="rotating",secret_id="old"} 1796083200"#],
        "{text}"
    );
    assert!(text.contains("\nhookwarden_unsigned_endpoints 1\n"), "{text}");
    // A reload that takes the secret out takes its end out.
    gate.telemetry.configured(&hookwarden::endpoint::Endpoints::default(), gate.clock.now());
    let text = gate.telemetry.render(&hookwarden::telemetry::Held::default());
    assert!(!text.contains("hookwarden_secret_until_timestamp_seconds{"), "{text}");
    assert!(text.contains("\nhookwarden_unsigned_endpoints 0\n"), "{text}");
}

/// Envoy writes `!` into a text for every byte that is not UTF-8, and forwards the byte: the signature of a captured
/// delivery would fit what is shown here, whatever stands in the place of its exclamation marks.
#[tokio::test]
async fn a_text_body_with_an_exclamation_mark_may_be_another() {
    let gate = gate::gate(
        "endpoints: { hub: { provider: github, text_body: true, secrets: [{ id: main, inline: a secret of the tests }] } }",
        NOW,
    );
    let mut client = gate::connect(gate).await;
    for (body, text) in [(&b"{\"a\":\"hi!\"}"[..], false), (b"{\"a\":\"hi\"}", true)] {
        let signature = format!("sha256={}", const_hex::encode(gate::mac("a secret of the tests", &[body])));
        let asked = Asked {
            method: "POST".into(),
            uri: "https://hooks.example.com/hub".parse().unwrap(),
            headers: vec![("x-hub-signature-256".into(), signature.into_bytes())],
            body: body.to_vec(),
            client: None,
            endpoint: Some("hub".into()),
        };
        for form in FORMS {
            let seen = ask(&mut client, asked.check(form)).await;
            let expected = if text || form.raw_body { "verified" } else { "body_altered" };
            assert_eq!(seen.reason(), expected, "{form:?}");
        }
    }
}

/// However many large bodies come, only so many are examined at once; the others wait, no longer than the deadline.
#[tokio::test]
async fn large_bodies_wait_for_a_place() {
    let gate = gate::gate_with(CONFIGURATION, NOW, |gate| {
        gate.examiners = Examiners::start(1).unwrap();
        gate.limits.deadline = Duration::from_millis(50);
    });
    let (budget, places) = (Arc::clone(&gate.budget), Arc::clone(gate.examiners.places(Long::Body)));
    let taken = places.try_acquire().unwrap();
    let mut client = gate::connect(gate).await;
    let large = || delivery(&vec![b'x'; 300 << 10]).check(RAW);
    let seen = ask(&mut client, large()).await;
    assert_eq!((seen.status, seen.reason()), (503, "deadline_exceeded"));
    assert_eq!(budget.spent(), 0);
    assert!(ask(&mut client, delivery(b"body").check(RAW)).await.forwarded, "small ones need no place");
    drop(taken);
    assert!(ask(&mut client, large()).await.forwarded);
    assert_eq!(places.available_permits(), 1, "the place is free again");
}

/// What is refused whoever signed it neither waits for those that are verified nor takes the turn of one; and bodies do not
/// wait behind signatures.
#[tokio::test]
async fn what_is_refused_at_the_door_is_not_sent_elsewhere() {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let key = Encoding::Base64.encode(pair.public_key().as_ref());
    let signature = "signature: { header: x-signature, encoding: base64 }";
    let scheme = format!(
        "public_key: {{ algorithms: [ecdsa-p384-sha384], ecdsa_form: der, signed_content: \"{{body}}\", {signature} }}"
    );
    let dear = format!(
        "  dear:\n    scheme: {{ {scheme} }}\n    public_keys: [{{ id: a, format: raw_base64, inline: {key} }}]\n"
    );
    let gate = gate::gate_with(&format!("{CONFIGURATION}{dear}"), NOW, |gate| {
        gate.limits.deadline = Duration::from_millis(50);
    });
    let places = Arc::clone(gate.examiners.places(Long::Signature));
    let _taken = places.try_acquire_many(u32::try_from(places.available_permits()).unwrap()).unwrap();
    let mut client = gate::connect(gate).await;
    let asked = |method: &str| Asked { method: method.into(), endpoint: Some("dear".into()), ..delivery(b"body") };
    for (method, reason) in [
        ("GET", "method_not_allowed"),
        ("GET", "method_not_allowed"),
        ("POST", "signature_missing"),
        ("POST", "deadline_exceeded"),
        ("GET", "method_not_allowed"),
    ] {
        assert_eq!(ask(&mut client, asked(method).check(RAW)).await.reason(), reason, "{method}");
    }
    assert!(ask(&mut client, delivery(&vec![b'x'; 300 << 10]).check(RAW)).await.forwarded);
}

/// A proxy that begins to send a message and then does not is answered when the check's time is over, and holds no share
/// of the budget longer than that.
#[tokio::test]
async fn an_upload_that_stalls_ends_with_the_deadline() {
    use prost::Message as _;
    let short = Duration::from_millis(50);
    for (deadline, patience) in [(short, None), (Duration::from_secs(3600), Some("50m"))] {
        let gate = gate::gate_with(CONFIGURATION, NOW, |gate| gate.limits.deadline = deadline);
        let budget = Arc::clone(&gate.budget);
        let stream = tokio::net::TcpStream::connect(gate::serve(gate).await).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut call = http::Request::post("http://hookwarden/envoy.service.auth.v3.Authorization/Check");
        if let Some(patience) = patience {
            call = call.header("grpc-timeout", patience);
        }
        let (answer, mut upload) = send.send_request(call.body(()).unwrap(), false).unwrap();
        let begun = [&[0, 0, 0, 0xff, 0xff][..], &[b'x'; 5000]].concat();
        upload.send_data(begun.into(), false).unwrap();
        while budget.spent() == 0 {
            tokio::task::yield_now().await;
        }
        let mut answer = answer.await.unwrap().into_body();
        let message = answer.data().await.unwrap().unwrap();
        let seen = Seen::of(CheckResponse::decode(&message[5..]).unwrap());
        assert_eq!((seen.status, seen.reason()), (503, "deadline_exceeded"));
        assert_eq!(answer.trailers().await.unwrap().unwrap().get("grpc-status").unwrap(), "0");
        assert_eq!(budget.spent(), 0);
    }
}

/// Whoever watches is told of every change, and hears nothing in between that would end it; and does not hold up a process
/// that ends.
#[tokio::test]
async fn health_is_watched_until_the_end() {
    use tonic_health::{
        ServingStatus,
        pb::{HealthCheckRequest, health_client::HealthClient},
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (address, serving) = gate::serve_until(stopped, gate::gate(CONFIGURATION, NOW), health).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut watching = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().status, 1);
    for status in [ServingStatus::NotServing, ServingStatus::Serving] {
        reporter.set_service_status("", status).await;
        let told = watching.message().await.unwrap().expect("is still watched");
        assert_eq!(told.status, i32::from(status != ServingStatus::Serving) + 1);
    }
    // The last word is heard before the end, even if both come at once.
    reporter.set_service_status("", ServingStatus::NotServing).await;
    stop.send_replace(true);
    assert_eq!(watching.message().await.unwrap().unwrap().status, 2);
    assert_eq!(watching.message().await.unwrap_err().code(), tonic::Code::Unavailable);
    serving.await.unwrap();
}

/// An answer for the verified only is for those whose lease is held, where the proof is a lease.
#[tokio::test]
async fn a_signed_challenge_is_admitted_like_a_delivery() {
    let configuration = r#"
endpoints:
  e:
    match: { path: /hub }
    scheme:
      ip_lease: { query: token }
    challenges:
      - when: [{ method: POST }, { header: x-challenge }]
        signed: true
        echo: { c: { header: x-challenge } }
        respond: { text: "{c}" }
    secrets: [{ id: a, inline: 0123456789abcdef }]
"#;
    let mut client = gate::connect(gate::gate(configuration, NOW)).await;
    let mut asked = delivery(b"body");
    asked.endpoint = Some("e".to_owned());
    asked.headers.push(("x-challenge".into(), b"abc".to_vec()));
    assert_eq!(ask(&mut client, asked.check(RAW)).await.reason(), "lease_missing");
}

/// A token that is the whole body is read before anybody has proven anything, so its length is bounded.
#[tokio::test]
async fn a_token_that_is_the_body_is_bounded() {
    let configuration = r"
endpoints:
  e:
    match: { path: /hub }
    scheme: { jwt: { token: { body: true }, algorithms: [HS256], expiry: optional } }
    secrets: [{ id: a, inline: 0123456789abcdef0123456789abcdef }]
";
    let mut client = gate::connect(gate::gate(configuration, NOW)).await;
    for (header, payload, reason) in [
        (1 << 10, 1 << 10, "signature_mismatch"),
        (66 << 10, 1, "signature_malformed"),
        (1, 2 << 20, "signature_malformed"),
    ] {
        let encode = |text: String| Encoding::Base64Url.encode(text.as_bytes());
        let header = encode(format!(r#"{{"alg":"HS256"{}}}"#, " ".repeat(header)));
        let payload = encode(format!("[{}0]", "0,".repeat(payload / 2)));
        let token = format!("{header}.{payload}.{}", encode("x".repeat(32)));
        let mut asked = delivery(token.as_bytes());
        asked.endpoint = Some("e".to_owned());
        assert_eq!(ask(&mut client, asked.check(RAW)).await.reason(), reason);
    }
}

/// Five wrong tokens a minute are heard, and then none, not even the right one; deliveries go on.
#[tokio::test]
async fn guessing_is_stopped() {
    let mut client = client().await;
    let ask_for = |address: &str, token: &str| Asked {
        method: "GET".into(),
        uri: format!("https://hooks.example.com/leased?verify_token={token}").parse().unwrap(),
        headers: vec![],
        body: vec![],
        client: Some(address.into()),
        endpoint: Some("leased".into()),
    };
    let post = |address: &str| Asked { method: "POST".into(), ..ask_for(address, "") };
    assert_eq!(
        ask(&mut client, ask_for("203.0.113.7", "0123456789abcdef0123").check(RAW)).await.reason(),
        "lease_granted"
    );
    for guess in 0..5 {
        let seen = ask(&mut client, ask_for("203.0.113.7", &format!("guess-{guess}")).check(RAW)).await;
        assert_eq!((seen.status, seen.reason()), (401, "token_mismatch"));
    }
    for token in ["another-guess", "0123456789abcdef0123"] {
        let seen = ask(&mut client, ask_for("203.0.113.7", token).check(RAW)).await;
        assert_eq!((seen.status, seen.reason(), seen.header("retry-after")), (429, "too_many_guesses", Some("60")));
    }
    assert!(ask(&mut client, post("203.0.113.7").check(RAW)).await.forwarded, "a lease that is held is no guess");
    let seen = ask(&mut client, ask_for("203.0.113.8", "0123456789abcdef0123").check(RAW)).await;
    assert_eq!(seen.reason(), "lease_granted", "a neighbour is not meant");
}
