//! `src/sync.rs` with loom in the place of the standard library. Whoever waits for an event with a limit waits until it is
//! woken, so a wake-up that is lost is seen as a thread that never ends.

use std::cell::Cell;
use std::time::Duration;

pub(crate) use loom::hint;
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

use crate::explore::Clock;

/// Patience ends at the first glance, where it does.
pub(crate) const LOOKS_PER_GLANCE: u32 = 1;

std::thread_local! {
    /// The clock of the model that this thread explores, all of whose threads run on this one.
    pub(crate) static CLOCK: Cell<Clock> = const { Cell::new(Clock::Still) };
}

/// Threads, of which two can be at work at once.
pub(crate) mod thread {
    use std::num::NonZero;
    use std::time::Duration;

    pub(crate) use loom::thread::{Builder, JoinHandle, Thread, current, park, spawn, yield_now};

    pub(crate) fn park_timeout(_: Duration) {
        park();
    }

    pub(crate) fn available_parallelism() -> std::io::Result<NonZero<usize>> {
        Ok(NonZero::<usize>::MIN.saturating_add(1))
    }
}

/// Loom's, for what the standard library's takes.
macro_rules! local {
    ($(#[$note:meta])* static $name:ident: $kind:ty = const { $value:expr };) => {
        loom::thread_local! { $(#[$note])* static $name: $kind = $value; }
    };
}
pub(crate) use local as thread_local;

/// A time. Between any two, none has passed or an hour, as the model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(Duration::ZERO)
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn elapsed(self) -> Duration {
        match CLOCK.get() {
            Clock::Still => Duration::ZERO,
            Clock::Racing => Duration::from_secs(3600),
        }
    }
}
