//! What the access log service reads and writes.

use super::outcomes::Entries;
use bytes::Buf as _;
use prost::Message as _;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Reads entries, whatever is in them, and writes nothing: `google.protobuf.Empty` and every message of which nothing is
/// said are alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entering;

impl Codec for Entering {
    type Encode = ();
    type Decode = Entries;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Entering {
    type Item = Entries;
    type Error = Status;

    /// One message that cannot be read is no reason to lose those that follow.
    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Entries>, Status> {
        Ok(Some(Entries::decode(message.copy_to_bytes(message.remaining())).unwrap_or_default()))
    }
}

impl Encoder for Entering {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}
