//! `POST /reload`: who may ask, and what is answered.

use crate::suite::process::{Process, Setup, ask, get, signed};

const TOKEN: &str = "a-token-of-this-test-of-40-characters-xx";
const FIRST: &str = "the first secret of this test";
const SECOND: &str = "the second secret of this test";

/// The usual configuration, with a token for reloads where `listen` has one.
fn configure(setup: &Setup, listen: &str, more: &str) {
    setup.configure(more);
    let text = std::fs::read_to_string(setup.path("hookwarden.yaml")).unwrap();
    let changed = text.replace("admin: 127.0.0.1:0 }", &format!("admin: 127.0.0.1:0{listen} }}"));
    std::fs::write(setup.path("hookwarden.yaml"), changed).unwrap();
}

fn with_token() -> Setup {
    let setup = Setup::new();
    std::fs::write(setup.path("reload-token"), format!("{TOKEN}\n")).unwrap();
    configure(&setup, ", reload_token: { file: reload-token }", "");
    setup
}

fn start(setup: &Setup) -> (Process, String) {
    let mut process = Process::start(setup.folder.path());
    let admin = process.wait_for("ready")["admin"].as_str().unwrap().to_owned();
    (process, admin)
}

fn post(admin: &str, token: &str) -> (u16, String) {
    let (status, head, body) = ask(admin, "POST /reload", &[&format!("authorization: Bearer {token}")]);
    assert!(!format!("{head}{body}").contains(token), "the token comes back");
    (status, body)
}

#[tokio::test]
async fn the_right_token_reloads() {
    let setup = with_token();
    let (mut process, admin) = start(&setup);
    setup.write_secret(SECOND);
    assert_eq!(setup.reason(&signed(SECOND)).await, "signature_mismatch", "nobody asked yet");
    assert_eq!(post(&admin, TOKEN), (200, "reloaded\n".to_owned()));
    assert_eq!(setup.reason(&signed(SECOND)).await, "verified", "in force when the answer is there");
    assert_eq!(setup.reason(&signed(FIRST)).await, "signature_mismatch");
    let (_, metrics) = get(&admin, "/metrics");
    assert!(metrics.contains("hookwarden_config_reloads_total{outcome=\"applied\"} 1"), "{metrics}");

    // The word of the scheme is a word; a body is not read, however long it says it is.
    let (status, ..) = ask(&admin, "POST /reload", &[&format!("authorization: bEARER {TOKEN}")]);
    assert_eq!(status, 200);
    let long = [&format!("authorization: Bearer {TOKEN}")[..], "content-length: 999999999999", "expect: 100-continue"];
    assert_eq!(ask(&admin, "POST /reload", &long).0, 200);

    // Many at once share what they need not wait for.
    let answers: Vec<_> = (0..8)
        .map(|_| {
            let admin = admin.clone();
            std::thread::spawn(move || post(&admin, TOKEN).0)
        })
        .collect();
    assert!(answers.into_iter().all(|answer| answer.join().unwrap() == 200));

    process.signal("TERM");
    process.wait_for("stopped");
    assert!(!process.seen.iter().any(|line| line.contains(TOKEN)), "the token is logged");
}

#[tokio::test]
async fn another_token_does_not() {
    let setup = with_token();
    let (mut process, admin) = start(&setup);
    setup.write_secret(SECOND);
    let right = format!("authorization: Bearer {TOKEN}");
    let with_newline = format!("{TOKEN}%0a");
    for headers in [
        &[][..],
        &["authorization: Bearer"],
        &["authorization: Bearer "],
        &["authorization: Bearer a-token-of-this-test-of-40-characters-xy"],
        &[&right[..right.len() - 1]],
        &[&format!("{right}x")],
        &[&format!("authorization: Basic {TOKEN}")],
        &[&format!("authorization: {TOKEN}")],
        &[&format!("authorization: Bearer  {TOKEN}")],
        &[&format!("authorization: Bearer {with_newline}")],
        &[&format!("x-authorization: Bearer {TOKEN}")],
        &[&right[..], &right[..]],
        &[&right[..], "authorization: Bearer another"],
    ] {
        let (status, head, body) = ask(&admin, "POST /reload", headers);
        assert_eq!((status, body.as_str()), (401, ""), "{headers:?}");
        assert!(head.contains("\r\nwww-authenticate: bearer"), "{head}");
    }
    assert_eq!(ask(&admin, &format!("POST /reload?token={TOKEN}"), &[]).0, 401);
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let (status, head, _) = ask(&admin, &format!("{method} /reload"), &[&right]);
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("\r\nallow: post"), "{head}");
    }
    assert_eq!(ask(&admin, "POST /metrics", &[&right]).0, 405);
    assert_eq!(ask(&admin, "POST /reload/", &[&right]).0, 404);
    assert_eq!(setup.reason(&signed(FIRST)).await, "verified", "none of it reloaded");
    process.signal("TERM");
    process.wait_for("stopped");
    assert!(!process.seen.iter().any(|line| line.contains("a-token-of-this-test")), "what was shown is logged");
}

#[test]
fn without_a_token_there_is_no_such_call() {
    let setup = Setup::new();
    let (_process, admin) = start(&setup);
    let unknown = ask(&admin, "POST /elsewhere", &[]);
    for what in ["POST", "GET", "OPTIONS"] {
        let told = ask(&admin, &format!("{what} /reload"), &["authorization: Bearer "]);
        assert_eq!((told.0, &told.2), (404, &unknown.2), "{what}");
    }
}

#[tokio::test]
async fn a_broken_configuration_is_told_and_changes_nothing() {
    let setup = with_token();
    let (_process, admin) = start(&setup);
    setup.write_secret(SECOND);
    let token = ", reload_token: { file: reload-token }";
    configure(
        &setup,
        token,
        "  broken: { provder: github }\n  short: { provider: github, secrets: [{ id: a, inline: s3cr3t }] }\n",
    );
    let (status, body) = post(&admin, TOKEN);
    assert_eq!(status, 422);
    let lines: Vec<&str> = body.lines().collect();
    assert!(
        lines[0].starts_with(
            "hookwarden.yaml:7:13: endpoints.broken.provder: is not a field here; did you mean `provider`?"
        )
    );
    assert_eq!(
        lines[1..],
        ["hookwarden.yaml:8:49: endpoints.short.secrets[0].inline: has 6 bytes; at least 8 are needed, 32 are good"]
    );
    assert_eq!(setup.reason(&signed(FIRST)).await, "verified");
    let (_, metrics) = get(&admin, "/metrics");
    assert!(metrics.contains("hookwarden_config_reloads_total{outcome=\"refused\"} 1"), "{metrics}");

    configure(&setup, token, "");
    assert_eq!(post(&admin, TOKEN).0, 200);
    assert_eq!(setup.reason(&signed(SECOND)).await, "verified");
}

/// The token is a secret like any other: a reload changes it, and takes it away.
#[test]
fn the_token_changes_with_a_reload() {
    let setup = with_token();
    let (_process, admin) = start(&setup);
    std::fs::write(setup.path("reload-token"), "another-token-of-this-test\n").unwrap();
    assert_eq!(post(&admin, "another-token-of-this-test").0, 401);
    assert_eq!(post(&admin, TOKEN).0, 200);
    assert_eq!(post(&admin, TOKEN).0, 401);

    std::fs::write(setup.path("reload-token"), "changeme").unwrap();
    let (status, body) = post(&admin, "another-token-of-this-test");
    assert_eq!(status, 422);
    assert!(body.contains(": listen.reload_token.file: is a placeholder; write"), "{body}");

    configure(&setup, "", "");
    assert_eq!(post(&admin, "another-token-of-this-test").0, 200);
    assert_eq!(post(&admin, "another-token-of-this-test").0, 404);
}
