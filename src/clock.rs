//! Time as a value.
//!
//! Nothing that decides reads a clock: a check is handed one [`Now`], taken once at the door. The wall clock
//! judges what a sender *claims* (timestamps, a secret's `until`); the monotonic clock judges what *we* granted
//! (leases), so that a wall clock that jumps can neither revive nor kill one. This file holds the only caller
//! of `SystemTime::now` and `Instant::now`.

use std::time::{Duration, Instant, SystemTime};

/// Whole seconds since 1970-01-01T00:00:00Z; any `i64` a stranger may send fits, and no arithmetic here overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// How far `self` lies from `other`, in seconds, whichever is later.
    #[must_use]
    pub fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// This moment moved later by `by`, held at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What the calendar says.
    pub wall: UnixSeconds,
    /// Time since the process started; never goes back.
    pub monotonic: Duration,
}

/// Where [`Now`] comes from.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The machine's clocks.
    System {
        /// The start of monotonic time.
        origin: Instant,
    },
    /// A clock that stands still: `verify --now`, vectors.
    Fixed(Now),
}

impl Clock {
    /// The machine's clocks, with monotonic time starting now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that may read a clock")]
    pub fn system() -> Self {
        Self::System { origin: Instant::now() }
    }

    /// A clock that always shows `wall`.
    #[must_use]
    pub fn fixed(wall: UnixSeconds) -> Self {
        Self::Fixed(Now { wall, monotonic: Duration::ZERO })
    }

    /// Reads both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that may read a clock")]
    pub fn now(&self) -> Now {
        match self {
            Self::System { origin } => Now {
                wall: UnixSeconds(match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
                    Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                    Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, i64::wrapping_neg),
                }),
                monotonic: origin.elapsed(),
            },
            Self::Fixed(now) => *now,
        }
    }

    /// Reads the clock that never goes back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match self {
            Self::System { origin } => origin.elapsed(),
            Self::Fixed(now) => now.monotonic,
        }
    }
}
