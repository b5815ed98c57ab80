//! What the documentation says is what the code does.

use hookwarden::{
    clock::{Clock, UnixSeconds},
    config::{self, Context},
    decision::{Fault, Rejection},
    provider,
};
use std::fs;

fn between(text: &str, marker: &str) -> String {
    let (_, rest) = text.split_once(&format!("<!-- {marker}:begin -->")).unwrap_or_else(|| panic!("no {marker} in it"));
    rest.split_once(&format!("<!-- {marker}:end -->")).unwrap().0.trim().to_owned()
}

#[test]
fn the_provider_table_is_rendered_from_the_presets() {
    let page = fs::read_to_string("docs/providers.md").unwrap();
    assert_eq!(
        between(&page, "providers"),
        provider::markdown().trim(),
        "run `hookwarden providers --format markdown`"
    );
}

#[test]
fn every_reason_is_documented_with_its_status() {
    let readme = fs::read_to_string("README.md").unwrap();
    let table = between(&readme, "reasons");
    let rejections = Rejection::ALL.iter().map(|r| (r.as_str(), "rejection", r.status()));
    let faults = Fault::ALL.iter().map(|f| (f.as_str(), "fault", f.status()));
    // What allows and answers is not refused, and has rows of its own.
    let mut rows = table.lines().skip(2).filter(|row| row.contains("| rejection |") || row.contains("| fault |"));
    for (reason, kind, status) in rejections.chain(faults) {
        let row = rows.next().unwrap_or_else(|| panic!("no row for {reason}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(&cells[1..4], [format!("`{reason}`").as_str(), kind, status.to_string().as_str()], "{row}");
    }
    assert_eq!(rows.next(), None, "a row for a reason that is gone");
}

#[test]
fn every_metric_is_documented() {
    let readme = fs::read_to_string("README.md").unwrap();
    let gate = crate::suite::gate::gate(
        "endpoints: { e: { provider: github, secrets: [{ id: a, inline: a long enough secret }] } }",
        0,
    );
    for line in gate.telemetry.render(&hookwarden::telemetry::Held::default()).lines() {
        if let Some(name) = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()) {
            assert!(readme.contains(&format!("`{name}")), "{name} is not in README.md");
        }
    }
}

/// A proxy that cannot remove headers by prefix names each that hookwarden sets.
#[test]
fn nginx_names_every_trusted_header() {
    for (file, spelling) in [
        ("deploy/nginx/hookwarden_headers.conf", "proxy_set_header x-hookwarden-{} "),
        ("deploy/nginx/hookwarden_headers.conf", "$upstream_http_x_hookwarden_{_}"),
        ("deploy/nginx/njs/nginx.conf", "proxy_set_header x-hookwarden-{} "),
        ("deploy/nginx/njs/nginx.conf", "js_var $hookwarden_{_} "),
        ("deploy/nginx/njs/hookwarden.js", "'{}'"),
        ("deploy/traefik/traefik.yaml", "- x-hookwarden-{}\n"),
    ] {
        let text = fs::read_to_string(file).unwrap().to_lowercase();
        for name in hookwarden::reply::TRUSTED_HEADERS {
            let name = name.strip_prefix(hookwarden::reply::TRUSTED_PREFIX).unwrap();
            let wanted = spelling.replace("{}", name).replace("{_}", &name.replace('-', "_"));
            assert!(text.contains(&wanted), "{file} lacks `{wanted}`");
        }
    }
}

/// Every example of the documentation is a whole configuration.
#[test]
fn every_worked_example_is_read() {
    let text = fs::read_to_string("docs/custom-schemes.md").unwrap();
    let examples: Vec<&str> = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 10);
    let context = Context::new(Clock::fixed(UnixSeconds(1_795_435_200)).now());
    for (at, example) in examples.into_iter().enumerate() {
        if let Err(problems) = config::parse("example", example.as_bytes(), &context) {
            panic!("example {}: {problems}", at + 1);
        }
    }
}
