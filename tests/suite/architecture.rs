//! The walls of the house.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms of a check: they compute, and reach for nothing.
const PURE: &[&str] = &[
    "src/check.rs",
    "src/delivery.rs",
    "src/endpoint.rs",
    "src/challenge.rs",
    "src/scheme.rs",
    "src/scheme/",
    "src/admission.rs",
    "src/decision.rs",
    "src/received.rs",
    "src/replay.rs",
    "src/clock.rs",
    "src/secret.rs",
];
/// What a pure room may not name: transport, runtime, configuration's shape, telemetry, files, the network, clocks.
const FORBIDDEN: &[&str] = &[
    "tonic",
    "prost",
    "envoy_types",
    "tokio",
    "serde",
    "serde_json",
    "serde_yaml",
    "prometheus",
    "tracing",
    "axum",
    "redb",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "std::thread",
    "crate::config",
    "crate::store",
    "crate::telemetry",
    "crate::ext_authz",
    "crate::server",
    "crate::cli",
    "crate::provider",
    "SystemTime",
    "Instant::now",
];

fn sources() -> Vec<PathBuf> {
    fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(Path::new("src"), &mut paths);
    paths.sort();
    paths
}

/// A file's code: no comments, and nothing from its tests on.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn the_core_is_pure() {
    let is_pure = |path: &Path| PURE.iter().any(|room| path.starts_with(room) || path == Path::new(room));
    let pure: Vec<_> = sources().into_iter().filter(|path| is_pure(path)).collect();
    assert!(pure.len() > 15, "the rooms moved: {pure:?}");
    for path in pure {
        for (number, line) in code(&path).iter().enumerate() {
            // The two callers of a clock are the only ones there are, and the linter watches them.
            let clock = path == Path::new("src/clock.rs") && (line.contains("SystemTime") || line.contains("Instant"));
            let word = FORBIDDEN.iter().find(|word| {
                line.match_indices(**word).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = line[at + word.len()..].chars().next();
                    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                    !inside(before) && !inside(after)
                })
            });
            assert!(clock || word.is_none(), "{}:{}: {}", path.display(), number + 1, line.trim());
        }
    }
}

/// Names of presets that are words too.
const WORDS: &[&str] =
    &["box", "close", "front", "line", "linear", "meta", "persona", "segment", "square", "unit", "wise"];

#[test]
fn no_provider_is_named_in_rust() {
    for path in sources() {
        for (number, line) in code(&path).iter().enumerate() {
            // What stands between quotation marks; a name could be nowhere else and do anything.
            let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let words: Vec<String> = quoted
                .iter()
                .flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_'))
                .map(str::to_lowercase)
                .collect();
            for provider in hookwarden::provider::names().filter(|name| !WORDS.contains(name)) {
                assert!(!words.iter().any(|word| word == provider), "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn a_file_is_one_room() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} has no sign at its door", path.display());
        let lines = code(&path).len();
        assert!(lines <= 600, "{} has {lines} lines above its tests", path.display());
    }
}

#[test]
fn secrets_are_never_compared_as_text() {
    for path in sources() {
        for (number, line) in code(&path).iter().enumerate() {
            assert!(!(line.contains("expose()") && line.contains("==")), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}
