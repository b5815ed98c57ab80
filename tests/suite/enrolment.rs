//! Secrets that a provider hands over: learned in the open window, once, and kept.

use crate::suite::gate;
use hookwarden::{
    check,
    clock::{Clock, UnixSeconds},
    config::{self, Context},
    delivery::{Body, Delivery, Headers},
    store::{Store, StoreKind},
};
use std::os::unix::fs::PermissionsExt as _;

const NOW: i64 = 1_760_000_000;
const SECRET: &str = "handed over by the provider";
const CONFIGURATION: &str = r#"
endpoints:
  e:
    enrolment: { until: "2025-10-09T09:00:00Z" }
    scheme:
      hmac: { hash: sha256, signed_content: "{body}", signature: { header: x-signature, encoding: hex } }
    challenges:
      - when: [{ method: POST }, { header: x-hook-secret }]
        enrol: { header: x-hook-secret }
        echo: { secret: { header: x-hook-secret, charset: text } }
        respond: { headers: { X-Hook-Secret: "{secret}" } }
"#;

/// A process: what it compiled, what it keeps, and its store.
struct Process {
    context: Context,
    store: Store,
}

impl Process {
    fn start(kind: &StoreKind) -> Self {
        let clock = Clock::fixed(UnixSeconds(NOW));
        let context = Context::new(clock.now());
        // The thread that owns a file ends with the last handle on it, some time after.
        let store = loop {
            match Store::open(kind, clock.now()) {
                Ok(store) => break store,
                Err(error) => assert!(format!("{error:#}").contains("already open"), "{error:#}"),
            }
        };
        context.kept.restore(store.take_learned());
        Self { context, store }
    }

    async fn decide(&self, now: i64, headers: &[(&str, &str)], body: &str) -> String {
        let clock = Clock::fixed(UnixSeconds(now));
        let loaded = config::parse("e", CONFIGURATION.as_bytes(), &self.context).unwrap();
        let delivery = Delivery {
            method: "POST",
            target: "/e",
            host: "h",
            headers: Headers::from_lines(headers.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect()),
            body: Body::Whole(body.as_bytes()),
            peer: None,
            route_endpoint: Some("e"),
        };
        let outcome = check::check(&delivery, clock.now(), &loaded.compiled.endpoints, &self.store).await;
        outcome.decision.reason().to_owned()
    }

    async fn enrol(&self, now: i64, secret: &str) -> String {
        self.decide(now, &[("x-hook-secret", secret)], "").await
    }

    async fn deliver(&self, secret: &str) -> String {
        let signature = const_hex::encode(gate::mac(secret, &[b"{}"]));
        self.decide(NOW, &[("x-signature", &signature)], "{}").await
    }
}

#[tokio::test]
async fn a_secret_is_learned_once_in_the_window() {
    let process = Process::start(&StoreKind::Memory);
    assert_eq!(process.deliver(SECRET).await, "no_active_secret");
    let too_late = NOW + 3600;
    assert_eq!(process.enrol(too_late, SECRET).await, "enrolment_closed");
    assert_eq!(process.enrol(NOW, "short").await, "challenge_malformed");
    assert_eq!(process.enrol(NOW, SECRET).await, "secret_enrolled");
    assert_eq!(process.enrol(NOW, SECRET).await, "challenge", "the provider may try again");
    assert_eq!(process.enrol(NOW, "the secret of a stranger").await, "enrolment_closed");
    assert_eq!(process.deliver(SECRET).await, "verified");
    assert_eq!(process.deliver("the secret of a stranger").await, "signature_mismatch");
}

#[tokio::test]
async fn a_file_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let kind = StoreKind::File(directory.path().join("state.redb"));
    let process = Process::start(&kind);
    assert_eq!(process.enrol(NOW, SECRET).await, "secret_enrolled");
    drop(process);
    let process = Process::start(&kind);
    assert_eq!(process.deliver(SECRET).await, "verified");
    assert_eq!(process.enrol(NOW, "the secret of a stranger").await, "enrolment_closed");
    let mode = std::fs::metadata(directory.path().join("state.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
