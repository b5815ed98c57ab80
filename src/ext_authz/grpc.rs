//! One gRPC call with one message each way, as the check is asked.
//!
//! A general server decodes, limits, compresses and interrupts calls in layers that a check does not need, and answers
//! what it dislikes with a gRPC error, which a proxy can be told to let through. This reads the one message of a call into
//! one piece, charges its bytes as they arrive, and leaves every complaint to a well-formed answer. What the protocol asks
//! of a server beside that is the grpc-timeout of a call, which runs from its headers on: the time that a message takes to
//! come is a part of it.
//!
//! Wire format: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use super::response::CheckResponse;
use crate::{
    decision::{Denial, Fault, Rejection},
    gate::budget::Charge,
};
use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

/// Before every message: whether it is compressed, and its length in four bytes.
pub(super) const PREFIX: usize = 5;
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");
const STATUS_OK: HeaderValue = HeaderValue::from_static("0");
const STATUS_UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

/// The one message of a call, while it comes.
#[derive(Debug)]
pub(super) struct Reading<B> {
    body: B,
    /// What has come of a message that is in several frames.
    all: BytesMut,
    limit: usize,
    charge: Charge,
}

impl<B: Body<Data = Bytes> + Unpin> Reading<B> {
    /// Reads a message of at most `limit` bytes, and charges them as they come.
    pub(super) fn new(body: B, limit: usize, charge: Charge) -> Self {
        Self { body, all: BytesMut::new(), limit, charge }
    }

    /// How much of a message that is not whole has come.
    pub(super) fn length(&self) -> usize {
        self.all.len()
    }

    /// What was charged, once it is read.
    pub(super) fn into_charge(self) -> Charge {
        self.charge
    }

    /// The message in one piece; nothing where the call breaks off, of which nobody waits for an answer. Where a message came
    /// in one frame, as all but long ones do, it is a part of that.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Denial>>> {
        Poll::Ready(Some(loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(None),
                None => break content(std::mem::take(&mut self.all).freeze(), self.limit).map_err(Denial::from),
            };
            let Ok(data) = frame.into_data() else { continue };
            if !self.charge.take(data.len()) {
                break Err(Fault::Overloaded.into());
            }
            if self.all.is_empty() && self.body.is_end_stream() {
                break content(data, self.limit).map_err(Denial::from);
            }
            if let Err(rejection) = self.keep(&data) {
                break Err(rejection.into());
            }
        }))
    }

    /// No more is kept than was announced and may be.
    fn keep(&mut self, data: &[u8]) -> Result<(), Rejection> {
        if self.all.is_empty() {
            self.all.reserve(expected(data, self.limit)?.max(data.len()));
        }
        self.all.extend_from_slice(data);
        if self.all.len() > expected(&self.all, self.limit)?.max(PREFIX) {
            return Err(Rejection::RequestMalformed);
        }
        Ok(())
    }
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

/// Sends an answer: a message, and that all went well.
pub(super) fn reply(answer: CheckResponse, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(answer.framed(), false)?;
    stream.send_trailers(HeaderMap::from_iter([(STATUS, STATUS_OK)]))
}

/// What `doing` comes to; nothing once the caller takes his call back, as `taken_back` says.
pub(super) async fn unless_taken_back<T>(
    mut taken_back: impl FnMut(&mut Context<'_>) -> Poll<Result<Reason, h2::Error>>,
    mut doing: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|context| match doing.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => taken_back(context).map(|_| None),
    })
    .await
}

/// The bytes of a call, for services that read them as any other body.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    data_is_over: bool,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, data_is_over: false }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_is_over {
            if let Some(data) = ready!(self.stream.poll_data(context)) {
                return Poll::Ready(Some(data.and_then(|data| {
                    self.stream.flow_control().release_capacity(data.len())?;
                    Ok(Frame::data(data))
                })));
            }
            self.data_is_over = true;
        }
        self.stream.poll_trailers(context).map(|trailers| trailers.transpose().map(|read| read.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// Sends what another service answers, for as long as it has something to say and is listened to, and until `stop` comes back
/// while it has not.
pub(super) async fn forward(
    answer: Response<tonic::body::Body>,
    mut respond: SendResponse<Bytes>,
    stop: impl Future<Output = ()>,
) -> Result<(), h2::Error> {
    let (head, mut body) = answer.into_parts();
    let is_all = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_all)?;
    if is_all {
        return Ok(());
    }
    let mut stop = pin!(stop);
    loop {
        let next = async {
            tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = &mut stop => Some(Ok(Frame::trailers(HeaderMap::from_iter([(STATUS, STATUS_UNAVAILABLE)])))),
            }
        };
        // Such answers are a few bytes, now and then: no more are held back than HTTP/2 does by itself.
        let Some(Some(Ok(frame))) = unless_taken_back(|context| stream.poll_reset(context), pin!(next)).await else {
            return stream.send_data(Bytes::new(), true);
        };
        match frame.into_data() {
            Ok(data) => stream.send_data(data, false)?,
            Err(other) => {
                if let Ok(trailers) = other.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::budget::Budget;
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    fn call(length: u32, message: &[u8]) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes(), message].concat()
    }

    /// What comes of a call whose bytes arrive in pieces.
    async fn read(call: &[u8], piece: usize, budget: usize) -> Result<Bytes, Denial> {
        let frames: Vec<_> =
            call.chunks(piece).map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
        let body = StreamBody::new(tokio_stream::iter(frames));
        let mut reading = Reading::new(body, 1000, Budget::new(budget).open());
        poll_fn(|context| reading.poll(context)).await.unwrap()
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

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_dropped() {
        let waits = |_: &mut Context<'_>| Poll::Pending;
        let went = |_: &mut Context<'_>| Poll::Ready(Ok(Reason::CANCEL));
        assert_eq!(unless_taken_back(waits, pin!(async { 7 })).await, Some(7));
        assert_eq!(unless_taken_back(went, pin!(async { 7 })).await, Some(7), "it is done anyway");
        assert_eq!(unless_taken_back(went, pin!(std::future::pending::<u8>())).await, None);
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
