//! How a question becomes another one that is still nearly well-formed. A byte that is changed somewhere in a message mostly
//! breaks a length, and nothing behind it is ever read; here the fields are changed and the lengths made to fit again.

use crate::chance::Chance;
use libfuzzer_sys::fuzzer_mutate;

/// The way from a question to every message within it that a check reads, in tags.
const MESSAGES: &[&[u32]] = &[
    &[1],
    &[1, 1],
    &[1, 1, 1],
    &[1, 1, 1, 1],
    &[1, 4],
    &[1, 4, 2],
    &[1, 4, 2, 3],
    &[1, 4, 2, 13],
    &[1, 4, 2, 13, 1],
    &[1, 10],
];
const TAGS: &[u32] = &[1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 500, (1 << 29) - 1];
/// Deeper than anybody reads.
const DEEP: usize = 102;

#[derive(Debug, Clone)]
enum Value {
    /// A message that is taken apart.
    Message(Vec<Field>),
    Bytes(Vec<u8>),
    Number(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    /// So many groups within each other.
    Group(usize),
}

#[derive(Debug, Clone)]
struct Field {
    tag: u32,
    value: Value,
}

/// Changes `data`, of which `size` bytes are there and `max_size` may be, and says how many are there afterwards.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut chance = Chance::new(seed);
    let fields = if chance.one_in(4) { None } else { read(&data[..size], &mut Vec::new()) };
    let Some(mut fields) = fields else { return fuzzer_mutate(data, size, max_size) };
    for _ in 0..=chance.below(3) {
        let at = chance.below(count(&fields) + 1);
        change(&mut fields, at, &mut chance);
    }
    let mut changed = Vec::new();
    write(&fields, &mut changed, &mut chance);
    let length = changed.len().min(max_size);
    data[..length].copy_from_slice(&changed[..length]);
    length
}

/// Takes a message apart, if it is whole. Groups are not: they are only ever added.
fn read(mut bytes: &[u8], way: &mut Vec<u32>) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let tag = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Fixed64(*take(&mut bytes, 8)?.first_chunk()?),
            5 => Value::Fixed32(*take(&mut bytes, 4)?.first_chunk()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let value = take(&mut bytes, length)?;
                way.push(tag);
                let inner = if MESSAGES.contains(&way.as_slice()) { read(value, way) } else { None };
                way.pop();
                inner.map_or_else(|| Value::Bytes(value.to_vec()), Value::Message)
            }
            _ => return None,
        };
        fields.push(Field { tag, value });
    }
    Some(fields)
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field], into: &mut Vec<u8>, chance: &mut Chance) {
    for Field { tag, value } in fields {
        let key = |kind| u64::from(*tag) << 3 | kind;
        let mut bytes = |bytes: &[u8], chance: &mut Chance| {
            write_varint(key(2), into, chance);
            write_varint(u64::try_from(bytes.len()).unwrap_or(0), into, chance);
            into.extend_from_slice(bytes);
        };
        match value {
            Value::Message(inner) => {
                let mut message = Vec::new();
                write(inner, &mut message, chance);
                bytes(&message, chance);
            }
            Value::Bytes(text) => bytes(text, chance),
            Value::Number(number) => {
                write_varint(key(0), into, chance);
                write_varint(*number, into, chance);
            }
            Value::Fixed64(value) => {
                write_varint(key(1), into, chance);
                into.extend_from_slice(value);
            }
            Value::Fixed32(value) => {
                write_varint(key(5), into, chance);
                into.extend_from_slice(value);
            }
            Value::Group(depth) => {
                for kind in [3, 4] {
                    for _ in 0..*depth {
                        write_varint(key(kind), into, chance);
                    }
                }
            }
        }
    }
}

/// Now and then in more bytes than are needed, which is allowed.
fn write_varint(mut value: u64, into: &mut Vec<u8>, chance: &mut Chance) {
    let mut more = if chance.one_in(256) { chance.below(11) } else { 0 };
    while value >= 0x80 || more > 0 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
        more = more.saturating_sub(1);
    }
    into.push(value.to_le_bytes()[0]);
}

fn count(fields: &[Field]) -> usize {
    fields.iter().map(|field| if let Value::Message(inner) = &field.value { 1 + count(inner) } else { 1 }).sum()
}

/// Changes the field at this place, counted through all messages; adds one where there is none.
fn change(fields: &mut Vec<Field>, mut place: usize, chance: &mut Chance) {
    for at in 0..fields.len() {
        if place == 0 {
            return change_here(fields, at, chance);
        }
        place -= 1;
        if let Value::Message(inner) = &mut fields[at].value {
            let within = count(inner);
            if place < within {
                return change(inner, place, chance);
            }
            place -= within;
        }
    }
    fields.push(Field { tag: *chance.of(TAGS), value: any(chance) });
}

fn change_here(fields: &mut Vec<Field>, at: usize, chance: &mut Chance) {
    let other = chance.below(fields.len());
    let field = &mut fields[at];
    match chance.below(9) {
        0 => fields.insert(other, fields[at].clone()),
        1 => drop(fields.remove(at)),
        2 => fields.swap(at, other),
        3 => field.tag = *chance.of(TAGS),
        4 => field.value = any(chance),
        5 => fields.insert(at, Field { tag: *chance.of(TAGS), value: any(chance) }),
        // One message becomes two of the same tag, which are to be read as one.
        6 => {
            if let Value::Message(inner) = &mut field.value {
                let rest = inner.split_off(chance.below(inner.len() + 1));
                let tag = field.tag;
                fields.insert(at + 1, Field { tag, value: Value::Message(rest) });
            }
        }
        7 => {
            if let Value::Message(inner) = &mut field.value {
                inner.push(Field { tag: *chance.of(TAGS), value: any(chance) });
            }
        }
        _ => match &mut field.value {
            Value::Bytes(bytes) => {
                let (length, most) = (bytes.len(), bytes.len() + 32);
                bytes.resize(most, 0);
                let length = fuzzer_mutate(bytes, length, most);
                bytes.truncate(length);
            }
            value => *value = any(chance),
        },
    }
}

fn any(chance: &mut Chance) -> Value {
    match chance.below(8) {
        0 => Value::Number(chance.number() >> chance.below(64)),
        1 => Value::Fixed32(*chance.number().to_le_bytes().first_chunk().expect("there are eight")),
        2 => Value::Fixed64(chance.number().to_le_bytes()),
        3 => Value::Group(if chance.one_in(2) { 1 } else { DEEP - chance.below(5) }),
        4 => Value::Message(Vec::new()),
        5 => Value::Bytes(b"endpoint".to_vec()),
        // No UTF-8.
        6 => Value::Bytes(vec![0xff; chance.below(4)]),
        _ => Value::Bytes(vec![b'a'; chance.below(200)]),
    }
}
