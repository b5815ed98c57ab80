//! Protocol Buffers, written.
//!
//! A response is a dozen short texts. As a tree of owned messages, a map among them, it would cost more to build than the
//! question costs to read; so it is written as it is said. What comes out is held against Envoy's own definitions by every
//! test that asks over gRPC.

use super::grpc::PREFIX;
use bytes::Bytes;

/// A message that is being written, behind the room for what gRPC puts before it.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

impl Message {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&[0; PREFIX]);
        Self(bytes)
    }

    /// The message behind its prefix: not compressed, and so long.
    pub(super) fn framed(mut self) -> Bytes {
        let length = length(self.0.len().saturating_sub(PREFIX));
        if let Some([_, announced @ ..]) = self.0.first_chunk_mut::<PREFIX>() {
            *announced = length.to_be_bytes();
        }
        self.0.into()
    }

    /// An `int32` or an `enum` that is not negative.
    pub(super) fn number(&mut self, tag: u8, value: u32) {
        self.tag(tag, VARINT);
        self.varint(value);
    }

    /// A `string`.
    pub(super) fn text(&mut self, tag: u8, text: &str) {
        self.tag(tag, LENGTH_DELIMITED);
        self.varint(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A message within this one.
    pub(super) fn message(&mut self, tag: u8, write: impl FnOnce(&mut Self)) {
        self.tag(tag, LENGTH_DELIMITED);
        // Most are shorter than 128 bytes, and their length is one byte; a longer one moves up for the rest of it.
        let at = self.0.len();
        self.0.push(0);
        let begin = self.0.len();
        write(self);
        let mut written = length(self.0.len().saturating_sub(begin));
        let mut more = at.saturating_add(1);
        while written >= 0x80 {
            let [low, ..] = written.to_le_bytes();
            if let Some(byte) = self.0.get_mut(more.saturating_sub(1)) {
                *byte = low | 0x80;
            }
            self.0.insert(more, 0);
            more = more.saturating_add(1);
            written >>= 7;
        }
        let [low, ..] = written.to_le_bytes();
        if let Some(byte) = self.0.get_mut(more.saturating_sub(1)) {
            *byte = low;
        }
    }

    fn tag(&mut self, tag: u8, kind: u8) {
        // Tags below 16 are one byte, and there are no others here.
        self.0.push(tag.wrapping_shl(3) | kind);
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.0.push(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.0.push(low);
    }
}

/// Lengths of messages are far below 4 GiB: replies are the configuration's.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
    use prost::Message as _;

    /// Messages of every length that needs another byte for its length are read back as they were written.
    #[test]
    fn what_is_written_is_what_is_read() {
        for size in [0, 1, 100, 119, 120, 121, 127, 128, 129, 16_370, 16_383, 16_384, 16_400, 2_097_151, 2_097_152] {
            let text = "x".repeat(size);
            let mut message = Message::with_capacity(0);
            for name in ["one", "two"] {
                message.message(1, |entry| {
                    entry.text(1, name);
                    entry.message(2, |value| value.text(3, &text));
                });
            }
            let framed = message.framed();
            let (prefix, bytes) = framed.split_at(PREFIX);
            assert_eq!(prefix[1..], u32::try_from(bytes.len()).unwrap().to_be_bytes());
            let read = Struct::decode(bytes).unwrap();
            let value = Value { kind: Some(Kind::StringValue(text)) };
            assert_eq!(read.fields, [("one".to_owned(), value.clone()), ("two".to_owned(), value)].into(), "{size}");
            assert_eq!(read.encoded_len(), bytes.len(), "in the shortest form: {size}");
        }
        for number in [0, 1, 127, 128, 503, u32::MAX >> 1] {
            let mut message = Message::with_capacity(0);
            message.number(1, number);
            let read = envoy_types::pb::google::rpc::Status::decode(&message.framed()[PREFIX..]).unwrap();
            assert_eq!(read.code, i32::try_from(number).unwrap());
        }
    }
}
