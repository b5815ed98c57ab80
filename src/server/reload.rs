//! What a reload came to, and who waits to hear it.
//!
//! Any number of callers share one reload, but only one that began after they asked: an earlier one may have read the
//! file before they wrote it. So while a reload is under way they wait in the channel, and the next one takes them all.

use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Most callers that wait for one reload.
const MAX_WAITING: usize = 16;

/// What a reload came to.
#[derive(Debug)]
pub(super) enum Reloaded {
    /// What was read is in force.
    Applied,
    /// It is not, for these problems, a line each.
    Refused(Vec<String>),
    /// It is not, for a defect.
    Failed,
}

/// A caller that waits.
type Caller = oneshot::Sender<Arc<Reloaded>>;

/// Where callers ask.
#[derive(Debug, Clone)]
pub(super) struct Ask(mpsc::Sender<Caller>);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// As many wait as may.
    Crowded,
    /// The process ends.
    Stopping,
}

impl Ask {
    /// Asks for a reload, and waits until it is over.
    pub(super) async fn reload(&self) -> Result<Arc<Reloaded>, Unanswered> {
        let (caller, answer) = oneshot::channel();
        self.0.try_send(caller).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Crowded,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Stopping,
        })?;
        answer.await.map_err(|_| Unanswered::Stopping)
    }
}

/// Callers, those whose reload is under way apart.
#[derive(Debug)]
pub(super) struct Callers {
    asking: mpsc::Receiver<Caller>,
    waiting: Vec<Caller>,
}

/// The two ends.
pub(super) fn callers() -> (Ask, Callers) {
    let (ask, asking) = mpsc::channel(MAX_WAITING);
    (Ask(ask), Callers { asking, waiting: Vec::new() })
}

impl Callers {
    /// Comes back when somebody asks.
    pub(super) async fn asked(&mut self) {
        match self.asking.recv().await {
            Some(caller) => self.waiting.push(caller),
            // Nobody is left who could: there is no admin listener.
            None => std::future::pending().await,
        }
    }

    /// A reload begins: whoever has asked so far waits for this one.
    pub(super) fn begin(&mut self) {
        self.waiting.extend(std::iter::from_fn(|| self.asking.try_recv().ok()));
    }

    /// It is over.
    pub(super) fn end(&mut self, reloaded: Reloaded) {
        let reloaded = Arc::new(reloaded);
        for caller in self.waiting.drain(..) {
            // Who hung up does not want to know.
            caller.send(Arc::clone(&reloaded)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_hear_of_a_reload_that_began_after_they_asked() {
        let (ask, mut callers) = callers();
        let first = tokio::spawn({
            let ask = ask.clone();
            async move { ask.reload().await }
        });
        callers.asked().await;
        callers.begin();
        let later = tokio::spawn({
            let ask = ask.clone();
            async move { ask.reload().await }
        });
        tokio::task::yield_now().await;
        callers.end(Reloaded::Applied);
        assert!(matches!(first.await.unwrap().as_deref(), Ok(Reloaded::Applied)));
        assert!(!later.is_finished(), "the file may have changed since that reload began");

        callers.asked().await;
        callers.begin();
        callers.end(Reloaded::Refused(vec!["a line".to_owned()]));
        assert!(matches!(later.await.unwrap().as_deref(), Ok(Reloaded::Refused(lines)) if lines == &["a line"]));
    }

    #[tokio::test]
    async fn no_more_wait_than_may_and_nobody_for_a_process_that_ends() {
        let (ask, callers) = callers();
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let ask = ask.clone();
                tokio::spawn(async move { ask.reload().await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(ask.reload().await.map(drop), Err(Unanswered::Crowded));
        drop(callers);
        for caller in waiting {
            assert_eq!(caller.await.unwrap(), Err(Unanswered::Stopping));
        }
        assert_eq!(ask.reload().await.map(drop), Err(Unanswered::Stopping));
    }
}
