//! How a text of lines becomes another one. Bytes are changed as libFuzzer changes them; but that a line comes twice, is
//! missing, or stands elsewhere, it would seldom come upon by itself, and that is what both senders and operators do.

use crate::chance::Chance;
use libfuzzer_sys::fuzzer_mutate;

/// Changes `data`, of which `size` bytes are there and `max_size` may be, and says how many are there afterwards.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut chance = Chance::new(seed);
    if size == 0 || chance.one_in(2) {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut lines: Vec<Vec<u8>> = data[..size].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (one, other) = (chance.below(lines.len()), chance.below(lines.len()));
    match chance.below(7) {
        0 => lines.insert(other, lines[one].clone()),
        1 => drop(lines.remove(one)),
        2 => lines.swap(one, other),
        // What stands behind a colon is what stands behind another one.
        3 => {
            if let (Some(to), Some(from)) = (colon(&lines[one]), colon(&lines[other])) {
                let value = lines[other][from..].to_vec();
                lines[one].truncate(to);
                lines[one].extend(value);
            }
        }
        4 => drop(lines[one].splice(0..0, vec![b' '; chance.below(6)])),
        5 => {
            let text = lines[one].iter().position(|byte| *byte != b' ').unwrap_or(0);
            lines[one].drain(..text);
        }
        _ => within(&mut lines[one], max_size.saturating_sub(size)),
    }
    let changed = lines.concat();
    let length = changed.len().min(max_size);
    data[..length].copy_from_slice(&changed[..length]);
    length
}

fn colon(line: &[u8]) -> Option<usize> {
    line.windows(2).position(|pair| pair == b": ").map(|at| at + 2)
}

/// Changes one line and leaves it one: a change anywhere in a long text is mostly one of its body.
fn within(line: &mut Vec<u8>, room: usize) {
    let (end, most) = (line.ends_with(b"\n"), line.len() + room);
    line.truncate(line.len() - usize::from(end));
    let length = line.len();
    line.resize(most.max(1), 0);
    let length = fuzzer_mutate(line, length, most.max(1));
    line.truncate(length);
    line.extend(end.then_some(b'\n'));
}
