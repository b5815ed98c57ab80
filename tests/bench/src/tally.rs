//! What a load notes while it runs.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

/// Before anything is measured.
pub const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Tally {
    number: Cell<u64>,
    measuring: Cell<bool>,
    over: Cell<bool>,
    latencies: RefCell<Vec<u64>>,
}

/// How many answers there were, and how long half and 99 of a hundred of them took at most, in microseconds.
pub struct Measured {
    pub count: usize,
    pub p50: u64,
    pub p99: u64,
}

impl Tally {
    /// A number that was not there before.
    pub fn number(&self) -> u64 {
        self.number.replace(self.number.get() + 1)
    }

    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Notes an answer to what was asked at `begun`.
    pub fn answered(&self, begun: Instant) {
        if self.measuring.get() {
            self.latencies.borrow_mut().push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub fn begin(&self) {
        self.measuring.set(true);
    }

    pub fn end(&self) {
        self.measuring.set(false);
        self.over.set(true);
    }

    pub fn measured(&self) -> Measured {
        let mut latencies = self.latencies.take();
        latencies.sort_unstable();
        let at = |share: usize| latencies.get(latencies.len() * share / 1000).copied().unwrap_or_default();
        Measured { count: latencies.len(), p50: at(500), p99: at(990) }
    }
}
