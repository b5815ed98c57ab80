//! Frames of HTTP/2 (RFC 9113, sections 4 and 6), as bytes. What is said with them is not told here.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
/// Of `DATA` and `HEADERS`.
pub(super) const END_STREAM: u8 = 1;
/// Of `DATA`.
pub(super) const PADDED: u8 = 8;
/// Of `HEADERS`.
pub(super) const END_HEADERS: u8 = 4;
/// Of `SETTINGS` and `PING`.
pub(super) const ACK: u8 = 1;
/// Why a stream is reset.
pub(super) const CANCEL: u32 = 8;

/// What the other end says of itself.
pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a frame may have, and a window, where the other end says nothing.
pub(super) const FRAME: usize = 16 << 10;
pub(super) const WINDOW: i64 = 65_535;
const HEAD: usize = 9;

pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of these bytes, if it is whole.
    pub(super) fn first_of(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let payload = rest.get(..usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?)?;
        Some(Self { kind, flags, stream: u32::from_be_bytes(stream) & !(1 << 31), payload })
    }

    pub(super) fn length(&self) -> usize {
        HEAD + self.payload.len()
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number that is all of its payload.
    pub(super) fn number(&self) -> i64 {
        self.payload.first_chunk().map_or(0, |four| i64::from(u32::from_be_bytes(*four)))
    }

    /// What `SETTINGS` say.
    pub(super) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload
            .as_chunks::<6>()
            .0
            .iter()
            .map(|[a, b, value @ ..]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value)))
    }
}

/// What goes before a payload.
pub(super) fn head(output: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    output.extend_from_slice(&[a, b, c, kind, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
}

/// A frame of four bytes.
pub(super) fn number(output: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    head(output, 4, kind, 0, stream);
    output.extend_from_slice(&number.to_be_bytes());
}
