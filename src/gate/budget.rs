//! A bound on the bytes of all bodies in flight.
//!
//! Bytes are charged as they arrive, not as a message announces them, so a thousand streams that announce 25 MiB and
//! send nothing cost nothing. When the budget is spent the stream at hand is cut and its check denied with 503; the
//! others go on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes in flight, and how many may be.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    spent: AtomicUsize,
}

/// What one check has been charged; given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, spent: AtomicUsize::new(0) })
    }

    /// Opens an account for one check.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), bytes: 0 }
    }

    /// Bytes in flight.
    #[must_use]
    pub fn spent(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }
}

impl Charge {
    /// Charges `bytes`, if there are that many left.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        let before = self.budget.spent.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= self.budget.limit);
        if fits {
            self.bytes = self.bytes.saturating_add(bytes);
        } else {
            self.budget.spent.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.spent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (budget.open(), budget.open());
        assert!(a.take(6));
        assert!(!b.take(5));
        assert!(b.take(4));
        drop(a);
        assert_eq!(budget.spent(), 4);
        assert!(!b.take(usize::MAX), "no overflow");
        drop(b);
        assert_eq!(budget.spent(), 0);
    }
}
