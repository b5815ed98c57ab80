//! Configurations that somebody broke, while the ones before them are in force.
//!
//! Each mutation of a good file is loaded here, and each one that is refused is put before a real process that answers
//! checks all the while: nothing it decides may change, and every problem must have a place in the text.

use crate::suite::{
    places::misplaced,
    process::{Process, Setup, ask, signed},
};
use hookwarden::{
    clock::{Clock, UnixSeconds},
    config::{self, Context},
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// How many are refused before it is enough.
const REFUSED: usize = 10_000;
const TOKEN: &str = "a-token-of-this-test-of-40-characters-xx";
const SECRET: &str = "the first secret of this test";

/// Words that mean something in YAML or to us, and values that are nearly right.
const WORDS: &[&str] = &[
    "&a ",
    "*a",
    "!!binary ",
    "!x ",
    "<<: *a",
    "\t",
    "\0",
    "\u{feff}",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "|\n",
    ">-\n",
    "? ",
    "- ",
    ": ",
    ":",
    "#",
    "\"",
    "\'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\r",
    "\u{85}",
    "~",
    "null",
    "true",
    "0x",
    "1e999",
    "-0",
    "99999999999999999999999999",
    "5m",
    "-5m",
    "5.5m",
    "25GiB",
    "provider",
    "secrets",
    "secrets: []",
    "github",
    "stripe",
    "gitlub",
    "mode: observe",
    "2026-13-01T00:00:00Z",
    "unix:///",
    "0.0.0.0:0",
    "127.0.0.1:99999",
    "file:///etc/passwd",
    "{ env: HOME }",
    "scheme: { hmac: {} }",
    "on_duplicate: deny",
    "redis://x",
    "é",
    "\u{202e}",
    "\u{1F600}",
];

#[derive(Debug, Clone)]
enum Change {
    /// One bit of one byte.
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Cut(prop::sample::Index),
    RemoveLine(prop::sample::Index),
    RepeatLine(prop::sample::Index),
    SwapLines(prop::sample::Index, prop::sample::Index),
    Indent(prop::sample::Index, usize),
    Unindent(prop::sample::Index),
    /// What stands behind a colon is another word.
    Value(prop::sample::Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let word = || prop::sample::select(WORDS);
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), word()).prop_map(|(at, word)| Change::Insert(at, word)),
        at().prop_map(Change::Cut),
        at().prop_map(Change::RemoveLine),
        at().prop_map(Change::RepeatLine),
        (at(), at()).prop_map(|(one, other)| Change::SwapLines(one, other)),
        (at(), 1..6_usize).prop_map(|(at, by)| Change::Indent(at, by)),
        at().prop_map(Change::Unindent),
        (at(), word()).prop_map(|(at, word)| Change::Value(at, word)),
    ]
}

impl Change {
    fn apply(&self, bytes: Vec<u8>) -> Vec<u8> {
        if bytes.is_empty() {
            return bytes;
        }
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let count = lines.len();
        match self {
            Self::Flip(at, bit) => {
                let mut bytes = bytes;
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                return bytes;
            }
            Self::Insert(at, word) => {
                let mut bytes = bytes;
                let at = at.index(bytes.len());
                bytes.splice(at..at, word.bytes());
                return bytes;
            }
            Self::Cut(at) => return bytes[..at.index(bytes.len())].to_vec(),
            Self::RemoveLine(at) => drop(lines.remove(at.index(lines.len()))),
            Self::RepeatLine(at) => {
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
            }
            Self::SwapLines(one, other) => lines.swap(one.index(count), other.index(count)),
            Self::Indent(at, by) => drop(lines[at.index(count)].splice(0..0, vec![b' '; *by])),
            Self::Unindent(at) => {
                let line = &mut lines[at.index(count)];
                let text = line.iter().position(|b| *b != b' ').unwrap_or(0);
                line.drain(..text);
            }
            Self::Value(at, word) => {
                let line = &mut lines[at.index(count)];
                if let Some(colon) = line.windows(2).position(|pair| pair == b": ") {
                    let end = line.len() - usize::from(line.ends_with(b"\n"));
                    line.splice(colon + 2..end, word.bytes());
                }
            }
        }
        lines.concat()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_loaded_in_vain_changes_nothing_and_says_where_it_is_wrong() {
    let setup = Setup::new();
    let inside = |name: &str| setup.path(name).display().to_string();
    std::fs::write(setup.path("reload-token"), TOKEN).unwrap();
    let good = format!(
        r#"# A comment
listen:
  ext_authz: "unix://{}"
  admin: 127.0.0.1:0
  reload_token: {{ file: {} }}
limits: {{ body: 26MiB, bodies_in_flight: 128MiB, deadline: 4s }}
watch: false
outcome_timeout: 30s
outcomes: access_log
client_ip: {{ forwarded_for: {{ trusted_hops: 1 }} }}
endpoints:
  hub:
    provider: github
    on_duplicate: mark
    secrets:
    - {{ id: main, file: {}, until: 2999-01-01T00:00:00Z }}
    - {{ id: old, inline: another secret of this test, tags: {{ mode: old }} }}
  stripe:
    match: {{ host: hooks.example.com, path: /stripe/* }}
    provider: stripe
    tolerance: 5m
    secrets: [{{ id: a, file: {} }}]
  house:
    match: {{ path: /house }}
    scheme:
      hmac:
        hash: sha256
        signed_content: "{{header:x-ts}}.{{body}}"
        signature: {{ header: x-sig, prefix: "v1=", encoding: hex }}
        timestamp: {{ header: x-ts, unit: s, tolerance: 5m }}
    secrets: [{{ id: a, inline: a secret of the house }}]
"#,
        inside("socket"),
        inside("reload-token"),
        inside("secret"),
        inside("secret"),
    );
    std::fs::write(setup.path("hookwarden.yaml"), &good).unwrap();
    let mut process = Process::start(setup.folder.path());
    let admin = process.wait_for("ready")["admin"].as_str().unwrap().to_owned();

    // Somebody asks all the while.
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut client = setup.client().await;
    let asking = tokio::spawn({
        let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
        async move {
            let mut changed: HashMap<String, usize> = HashMap::new();
            let (honest, forged) = (signed(SECRET), signed("nobody's secret, surely"));
            while !over.load(Ordering::Relaxed) {
                for (question, expected) in [(&honest, "verified"), (&forged, "signature_mismatch")] {
                    let check = question.check(crate::suite::gate::FORMS[0]);
                    let told = client
                        .check(check)
                        .await
                        .map(|r| crate::suite::gate::Seen::of(r.into_inner()).reason().to_owned());
                    let told = told.unwrap_or_else(|status| status.to_string());
                    if told != expected {
                        *changed.entry(told).or_default() += 1;
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
            changed
        }
    });

    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let changes = prop::collection::vec(change(), 1..4);
    let context = Context::new(Clock::fixed(UnixSeconds(1_760_000_000)).now());
    let (mut refused, mut harmless, mut wrong) = (0, 0, Vec::new());
    while refused < REFUSED {
        let changes = changes.new_tree(&mut runner).unwrap().current();
        let text = changes.iter().fold(good.clone().into_bytes(), |text, change| change.apply(text));
        if config::parse("hookwarden.yaml", &text, &context).is_ok() {
            harmless += 1;
            continue;
        }
        refused += 1;
        std::fs::write(setup.path("hookwarden.yaml"), &text).unwrap();
        let (address, header) = (admin.clone(), format!("authorization: Bearer {TOKEN}"));
        let (status, _, answer) =
            tokio::task::spawn_blocking(move || ask(&address, "POST /reload", &[&header])).await.unwrap();
        assert_eq!(status, 422, "{changes:?}\n{answer}");
        if let Some(line) = misplaced(&answer, &text) {
            wrong.push(format!("{line:?} of {changes:?}"));
        }
    }
    over.store(true, Ordering::Relaxed);
    let changed = asking.await.unwrap();
    println!(
        "measured: {refused} broken configurations were refused and {harmless} harmless ones left out; {} checks \
         meanwhile, {} of them changed; {} problems without a place",
        asked.load(Ordering::Relaxed),
        changed.values().sum::<usize>(),
        wrong.len()
    );
    assert!(changed.is_empty(), "{changed:?}");
    assert!(asked.load(Ordering::Relaxed) > REFUSED / 10);
    assert!(wrong.is_empty(), "{}", wrong[..wrong.len().min(20)].join("\n"));

    std::fs::write(setup.path("hookwarden.yaml"), &good).unwrap();
    let last = ask(&admin, "POST /reload", &[&format!("authorization: Bearer {TOKEN}")]);
    assert_eq!((last.0, last.2.as_str()), (200, "reloaded\n"));
}
