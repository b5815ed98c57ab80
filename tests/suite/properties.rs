//! What must hold for every delivery, not only for those somebody thought of.

use crate::suite::{
    agreement::{assert_same, compare},
    gate::{self, Asked, FORMS, Form, Seen},
    vector,
};
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
        let ours = message::CheckRequest::decode(theirs.encode_to_vec().into()).unwrap();
        assert_same(&ours, &theirs);
        compare(&theirs.encode_to_vec());
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        compare(&bytes);
    }

    /// Well-formed messages, with fields nobody knows, fields that come again, and a byte or a length changed.
    #[test]
    fn what_is_nearly_a_question_is_read_alike(
        message in wire::message(5),
        at in any::<prop::sample::Index>(),
        change in prop::option::of(any::<u8>()),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = message;
        if let (Some(change), false) = (change, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = change;
        }
        if let (Some(cut), false) = (cut, bytes.is_empty()) {
            bytes.truncate(cut.index(bytes.len()));
        }
        compare(&bytes);
    }
}

/// An address is a socket's, a pipe's or Envoy's own, and where it is told twice the last kind counts. One of a kind that
/// comes again is the same one, told in parts.
#[test]
fn an_address_is_of_one_kind() {
    use wire::field;
    let (socket, port) = (field(1, 2, &field(2, 2, b"192.0.2.1")), field(1, 2, &field(3, 0, &[80])));
    for kinds in [
        vec![socket.clone(), port.clone()],
        vec![socket.clone(), field(2, 2, b"")],
        vec![socket.clone(), field(3, 2, b"")],
        vec![socket.clone(), field(2, 2, b""), port.clone()],
        vec![socket.clone(), field(3, 2, b""), port],
        vec![field(2, 2, b""), socket],
    ] {
        let peer = field(1, 2, &field(1, 2, &kinds.concat()));
        compare(&field(1, 2, &peer));
    }
}

/// Protocol Buffers as they go over the wire, with the tags of a question more often than others.
mod wire {
    use proptest::prelude::*;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        bytes.push(value.to_le_bytes()[0]);
        bytes
    }

    pub(super) fn field(tag: u64, kind: u64, value: &[u8]) -> Vec<u8> {
        let mut bytes = varint(tag << 3 | kind);
        if kind == 2 {
            bytes.extend(varint(u64::try_from(value.len()).unwrap()));
        }
        bytes.extend_from_slice(value);
        bytes
    }

    fn tag() -> impl Strategy<Value = u64> {
        prop_oneof![8 => prop::sample::select(vec![1, 2, 3, 4, 5, 9, 10, 11, 12, 13]), 1 => 1_u64..40, 1 => 1_u64..1 << 29]
    }

    fn scalar() -> BoxedStrategy<Vec<u8>> {
        prop_oneof![
            (tag(), prop_oneof![0_u64..300, any::<u64>()]).prop_map(|(tag, value)| field(tag, 0, &varint(value))),
            (tag(), any::<[u8; 8]>()).prop_map(|(tag, value)| field(tag, 1, &value)),
            (tag(), any::<[u8; 4]>()).prop_map(|(tag, value)| field(tag, 5, &value)),
            (tag(), "[a-z:-]{0,12}|endpoint").prop_map(|(tag, text)| field(tag, 2, text.as_bytes())),
            (tag(), prop::collection::vec(any::<u8>(), 0..150)).prop_map(|(tag, bytes)| field(tag, 2, &bytes)),
        ]
        .boxed()
    }

    /// The way to what a check reads: attributes, request, HTTP, and what is in that.
    fn path(depth: u32) -> Vec<u64> {
        match depth {
            5 => vec![1],
            4 => vec![1, 4, 10],
            3 => vec![1, 2],
            _ => vec![1, 3, 13],
        }
    }

    pub(super) fn message(depth: u32) -> BoxedStrategy<Vec<u8>> {
        let some = |fields: BoxedStrategy<Vec<u8>>| {
            prop::collection::vec(fields, 0..5).prop_map(|fields| fields.concat()).boxed()
        };
        if depth == 0 {
            return some(scalar());
        }
        let inner =
            (prop::sample::select(path(depth)), message(depth - 1)).prop_map(|(tag, inner)| field(tag, 2, &inner));
        let group =
            (tag(), scalar()).prop_map(|(tag, inner)| [varint(tag << 3 | 3), inner, varint(tag << 3 | 4)].concat());
        some(prop_oneof![5 => inner, 2 => scalar(), 1 => group].boxed())
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
