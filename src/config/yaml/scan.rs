//! A text to a tree of values, and to where everything stands.
//!
//! One parser reads the text, once, event by event. It sets the limits: size, depth, number of nodes, no aliases at all (so no
//! bomb can be written), no repeated keys, no tags, one document. Which plain scalars are numbers, `serde_yaml` says.

use crate::config::problem::{Path, Problem, Step};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_yaml::{Mapping, Number, Value};
use std::collections::{HashMap, HashSet};

/// Longest text, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting.
pub(super) const MAX_DEPTH: usize = 32;
/// Most nodes.
pub(super) const MAX_NODES: usize = 50_000;

/// Where everything stands: line and column, counted from 1.
#[derive(Debug, Default)]
pub struct Positions {
    /// The first is the document.
    places: Vec<Place>,
    /// List items that were taken out, by their place in the text.
    removed: HashSet<Path>,
}

/// Where one node stands, and which of the others are in it. A mapping's value stands at its key.
#[derive(Debug)]
struct Place {
    at: (usize, usize),
    inside: Inside,
}

#[derive(Debug)]
enum Inside {
    /// As in most.
    Nothing,
    Keys(HashMap<String, usize>),
    Items(Vec<usize>),
}

impl Positions {
    /// Where a place is, or else the nearest place around it.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<(usize, usize)> {
        let mut place = self.places.first()?;
        for step in path.steps() {
            let inside = match (&place.inside, step) {
                (Inside::Keys(keys), Step::Key(key)) => keys.get(key),
                (Inside::Items(items), Step::Index(index)) => items.get(*index),
                (Inside::Nothing | Inside::Keys(_) | Inside::Items(_), _) => None,
            };
            let Some(inside) = inside.and_then(|at| self.places.get(*at)) else { break };
            place = inside;
        }
        Some(place.at)
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

    /// Notes that a list item was taken out; `item` is its place in the text.
    pub(super) fn remove(&mut self, item: Path) {
        self.removed.insert(item);
    }

    /// Notes a place, and says which it is.
    fn note(&mut self, at: (usize, usize)) -> usize {
        self.places.push(Place { at, inside: Inside::Nothing });
        self.places.len().saturating_sub(1)
    }
}

/// Goes through the text, once.
pub(super) fn scan(text: &str) -> Result<(Value, Positions), Problem> {
    if text.len() > MAX_BYTES {
        let text = format!("is longer than {MAX_BYTES} bytes");
        return Err(Problem { position: None, path: Path::default(), text });
    }
    if let Some((before, _)) = text.char_indices().find(|(_, c)| !is_printable(*c)) {
        let position = Some(end(text.get(..before).unwrap_or_default()));
        let text = "is not YAML: this character may not stand in one".to_owned();
        return Err(Problem { position, path: Path::default(), text });
    }
    let unbroken = (!text.ends_with(['\n', '\r'])).then(|| text.chars().count());
    let mut scan = Scan { unbroken, ..Scan::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Problem {
            position: Some((error.marker().line(), error.marker().col().saturating_add(1))),
            path: Path::default(),
            text: format!("is not YAML: {}", error.info()),
        })?;
        let position = (span.start.line(), span.start.col().saturating_add(1));
        scan.take(event, span, position).map_err(|text| Problem {
            position: Some(position),
            path: Path::default(),
            text,
        })?;
    }
    Ok((scan.root, scan.positions))
}

/// Whether a character may stand in a text (YAML 1.2, section 5.1).
const fn is_printable(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
    )
}

#[derive(Default)]
struct Scan {
    positions: Positions,
    open: Vec<Open>,
    root: Value,
    nodes: usize,
    documents: usize,
    /// How many characters the text has, where no line break ends it.
    unbroken: Option<usize>,
}

/// A collection that is being read.
struct Open {
    /// Which place it is.
    place: usize,
    read: Collection,
}

enum Collection {
    /// With the key whose value is next, and that value's place.
    Mapping(Mapping, Option<(Value, usize)>),
    Sequence(Vec<Value>),
}

impl Scan {
    fn take(&mut self, event: Event<'_>, span: Span, position: (usize, usize)) -> Result<(), String> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents = self.documents.saturating_add(1);
                if self.documents > 1 {
                    return Err("is a second document; write one".to_owned());
                }
            }
            Event::Alias(_) => return Err("is an alias; write the value out".to_owned()),
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err("has a tag; write the value alone".to_owned());
            }
            Event::Scalar(text, style, ..) => {
                if let Some(around) = self.waits_for_key() {
                    return self.take_key(around, &text, style, position);
                }
                self.place(position);
                self.put(scalar(self.as_written(&text, style, span), style)?);
            }
            Event::SequenceStart(..) => self.enter(Collection::Sequence(Vec::new()), position)?,
            Event::MappingStart(..) => self.enter(Collection::Mapping(Mapping::new(), None), position)?,
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop().map(|open| open.read) {
                Some(Collection::Mapping(mapping, _)) => self.put(Value::Mapping(mapping)),
                Some(Collection::Sequence(items)) => self.put(Value::Sequence(items)),
                None => {}
            },
        }
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES { Err(format!("has more than {MAX_NODES} nodes")) } else { Ok(()) }
    }

    /// A scalar without what the parser adds: to a block whose last line the text does not end, a line break (YAML 1.2,
    /// section 8.1.1.2). Where that line is shorter than the block is indented, it adds none.
    fn as_written<'t>(&self, text: &'t str, style: ScalarStyle, span: Span) -> &'t str {
        let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let is_last = self.unbroken.is_some_and(|last| span.end.index() >= last);
        let is_unbroken = is_block && is_last && span.end.col() >= span.start.col().max(1);
        let added = if is_unbroken { text.strip_suffix('\n') } else { None };
        added.unwrap_or(text)
    }

    /// The place of the mapping in which a key is next, if one is.
    fn waits_for_key(&self) -> Option<usize> {
        let open = self.open.last()?;
        matches!(open.read, Collection::Mapping(_, None)).then_some(open.place)
    }

    fn enter(&mut self, read: Collection, position: (usize, usize)) -> Result<(), String> {
        if self.waits_for_key().is_some() {
            return Err("is a collection used as a key; write a word".to_owned());
        }
        let place = self.place(position);
        if let Some(place) = self.positions.places.get_mut(place) {
            place.inside = match read {
                Collection::Mapping(..) => Inside::Keys(HashMap::new()),
                Collection::Sequence(_) => Inside::Items(Vec::new()),
            };
        }
        self.open.push(Open { place, read });
        if self.open.len() > MAX_DEPTH { Err(format!("is nested deeper than {MAX_DEPTH}")) } else { Ok(()) }
    }

    fn take_key(
        &mut self,
        around: usize,
        text: &str,
        style: ScalarStyle,
        position: (usize, usize),
    ) -> Result<(), String> {
        if text == "<<" {
            return Err("is a merge key; write the fields out".to_owned());
        }
        let place = self.positions.note(position);
        if let Some(Place { inside: Inside::Keys(keys), .. }) = self.positions.places.get_mut(around)
            && keys.insert(text.to_owned(), place).is_some()
        {
            return Err(format!("repeats the key `{text}`"));
        }
        if let Some(Open { read: Collection::Mapping(mapping, key), .. }) = self.open.last_mut() {
            let read = scalar(text, style)?;
            if mapping.contains_key(&read) {
                return Err(format!("repeats a key, as `{text}`"));
            }
            *key = Some((read, place));
        }
        Ok(())
    }

    /// The place of the next value.
    fn place(&mut self, position: (usize, usize)) -> usize {
        match self.open.last() {
            Some(Open { read: Collection::Mapping(_, Some((_, place))), .. }) => *place,
            Some(Open { place: around, .. }) => {
                let (around, item) = (*around, self.positions.note(position));
                if let Some(Place { inside: Inside::Items(items), .. }) = self.positions.places.get_mut(around) {
                    items.push(item);
                }
                item
            }
            None => self.positions.note(position),
        }
    }

    /// Puts a value where it belongs.
    fn put(&mut self, value: Value) {
        match self.open.last_mut().map(|open| &mut open.read) {
            Some(Collection::Mapping(mapping, key)) => {
                if let Some((key, _)) = key.take() {
                    mapping.insert(key, value);
                }
            }
            Some(Collection::Sequence(items)) => items.push(value),
            None => self.root = value,
        }
    }
}

/// A scalar's value. Only a plain one can be anything but text (YAML 1.2, section 10.3.2).
fn scalar(text: &str, style: ScalarStyle) -> Result<Value, String> {
    Ok(match text {
        _ if style != ScalarStyle::Plain => Value::String(text.to_owned()),
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => match text.parse::<Number>() {
            Ok(number) => Value::Number(number),
            Err(_) if is_long_number(text) => return Err("is too long for a number; quote it if it is text".to_owned()),
            Err(_) => Value::String(text.to_owned()),
        },
        _ => Value::String(text.to_owned()),
    })
}

/// Whether a text that is no number of 64 bits is one of 128.
fn is_long_number(text: &str) -> bool {
    let is_word = text.len() > 16 && !text.contains(char::is_whitespace);
    is_word && (serde_yaml::from_str::<u128>(text).is_ok() || serde_yaml::from_str::<i128>(text).is_ok())
}

/// The place behind a text: its line and column, counted from 1.
#[must_use]
pub fn end(text: &str) -> (usize, usize) {
    // The line breaks of YAML 1.2, section 5.4, as the parser counts them.
    let text = text.replace("\r\n", "\n");
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    (text.matches(['\n', '\r']).count().saturating_add(1), last.chars().count().saturating_add(1))
}
