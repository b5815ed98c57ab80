//! What the mechanisms of a check cost, one by one: `cargo bench`.
//!
//! For whoever changes one of them. What a whole check costs is measured by `make bench`, and held by `make instructions`.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a benchmark that cannot begin may end")]

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256 as RSA_PKCS1_SHA256_SIGNING,
    },
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3::{AttributeContext, attribute_context},
};
use hookwarden::{
    admission::State as _,
    check,
    clock::{Clock, UnixSeconds},
    config::{self, Context},
    delivery::{Body, Delivery, Headers},
    ext_authz::message::CheckRequest,
    replay::{Claim, Digests, Holder, OnDuplicate, ReplayKey, ReplayRule, StoreFailure},
    scheme::{
        algorithm::Algorithm,
        encoding::Encoding,
        mac::{Hash, MacKey},
        public_key::{KeyFormat, KeyPolicy, PublicKey},
    },
    secret::Secret,
    store::Store,
};
use prost::Message as _;
use std::{hint::black_box, time::Duration};

const SECRET: &str = "a secret of the benchmarks";
const SIZES: [usize; 2] = [2 << 10, 256 << 10];
const NOW: i64 = 1_760_000_000;

fn hashes(c: &mut Criterion) {
    let digests =
        [("lasting digest", Digests::Lasting), ("digest of this process", Digests::of_this_process().unwrap())];
    for size in SIZES {
        let body = vec![b'x'; size];
        let mut group = c.benchmark_group(format!("{} KiB", size >> 10));
        group.throughput(Throughput::Bytes(u64::try_from(size).unwrap()));
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
            let key = MacKey::hmac(hash, Secret::new(SECRET.into()), false).unwrap();
            let content = vec![body.as_slice().into()];
            group.bench_function(format!("HMAC {hash:?}"), |b| b.iter(|| key.tag(black_box(&content))));
        }
        for (name, digests) in &digests {
            group.bench_function(*name, |b| b.iter(|| digests.of([black_box(body.as_slice())])));
        }
        group.finish();
    }
}

fn signatures(c: &mut Criterion) {
    let (random, content) = (SystemRandom::new(), vec![b'x'; 2048]);
    let read = |public: &[u8], algorithm: Algorithm, format: KeyFormat, encoding: Encoding| {
        PublicKey::read(&encoding.encode(public), format, &[algorithm], KeyPolicy::default()).unwrap()
    };
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let algorithm = Algorithm::EcdsaP256Sha256(hookwarden::scheme::algorithm::EcdsaForm::Der);
    let key = read(p256.public_key().as_ref(), algorithm, KeyFormat::RawBase64, Encoding::Base64);
    let signature = p256.sign(&random, &content).unwrap();
    assert!(key.made(algorithm, &content, signature.as_ref()));
    c.bench_function("ECDSA P-256", |b| b.iter(|| key.made(algorithm, black_box(&content), signature.as_ref())));

    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let spki =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap();
    let key = read(spki.as_ref(), Algorithm::RsaPkcs1Sha256, KeyFormat::SpkiBase64, Encoding::Base64);
    let mut signature = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256_SIGNING, &random, &content, &mut signature).unwrap();
    let algorithm = Algorithm::RsaPkcs1Sha256;
    assert!(key.made(algorithm, &content, &signature));
    c.bench_function("RSA-2048", |b| b.iter(|| key.made(algorithm, black_box(&content), &signature)));
}

/// As Envoy would ask about a delivery of 25 header lines.
fn question(body: &[u8], signature: &str) -> bytes::Bytes {
    let mut lines: Vec<(String, String)> =
        (0..20).map(|n| (format!("x-filler-header-{n}"), "a value of a usual length".to_owned())).collect();
    lines.push(("x-hub-signature-256".into(), format!("sha256={signature}")));
    lines.push(("content-length".into(), body.len().to_string()));
    lines.push(("x-github-event".into(), "push".into()));
    let headers = lines
        .into_iter()
        .map(|(key, value)| HeaderValue { key, raw_value: value.into(), ..HeaderValue::default() })
        .collect();
    let http = attribute_context::HttpRequest {
        id: "4242".into(),
        method: "POST".into(),
        path: "/github".into(),
        host: "hooks.example.com".into(),
        protocol: "HTTP/2".into(),
        size: i64::try_from(body.len()).unwrap(),
        header_map: Some(HeaderMap { headers }),
        raw_body: body.to_vec(),
        ..Default::default()
    };
    let request = envoy_types::pb::envoy::service::auth::v3::CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(attribute_context::Request { http: Some(http), ..Default::default() }),
            ..AttributeContext::default()
        }),
    };
    request.encode_to_vec().into()
}

fn examinations(c: &mut Criterion) {
    let body = vec![b'x'; 2048];
    let key = MacKey::hmac(Hash::Sha256, Secret::new(SECRET.into()), false).unwrap();
    let signature = const_hex::encode(key.tag(&[body.as_slice().into()]).bytes());
    let message = question(&body, &signature);
    c.bench_function("decode a question", |b| b.iter(|| CheckRequest::decode(black_box(message.clone())).unwrap()));

    let now = Clock::fixed(UnixSeconds(NOW)).now();
    let configuration = format!(
        "endpoints: {{ github: {{ match: {{ path: /github }}, provider: github, secrets: [{{ id: main, inline: {SECRET} }}] }} }}"
    );
    let loaded = config::parse("bench.yaml", configuration.as_bytes(), &Context::new(now)).unwrap();
    let endpoints = loaded.compiled.endpoints.digested_by(Digests::of_this_process().unwrap());
    let request = CheckRequest::decode(message).unwrap();
    c.bench_function("examine a question", |b| {
        b.iter(|| check::examine(&black_box(&request).delivery().unwrap(), now, &endpoints));
    });
    let forged = Delivery {
        method: "POST",
        target: "/github",
        host: "hooks.example.com",
        headers: Headers::from_lines(vec![(b"x-hub-signature-256", b"sha256=00")]),
        body: Body::Whole(&body),
        peer: None,
        route_endpoint: None,
    };
    c.bench_function("refuse a malformed signature", |b| {
        b.iter(|| check::examine(black_box(&forged), now, &endpoints));
    });
}

fn claims(c: &mut Criterion) {
    let rule = ReplayRule {
        on_duplicate: OnDuplicate::Deny,
        remember: Duration::from_secs(600),
        outcome_within: None,
        store_failure: StoreFailure::Deny,
    };
    let (store, now) = (Store::in_memory(), Clock::fixed(UnixSeconds(NOW)).now());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut number = 0_u64;
    let mut next = || {
        // Few enough that there is always room.
        number = (number + 1) % 500_000;
        let key = ReplayKey::new("github", Digests::Lasting.of([number.to_le_bytes().as_slice()]));
        Claim { key, holder: Holder::NOBODY, rule, signed_at: None }
    };
    c.bench_function("claim", |b| {
        b.iter_batched(&mut next, |claim| runtime.block_on(store.claim(&claim, now)), BatchSize::SmallInput);
    });
}

criterion_group!(mechanisms, hashes, signatures, examinations, claims);
criterion_main!(mechanisms);
