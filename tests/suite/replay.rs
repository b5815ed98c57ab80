//! The same delivery again, over a real gRPC connection, with the upstream's outcomes told as Envoy tells them.

use crate::suite::gate::{self, Asked, Form, Seen};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use envoy_types::pb::{
    envoy::{
        config::core::v3::Metadata,
        data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties},
        service::{
            accesslog::v3::{
                StreamAccessLogsMessage,
                access_log_service_client::AccessLogServiceClient,
                stream_access_logs_message::{HttpAccessLogEntries, LogEntries},
            },
            auth::v3::{CheckRequest, authorization_client::AuthorizationClient},
        },
    },
    google::protobuf::{Duration, Struct, UInt32Value, Value, value::Kind},
};
use hookwarden::{ext_authz::outcomes::Entries, replay::Conclusion};
use prost::Message as _;
use std::{collections::HashMap, sync::Arc};
use tonic::transport::Channel;

const NOW: i64 = 1_760_000_000;
const RAW: Form = Form { raw_headers: true, raw_body: true };
const SECRET: &str = "a secret of this test";

/// One endpoint for each answer to a duplicate.
fn configuration() -> String {
    let endpoint = |(name, line): (&str, &str)| {
        format!(
            r#"
  {name}:
    {line}
    scheme:
      hmac:
        hash: sha256
        signed_content: "{{timestamp}}.{{body}}"
        signature: {{ header: x-signature, separator: ",", prefix: "v1=", encoding: hex }}
        timestamp: {{ header: x-time, unit: s }}
    secrets:
      - {{ id: main, inline: a secret of this test }}
      - {{ id: second, inline: another secret of this test }}"#
        )
    };
    let lines = [
        ("deny", "mode: enforce"),
        ("answer", "on_duplicate: answer_200"),
        ("mark", "on_duplicate: mark"),
        ("watched", "mode: observe"),
        ("switched-off", "on_duplicate: off"),
    ];
    format!("outcomes: access_log\nendpoints:{}\n", lines.map(endpoint).concat())
}

struct Proxy {
    gate: Arc<hookwarden::gate::Gate>,
    checks: AuthorizationClient<Channel>,
    log: AccessLogServiceClient<Channel>,
}

impl Proxy {
    async fn start() -> Self {
        Self::with(&configuration()).await
    }

    async fn with(configuration: &str) -> Self {
        let gate = gate::gate(configuration, NOW);
        let channel = gate::channel(Arc::clone(&gate)).await;
        Self { gate, checks: AuthorizationClient::new(channel.clone()), log: AccessLogServiceClient::new(channel) }
    }

    async fn ask(&mut self, stream: &str, asked: &Asked) -> Seen {
        Seen::of(self.checks.check(with_stream(asked, stream)).await.unwrap().into_inner())
    }

    /// Tells an outcome, and comes back when it was read.
    async fn tell(&mut self, entry: HttpAccessLogEntry) {
        let entries = HttpAccessLogEntries { log_entry: vec![entry] };
        let message = StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::HttpLogs(entries)) };
        self.log.stream_access_logs(tokio_stream::once(message)).await.unwrap();
    }
}

fn with_stream(asked: &Asked, stream: &str) -> CheckRequest {
    let mut question = asked.check(RAW);
    let attributes = question.attributes.as_mut().unwrap();
    stream.clone_into(&mut attributes.request.as_mut().unwrap().http.as_mut().unwrap().id);
    question
}

fn signed(endpoint: &str, body: &[u8], signatures: &[&str]) -> Asked {
    Asked {
        method: "POST".into(),
        uri: "https://hooks.example.com/e".parse().unwrap(),
        headers: vec![
            ("x-time".into(), NOW.to_string().into_bytes()),
            ("x-signature".into(), signatures.join(",").into_bytes()),
        ],
        body: body.to_vec(),
        client: Some("203.0.113.7".into()),
        endpoint: Some(endpoint.into()),
    }
}

fn tag(secret: &str, body: &[u8]) -> String {
    format!("v1={}", const_hex::encode(gate::mac(secret, &[NOW.to_string().as_bytes(), b".", body])))
}

fn delivery(endpoint: &str, body: &[u8]) -> Asked {
    signed(endpoint, body, &[&tag(SECRET, body)])
}

/// What Envoy tells of a request when it is over.
fn entry(stream: &str, seen: &Seen, code: Option<u32>) -> HttpAccessLogEntry {
    let fields =
        seen.metadata.iter().map(|(name, text)| (name.clone(), Value { kind: Some(Kind::StringValue(text.clone())) }));
    let metadata = Metadata {
        filter_metadata: HashMap::from([
            // Some control planes call the filter otherwise.
            ("ext_auth/of-a-control-plane".to_owned(), Struct { fields: fields.collect() }),
            ("other".to_owned(), Struct::default()),
        ]),
        ..Metadata::default()
    };
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            metadata: Some(metadata),
            stream_id: stream.to_owned(),
            time_to_first_upstream_tx_byte: Some(Duration { seconds: 1, nanos: 900_000_000 }),
            time_to_last_upstream_rx_byte: Some(Duration { seconds: 2, nanos: 100_000_000 }),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties { path: "/e".into(), ..HttpRequestProperties::default() }),
        response: Some(HttpResponseProperties {
            response_code: code.map(|value| UInt32Value { value }),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    }
}

#[tokio::test]
async fn what_the_upstream_took_is_refused_when_it_comes_again() {
    let mut proxy = Proxy::start().await;
    let asked = delivery("deny", b"{}");
    let first = proxy.ask("1", &asked).await;
    assert!(first.forwarded && first.metadata.contains_key("claim"));
    assert!(proxy.ask("1", &asked).await.forwarded, "the proxy's own second try");
    proxy.tell(entry("1", &first, Some(204))).await;
    let again = proxy.ask("2", &asked).await;
    assert_eq!((again.forwarded, again.status, again.reason()), (false, 409, "replayed"));
    assert!(proxy.ask("3", &delivery("deny", b"[]")).await.forwarded, "another one");
    assert!(proxy.ask("4", &delivery("mark", b"{}")).await.forwarded, "at another endpoint");
}

#[tokio::test]
async fn what_the_upstream_did_not_take_may_come_again() {
    let mut proxy = Proxy::start().await;
    let asked = delivery("deny", b"{}");
    for (try_, code) in [("1", 500), ("2", 503), ("3", 504), ("4", 404), ("5", 302), ("6", 429)] {
        let seen = proxy.ask(try_, &asked).await;
        assert_eq!((seen.forwarded, seen.header("x-hookwarden-duplicate")), (true, None), "{try_}");
        proxy.tell(entry(try_, &seen, Some(code))).await;
    }
    let seen = proxy.ask("7", &asked).await;
    proxy.tell(entry("7", &seen, Some(200))).await;
    assert_eq!(proxy.ask("8", &asked).await.reason(), "replayed");
}

#[tokio::test]
async fn where_nobody_knows_the_next_try_is_let_through_and_said_to_be_one() {
    let mut proxy = Proxy::start().await;
    let asked = delivery("deny", b"{}");
    let seen = proxy.ask("1", &asked).await;
    proxy.tell(entry("1", &seen, None)).await;
    let seen = proxy.ask("2", &asked).await;
    assert_eq!((seen.forwarded, seen.header("x-hookwarden-duplicate")), (true, Some("unknown")));
    proxy.tell(entry("2", &seen, Some(200))).await;
    assert_eq!(proxy.ask("3", &asked).await.reason(), "replayed");
}

#[tokio::test]
async fn a_twin_of_what_is_at_the_upstream_waits_for_the_outcome() {
    let mut proxy = Proxy::start().await;
    let asked = delivery("deny", b"{}");
    let first = proxy.ask("1", &asked).await;
    let mut checks = proxy.checks.clone();
    let question = with_stream(&asked, "2");
    let waiting = tokio::spawn(async move { Seen::of(checks.check(question).await.unwrap().into_inner()) });
    proxy.tell(entry("1", &first, Some(503))).await;
    assert!(waiting.await.unwrap().forwarded, "it takes the first one's place");
    let seen = proxy.ask("3", &asked).await;
    assert_eq!((seen.status, seen.reason(), seen.header("retry-after")), (503, "outcome_pending", Some("5")));
}

#[tokio::test]
async fn other_answers_to_a_duplicate() {
    let mut proxy = Proxy::start().await;
    for endpoint in ["answer", "mark", "watched", "switched-off"] {
        let asked = delivery(endpoint, b"{}");
        let seen = proxy.ask("1", &asked).await;
        assert!(seen.forwarded, "{endpoint}");
        proxy.tell(entry("1", &seen, Some(200))).await;
    }
    let seen = proxy.ask("2", &delivery("answer", b"{}")).await;
    assert_eq!((seen.forwarded, seen.status, seen.reason(), seen.body.as_str()), (false, 200, "duplicate", ""));
    for (endpoint, told) in [("mark", Some("true")), ("watched", Some("true")), ("switched-off", None)] {
        let seen = proxy.ask("2", &delivery(endpoint, b"{}")).await;
        assert_eq!((seen.forwarded, seen.header("x-hookwarden-duplicate")), (true, told), "{endpoint}");
    }
}

/// Whatever can be changed without breaking the signature changes nothing.
#[tokio::test]
async fn a_replay_in_other_clothes_is_a_replay() {
    let mut proxy = Proxy::start().await;
    let body = br#"{"n":1}"#;
    let (main, second) = (tag(SECRET, body), tag("another secret of this test", body));
    let seen = proxy.ask("1", &signed("deny", body, &[&main, &second])).await;
    assert!(seen.forwarded);
    proxy.tell(entry("1", &seen, Some(200))).await;
    let capitals = format!("v1={}", main[3..].to_uppercase());
    let mut unsigned = signed("deny", body, &[&main]);
    unsigned.headers.push(("x-delivery-id".into(), b"another".to_vec()));
    unsigned.uri = "https://hooks.example.com/e?x=1".parse().unwrap();
    for (what, asked) in [
        ("in another order", signed("deny", body, &[&second, &main])),
        ("the other signature alone", signed("deny", body, &[&second])),
        ("in capitals", signed("deny", body, &[&capitals])),
        ("with noise before it", signed("deny", body, &["v1=00", &main])),
        ("another id and query", unsigned),
    ] {
        assert_eq!(proxy.ask(what, &asked).await.reason(), "replayed", "{what}");
    }
}

/// The order of P-256 (FIPS 186-5, appendix D of SP 800-186).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `(r, n - s)` verifies wherever `(r, s)` does, and anybody can compute it.
fn twin(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut borrow = 0;
    let mut difference = [0_u8; 32];
    for n in (0..32).rev() {
        let digit = i16::from(ORDER[n]) - i16::from(s[n]) - borrow;
        borrow = i16::from(digit < 0);
        difference[n] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    [r, &difference].concat()
}

#[tokio::test]
async fn the_twin_of_an_ecdsa_signature_is_a_replay() {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let public = STANDARD.encode(public.as_ref());
    let configuration = format!(
        r#"
outcomes: access_log
endpoints:
  deny:
    on_duplicate: deny
    scheme:
      public_key:
        algorithms: [ecdsa-p256-sha256]
        ecdsa_form: p1363
        signed_content: "{{body}}"
        signature: {{ header: x-signature, encoding: hex }}
    public_keys: [{{ id: main, format: spki_base64, inline: "{public}" }}]
"#
    );
    let mut proxy = Proxy::with(&configuration).await;
    let body = br#"{"n":1}"#;
    let one = key.sign(&SystemRandom::new(), body).unwrap();
    let other = twin(one.as_ref());
    assert_ne!(one.as_ref(), other);
    for (first, then) in [(one.as_ref(), other.as_slice()), (&other, one.as_ref())] {
        let seen = proxy.ask("1", &signed("deny", body, &[&const_hex::encode(first)])).await;
        assert!(seen.forwarded, "{}", seen.reason());
        proxy.tell(entry("1", &seen, Some(200))).await;
        assert_eq!(proxy.ask("2", &signed("deny", body, &[&const_hex::encode(then)])).await.reason(), "replayed");
        proxy = Proxy::with(&configuration).await;
    }
}

#[tokio::test]
async fn strangers_leave_nothing_behind() {
    let mut proxy = Proxy::start().await;
    for n in 0..1000_u32 {
        let forged = signed("deny", &n.to_be_bytes(), &[&tag("nobody's secret", &n.to_be_bytes())]);
        assert_eq!(proxy.ask(&n.to_string(), &forged).await.reason(), "signature_mismatch");
    }
    assert_eq!(proxy.gate.store.claim_count(), 0);
}

/// Nobody can settle or release what somebody else waits for, and an entry that says nonsense ends no stream.
#[tokio::test]
async fn outcomes_are_believed_of_the_request_that_claimed() {
    let mut proxy = Proxy::start().await;
    let asked = delivery("deny", b"{}");
    let first = proxy.ask("1", &asked).await;
    let mut odd = first.clone();
    let claim = odd.metadata["claim"].replace(|c: char| c.is_ascii_digit(), "a");
    odd.metadata.insert("claim".into(), claim);
    proxy.tell(entry("2", &odd, Some(503))).await;
    assert_eq!(proxy.gate.store.claim_count(), 1, "told of another request");
    odd.metadata.insert("claim".into(), "no claim".into());
    proxy.tell(entry("1", &odd, Some(503))).await;
    odd.metadata.insert("endpoint".into(), "nobody's".into());
    proxy.tell(entry("1", &odd, Some(503))).await;
    assert_eq!(proxy.gate.store.claim_count(), 1);
    let text = proxy.gate.telemetry.render(&hookwarden::telemetry::Held::default());
    assert!(text.contains(r#"hookwarden_upstream_deliveries_total{endpoint="deny",outcome="failed"} 2"#), "{text}");
    assert!(!text.contains("nobody's"), "{text}");
    assert!(text.contains("hookwarden_outcomes_unmatched_total 1"), "{text}");
}

/// The few fields that are read of an entry are those that Envoy's own definitions say.
#[test]
fn entries_are_read_as_envoy_writes_them() {
    let seen = Seen {
        forwarded: true,
        status: 0,
        headers: vec![],
        removed: vec![],
        body: String::new(),
        metadata: HashMap::from([
            ("decision".to_owned(), "allow".to_owned()),
            ("reason".to_owned(), "verified".to_owned()),
            ("request_id".to_owned(), "4242".to_owned()),
            ("endpoint".to_owned(), "deny".to_owned()),
            ("claim".to_owned(), "00112233445566778899aabbccddeeff.0011223344556677".to_owned()),
        ]),
    };
    let read = |entry: HttpAccessLogEntry| {
        let entries = HttpAccessLogEntries { log_entry: vec![entry] };
        let message = StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::HttpLogs(entries)) };
        let entries = Entries::decode(message.encode_to_vec().as_slice()).unwrap();
        entries.http.unwrap().entries[0].outcome()
    };
    let outcome = read(entry("1", &seen, Some(200))).unwrap();
    assert_eq!(outcome.took, Some(std::time::Duration::from_millis(200)));
    assert_eq!((&*outcome.endpoint, outcome.conclusion), (b"deny".as_slice(), Conclusion::Settled));
    assert!(outcome.claim.is_some());
    for (code, conclusion) in
        [(None, Conclusion::Unknown), (Some(199), Conclusion::Released), (Some(299), Conclusion::Settled)]
    {
        assert_eq!(read(entry("1", &seen, code)).unwrap().conclusion, conclusion, "{code:?}");
    }
    let mut going_on = entry("1", &seen, Some(200));
    going_on.common_properties.as_mut().unwrap().access_log_type = 5;
    assert_eq!(read(going_on), None);
    let denied = Seen { metadata: HashMap::from([("decision".to_owned(), "deny".to_owned())]), ..seen };
    assert_eq!(read(entry("1", &denied, Some(401))), None);
}
