//! The command line, as a person meets it.

use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

const NOW: &str = "1760000000";
const CONFIGURATION: &str = r#"
endpoints:
  hub:
    match: { path: /hub }
    provider: github
    secrets:
      - { id: main, inline: a secret of this test }
      - { id: other, inline: another secret of this test, tags: { mode: test } }
  pay:
    match: { path: /pay }
    provider: stripe
    secrets: [{ id: live, inline: a secret of this test }]
  sheet:
    match: { path: /sheet }
    provider: smartsheet
    secrets: [{ id: main, inline: a secret of this test }]
  things:
    match: { path: /things }
    provider: smartthings
    public_keys: [{ id: "/SmartThings/*", file: key.pub.pem, format: pem }]
  leased:
    match: { path: /leased }
    provider: verify-token
    secrets: [{ id: token, inline: 0123456789abcdef0123 }]
"#;

fn hookwarden(arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookwarden"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone before it is written.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hookwarden.yaml"), CONFIGURATION).unwrap();
    std::fs::write(folder.path().join("key.pub.pem"), include_str!("../fixtures/rsa-2048.pub.pem")).unwrap();
    folder
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn told(output: &Output) -> String {
    format!(
        "exit {}\n{}{}",
        output.status.code().unwrap(),
        stdout(output),
        std::str::from_utf8(&output.stderr).unwrap()
    )
}

fn verify(folder: &Path, request: &str, more: &[&str]) -> (i32, Value) {
    let arguments = [&["verify", "--config", "hookwarden.yaml", "--request", "-", "--now", NOW], more].concat();
    let output = hookwarden(&arguments, folder, request);
    let decision = serde_json::from_str(stdout(&output)).unwrap_or_else(|_| panic!("{}", told(&output)));
    (output.status.code().unwrap(), decision)
}

fn sign(folder: &Path, more: &[&str]) -> String {
    let output = hookwarden(
        &[&["sign", "--config", "hookwarden.yaml", "--now", NOW, "--format", "json"], more].concat(),
        folder,
        "",
    );
    assert!(output.status.success(), "{}", told(&output));
    stdout(&output).to_owned()
}

#[test]
fn words_for_people() {
    let folder = folder();
    let mut text = String::new();
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["check", "--help"],
        &["sign", "--help"],
        &["send", "--help"],
        &["verify", "--help"],
        &["check", "--config", "hookwarden.yaml"],
        &["check", "--config", "nowhere.yaml"],
        &["providers", "nobody"],
        &["sign", "--config", "hookwarden.yaml", "--endpoint", "nobody", "--url", "https://x/"],
        &[
            "sign",
            "--config",
            "hookwarden.yaml",
            "--endpoint",
            "hub",
            "--url",
            "https://x/hub",
            "--body",
            "{}",
            "--secret",
            "nobody",
        ],
        &["sign", "--config", "hookwarden.yaml", "--endpoint", "things", "--url", "https://x/things", "--body", "{}"],
        &["sign", "--config", "hookwarden.yaml", "--endpoint", "hub", "--url", "https://x/hub", "--challenge"],
        &["sign", "--provider", "github", "--url", "https://x/hub"],
        &["verify", "--config", "hookwarden.yaml", "--request", "nowhere.json"],
        &["verify", "--config", "hookwarden.yaml", "--request", "-", "--endpoint", "nobody"],
        &[
            "sign",
            "--config",
            "hookwarden.yaml",
            "--endpoint",
            "pay",
            "--url",
            "https://x/pay",
            "--body",
            "{}",
            "--now",
            NOW,
        ],
        &[
            "sign",
            "--config",
            "hookwarden.yaml",
            "--endpoint",
            "hub",
            "--url",
            "https://x/hub",
            "--body",
            "it's",
            "--format",
            "curl",
        ],
    ] {
        text.push_str(&format!(
            "$ hookwarden {}\n{}\n",
            arguments.join(" "),
            told(&hookwarden(arguments, folder.path(), ""))
        ));
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("cli", text);
    });
}

#[test]
fn what_is_signed_verifies_and_what_is_changed_does_not() {
    let folder = folder();
    let folder = folder.path();
    for (endpoint, secret) in [("hub", "main"), ("hub", "other"), ("pay", "live"), ("sheet", "main")] {
        let url = format!("https://hooks.example.com/{endpoint}");
        let request = sign(folder, &["--endpoint", endpoint, "--secret", secret, "--url", &url, "--body", "{\"a\":1}"]);
        let (code, decision) = verify(folder, &request, &[]);
        assert_eq!(
            (code, &decision["decision"], &decision["secret_id"]),
            (0, &json!("allow"), &json!(secret)),
            "{decision}"
        );
        let mut changed: Value = serde_json::from_str(&request).unwrap();
        changed["body"] = json!("{\"a\":2}");
        let (code, decision) = verify(folder, &changed.to_string(), &[]);
        assert_eq!((code, &decision["reason"]), (11, &json!("signature_mismatch")), "{endpoint}");
    }
}

#[test]
fn handshakes_are_made_and_answered() {
    let folder = folder();
    let folder = folder.path();
    let request = sign(folder, &["--endpoint", "sheet", "--url", "https://h/sheet", "--challenge"]);
    let (code, decision) = verify(folder, &request, &[]);
    assert_eq!((code, &decision["decision"], &decision["status"]), (10, &json!("answer"), &json!(200)));
    let mut request: Value =
        serde_json::from_str(&sign(folder, &["--endpoint", "leased", "--url", "https://h/leased", "--challenge"]))
            .unwrap();
    request["client_ip"] = json!("203.0.113.7");
    let (code, decision) = verify(folder, &request.to_string(), &[]);
    assert_eq!(
        (code, &decision["reason"], &decision["body"]),
        (10, &json!("lease_granted"), &json!("{\"status\":\"success\"}"))
    );
    let (code, decision) =
        verify(folder, r#"{"method":"POST","url":"https://h/leased","client_ip":"203.0.113.7"}"#, &[]);
    assert_eq!((code, &decision["reason"]), (11, &json!("lease_missing")));
    let (_, decision) = verify(folder, r#"{"method":"POST","url":"https://h/elsewhere"}"#, &[]);
    assert_eq!(decision["reason"], json!("unknown_endpoint"));
    let (_, decision) = verify(folder, r#"{"method":"POST","url":"https://h/elsewhere"}"#, &["--endpoint", "hub"]);
    assert_eq!(decision["reason"], json!("signature_missing"));
}

#[test]
fn requests_sign_with_private_keys() {
    use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
    let folder = folder();
    let key = rsa::PrivateKey::new(&mut getrandom::rand_core::UnwrapErr(getrandom::SysRng), 2048).unwrap();
    std::fs::write(folder.path().join("key.pub.pem"), key.to_public_key().to_public_key_pem(LineEnding::LF).unwrap())
        .unwrap();
    std::fs::write(folder.path().join("key.pem"), key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
    let signed = [
        "--endpoint",
        "things",
        "--url",
        "https://h/things?q=1",
        "--body",
        "{}",
        "--private-key",
        "key.pem",
        "--key-id",
        "/SmartThings/ab:cd",
    ];
    let request = sign(folder.path(), &signed);
    let (code, decision) = verify(folder.path(), &request, &[]);
    assert_eq!((code, &decision["verified_by"]), (0, &json!("signature")), "{decision}");
    let mut changed: Value = serde_json::from_str(&request).unwrap();
    changed["body"] = json!("{ }");
    assert_eq!(verify(folder.path(), &changed.to_string(), &[]).1["reason"], json!("digest_mismatch"));
}

#[test]
fn lists_and_completions() {
    let folder = folder();
    let list = hookwarden(&["providers", "--format", "json"], folder.path(), "");
    let list: Vec<Value> = serde_json::from_str(stdout(&list)).unwrap();
    assert!(list.iter().any(|preset| preset["name"] == "smartsheet" && preset["handshake"] == true));
    let shown = hookwarden(&["providers", "webex"], folder.path(), "");
    assert!(stdout(&shown).contains("X-Spark-Signature"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&hookwarden(&["completions", shell], folder.path(), "")).contains("hookwarden"));
    }
    let schema: Value = serde_json::from_str(stdout(&hookwarden(&["schema"], folder.path(), ""))).unwrap();
    assert_eq!(schema["title"], "hookwarden.yaml");
}

/// Whatever has a local secret can be signed for, and what is signed verifies.
#[test]
fn every_preset_with_a_secret_signs_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let mut signed = 0;
    for (name, endpoint) in crate::suite::vector::endpoints() {
        // An address cannot be signed, and private keys are tested above.
        if name == "verify-token" || endpoint.get("public_keys").is_some() {
            continue;
        }
        let url = endpoint["public_url"].as_str().map_or_else(|| format!("https://h.example/{name}"), str::to_owned);
        let configuration = json!({ "endpoints": { "e": endpoint } }).to_string();
        std::fs::write(folder.path().join("e.yaml"), configuration).unwrap();
        let of = ["--config", "e.yaml", "--endpoint", "e", "--now", NOW];
        let sign = |body: &[&str]| {
            let arguments = [&["sign", "--format", "json", "--url", &url][..], &of, body].concat();
            hookwarden(&arguments, folder.path(), "")
        };
        // Some sign parts of a JSON body, some of a form or of XML; without a body each makes its own.
        let request = [sign(&["--body", "{\"a\":1}"]), sign(&[])].into_iter().find(|made| made.status.success());
        let request = request.unwrap_or_else(|| panic!("{name} cannot be signed for"));
        std::fs::write(folder.path().join("r.json"), &request.stdout).unwrap();
        let verified = hookwarden(&[&["verify", "--request", "r.json"][..], &of].concat(), folder.path(), "");
        assert_eq!(verified.status.code(), Some(0), "{name}: {}", stdout(&verified));
        signed += 1;
    }
    assert!(signed >= 180, "{signed}");
}
