//! What is signed is read in one way only. Given bytes that a provider signed, and all requests of which these could be the
//! signed content, at most one is taken: else a signature for one delivery would be one for another.
//!
//! The templates are those of the presets, of which every part is somewhere in the request as it is, and a few that no preset
//! has. A timestamp is one that is near enough to now to be believed.
#![no_main]

use hookwarden::{
    clock::UnixSeconds,
    delivery::{Body, Delivery, Headers},
    provider,
    received::{Place, Received},
    scheme::{
        signed_content::{Inputs, Piece, SignedContent, Vocabulary},
        timestamp::Unit,
    },
};
use hookwarden_fuzz::seeds;
use libfuzzer_sys::fuzz_target;
use std::{collections::BTreeSet, sync::LazyLock};

const NOW: i64 = 1_760_000_000;
const UNITS: [Unit; 3] = [Unit::Seconds, Unit::Milliseconds, Unit::Rfc3339];
/// Longer contents have nothing to show that shorter ones have not, and too many ways to be read.
const LONGEST: usize = 160;
const METHOD: &str = "POST";
const OWN: [&str; 3] =
    ["{header:id}{timestamp}{method}{body}", "{header:id}{method}{body}", "{header:id}{timestamp}.{body}"];

static TEMPLATES: LazyLock<Vec<(String, SignedContent)>> = LazyLock::new(templates);

fuzz_target!(init: seeds::plant(contents()), |input: &[u8]| {
    let Some((number, content)) = input.split_first() else { return };
    if content.len() > LONGEST {
        return;
    }
    let number = usize::from(*number);
    let (name, template) = &TEMPLATES[number % TEMPLATES.len()];
    let unit = UNITS[number / TEMPLATES.len() % UNITS.len()];
    let mut ways = Vec::new();
    part(template.pieces(), content, unit, &mut Vec::new(), &mut ways);
    let taken: BTreeSet<&Vec<&[u8]>> = ways.iter().filter(|values| is_taken(template, values, content, unit)).collect();
    assert!(taken.len() <= 1, "{name} can be read in several ways: {taken:?}");
});

/// Every way to part `content` among pieces, with timestamps that would be believed.
fn part<'c>(
    pieces: &[Piece],
    content: &'c [u8],
    unit: Unit,
    values: &mut Vec<&'c [u8]>,
    ways: &mut Vec<Vec<&'c [u8]>>,
) {
    match pieces {
        [] if content.is_empty() => ways.push(values.clone()),
        [] => {}
        [piece @ (Piece::Literal(_) | Piece::Method), rest @ ..] => {
            let text = if let Piece::Literal(text) = piece { text } else { METHOD };
            if let Some(content) = content.strip_prefix(text.as_bytes()) {
                part(rest, content, unit, values, ways);
            }
        }
        [piece, rest @ ..] => {
            let first = if rest.is_empty() { content.len() } else { 0 };
            for end in first..=content.len() {
                if *piece == Piece::Timestamp && !is_now(unit, &content[..end]) {
                    continue;
                }
                values.push(&content[..end]);
                part(rest, &content[end..], unit, values, ways);
                values.pop();
            }
        }
    }
}

fn is_now(unit: Unit, timestamp: &[u8]) -> bool {
    unit.parse(timestamp).is_ok_and(|moment| moment.0.abs_diff(NOW) <= 300)
}

/// Whether the request with these values is one of which `content` is signed.
fn is_taken(template: &SignedContent, values: &[&[u8]], content: &[u8], unit: Unit) -> bool {
    let pieces = template.pieces().iter().filter(|piece| !matches!(piece, Piece::Literal(_) | Piece::Method));
    let (mut lines, mut timestamp, mut body) = (Vec::new(), &[][..], &[][..]);
    for (piece, value) in pieces.zip(values) {
        match piece {
            Piece::At(Place::Header(name)) => lines.push((name.as_bytes(), *value)),
            Piece::Timestamp => timestamp = value,
            _ => body = value,
        }
    }
    let believed = !template.contains(&Piece::Timestamp) || is_now(unit, timestamp);
    let delivery = Delivery {
        method: METHOD,
        target: "/",
        host: "hooks.example.com",
        headers: Headers::from_lines(lines),
        body: Body::Whole(body),
        peer: None,
        route_endpoint: None,
    };
    let received = Received::new(&delivery, body);
    let inputs = Inputs { timestamp, ..Inputs::default() };
    believed && template.resolve(&received, inputs).is_ok_and(|pieces| pieces.concat() == content)
}

/// The templates of presets in which a sender writes more than the body, and all of it as it is signed.
fn templates() -> Vec<(String, SignedContent)> {
    let readable = |piece: &Piece| {
        matches!(
            piece,
            Piece::Literal(_) | Piece::Method | Piece::Body | Piece::Timestamp | Piece::At(Place::Header(_))
        )
    };
    let own = OWN
        .iter()
        .filter_map(|text| Some(((*text).to_owned(), SignedContent::parse(text, Vocabulary::default()).ok()?)));
    let mut found: Vec<(String, SignedContent)> = own.collect();
    for name in provider::names() {
        let preset: serde_yaml::Value =
            serde_yaml::from_str(provider::text(name).unwrap_or_default()).expect("it is YAML");
        let mut texts = Vec::new();
        search(&preset, &mut texts);
        for text in texts {
            let Ok(template) = SignedContent::parse(&text, Vocabulary::default()) else { continue };
            let parts = template.pieces().iter().filter(|piece| !matches!(piece, Piece::Literal(_))).count();
            let known = found.iter().any(|(_, other)| *other == template);
            if parts > 1 && !known && template.pieces().iter().all(readable) {
                found.push((text, template));
            }
        }
    }
    found
}

fn search(value: &serde_yaml::Value, into: &mut Vec<String>) {
    match value {
        serde_yaml::Value::Mapping(fields) => {
            for (name, value) in fields {
                if name == "signed_content" {
                    into.extend(value.as_str().map(str::to_owned));
                }
                search(value, into);
            }
        }
        serde_yaml::Value::Sequence(items) => items.iter().for_each(|item| search(item, into)),
        _ => {}
    }
}

/// One for each template and unit.
fn contents() -> Vec<Vec<u8>> {
    let all = UNITS.iter().flat_map(|unit| TEMPLATES.iter().map(move |(_, template)| (unit, template)));
    all.enumerate()
        .map(|(number, (unit, template))| {
            let value = |piece: &Piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Method => METHOD.to_owned(),
                // With a moment that is as good as the other one.
                Piece::Body => format!("{{\"a\":\"b.c{}POST\"}}", unit.render(UnixSeconds(NOW + 1))),
                Piece::Timestamp => unit.render(UnixSeconds(NOW)),
                _ => "msg_1".to_owned(),
            };
            let content: String = template.pieces().iter().map(value).collect();
            [&[u8::try_from(number).unwrap_or(0)], content.as_bytes()].concat()
        })
        .collect()
}
