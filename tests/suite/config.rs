//! Configurations: what is wrong with them, in the words a person reads.

use crate::suite::vector;
use hookwarden::{
    clock::{Clock, UnixSeconds},
    config::{self, Context},
    provider,
};
use std::fs;

fn context() -> Context {
    Context::new(Clock::fixed(UnixSeconds(1_795_435_200)).now())
}

fn told(name: &str, text: &[u8]) -> String {
    match config::parse(name, text, &context()) {
        Ok(loaded) => {
            let warnings: Vec<String> =
                loaded.warnings.iter().map(|warning| format!("warning: {}\n", warning.line(name))).collect();
            format!("{}ok\n", warnings.concat())
        }
        Err(problems) => format!("{problems}\n"),
    }
}

#[test]
fn every_problem_of_every_bad_file() {
    let mut names: Vec<_> = fs::read_dir("tests/config").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut text = String::new();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let told = told(name, &fs::read(format!("tests/config/{name}")).unwrap());
        assert!(!told.contains("canary"), "{name} prints a secret: {told}");
        text.push_str(&format!("=== {name}\n{told}\n"));
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("config", text);
    });
}

#[test]
fn the_schema_is_the_one_that_was_published() {
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("schema", format!("{:#}", config::schema()));
    });
}

/// Who is sent to other threads: those whose keys are dear, and not those whose algorithms could be.
#[test]
fn whether_to_verify_takes_long_is_told_by_the_keys() {
    let group = |file: &str| {
        let text = fs::read_to_string(format!("tests/wycheproof/{file}_test.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["testGroups"][0].clone()
    };
    let rsa = |bits: &str| group(&format!("rsa_signature_{bits}_sha256"))["publicKeyPem"].clone();
    let ecdsa = |curve: &str| group(&format!("ecdsa_secp{curve}"))["publicKeyPem"].clone();
    let signed = |algorithm: &str| {
        let signature = serde_json::json!({ "header": "x-signature", "encoding": "base64" });
        serde_json::json!({ "public_key": { "algorithms": [algorithm], "signed_content": "{body}", "signature": signature,
            "remote_keys": { "jwks": "https://keys.example/set" } } })
    };
    let jwt = serde_json::json!({ "jwt": { "token": { "body": true }, "algorithms": ["ES256", "ES384"], "expiry": "optional" } });
    let http = serde_json::json!({ "http_signature": {
        "headers": ["signature"], "algorithms": ["rsa-sha256"], "required": ["(request-target)", "date", "digest"] } });
    let by = |scheme: &serde_json::Value, keys: &[serde_json::Value]| {
        let keys: Vec<_> = keys.iter().zip(["a", "b"]).collect();
        let keys: Vec<_> =
            keys.iter().map(|(key, id)| serde_json::json!({ "id": id, "format": "pem", "inline": key })).collect();
        serde_json::json!({ "scheme": scheme, "public_keys": keys })
    };
    let remote = |algorithm: &str| serde_json::json!({ "scheme": signed(algorithm), "key_source": "remote" });
    let chain = serde_json::json!({ "provider": "apple-app-store",
        "settings": { "bundle_id": "com.example.app", "environment": "Production" }, "public_keys":
        [{ "id": "root", "format": "x509", "file": "tests/fixtures/rsa-2048.cert.pem" }] });
    for (what, endpoint, long) in [
        ("RSA-2048", by(&signed("rsa-pkcs1-sha256"), &[rsa("2048")]), false),
        ("RSA-3072", by(&signed("rsa-pkcs1-sha256"), &[rsa("3072")]), false),
        ("RSA-4096", by(&signed("rsa-pkcs1-sha256"), &[rsa("4096")]), true),
        ("RSA-2048 or 4096", by(&signed("rsa-pkcs1-sha256"), &[rsa("2048"), rsa("4096")]), true),
        ("PSS-2048", by(&signed("rsa-pss-sha256"), &[rsa("2048")]), true),
        ("P-256, where P-384 could be", by(&jwt, &[ecdsa("256r1_sha256")]), false),
        ("P-384", by(&jwt, &[ecdsa("256r1_sha256"), ecdsa("384r1_sha384")]), true),
        ("HTTP, RSA-3072", by(&http, &[rsa("3072")]), false),
        ("HTTP, RSA-4096", by(&http, &[rsa("4096")]), true),
        ("RSA, published", remote("rsa-pkcs1-sha256"), false),
        ("PSS, published", remote("rsa-pss-sha256"), true),
        ("a chain of certificates", chain, true),
    ] {
        let text = serde_json::json!({ "endpoints": { "e": endpoint } }).to_string();
        let loaded = config::parse("e.yaml", text.as_bytes(), &context()).unwrap_or_else(|p| panic!("{what}: {p}"));
        assert_eq!(loaded.compiled.endpoints.named("e").unwrap().takes_long, long, "{what}");
    }
}

fn as_json(text: &str) -> serde_json::Value {
    serde_yaml::from_str::<serde_json::Value>(text).unwrap()
}

/// The schema and the reader judge the same shape: what one refuses for its shape, so does the other.
#[test]
fn the_schema_agrees_with_the_reader() {
    let schema = jsonschema::validator_for(&config::schema()).unwrap();
    let valid = fs::read_to_string("deploy/hookwarden.yaml").unwrap();
    let errors: Vec<String> = schema.iter_errors(&as_json(&valid)).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    for (what, text) in [
        ("an unknown field", "endpoints: { e: { provider: github, secrts: [] } }"),
        ("a wrong type", "endpoints: { e: { provider: [github] } }"),
        ("an unknown word", "endpoints: { e: { provider: github, mode: permissive } }"),
        ("a missing field", "endpoints: { e: { provider: github, secrets: [{ file: /x }] } }"),
        (
            "a deep unknown field",
            "endpoints: { e: { scheme: { hmac: { hash: sha256, signed_content: '{body}', signature: { header: x, encoding: hex, case: any } } } } }",
        ),
        ("two schemes in one", "endpoints: { e: { scheme: { basic: {}, token: { header: x } } } }"),
    ] {
        assert!(!schema.is_valid(&as_json(text)), "the schema takes {what}");
        assert!(config::parse("c", text.as_bytes(), &context()).is_err(), "the reader takes {what}");
    }
}

#[test]
fn every_preset_is_written_in_the_users_words() {
    let scheme = serde_json::json!({ "type": "object", "$ref": "#/$defs/Scheme", "$defs": config::schema()["$defs"] });
    let validator = jsonschema::validator_for(&scheme).unwrap();
    let endpoints = vector::endpoints();
    for name in provider::names() {
        let preset = provider::find(name).unwrap_or_else(|| panic!("{name} cannot be read"));
        assert!(!preset.docs.is_empty() && !preset.title.is_empty(), "{name} says nothing of its source");
        let text = as_json(provider::text(name).unwrap());
        let errors: Vec<String> = validator.iter_errors(&text["scheme"]).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        // And a user who copies it into `scheme:` gets the same.
        let mut own = serde_json::to_value(&endpoints[name]).unwrap();
        own.as_object_mut().unwrap().remove("provider");
        for field in ["scheme", "challenges", "allow_methods", "on_rejection", "delivery_id", "event_type"] {
            if let Some(value) = text.get(field) {
                own[field] = value.clone();
            }
        }
        let text = serde_json::json!({ "endpoints": { "own": own } }).to_string();
        if let Err(problems) = config::parse(name, text.as_bytes(), &context()) {
            panic!("{name}: {problems}");
        }
    }
}

/// Half-written and corrupted files are problems, never panics, and never a configuration by accident.
#[test]
fn corruptions_are_problems() {
    let text = fs::read("deploy/hookwarden.yaml").unwrap();
    for cut in (0..text.len()).step_by(7) {
        drop(config::parse("cut", &text[..cut], &context()));
        let mut flipped = text.clone();
        flipped[cut] ^= 0x15;
        drop(config::parse("flipped", &flipped, &context()));
    }
}
