//! Messages in and out of a gRPC call.

use bytes::{Buf as _, Bytes};
use std::{fmt, marker::PhantomData};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// What a message becomes, whatever is in it: one that cannot be read is the reader's business and not an error of the
/// call, which the proxy would answer in its own way.
pub(super) trait Read: Send + 'static {
    /// Reads a message. That it is one `Bytes` is what lets every field be a slice of it.
    fn read(message: Bytes) -> Self;
}

/// What knows its own bytes.
pub(super) trait Write: Send + 'static {
    /// Writes them.
    fn write(&self, into: &mut EncodeBuf<'_>);
}

/// `google.protobuf.Empty`, and every message of which nothing is said.
impl Write for () {
    fn write(&self, _: &mut EncodeBuf<'_>) {}
}

/// Reads `In` and writes `Out`.
pub(super) struct Messages<In, Out>(PhantomData<fn(Out) -> In>);

impl<In, Out> Default for Messages<In, Out> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<In, Out> fmt::Debug for Messages<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messages")
    }
}

impl<In: Read, Out: Write> Codec for Messages<In, Out> {
    type Encode = Out;
    type Decode = In;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<In: Read, Out> Decoder for Messages<In, Out> {
    type Item = In;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<In>, Status> {
        Ok(Some(In::read(message.copy_to_bytes(message.remaining()))))
    }
}

impl<In, Out: Write> Encoder for Messages<In, Out> {
    type Item = Out;
    type Error = Status;

    fn encode(&mut self, message: Out, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.write(into);
        Ok(())
    }
}
