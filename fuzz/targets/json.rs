//! JSON, after a line that is a pointer into it: the tree that refuses repeated keys, the reader that looks for one word only,
//! and `serde_json`'s own tree say the same, where each of them says anything.
#![no_main]

use hookwarden::json::{Json, skim};
use hookwarden_fuzz::seeds;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(init: seeds::plant(texts()), |input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (pointer, text) = input.split_at(end);
    let Ok(pointer) = std::str::from_utf8(pointer) else { return };
    let theirs: Option<Value> = serde_json::from_slice(text).ok();
    match (Json::parse(text), theirs) {
        (Some(ours), Some(theirs)) => {
            assert!(same(&ours, &theirs), "{ours:?} {theirs:?}");
            assert_eq!(skim(text, pointer), ours.scalar_at(pointer).map(std::borrow::Cow::into_owned), "{pointer}");
            if is_plain(pointer) {
                assert_eq!(ours.at(pointer).is_some(), theirs.pointer(pointer).is_some(), "{pointer}");
            }
        }
        (Some(ours), None) => panic!("{ours:?} is read where nothing can be"),
        // Then a key comes twice. Without its repetition the same text is read.
        (None, Some(theirs)) => {
            let once = serde_json::to_vec(&theirs).expect("a tree can be written");
            assert!(once != text.trim_ascii(), "what has no repeated key is refused");
            assert!(Json::parse(&once).is_some_and(|ours| same(&ours, &theirs)));
        }
        // A word may be in a text of which the rest is never looked at, but nothing may panic.
        (None, None) => drop(skim(text, pointer)),
    }
});

/// RFC 6901 knows one spelling of an index. Pointers are the operator's here, and others are let be.
fn is_plain(pointer: &str) -> bool {
    let plain = |token: &str| token == "0" || !token.starts_with(['0', '+']);
    (pointer.is_empty() || pointer.starts_with('/')) && pointer.split('/').all(plain)
}

fn same(ours: &Json, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Boolean(ours), Value::Bool(theirs)) => ours == theirs,
        (Json::Text(ours), Value::String(theirs)) => ours == theirs,
        (Json::Integer(ours), Value::Number(theirs)) => ours.to_string() == theirs.to_string(),
        (Json::Other, Value::Number(theirs)) => theirs.is_f64(),
        (Json::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            let pairs = ours.iter().zip(theirs);
            ours.len() == theirs.len()
                && pairs.into_iter().all(|(ours, theirs)| ours.0 == *theirs.0 && same(&ours.1, theirs.1))
        }
        _ => false,
    }
}

fn texts() -> Vec<Vec<u8>> {
    [
        &br#"/a/b/1/c
{"a":{"b":[0,{"c":"deep"}]},"n":12,"o":{"n":"other"},"x":[]}"#[..],
        b"/m~1n~0/0\n{\"m/n~\":[true,null,-1.5e3,18446744073709551615,-9223372036854775808,\"\\u00e9\\ud83d\\ude00\"]}",
        b"/a\n{\"a\":1,\"b\":{\"a\":2},\"a\":3}",
        b"\n\"word\"",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}
