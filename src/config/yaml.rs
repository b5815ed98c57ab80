//! YAML to types, with a position for every place and a problem for every wrong one.
//!
//! Two parsers read the text. The first goes through it event by event and sets the limits: size, depth, number of
//! nodes, no aliases at all (so no bomb can be written), no repeated keys, one document; and it notes where
//! everything stands. Only then does `serde_yaml` build values. Types are filled by serde; when that stops at a wrong
//! place, the place is reported and taken out, and the rest is read again. So one run reports them all.

use super::problem::{Findings, Path, Problem, Step};
use saphyr_parser::{Event, Parser, Span};
use serde::de::DeserializeOwned;
use serde_yaml::Value;
use std::collections::{HashMap, HashSet};

/// Longest text, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 32;
/// Most nodes.
pub const MAX_NODES: usize = 50_000;
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

/// Where everything stands: line and column, counted from 1.
#[derive(Debug, Default)]
pub struct Positions {
    of: HashMap<Path, (usize, usize)>,
    /// List items that were taken out, by their place in the text.
    removed: HashSet<Path>,
}

impl Positions {
    /// Where a place is, or else the nearest place around it.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<(usize, usize)> {
        let mut path = Some(path.clone());
        while let Some(place) = path {
            if let Some(position) = self.of.get(&place) {
                return Some(*position);
            }
            path = place.parent();
        }
        None
    }

    /// The place in the text of a place in the tree, in which lists have closed up over what was taken out.
    #[must_use]
    pub fn in_text(&self, path: &Path) -> Path {
        let mut text = Path::default();
        for step in path.steps() {
            text = match step {
                Step::Key(_) => text.then(step.clone()),
                Step::Index(index) => {
                    let left = (0..).map(|at| text.index(at)).filter(|item| !self.removed.contains(item));
                    left.into_iter().nth(*index).unwrap_or_else(|| text.index(*index))
                }
            };
        }
        text
    }
}

/// Reads a text. The error is one that leaves nothing to read.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<Read<T>, Problem> {
    let mut positions = scan(text)?;
    let mut tree: Value = serde_yaml::from_str(text).map_err(|error| Problem {
        position: error.location().map(|at| (at.line(), at.column())),
        path: Path::default(),
        text: "is not YAML".to_owned(),
    })?;
    if tree.is_null() {
        tree = Value::Mapping(serde_yaml::Mapping::new());
    }
    let mut findings = Findings::default();
    let value = fill(&mut tree, &mut findings, &mut positions);
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
            && path.steps().last() != Some(&Step::Key(field.to_owned()))
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
        if let Some(Step::Index(_)) = place.steps().last() {
            positions.removed.insert(place.clone());
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
    let Some((last, around)) = path.steps().split_last() else { return false };
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

/// Goes through the text once and sets the limits.
fn scan(text: &str) -> Result<Positions, Problem> {
    if text.len() > MAX_BYTES {
        return Err(whole(format!("is longer than {MAX_BYTES} bytes")));
    }
    let mut scan = Scan::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Problem {
            position: Some((error.marker().line(), error.marker().col().saturating_add(1))),
            path: Path::default(),
            text: format!("is not YAML: {}", error.info()),
        })?;
        scan.take(&event, span)?;
    }
    Ok(scan.positions)
}

fn whole(text: String) -> Problem {
    Problem { position: None, path: Path::default(), text }
}

#[derive(Default)]
struct Scan {
    positions: Positions,
    open: Vec<Open>,
    nodes: usize,
    documents: usize,
}

/// A collection that is being read.
enum Open {
    Mapping { path: Path, key: Option<String> },
    Sequence { path: Path, next: usize },
}

impl Scan {
    fn take(&mut self, event: &Event<'_>, span: Span) -> Result<(), Problem> {
        let position = (span.start.line(), span.start.col().saturating_add(1));
        let problem = |text: String| Problem { position: Some(position), path: Path::default(), text };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents = self.documents.saturating_add(1);
                if self.documents > 1 {
                    return Err(problem("is a second document; write one".to_owned()));
                }
            }
            Event::Alias(_) => return Err(problem("is an alias; write the value out".to_owned())),
            Event::Scalar(text, ..) => {
                if self.is_key() {
                    return self.take_key(text, position).map_err(problem);
                }
                self.place(position);
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if self.is_key() {
                    return Err(problem("is a collection used as a key; write a word".to_owned()));
                }
                let path = self.place(position);
                self.open.push(if matches!(event, Event::SequenceStart(..)) {
                    Open::Sequence { path, next: 0 }
                } else {
                    Open::Mapping { path, key: None }
                });
                if self.open.len() > MAX_DEPTH {
                    return Err(problem(format!("is nested deeper than {MAX_DEPTH}")));
                }
            }
            Event::SequenceEnd | Event::MappingEnd => drop(self.open.pop()),
        }
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES { Err(problem(format!("has more than {MAX_NODES} nodes"))) } else { Ok(()) }
    }

    fn is_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Mapping { key: None, .. }))
    }

    fn take_key(&mut self, text: &str, position: (usize, usize)) -> Result<(), String> {
        if let Some(Open::Mapping { path, key }) = self.open.last_mut() {
            if text == "<<" {
                return Err("is a merge key; write the fields out".to_owned());
            }
            *key = Some(text.to_owned());
            if self.positions.of.insert(path.key(text), position).is_some() {
                return Err(format!("repeats the key `{text}`"));
            }
        }
        Ok(())
    }

    /// Notes where the next value stands, and says which one it is. A mapping's value stands at its key.
    fn place(&mut self, position: (usize, usize)) -> Path {
        match self.open.last_mut() {
            Some(Open::Mapping { path, key }) => path.key(&key.take().unwrap_or_default()),
            Some(Open::Sequence { path, next }) => {
                let item = path.index(*next);
                *next = next.saturating_add(1);
                self.positions.of.insert(item.clone(), position);
                item
            }
            None => {
                self.positions.of.insert(Path::default(), position);
                Path::default()
            }
        }
    }
}

/// The place behind a text: its line and column, counted from 1.
#[must_use]
pub fn end(text: &str) -> (usize, usize) {
    // The line breaks of YAML 1.2, section 5.4, as the parser counts them.
    let text = text.replace("\r\n", "\n");
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    (text.matches(['\n', '\r']).count().saturating_add(1), last.chars().count().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        read::<serde_json::Value>(text).unwrap_err().line("f")
    }

    #[test]
    fn bombs_are_refused_before_any_value_is_built() {
        let mut bomb = String::from("a0: &a0 [x]\n");
        for level in 1..30 {
            bomb.push_str(&format!("a{level}: &a{level} [*a{0},*a{0},*a{0}]\n", level - 1));
        }
        assert_eq!(problem(&bomb), "f:2:10: is an alias; write the value out");
        assert!(problem(&"[".repeat(200)).contains("nested deeper than 32"));
        assert!(problem(&"- x\n".repeat(MAX_NODES + 1)).contains("more than 50000 nodes"));
        assert!(problem(&" ".repeat(MAX_BYTES + 1)).contains("longer than 1048576 bytes"));
    }

    #[test]
    fn one_document_and_no_repeated_keys() {
        assert_eq!(problem("a: 1\nb:\n  c: 1\n  c: 2\n"), "f:4:3: repeats the key `c`");
        assert!(problem("a: 1\n---\nb: 2\n").contains("second document"));
        assert!(problem("a: {<<: {b: 1}}\n").contains("merge key"));
        assert!(problem("a: [1\n").contains("is not YAML"));
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
