//! The threads that read, check and write: one, unless the configuration says more.
//!
//! Each has a runtime of its own that nobody else works for. One runtime with several workers would move every task to where
//! a thread is idle, and on this load that costs half as much again as it brings. So a connection stays on one thread for
//! its life; whoever accepts them deals them out in turn, because a proxy keeps few and each of its workers has its own.
//! (Sockets that the kernel chooses among, as `SO_REUSEPORT` does, would leave it to chance, and there is none for Unix
//! sockets.)

use super::incoming::{Accept, Bound, Incoming};
use crate::{
    ext_authz::{ExtAuthz, GrpcService},
    http_verify::{HttpVerify, Peer},
};
use anyhow::Context as _;
use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    thread,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot, watch},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnboundedReceiverStream};

/// How many turns of others pass before sockets are looked at again. Tokio's own 61 are meant for short ones: a connection
/// that brings megabytes takes fifty microseconds for each of its turns, and a small check would not be seen meanwhile.
const TURNS: u32 = 4;

/// A runtime of one thread.
pub fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().event_interval(TURNS).build().context("cannot start the runtime")
}

/// The connections of one thread.
pub(super) type Connections<C> = Pin<Box<dyn Stream<Item = io::Result<C>> + Send>>;

/// What serves the connections of a listener.
pub(super) trait Serves: Send + Sync + 'static {
    /// Serves them until told to stop, and then finishes what is under way.
    fn serve<C>(self: Arc<Self>, connections: Connections<C>, stop: Stop) -> impl Future<Output = ()> + Send
    where
        C: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static;
}

impl<H: GrpcService> Serves for ExtAuthz<H> {
    async fn serve<C>(self: Arc<Self>, connections: Connections<C>, stop: Stop)
    where
        C: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static,
    {
        Self::serve(self, connections, told_to(stop)).await;
    }
}

impl Serves for HttpVerify {
    async fn serve<C>(self: Arc<Self>, connections: Connections<C>, stop: Stop)
    where
        C: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static,
    {
        Self::serve(self, connections, told_to(stop)).await;
    }
}

/// True when the listeners are to stop.
pub(super) type Stop = watch::Receiver<bool>;

/// Comes back when the listeners are to stop. An error means that the sender is gone, which is a stop too.
pub(super) async fn told_to(mut stop: Stop) {
    stop.wait_for(|stopped| *stopped).await.ok();
}

/// Serves a listener's connections on `threads` threads, this one among them, until told to stop and all are done.
pub(super) async fn serve(bound: Bound, threads: usize, stop: Stop, service: Arc<impl Serves>) {
    match bound {
        Bound::Tcp(incoming) => spread(incoming, threads, stop, service).await,
        Bound::Unix(incoming) => spread(incoming, threads, stop, service).await,
    }
}

async fn spread<L>(incoming: Incoming<L>, threads: usize, stop: Stop, service: Arc<impl Serves>)
where
    L: Accept + Unpin + Send + 'static,
{
    if threads <= 1 {
        return service.serve(Box::pin(incoming), stop).await;
    }
    let (mut dealers, mut over) = (VecDeque::new(), Vec::new());
    for number in 1..threads {
        let (give, take) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel::<()>();
        let (service, stop) = (Arc::clone(&service), stop.clone());
        let begun = thread::Builder::new().name(format!("io-{number}")).spawn(move || {
            // Dropped when the thread is done; nothing is ever sent.
            let _done = done;
            let connections = UnboundedReceiverStream::new(take).map(L::settle);
            match runtime() {
                Ok(runtime) => runtime.block_on(service.serve(Box::pin(connections), stop)),
                Err(error) => tracing::error!(%error, "a thread cannot serve"),
            }
        });
        match begun {
            Ok(_) => {
                dealers.push_back(give);
                over.push(ended);
            }
            Err(error) => tracing::error!(%error, "cannot start a thread; the others serve"),
        }
    }
    let (keep, kept) = mpsc::unbounded_channel();
    dealers.push_back(keep);
    let own = service.serve(Box::pin(UnboundedReceiverStream::new(kept).map(L::settle)), stop.clone());
    tokio::join!(own, deal(incoming, dealers, stop));
    for ended in over {
        ended.await.ok();
    }
}

/// Deals connections out in turn.
async fn deal<L: Accept + Unpin>(
    mut incoming: Incoming<L>,
    mut dealers: VecDeque<mpsc::UnboundedSender<L::Apart>>,
    stop: Stop,
) {
    let mut stop = pin!(told_to(stop));
    loop {
        let next = tokio::select! {
            () = &mut stop => return,
            next = incoming.next() => next,
        };
        let mut connection = match next {
            Some(Ok(connection)) => match L::part(connection) {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "cannot hand a connection to a thread");
                    continue;
                }
            },
            Some(Err(_)) => continue,
            None => return,
        };
        while let Some(dealer) = dealers.pop_front() {
            match dealer.send(connection) {
                Ok(()) => {
                    dealers.push_back(dealer);
                    break;
                }
                // A thread that is gone has no turn any more.
                Err(mpsc::error::SendError(back)) => connection = back,
            }
        }
    }
}
