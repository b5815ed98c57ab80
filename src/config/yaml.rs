//! YAML to types, with a position for every place and a problem for every wrong one.
//!
//! [`scan`] makes a tree of values of the text, within limits, and notes where everything stands. Types are filled by serde;
//! when that stops at a wrong place, the place is reported and taken out, and the rest is read again. So one run reports
//! them all.

mod scan;

pub use scan::{Positions, end};

use super::problem::{Findings, Path, Problem, Step};
use scan::scan;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

/// Most problems reported of one file.
const MAX_PROBLEMS: usize = 200;

/// What reading gave.
#[derive(Debug)]
pub struct Read<T> {
    /// The value, of what could be read; nothing when too little was left.
    pub value: Option<T>,
    /// What was wrong.
    pub findings: Findings,
    /// Where everything stands.
    pub positions: Positions,
}

/// Reads a text. The error is one that leaves nothing to read.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<Read<T>, Problem> {
    let (mut tree, mut positions) = scan(text)?;
    if tree.is_null() {
        tree = Value::Mapping(Mapping::new());
    }
    let mut findings = Findings::default();
    // Mostly nothing is wrong; to follow where it might be takes as long again.
    let value = T::deserialize(&tree).ok().or_else(|| fill(&mut tree, &mut findings, &mut positions));
    Ok(Read { value, findings, positions })
}

/// Fills a `T` from the tree, taking out what is wrong until the rest fits.
fn fill<T: DeserializeOwned>(tree: &mut Value, findings: &mut Findings, positions: &mut Positions) -> Option<T> {
    let mut removed: Vec<Path> = Vec::new();
    while findings.problems.len() < MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, T>(&*tree) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let mut path: Path = error.path().iter().filter_map(step).collect();
        if let Some(field) = unknown_field(&message)
            && path.last() != Some(&Step::Key(field.to_owned()))
        {
            path = path.key(field);
        }
        // A place that now lacks what was taken out of it is not wrong itself; it just goes too.
        let place = positions.in_text(&path);
        let consequence =
            message.starts_with("missing field") && removed.iter().any(|gone| gone.parent().as_ref() == Some(&place));
        if !consequence {
            let position = positions.find(&place);
            findings.problems.push(Problem { position, path: place.clone(), text: rephrase(&message) });
        }
        if !remove(tree, &path) {
            return None;
        }
        if let Some(Step::Index(_)) = place.last() {
            positions.remove(place.clone());
        }
        removed.push(place);
    }
    None
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

/// Serde's sentence, as this project speaks, and without the value: it may be a secret in the wrong place.
fn rephrase(message: &str) -> String {
    if let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        let kind: String = found.chars().take_while(|c| !matches!(c, '"' | '`')).collect();
        let expected = if expected.starts_with("struct ") { "a mapping" } else { expected };
        return format!("is {}; write {expected}", article(kind.trim()));
    }
    if let Some(field) = unknown_field(message) {
        let known = message.split_once("expected ").map_or("nothing", |(_, known)| known.trim_start_matches("one of "));
        let nearest = nearest(field, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return format!("is not a field here{nearest} Known are: {known}").replace("here Known", "here. Known");
    }
    if let Some(variant) = message.strip_prefix("unknown variant `") {
        let known = variant.rsplit_once("expected ").map_or("", |(_, known)| known.trim_start_matches("one of "));
        return format!("is not one of {known}");
    }
    if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        return format!("needs `{field}`");
    }
    message.to_owned()
}

fn article(kind: &str) -> String {
    match kind {
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit value" => "empty".to_owned(),
        "integer" => "an integer".to_owned(),
        kind => format!("a {kind}"),
    }
}

/// The known word that looks most like `field`, if one looks alike at all.
fn nearest<'k>(field: &str, known: &'k str) -> Option<&'k str> {
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|word| (distance(field, word), word))
        .filter(|(distance, word)| *distance <= word.len().min(field.len()).div_ceil(3))
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        let mut next = vec![left];
        for (y, above) in b.bytes().zip(row.iter().skip(1)) {
            left =
                (above.saturating_add(1)).min(left.saturating_add(1)).min(diagonal.saturating_add(usize::from(x != y)));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// Takes a place out of the tree. The root cannot be.
fn remove(tree: &mut Value, path: &Path) -> bool {
    let steps = path.steps();
    let Some((last, around)) = steps.split_last() else { return false };
    let mut place = tree;
    for step in around {
        let inner = match (step, place) {
            (Step::Key(key), Value::Mapping(mapping)) => mapping.get_mut(key.as_str()),
            (Step::Index(index), Value::Sequence(sequence)) => sequence.get_mut(*index),
            _ => None,
        };
        let Some(inner) = inner else { return false };
        place = inner;
    }
    match (last, place) {
        (Step::Key(key), Value::Mapping(mapping)) => mapping.remove(key.as_str()).is_some(),
        (Step::Index(index), Value::Sequence(sequence)) => {
            let there = *index < sequence.len();
            there.then(|| sequence.remove(*index)).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        scan::{MAX_BYTES, MAX_NODES},
        *,
    };

    fn problem(text: &str) -> String {
        read::<serde_json::Value>(text).unwrap_err().line("f")
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x]\n");
        for level in 1..30 {
            bomb.push_str(&format!("a{level}: &a{level} [*a{0},*a{0},*a{0}]\n", level - 1));
        }
        assert_eq!(problem(&bomb), "f:2:10: is an alias; write the value out");
        assert!(problem(&"[".repeat(200)).contains("nested deeper than 32"));
        assert!(problem(&"- x\n".repeat(MAX_NODES + 1)).contains("more than 50000 nodes"));
        let keys: String = (0..MAX_NODES - 10).map(|at| format!("{at:x}z: 1\n")).collect();
        assert!(read::<Value>(&keys).is_ok(), "a key and its value are one node");
        assert!(problem(&" ".repeat(MAX_BYTES + 1)).contains("longer than 1048576 bytes"));
    }

    #[test]
    fn one_document_and_no_repeated_keys() {
        assert_eq!(problem("a: 1\nb:\n  c: 1\n  c: 2\n"), "f:4:3: repeats the key `c`");
        assert!(problem("a: 1\n---\nb: 2\n").contains("second document"));
        assert_eq!(problem("1: 1\n0x1: 2\n"), "f:2:1: repeats a key, as `0x1`");
        assert_eq!(problem("a: 1\n'a': 2\n"), "f:2:1: repeats the key `a`");
        assert!(problem("a: {<<: {b: 1}}\n").contains("merge key"));
        for c in ['\0', '\u{1b}', '\u{7f}', '\u{80}', '\u{fffe}'] {
            assert_eq!(
                problem(&format!("a: é\nb: 'é{c}'\n")),
                "f:2:6: is not YAML: this character may not stand in one"
            );
        }
        assert!(problem("a: [1\n").contains("is not YAML"));
    }

    #[test]
    fn values_are_those_that_serde_yaml_reads() {
        let words = "~ null Null nULL true TRUE tRUE no off 1 +1 -1 --1 01 0 -0 0x1F +0x1f -0x1f 0o17 0b101 1_000 1e3 1.5 \
            .5 5. +.5 -.5 1. 0.0 .inf -.INF +.inf .nan -.nan inf NaN infinity 5m 10MiB ...a 18446744073709551615 \
            340282366920938463463374607431768211456 1e400 12:30 2026-12-01T00:00:00Z é";
        let others = ["", "'true'", "\"1\"", "1 2", "a b", "'it''s'", "\"\\u00e9\\n\""];
        for text in words.split(' ').chain(others) {
            for text in
                [text.to_owned(), format!("a: {text}\nb:\n- {text}\n- x\n"), format!("? {text}\n: |\n  a\n   b\n")]
            {
                let read = read::<Value>(&text);
                let expected = serde_yaml::from_str::<Value>(&text);
                // Where there is nothing, there is a mapping without members.
                let expected = if text.is_empty() || expected.as_ref().is_ok_and(Value::is_null) {
                    Value::Mapping(Mapping::new())
                } else {
                    expected.unwrap()
                };
                assert_eq!(format!("{:?}", read.unwrap().value.unwrap()), format!("{expected:?}"), "{text}");
            }
        }
        // Of these serde_yaml says that the whole text is not YAML.
        for text in ["18446744073709551616", "-9223372036854775809", "0x1ffffffffffffffff"] {
            assert_eq!(problem(&format!("a: {text}\n")), "f:1:4: is too long for a number; quote it if it is text");
        }
        for text in [
            "a: |\n  x",
            "a: |\n  x\n ",
            "a: |\n  x\n  ",
            "a: |+\n  x\n\n ",
            "a: |\n  x\n   ",
            "a: --- 12345678901234567",
            "a: >\n  x\n  y",
            "a: |+\n  x",
            "a: |-\n  x",
            "- |\n x\n\n\n",
            "- |+\n x\n\n\n",
            "- |\n é\n- |\n é",
        ] {
            let read = read::<Value>(text).unwrap().value.unwrap();
            assert_eq!(read, serde_yaml::from_str::<Value>(text).unwrap(), "{text:?}");
        }
        assert_eq!(problem("a: !!str 1\n"), "f:1:4: has a tag; write the value alone");
        assert_eq!(problem("a: !secret [x]\n"), "f:1:4: has a tag; write the value alone");
    }

    #[test]
    fn lines_end_as_yaml_says() {
        for (text, place) in
            [("", (1, 1)), ("a: é", (1, 5)), ("a\nb\r\ncd", (3, 3)), ("a\rb\n\rc", (4, 2)), ("a\r", (2, 1))]
        {
            assert_eq!(end(text), place, "{text:?}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("secrts", "`secrets`, `scheme`"), Some("secrets"));
        assert_eq!(nearest("zzz", "`secrets`, `scheme`"), None);
    }
}
