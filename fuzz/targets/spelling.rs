//! A text that stands for bytes or for a moment: what is read of it is written as it is, so that no signature and no number has
//! a second spelling; and what reads a signature of a known length reads what the other reader reads.
#![no_main]

use hookwarden::scheme::{encoding::Encoding, signature::MAX_TAG, timestamp::Unit};
use hookwarden_fuzz::seeds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::plant(texts()), |text: &[u8]| {
    for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
        read(encoding, text);
    }
    if let Ok(moment) = Unit::Seconds.parse(text) {
        assert_eq!(Unit::Seconds.render(moment).as_bytes(), text);
    }
    if let Ok(moment) = Unit::Milliseconds.parse(text) {
        let seconds = text.len().checked_sub(3).map_or(&b"0"[..], |end| &text[..end]);
        assert_eq!(moment.0.to_string().as_bytes(), if seconds.is_empty() { b"0" } else { seconds });
    }
    if let Ok(moment) = Unit::HttpDate.parse(text) {
        // But for the day of the week, which is not judged, and the case of a name.
        let date = Unit::HttpDate.render(moment);
        assert!(date.as_bytes()[3..].eq_ignore_ascii_case(&text[3..]), "{date}");
    }
    if let Ok(moment) = Unit::Rfc3339.parse(text) {
        let again = Unit::Rfc3339.render(moment);
        assert_eq!(Unit::Rfc3339.parse(again.as_bytes()), Ok(moment), "{again}");
        let shape = |text: &[u8]| -> Vec<bool> { text.iter().take(19).map(u8::is_ascii_digit).collect() };
        assert_eq!(shape(text), shape(again.as_bytes()), "{again}");
        // But for a leap second, which is taken for the one before it.
        if text.ends_with(b"Z") && text[17..19] != *b"60" {
            assert_eq!(text[..19], again.as_bytes()[..19], "{again}");
        }
    }
});

fn read(encoding: Encoding, text: &[u8]) {
    let decoded = encoding.decode(text);
    if let Some(bytes) = &decoded {
        let again = encoding.encode(bytes);
        let same = again.as_bytes() == text;
        let same_digits = encoding == Encoding::Hex && again.as_bytes().eq_ignore_ascii_case(text);
        assert!(same || same_digits, "{encoding:?} {again}");
    }
    for length in 1..=MAX_TAG {
        let mut slot = [0; MAX_TAG];
        let exactly = encoding.decode_exactly(text, &mut slot, length).then_some(&slot[..length]);
        let expected = decoded.as_deref().filter(|bytes| bytes.len() == length);
        assert_eq!(exactly, expected, "{encoding:?} {length}");
    }
}

fn texts() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = (0..=255).cycle().skip(190).take(MAX_TAG).collect();
    let spelled = [Encoding::Hex, Encoding::Base64, Encoding::Base64Url].into_iter();
    let spelled = spelled.flat_map(|encoding| [20, 32, 33, 64].map(|length| encoding.encode(&bytes[..length])));
    let moments = ["1760000000", "1760000000000", "2026-11-24T04:00:00.5+01:00", "Sun, 06 Nov 1994 08:49:37 GMT", "0"];
    spelled.chain(moments.map(str::to_owned)).map(String::into_bytes).collect()
}
