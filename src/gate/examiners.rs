//! Threads for examinations that take long: large bodies, and dear signatures when they come thick.
//!
//! The thread that reads and writes does all the rest, so whatever it hashes holds up everybody else's check. These stand
//! back: the system is told that they are less urgent, so that where they share a core with it, as they do in a container
//! that is allowed one, a small check does not wait for a large body's turn to end.

use crate::clock::Now;
use std::{
    io,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot};

/// How much less urgent: at ten steps the scheduler gives them about a tenth of a core that both want.
const LESS_URGENT: i32 = 10;

/// How often one is spared the way here. To go to another thread and back costs twenty microseconds of a core, so that those
/// which come now and then stay where they are; when they come thick they go.
const SPARED_EVERY: Duration = Duration::from_millis(1);

type Job = Box<dyn FnOnce() + Send>;

/// Why an examination takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Long {
    /// For its body: milliseconds for some megabytes.
    Body,
    /// For its signature: some hundred microseconds, however short the body is.
    Signature,
}

/// Threads that are there before the first check is: a process that may start none must not begin to serve, for it would
/// refuse every large body and find out with the first.
///
/// Who waits for a signature does not wait behind bodies, nor the other way round: each kind has places of its own, and
/// there is a thread for every place. So a flood of one kind takes from the other no more than its share of a core.
#[derive(Debug)]
pub struct Examiners {
    bodies: Arc<Semaphore>,
    signatures: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
    /// When one was spared last, in microseconds counted from 1.
    spared_at: AtomicU64,
}

impl Examiners {
    /// Starts so many threads for each kind, or as many as may be started; an error where that is none.
    pub fn start(of_each: usize) -> io::Result<Self> {
        Self::started_by(of_each, |thread, work| thread.spawn(work).map(drop))
    }

    /// One of each for each core: more would only cost memory.
    pub fn per_core() -> io::Result<Self> {
        Self::start(thread::available_parallelism().map_or(1, NonZero::get))
    }

    fn started_by(
        of_each: usize,
        mut spawn: impl FnMut(thread::Builder, Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (jobs, take) = mpsc::channel::<Job>();
        let take = Arc::new(Mutex::new(take));
        let (threads, mut started, mut refused) = (of_each.saturating_mul(2), 0_usize, None);
        for number in 0..threads {
            let take = Arc::clone(&take);
            // With the usual stack: what is never touched of one costs nothing, and JSON is read recursively on it.
            let thread = thread::Builder::new().name(format!("examiner-{number}"));
            match spawn(thread, Box::new(move || work_off(&take))) {
                Ok(()) => started = started.saturating_add(1),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if started == 0 => return Err(error),
            Some(error) => {
                tracing::warn!(%error, started, wanted = threads, "not every thread for large bodies can be started");
            }
            None if started == 0 => return Err(io::Error::other("no thread was asked for")),
            None => {}
        }
        let signatures = started.checked_div(2).unwrap_or(0).max(1);
        // A single thread takes from both in turn: then one waits behind one of the other kind, and behind no second.
        let bodies = started.saturating_sub(signatures).max(1);
        let places = |count| Arc::new(Semaphore::new(count));
        Ok(Self { bodies: places(bodies), signatures: places(signatures), jobs, spared_at: AtomicU64::new(0) })
    }

    /// The places of one kind: who waits here can still give up, and is then not worked for.
    #[must_use]
    pub fn places(&self, long: Long) -> &Arc<Semaphore> {
        match long {
            Long::Body => &self.bodies,
            Long::Signature => &self.signatures,
        }
    }

    /// Whether an examination that takes some hundred microseconds may be made where everybody waits for it. Counts it if so.
    pub fn spare(&self, now: Now) -> bool {
        let now = u64::try_from(now.monotonic.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.spared_at.load(Ordering::Relaxed);
        let free = last == 0 || u128::from(now.saturating_sub(last)) >= SPARED_EVERY.as_micros();
        if free {
            self.spared_at.store(now, Ordering::Relaxed);
        }
        free
    }

    /// What `work` comes to, on one of these threads; nothing if it panics. Once begun it is finished, whether or not anybody
    /// waits for it.
    pub async fn run<T: Send + 'static>(&self, long: Long, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let place = Arc::clone(self.places(long)).acquire_owned().await.ok()?;
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            let done = work();
            // Free before anybody hears of it, so that whoever then looks finds a free place.
            drop(place);
            tell.send(done).ok();
        });
        self.jobs.send(job).ok()?;
        told.await.ok()
    }
}

fn work_off(jobs: &Mutex<mpsc::Receiver<Job>>) {
    // Where it is not allowed they are as urgent as the rest.
    rustix::process::nice(LESS_URGENT).ok();
    loop {
        // The lock is held while waiting for a job and not while working at it.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        catch_unwind(AssertUnwindSafe(job)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts threads, of which the system gives so many.
    fn given(mut given: usize, of_each: usize) -> io::Result<Examiners> {
        Examiners::started_by(of_each, |thread, work| {
            given = given.checked_sub(1).ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?;
            thread.spawn(work).map(drop)
        })
    }

    #[test]
    fn without_any_thread_there_is_no_start() {
        assert_eq!(given(0, 4).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(Examiners::start(0).is_err());
    }

    #[tokio::test]
    async fn with_fewer_threads_there_are_fewer_places() {
        for (threads, bodies, signatures) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (7, 4, 3), (8, 4, 4), (9, 4, 4)] {
            let examiners = given(threads, 4).unwrap();
            let free = |long| examiners.places(long).available_permits();
            assert_eq!((free(Long::Body), free(Long::Signature)), (bodies, signatures), "{threads}");
            assert_eq!(examiners.run(Long::Body, || 7).await, Some(7));
            assert_eq!(examiners.run(Long::Signature, || 7).await, Some(7));
        }
    }

    #[tokio::test]
    async fn a_panic_costs_one_examination_and_no_thread() {
        let examiners = Examiners::start(1).unwrap();
        assert_eq!(examiners.run(Long::Body, || -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(examiners.run(Long::Body, || 7).await, Some(7));
        assert_eq!(examiners.places(Long::Body).available_permits(), 1);
    }

    #[test]
    fn one_in_a_millisecond_is_spared() {
        let examiners = Examiners::start(1).unwrap();
        let at = |micros| Now { wall: crate::clock::UnixSeconds(0), monotonic: Duration::from_micros(micros) };
        assert!(examiners.spare(at(0)));
        assert!(!examiners.spare(at(0)));
        assert!(!examiners.spare(at(999)));
        assert!(examiners.spare(at(1000)));
        assert!(!examiners.spare(at(1999)));
        assert!(examiners.spare(at(50_000)));
    }

    #[tokio::test]
    async fn as_many_are_at_work_as_there_are_threads() {
        let examiners = Arc::new(Examiners::start(2).unwrap());
        let both = Arc::new(std::sync::Barrier::new(2));
        let meet = |both: &Arc<std::sync::Barrier>| {
            let (examiners, both) = (Arc::clone(&examiners), Arc::clone(both));
            tokio::spawn(async move { examiners.run(Long::Body, move || both.wait().is_leader()).await })
        };
        let (one, other) = (meet(&both), meet(&both));
        assert_ne!(one.await.unwrap().unwrap(), other.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn who_gives_up_before_it_begins_is_not_worked_for() {
        let examiners = Examiners::start(1).unwrap();
        let held = Arc::clone(examiners.places(Long::Body)).acquire_owned().await.unwrap();
        {
            let mut waiting = std::pin::pin!(examiners.run(Long::Body, || unreachable!("nobody waits for this")));
            assert!(futures_util::poll!(&mut waiting).is_pending());
        }
        drop(held);
        assert_eq!(examiners.run(Long::Body, || 7).await, Some(7));
    }

    /// However many of one kind are at work or wait, the next one of the other kind has its turn.
    #[tokio::test]
    async fn neither_kind_waits_behind_the_other() {
        for (many, one) in [(Long::Body, Long::Signature), (Long::Signature, Long::Body)] {
            let examiners = Arc::new(Examiners::start(1).unwrap());
            let (end, ended) = mpsc::channel::<()>();
            let ended = Arc::new(Mutex::new(ended));
            let under_way: Vec<_> = (0..64)
                .map(|_| {
                    let (examiners, ended) = (Arc::clone(&examiners), Arc::clone(&ended));
                    tokio::spawn(async move {
                        examiners.run(many, move || ended.lock().unwrap().recv_timeout(Duration::from_secs(30))).await
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            assert_eq!(examiners.places(many).available_permits(), 0);
            let next = tokio::time::timeout(Duration::from_secs(5), examiners.run(one, || 7)).await;
            drop(end);
            assert_eq!(next, Ok(Some(7)), "{one:?} beside {many:?}");
            for one in under_way {
                one.await.unwrap().unwrap().unwrap_err();
            }
        }
    }
}
