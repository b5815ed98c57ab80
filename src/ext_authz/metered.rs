//! A body that is charged to the budget as it arrives. One that is not granted ends there, and its check is denied.

use crate::gate::budget::Charge;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::Status;

/// A request body that is charged as it arrives.
#[derive(Debug)]
pub(super) struct Metered<B> {
    body: B,
    charge: Arc<Charge>,
}

impl<B> Metered<B> {
    /// Meters `body`.
    pub(super) fn new(body: B, charge: Arc<Charge>) -> Self {
        Self { body, charge }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.charge.take(data.len())
        {
            return Poll::Ready(Some(Err(Status::resource_exhausted("too many bodies in flight"))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
