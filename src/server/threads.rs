//! The threads that read, check and write: one, unless the configuration says more.
//!
//! Each has a runtime of its own that nobody else works for. One runtime with several workers would move every task to where
//! a thread is idle, and on this load that costs half as much again as it brings. So a connection stays on one thread for
//! its life; whoever accepts them deals them out in turn, because a proxy keeps few and each of its workers has its own.
//! (Sockets that the kernel chooses among, as `SO_REUSEPORT` does, would leave it to chance, and there is none for Unix
//! sockets.)

use super::incoming::{Accept, Bound, Incoming, Placed};
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
            let connections = settled::<L>(take);
            match runtime() {
                Ok(runtime) => runtime.block_on(service.serve(connections, stop)),
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
    let own = service.serve(settled::<L>(kept), stop.clone());
    tokio::join!(own, deal(incoming, dealers, stop));
    for ended in over {
        ended.await.ok();
    }
}

/// What is dealt to one thread, as connections of its runtime.
fn settled<L: Accept + 'static>(
    dealt: mpsc::UnboundedReceiver<Placed<L::Apart>>,
) -> Connections<Placed<L::Connection>> {
    Box::pin(UnboundedReceiverStream::new(dealt).map(|apart| apart.try_map(L::settle)))
}

/// Deals connections out in turn. No thread's queue is longer than the listener has places.
async fn deal<L: Accept + Unpin>(
    mut incoming: Incoming<L>,
    mut dealers: VecDeque<mpsc::UnboundedSender<Placed<L::Apart>>>,
    stop: Stop,
) {
    let mut stop = pin!(told_to(stop));
    loop {
        let next = tokio::select! {
            () = &mut stop => return,
            next = incoming.next() => next,
        };
        let mut connection = match next {
            Some(Ok(connection)) => match connection.try_map(L::part) {
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

#[cfg(test)]
mod tests {
    use super::{
        super::{Server, incoming},
        *,
    };
    use crate::{
        clock::{Clock, UnixSeconds},
        config::{self, Context, process::Address},
    };
    use std::{path::Path, time::Duration};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::{sleep, timeout},
    };

    const CONFIGURATION: &str = "
listen: { verify: \"127.0.0.1:0\" }
verify: { dialect: verdict }
endpoints: { hub: { scheme: { token: { header: x-token } }, match: { path: /hub }, secrets: [{ id: main, inline: a secret of this test }] } }
";
    const HTTP_1: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    /// A preface, and settings of which there are none.
    const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    async fn say(address: &str, words: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(words).await.unwrap();
        client
    }

    async fn is_answered(client: &mut TcpStream, within: u64) -> bool {
        timeout(Duration::from_millis(within), client.read_u8()).await.is_ok_and(|read| read.is_ok())
    }

    /// With two places, whoever is third waits until one of the others goes; and nobody holds up the end.
    async fn two_at_a_time(words: &[u8], threads: usize, service: Arc<impl Serves>) {
        let loopback = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let bound = incoming::bind(&loopback, 0o600, 2).await.unwrap();
        let address = bound.address();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(bound, threads, stopped, service));
        let mut served = VecDeque::from([say(&address, words).await, say(&address, words).await]);
        for client in &mut served {
            assert!(is_answered(client, 5000).await, "{threads}");
        }
        for _ in 0..3 {
            let mut next = say(&address, words).await;
            assert!(!is_answered(&mut next, 100).await, "{threads}");
            served.pop_front();
            assert!(is_answered(&mut next, 5000).await, "{threads}");
            served.push_back(next);
        }
        let mut waiting = say(&address, words).await;
        assert!(!is_answered(&mut waiting, 100).await, "{threads}");
        stop.send_replace(true);
        let refused = async {
            while TcpStream::connect(&address).await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), refused).await.expect("nobody accepts any more");
        assert!(!is_answered(&mut waiting, 5000).await, "{threads}");
        // HTTP/2 asks a client whether it has understood, and these understand nothing.
        drop(served);
        timeout(Duration::from_secs(5), serving).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn a_listener_has_one_number_of_places_however_many_threads_serve_it() {
        let clock = Clock::fixed(UnixSeconds(1_760_000_000));
        let context = Context::new(clock.now());
        let loaded = config::parse("test.yaml", CONFIGURATION.as_bytes(), &context).unwrap();
        let server = Server::prepare(Path::new("test.yaml"), loaded, context.kept, clock).unwrap();
        let rules = server.listen.verify.unwrap().rules;
        for threads in [1, 3] {
            let service = HttpVerify::new(Arc::clone(&server.gate), rules.clone());
            two_at_a_time(HTTP_1, threads, service).await;
            let (_, health) = tonic_health::server::health_reporter();
            let service = ExtAuthz::new(&server.gate, watch::channel(false).1, health);
            two_at_a_time(HTTP_2, threads, service).await;
        }
    }
}
