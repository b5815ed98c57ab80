//! The presets: one YAML file each, compiled into the binary, in exactly the words a user may write.
//!
//! Nothing here knows a provider. Adding one is a file beside these and its vectors; `build.rs` finds it.

use crate::config::file;
use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

/// A preset as the build put it into the program.
struct Shipped {
    name: &'static str,
    /// As its file has it, for people.
    text: &'static str,
    /// The same, for the program: to read YAML takes eight times as long, and a third of a start was that.
    json: &'static str,
    /// How many test vectors it has.
    vectors: usize,
}

include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// Names of all presets, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name)
}

fn shipped(name: &str) -> Option<&'static Shipped> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The text of a preset, as its file has it.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    shipped(name).map(|preset| preset.text)
}

/// How many test vectors a preset had when this was built.
#[must_use]
pub fn vectors(name: &str) -> usize {
    shipped(name).map_or(0, |preset| preset.vectors)
}

/// A preset, read anew. It is ten times as large as its text, and nobody keeps it for longer than it takes to compile it.
#[must_use]
pub fn find(name: &str) -> Option<file::Preset> {
    // A test reads every text as strictly as a configuration, and finds in it what this finds in its JSON.
    serde_json::from_str(shipped(name)?.json).ok()
}

/// All presets.
#[must_use]
pub fn all() -> BTreeMap<&'static str, file::Preset> {
    names().filter_map(|name| Some((name, find(name)?))).collect()
}

/// The presets of one configuration while it is compiled: one that several endpoints have is parsed once, and kept until the
/// last of them took it.
#[derive(Debug)]
pub struct Shelf {
    to_come: HashMap<String, usize>,
    parsed: HashMap<String, Rc<file::Preset>>,
}

impl Shelf {
    /// For endpoints of which each has the preset of that name.
    pub fn of<'a>(names: impl Iterator<Item = &'a String>) -> Self {
        let mut to_come = HashMap::new();
        for name in names {
            let count: &mut usize = to_come.entry(name.clone()).or_default();
            *count = count.saturating_add(1);
        }
        Self { to_come, parsed: HashMap::new() }
    }

    /// The preset of the next of these endpoints.
    pub fn take(&mut self, name: &str) -> Option<Rc<file::Preset>> {
        let preset = match self.parsed.get(name) {
            Some(preset) => Rc::clone(preset),
            None => Rc::new(find(name)?),
        };
        match self.to_come.get_mut(name) {
            Some(count) if *count > 1 => {
                *count = count.saturating_sub(1);
                self.parsed.entry(name.to_owned()).or_insert_with(|| Rc::clone(&preset));
            }
            _ => {
                self.parsed.remove(name);
            }
        }
        Some(preset)
    }
}

/// The documentation's table of presets.
#[must_use]
pub fn markdown() -> String {
    let mut table =
        String::from("| preset | provider | what is verified | handshake | evidence |\n|---|---|---|---|---|\n");
    for (name, preset) in all() {
        let handshake = match (preset.challenges.first(), &preset.scheme.ip_lease) {
            (_, Some(lease)) => format!("`?{}=…` grants a lease", lease.query),
            (Some(challenge), _) if challenge.signed == Some(true) => "answered when signed".to_owned(),
            (Some(_), _) => "answered".to_owned(),
            (None, _) => "none".to_owned(),
        };
        let row = [
            format!("`{name}`"),
            preset.title.clone(),
            summary(&preset.scheme),
            handshake,
            grade(preset.evidence).to_owned(),
        ];
        table.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    table
}

/// The spelling of an evidence grade.
#[must_use]
pub const fn grade(evidence: file::EvidenceGrade) -> &'static str {
    match evidence {
        file::EvidenceGrade::Sdk => "sdk",
        file::EvidenceGrade::Docs => "docs",
        file::EvidenceGrade::Recalled => "recalled",
    }
}

/// A scheme in one line.
#[must_use]
pub fn summary(scheme: &file::Scheme) -> String {
    if let Some(mac) = &scheme.hmac {
        return format!("{}: {} over `{}`", place(&mac.signature), hash("HMAC-", mac.hash), shown(&mac.signed_content));
    }
    if let Some(mac) = &scheme.keyed_hash {
        return format!(
            "{}: plain {} over `{}`",
            place(&mac.signature),
            hash("", mac.hash),
            shown(&mac.signed_content)
        );
    }
    if let Some(signature) = &scheme.public_key {
        let algorithm = signature.algorithms.first().map(word).unwrap_or_default();
        return format!("{}: {algorithm} over `{}`", place(&signature.signature), shown(&signature.signed_content));
    }
    if let Some(jwt) = &scheme.jwt {
        let algorithms: Vec<String> = jwt.algorithms.iter().map(word).collect();
        let body = if jwt.body_digest.is_some() { " with the body's digest" } else { "" };
        return format!("a JWT ({}){body}", algorithms.join(", "));
    }
    if let Some(signature) = &scheme.http_signature {
        return format!("HTTP Signature (draft-cavage, RSA) over `{}`", signature.required.join("`, `"));
    }
    if let Some(signature) = &scheme.http_message_signature {
        return format!("HTTP Message Signature (RFC 9421) over `{}`", signature.required.join("`, `"));
    }
    if scheme.token.is_some() {
        return "a shared token".to_owned();
    }
    if scheme.ip_lease.is_some() {
        return "the client's address holds a lease".to_owned();
    }
    if scheme.ip_allow.is_some() {
        return "the client's address is in a network".to_owned();
    }
    if scheme.basic.is_some() {
        return "Basic credentials".to_owned();
    }
    if let Some(cases) = &scheme.cases {
        let mut cases: Vec<String> = cases.iter().map(|case| summary(&case.scheme)).collect();
        cases.dedup();
        return cases.join("; or ");
    }
    let members = scheme.all_of.iter().chain(&scheme.any_of).flatten().map(summary).collect::<Vec<_>>();
    members.join(if scheme.all_of.is_some() { " and " } else { " or " })
}

/// A variant in the configuration's own word.
fn word(variant: &impl std::fmt::Debug) -> String {
    let word = format!("{variant:?}");
    // `RsaPkcs1Sha256` reads as RSA-PKCS1-SHA256.
    word.chars().enumerate().fold(String::new(), |mut text, (at, c)| {
        if at > 0 && c.is_ascii_uppercase() {
            text.push('-');
        }
        text.push(c.to_ascii_uppercase());
        text
    })
}

fn hash(before: &str, hash: file::Hash) -> String {
    format!("{before}{}", format!("{hash:?}").to_ascii_uppercase().replace("SHA", "SHA-").replace("SHA-1", "SHA1"))
        .replace("SHA-", "SHA")
}

/// Where a signature stands.
fn place(signature: &file::Signature) -> String {
    let scheme = signature.auth_scheme.as_ref().map(|word| format!(": {word}")).unwrap_or_default();
    let file::Signature { header, headers, numbered_header, query, form, json, item, .. } = signature;
    let headers = headers.as_ref().map(|headers| headers.join("`, `"));
    let header = header.clone().or(headers).or_else(|| numbered_header.as_ref().map(|stem| format!("{stem}n")));
    match (header, query, form, json.as_ref().or(item.as_ref())) {
        (Some(header), ..) => format!("`{header}{scheme}`"),
        (_, Some(query), ..) => format!("`?{query}=`"),
        (_, _, Some(form), _) => format!("form field `{form}`"),
        (_, _, _, Some(pointer)) => format!("JSON `{pointer}`"),
        _ => "nowhere".to_owned(),
    }
}

/// A template as text of one line, safe in a Markdown table.
fn shown(template: &str) -> String {
    template.replace('\n', "⏎").replace('|', "¦")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    #[test]
    fn a_preset_is_parsed_once_and_kept_for_no_longer_than_it_is_wanted() {
        let [once, twice]: [String; 2] = [0, 1].map(|at| names().nth(at).unwrap().to_owned());
        let mut shelf = Shelf::of([&twice, &once, &twice].into_iter());
        let first = shelf.take(&twice).unwrap();
        let alone = Rc::downgrade(&shelf.take(&once).unwrap());
        assert!(alone.upgrade().is_none(), "nobody else wants it");
        assert!(Rc::ptr_eq(&first, &shelf.take(&twice).unwrap()), "it is on the shelf still");
        let left = Rc::downgrade(&first);
        drop(first);
        assert!(left.upgrade().is_none(), "nobody wants it any more");
        assert!(shelf.take("not a preset").is_none());
    }

    #[test]
    fn every_preset_is_what_a_strict_reader_takes_it_for() {
        for Shipped { name, text, .. } in PRESETS {
            let read = yaml::read::<file::Preset>(text).unwrap();
            assert!(read.findings.problems.is_empty(), "{name}: {:?}", read.findings.problems);
            assert_eq!(format!("{:?}", find(name).unwrap()), format!("{:?}", read.value.unwrap()), "{name}");
        }
    }
}
