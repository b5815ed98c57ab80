//! Known-answer tests of Project Wycheproof (the commit is in `tests/wycheproof/COMMIT`), through our own wrappers.
//!
//! `valid` must verify, `invalid` must not; what is merely `acceptable` is refused. Each test counts what it did, so that
//! a file that is not read does not pass.

use hookwarden::{
    clock::{Now, UnixSeconds},
    config::{self, Context},
    decision::{Denial, Rejection},
    delivery::{Body, Delivery, Headers},
    json::Json,
    received::Received,
    scheme::{
        Scheme,
        algorithm::{Algorithm, EcdsaForm},
        encoding::Encoding,
        jwt::{Issuer, Jwt, TimeRule, TokenPlace},
        key_ring::{KeyId, KeyRing},
        mac::{Hash, Library, MacKey},
        public_key::{KeyFormat, KeyPolicy, PublicKey},
    },
    secret::{Key, Label, Secret},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

fn groups(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("tests/wycheproof/{file}_test.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["testGroups"].as_array().unwrap().clone()
}

fn hex(json: &Value) -> Vec<u8> {
    const_hex::decode(json.as_str().unwrap()).unwrap()
}

/// Runs every test of a group; gives how many were valid and how many were not.
fn run(file: &str, group: &Value, verifies: impl Fn(&Value) -> bool) -> (usize, usize) {
    let (mut valid, mut invalid) = (0, 0);
    for test in group["tests"].as_array().unwrap() {
        let told = verifies(test);
        let id = &test["tcId"];
        match test["result"].as_str().unwrap() {
            "valid" => {
                assert!(told, "{file} {id} is valid: {}", test["comment"]);
                valid += 1;
            }
            _ => {
                assert!(!told, "{file} {id} must not verify: {}", test["comment"]);
                invalid += 1;
            }
        }
    }
    (valid, invalid)
}

fn total(counts: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    counts.fold((0, 0), |(valid, invalid), (v, i)| (valid + v, invalid + i))
}

#[test]
fn hmac() {
    for (name, hash, bits, expected) in [
        ("sha1", Hash::Sha1, 160, (33, 54)),
        ("sha256", Hash::Sha256, 256, (33, 54)),
        ("sha384", Hash::Sha384, 384, (33, 54)),
        ("sha512", Hash::Sha512, 512, (33, 54)),
    ] {
        let file = format!("hmac_{name}");
        let whole = groups(&file).into_iter().filter(|group| group["tagSize"] == bits);
        let counted = total(whole.map(|group| {
            run(&file, &group, |test| {
                let by = |library| {
                    let key = MacKey::hmac_by(library, hash, Secret::new(hex(&test["key"])), false).unwrap();
                    key.tag(&[hex(&test["msg"]).into()]).is(&hex(&test["tag"]))
                };
                let verdict = by(Library::RustCrypto);
                assert_eq!(by(Library::AwsLc), verdict, "{test}");
                verdict
            })
        }));
        assert_eq!(counted, expected, "{name}");
        // Shortened tags are other signatures, however right their bytes are.
        for group in groups(&file).into_iter().filter(|group| group["tagSize"] != bits) {
            for test in group["tests"].as_array().unwrap() {
                let text = Encoding::Hex.encode(&hex(&test["tag"]));
                assert!(!Encoding::Hex.decode_exactly(text.as_bytes(), &mut [0; 64], hash.length()));
            }
        }
    }
}

fn public_key(file: &str, algorithm: Algorithm) -> (usize, usize) {
    let policy = KeyPolicy { allow_rsa_1024: false, allow_small_exponent: true };
    total(groups(file).into_iter().map(|group| {
        let pem = group["publicKeyPem"].as_str().unwrap();
        let key = PublicKey::read(pem, KeyFormat::Pem, &[algorithm], policy).unwrap();
        run(file, &group, |test| key.made(algorithm, &hex(&test["msg"]), &hex(&test["sig"])))
    }))
}

#[test]
fn rsa_pkcs1() {
    for (file, algorithm, expected) in [
        ("rsa_signature_2048_sha256", Algorithm::RsaPkcs1Sha256, (9, 250)),
        ("rsa_signature_2048_sha384", Algorithm::RsaPkcs1Sha384, (7, 251)),
        ("rsa_signature_2048_sha512", Algorithm::RsaPkcs1Sha512, (8, 251)),
        ("rsa_signature_3072_sha256", Algorithm::RsaPkcs1Sha256, (8, 251)),
        ("rsa_signature_3072_sha512", Algorithm::RsaPkcs1Sha512, (8, 252)),
        ("rsa_signature_4096_sha256", Algorithm::RsaPkcs1Sha256, (7, 251)),
        ("rsa_signature_4096_sha512", Algorithm::RsaPkcs1Sha512, (7, 252)),
    ] {
        assert_eq!(public_key(file, algorithm), expected, "{file}");
    }
}

#[test]
fn rsa_pss() {
    for (file, algorithm, expected) in [
        ("rsa_pss_2048_sha256_mgf1_32", Algorithm::RsaPssSha256, (63, 45)),
        ("rsa_pss_2048_sha384_mgf1_48", Algorithm::RsaPssSha384, (95, 46)),
    ] {
        assert_eq!(public_key(file, algorithm), expected, "{file}");
    }
    // Another salt or another mask is another algorithm: none of these verifies, valid as it is elsewhere.
    for file in ["rsa_pss_2048_sha1_mgf1_20", "rsa_pss_2048_sha256_mgf1_0", "rsa_pss_2048_sha256_mgf1sha1_20"] {
        for group in groups(file) {
            let pem = group["publicKeyPem"].as_str().unwrap();
            let key = PublicKey::from_pem(pem, &[Algorithm::RsaPssSha256], KeyPolicy::default()).unwrap();
            for test in group["tests"].as_array().unwrap() {
                // Made invalid there by a salt that is ours.
                let ours = test["comment"] == "s_len changed to 32" && file == "rsa_pss_2048_sha256_mgf1_0";
                assert_eq!(key.made(Algorithm::RsaPssSha256, &hex(&test["msg"]), &hex(&test["sig"])), ours, "{file}");
            }
        }
    }
}

#[test]
fn ecdsa() {
    use EcdsaForm::{Der, P1363};
    for (file, algorithm, expected) in [
        ("ecdsa_secp256r1_sha256", Algorithm::EcdsaP256Sha256(Der), (174, 310)),
        ("ecdsa_secp256r1_sha256_p1363", Algorithm::EcdsaP256Sha256(P1363), (173, 89)),
        ("ecdsa_secp384r1_sha384", Algorithm::EcdsaP384Sha384(Der), (194, 310)),
        ("ecdsa_secp384r1_sha384_p1363", Algorithm::EcdsaP384Sha384(P1363), (193, 87)),
        ("ecdsa_secp521r1_sha512", Algorithm::EcdsaP521Sha512(Der), (232, 310)),
        ("ecdsa_secp521r1_sha512_p1363", Algorithm::EcdsaP521Sha512(P1363), (231, 87)),
    ] {
        assert_eq!(public_key(file, algorithm), expected, "{file}");
    }
}

#[test]
fn ed25519() {
    assert_eq!(public_key("ed25519", Algorithm::Ed25519), (88, 63));
}

/// The eight points of small order, each in its canonical spelling, and some that are not canonical.
#[test]
fn weak_and_odd_ed25519_keys_are_not_loaded() {
    for key in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let read = PublicKey::read(key, KeyFormat::RawHex, &[Algorithm::Ed25519], KeyPolicy::default());
        assert!(read.is_err(), "{key}");
    }
}

const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RsaPkcs1Sha256,
    Algorithm::RsaPkcs1Sha384,
    Algorithm::RsaPkcs1Sha512,
    Algorithm::RsaPssSha256,
    Algorithm::RsaPssSha384,
    Algorithm::RsaPssSha512,
    Algorithm::EcdsaP256Sha256(EcdsaForm::P1363),
    Algorithm::EcdsaP384Sha384(EcdsaForm::P1363),
    Algorithm::EcdsaP521Sha512(EcdsaForm::P1363),
];

/// A scheme that takes tokens of the group's key, and of the algorithm that the key is for.
fn jwt(key: &Value) -> Option<Jwt> {
    let label = Arc::new(Label { id: "k".into(), tags: vec![] });
    let alg = key["alg"].as_str();
    let issuer = if key["kty"] == "oct" {
        let hash = [Hash::Sha256, Hash::Sha384, Hash::Sha512].into_iter().find(|hash| hash.jws_name() == alg)?;
        let secret = Encoding::Base64Url.decode(key["k"].as_str()?.as_bytes())?;
        let value = MacKey::hmac(hash, Secret::new(secret), false)?;
        Issuer::Mac(vec![(hash, vec![Key { label, from: None, until: None, value }])])
    } else {
        let algorithms: Vec<Algorithm> =
            ALGORITHMS.iter().copied().filter(|a| alg.is_none() || a.jws_name() == alg).collect();
        let json = Json::parse(key.to_string().as_bytes())?;
        let value = PublicKey::from_jwk(&json, &algorithms, KeyPolicy::default()).ok()?;
        let id = KeyId::Prefix(String::new());
        let keys = KeyRing { configured: vec![(id, Key { label, from: None, until: None, value })], remote: None };
        Issuer::PrivateKey { algorithms, keys }
    };
    Some(Jwt {
        source: TokenPlace::Body,
        detached: None,
        listed_headers: None,
        header: vec![],
        claims: vec![],
        body_digest: None,
        time: TimeRule { expiry_required: false, max_age: None, leeway: Duration::ZERO },
        covers_body: true,
        issuer,
    })
}

/// A scheme that takes tokens of a set's keys, configured as an operator would.
fn set(keys: &Value) -> Option<Scheme> {
    let endpoint = serde_json::json!({
        "scheme": { "jwt": { "token": { "body": true }, "algorithms": ["RS256"], "expiry": "optional" } },
        "public_keys": [{ "id": "set", "inline": keys.to_string(), "format": "jwks" }],
    });
    let text = serde_json::json!({ "endpoints": { "set": endpoint } }).to_string();
    let now = Now { wall: UnixSeconds(1_760_000_000), monotonic: Duration::ZERO };
    let loaded = config::parse("set", text.as_bytes(), &Context::new(now)).ok()?;
    let endpoint = loaded.compiled.endpoints.named("set").cloned()?;
    drop(loaded);
    Arc::into_inner(endpoint).map(|endpoint| endpoint.scheme)
}

/// Whether the signature was found to be right. A token whose payload is no JSON is refused after that, by that.
fn verifies(scheme: &Scheme, token: &str) -> bool {
    let body = token.as_bytes();
    let delivery = Delivery {
        method: "POST",
        target: "/",
        host: "h",
        headers: Headers::from_lines(vec![]),
        body: Body::Whole(body),
        peer: None,
        route_endpoint: None,
    };
    let now = Now { wall: UnixSeconds(1_760_000_000), monotonic: Duration::ZERO };
    match scheme.verify(&Received::new(&delivery, body), now) {
        Ok(_) => true,
        Err(denial) => denial == Denial::Rejection(Rejection::ClaimMissing),
    }
}

#[test]
fn json_web_signatures() {
    let (mut counted, mut wrong, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for file in ["json_web_signature", "json_web_crypto", "json_web_key"] {
        let mut counts = (0, 0);
        for group in groups(file) {
            // Encryption is none of ours.
            if group["comment"].as_str().unwrap().starts_with("jwe") {
                continue;
            }
            let key = if group["public"].is_null() { &group["private"] } else { &group["public"] };
            // A set is only ever one of public keys.
            let is_secret = |key: &Value| key["kty"] == "oct";
            if key["keys"].as_array().is_some_and(|keys| keys.iter().any(is_secret)) {
                continue;
            }
            let scheme = if key["keys"].is_array() { set(key) } else { jwt(key).map(Scheme::Jwt) };
            for test in group["tests"].as_array().unwrap() {
                let token = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
                let told = scheme.as_ref().is_some_and(|scheme| verifies(scheme, &token));
                let about = format!("{file} {} {}", test["tcId"], test["comment"]);
                // Its name speaks of padding, but the file has lost it: as it stands, the token is right.
                let named_padding = test["comment"].as_str().unwrap().starts_with("invalidBase64Padding");
                let lost_its_flaw = named_padding && !token.contains('=');
                if test["result"] == "invalid" && !lost_its_flaw {
                    if told {
                        wrong.push(about);
                    }
                    counts.1 += 1;
                } else {
                    counts.0 += usize::from(told);
                    if !told {
                        refused.push((file, test["tcId"].as_i64().unwrap()));
                    }
                }
            }
        }
        counted.push((file, counts));
    }
    assert!(wrong.is_empty(), "must not verify:\n{}", wrong.join("\n"));
    assert_eq!(counted, [("json_web_signature", (42, 353)), ("json_web_crypto", (3, 43)), ("json_web_key", (1, 10))]);
    // RFC 7520 signs the first four with keys that say they are for another algorithm; we believe the keys. The others
    // have a `?` inside their base64, which some decoders skip; ours does not.
    let stricter = [346, 347, 350, 351, 372, 373].map(|id| ("json_web_signature", id));
    assert_eq!(refused, stricter);
}
