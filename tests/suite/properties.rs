//! What must hold for every delivery, not only for those somebody thought of.

use crate::suite::{
    gate::{self, Asked, FORMS, Form, Seen},
    vector,
};
use envoy_types::pb::envoy::service::auth::v3::CheckRequest as EnvoyCheckRequest;
use hookwarden::{
    check,
    clock::{Clock, UnixSeconds},
    config::{self, Context},
    decision::Decision,
    delivery::{Body, Delivery, Headers},
    ext_authz::message,
    store::Store,
};
use proptest::prelude::*;
use prost::Message as _;

const NOW: i64 = 1_760_000_000;
const SECRET: &str = "a secret of these properties";
const CONFIGURATION: &str = r#"
endpoints:
  p:
    scheme:
      hmac:
        hash: sha256
        signed_content: "{timestamp}.{header:x-id}.{body}"
        signature: { header: x-signature, separator: " ", prefix: "v1=", encoding: hex }
        timestamp: { header: x-timestamp, unit: s }
    secrets: [{ id: s, inline: a secret of these properties }]
"#;

#[derive(Debug, Clone)]
struct Signed {
    timestamp: Vec<u8>,
    id: Vec<u8>,
    signature: Vec<u8>,
    body: Vec<u8>,
}

impl Signed {
    fn new(timestamp: i64, id: &str, body: &[u8]) -> Self {
        let text = timestamp.to_string();
        let tag = gate::mac(SECRET, &[text.as_bytes(), b".", id.as_bytes(), b".", body]);
        Self {
            timestamp: text.into_bytes(),
            id: id.as_bytes().to_vec(),
            signature: format!("v1={}", const_hex::encode(tag)).into_bytes(),
            body: body.to_vec(),
        }
    }

    fn decide(&self) -> Decision {
        let clock = Clock::fixed(UnixSeconds(NOW));
        let loaded = config::parse("p", CONFIGURATION.as_bytes(), &Context::new(clock.now())).unwrap();
        let delivery = Delivery {
            method: "POST",
            target: "/p",
            host: "h",
            headers: Headers::from_lines(vec![
                (b"x-timestamp", &self.timestamp),
                (b"x-id", &self.id),
                (b"x-signature", &self.signature),
            ]),
            body: Body::Whole(&self.body),
            peer: None,
            route_endpoint: Some("p"),
        };
        let store = Store::in_memory();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check::check(&delivery, clock.now(), &loaded.compiled.endpoints, &store)).decision
    }
}

fn is_allow(decision: &Decision) -> bool {
    matches!(decision, Decision::Allow(_))
}

proptest! {
    #[test]
    fn what_is_signed_is_allowed(age in -300_i64..=300, id in "[a-z0-9]{1,40}", body in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(is_allow(&Signed::new(NOW - age, &id, &body).decide()));
    }

    #[test]
    fn one_changed_bit_is_never_allowed(
        id in "[a-z0-9]{1,40}",
        body in prop::collection::vec(any::<u8>(), 1..200),
        part in 0_usize..4,
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut signed = Signed::new(NOW, &id, &body);
        let valid = signed.clone();
        let bytes = match part {
            0 => &mut signed.timestamp,
            1 => &mut signed.id,
            2 => &mut signed.signature,
            _ => &mut signed.body,
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // Two spellings of the same bytes are the same signature: hexadecimal digits have no case.
        let same = signed.signature.eq_ignore_ascii_case(&valid.signature) && signed.signature[..3] == valid.signature[..3]
            && (part == 2);
        // White space around a header's value is not part of it (RFC 9110 §5.5), and none can appear inside by one bit
        // without breaking the value, so nothing else is excused.
        prop_assert!(same || !is_allow(&signed.decide()), "{signed:?}");
    }

    #[test]
    fn no_header_makes_it_panic_or_pass(signature in prop::collection::vec(any::<u8>(), 0..300), timestamp in prop::collection::vec(any::<u8>(), 0..30)) {
        let mut signed = Signed::new(NOW, "id", b"body");
        signed.signature = signature;
        signed.timestamp = timestamp;
        prop_assert!(!is_allow(&signed.decide()));
    }

    #[test]
    fn the_slim_message_reads_what_envoys_own_types_read(
        headers in prop::collection::vec(("[a-z-]{1,20}", prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        body in prop::collection::vec(any::<u8>(), 0..200),
        form in 0_usize..4,
        client in prop::option::of("[0-9.]{1,15}"),
        endpoint in prop::option::of("[a-z]{1,10}"),
    ) {
        let asked = Asked {
            method: "POST".into(),
            uri: "https://hooks.example.com/p?q=1".parse().unwrap(),
            headers,
            body,
            client,
            endpoint,
        };
        let theirs = asked.check(FORMS[form]);
        let ours = message::CheckRequest::decode(theirs.encode_to_vec().as_slice()).unwrap();
        assert_same(&ours, &theirs);
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let ours = message::CheckRequest::decode(bytes.as_slice());
        // Whatever Envoy's own types take, ours take too: strictness about UTF-8 is what they have in addition.
        if let Ok(theirs) = EnvoyCheckRequest::decode(bytes.as_slice()) {
            assert_same(&ours.unwrap(), &theirs);
        } else if let Ok(ours) = ours {
            drop(ours.delivery());
        }
    }
}

fn assert_same(ours: &message::CheckRequest, theirs: &EnvoyCheckRequest) {
    let http = theirs.attributes.as_ref().and_then(|a| a.request.as_ref()).and_then(|r| r.http.as_ref());
    assert_eq!(ours.http().is_some(), http.is_some());
    let (Some(ours), Some(theirs)) = (ours.http(), http) else { return };
    assert_eq!(ours.id, theirs.id);
    assert_eq!(ours.method, theirs.method);
    assert_eq!(ours.path, theirs.path);
    assert_eq!(ours.host, theirs.host);
    assert_eq!(ours.size, theirs.size);
    assert_eq!(ours.protocol, theirs.protocol);
    assert_eq!(ours.body, theirs.body);
    assert_eq!(ours.raw_body, theirs.raw_body.as_slice());
    for (name, value) in &theirs.headers {
        // A map's last entry wins.
        let last = ours.headers.iter().rev().find(|entry| entry.key == name).unwrap();
        assert_eq!(last.value, value);
    }
    let lines = |map: &Option<message::HeaderMap>| map.as_ref().map_or(0, |map| map.headers.len());
    assert_eq!(lines(&ours.header_map), theirs.header_map.as_ref().map_or(0, |map| map.headers.len()));
    for (ours, theirs) in
        ours.header_map.iter().flat_map(|m| &m.headers).zip(theirs.header_map.iter().flat_map(|m| &m.headers))
    {
        assert_eq!((&ours.key[..], &ours.raw_value[..]), (theirs.key.as_bytes(), theirs.raw_value.as_slice()));
    }
}

#[tokio::test]
async fn without_credentials_every_preset_denies() {
    for (name, endpoint) in vector::endpoints() {
        let text = serde_json::json!({ "endpoints": { "p": endpoint } }).to_string();
        let mut client = gate::connect(gate::gate(&text, NOW)).await;
        for method in ["POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"] {
            let asked = Asked {
                method: method.into(),
                uri: "https://hooks.example.com/p".parse().unwrap(),
                headers: vec![],
                body: b"{}".to_vec(),
                client: Some("203.0.113.7".into()),
                endpoint: Some("p".into()),
            };
            let seen = Seen::of(
                client.check(asked.check(Form { raw_headers: true, raw_body: true })).await.unwrap().into_inner(),
            );
            // Some handshakes are answered to anybody; none is ever forwarded.
            let answered = seen.metadata["decision"] == "answer";
            assert!(!seen.forwarded && (answered || seen.status >= 400), "{name} {method}: {seen:?}");
        }
    }
}
