//! One gRPC call with one message each way, as the check is asked.
//!
//! A general server decodes, limits, compresses and interrupts calls in layers that a check does not need, and answers
//! what it dislikes with a gRPC error, which a proxy can be told to let through. This reads the one message of a call into
//! one piece, charges its bytes as they arrive, and leaves every complaint to a well-formed answer. What the protocol asks
//! of a server beside that is the grpc-timeout of a call, which here bounds the check and not the time that the message takes
//! to come.
//!
//! Wire format: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use super::response::CheckResponse;
use crate::{
    decision::{Denial, Fault, Rejection},
    gate::budget::Charge,
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// Before every message: whether it is compressed, and its length in four bytes.
pub(super) const PREFIX: usize = 5;
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");
const STATUS_OK: HeaderValue = HeaderValue::from_static("0");

/// The message of a call, in one piece. Where it came in one frame, as all but long ones do, it is a part of that.
pub(super) async fn message<B>(mut body: B, limit: usize, charge: &mut Charge) -> Result<Bytes, Denial>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut all = BytesMut::new();
    loop {
        // A stream that breaks off is not answered, whatever is said here.
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(Rejection::RequestMalformed.into()),
            None => break,
        };
        let Ok(data) = frame.into_data() else { continue };
        if !charge.take(data.len()) {
            return Err(Fault::Overloaded.into());
        }
        if all.is_empty() {
            if body.is_end_stream() {
                return Ok(content(data, limit)?);
            }
            all.reserve(expected(&data, limit)?.max(data.len()));
        }
        all.extend_from_slice(&data);
        // No more is kept than was announced and may be.
        if all.len() > expected(&all, limit)?.max(PREFIX) {
            return Err(Rejection::RequestMalformed.into());
        }
    }
    Ok(content(all.freeze(), limit)?)
}

/// How long a call's bytes are, as soon as they say so.
fn expected(call: &[u8], limit: usize) -> Result<usize, Rejection> {
    let Some([compressed, length @ ..]) = call.first_chunk::<PREFIX>() else { return Ok(0) };
    if *compressed != 0 {
        return Err(Rejection::RequestMalformed);
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limit { Err(Rejection::BodyTooLarge) } else { Ok(length.saturating_add(PREFIX)) }
}

/// The message, of all bytes of a call.
fn content(mut call: Bytes, limit: usize) -> Result<Bytes, Rejection> {
    if call.len() < PREFIX || call.len() != expected(&call, limit)? {
        return Err(Rejection::RequestMalformed);
    }
    call.advance(PREFIX);
    Ok(call)
}

/// How long the caller waits, where it says so: at most eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.as_bytes();
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount.saturating_mul(3600))),
        b'M' => Some(Duration::from_secs(amount.saturating_mul(60))),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// An answer that went well.
pub(super) fn reply(answer: CheckResponse) -> Response<Reply> {
    let mut response = Response::new(Reply::Message(answer.framed()));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// What is sent back.
#[derive(Debug)]
pub(super) enum Reply {
    /// A message with its prefix, which is still to be sent.
    Message(Bytes),
    /// That all went well, which is.
    Status,
    /// Nothing more.
    Over,
    /// What another service sends.
    Other(tonic::body::Body),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match &mut *self {
            Self::Other(body) => return Pin::new(body).poll_frame(context),
            Self::Over => return Poll::Ready(None),
            Self::Message(_) | Self::Status => {}
        }
        Poll::Ready(match std::mem::replace(&mut *self, Self::Over) {
            Self::Message(message) => {
                *self = Self::Status;
                Some(Ok(Frame::data(message)))
            }
            Self::Status => Some(Ok(Frame::trailers(HeaderMap::from_iter([(STATUS, STATUS_OK)])))),
            Self::Over | Self::Other(_) => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Status => false,
            Self::Over => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Message(_) | Self::Status | Self::Over => SizeHint::default(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// What another service answers.
pub(super) fn other(response: Result<Response<tonic::body::Body>, Infallible>) -> Response<Reply> {
    let Ok(response) = response;
    response.map(Reply::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::budget::Budget;
    use http_body_util::StreamBody;

    fn call(length: u32, message: &[u8]) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes(), message].concat()
    }

    /// What comes of a call whose bytes arrive in pieces.
    async fn read(call: &[u8], piece: usize, budget: usize) -> Result<Bytes, Denial> {
        let frames: Vec<_> =
            call.chunks(piece).map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
        message(StreamBody::new(tokio_stream::iter(frames)), 1000, &mut Budget::new(budget).open()).await
    }

    #[tokio::test]
    async fn a_message_is_the_same_however_its_bytes_arrive() {
        for length in [0, 1, 4, 5, 6, 999, 1000] {
            let text = vec![b'x'; length];
            let call = call(u32::try_from(length).unwrap(), &text);
            for piece in [1, 2, 4, 5, 6, 7, 100, 2000] {
                assert_eq!(read(&call, piece, 5000).await.as_deref(), Ok(&*text), "{length} {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_one_whole_message_is_refused() {
        let malformed = Err(Rejection::RequestMalformed.into());
        let mut compressed = call(3, b"abc");
        compressed[0] = 1;
        let twice = [call(3, b"abc"), call(3, b"abc")].concat();
        for call in [&b""[..], &[0, 0], &call(4, b"abc"), &call(2, b"abc"), &compressed, &twice] {
            for piece in [1, 4, 5, 100] {
                assert_eq!(read(call, piece, 5000).await, malformed, "{call:?} {piece}");
            }
        }
        for piece in [1, 5, 6, 5000] {
            let long = call(1001, &[b'x'; 1001]);
            assert_eq!(read(&long, piece, 5000).await, Err(Rejection::BodyTooLarge.into()));
            let announced = call(u32::MAX, b"");
            assert_eq!(read(&announced, piece, 5000).await, Err(Rejection::BodyTooLarge.into()));
            assert_eq!(read(&call(900, &[b'x'; 900]), piece, 600).await, Err(Fault::Overloaded.into()));
        }
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(read("200m"), Some(Duration::from_millis(200)));
        assert_eq!(read("1S"), Some(Duration::from_secs(1)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for odd in ["", "m", "100", "-1m", "+1m", "1 m", "123456789m", "1x"] {
            assert_eq!(read(odd), None, "{odd:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
