//! Chores beside the operations of a pool. Between two operations its threads watch for the next one and have nothing to do, while
//! the caller, whom all wait for, may have somebody to wake: a system call, which takes as long as all else between two passes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use super::worker::Padded;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Something small that waits for nothing.
pub type Chore = Box<dyn FnOnce() + Send>;

/// A place for one of them, for whoever comes first.
#[derive(Default)]
pub(super) struct Aside {
    /// Whether somebody has to look.
    offered: Padded<AtomicBool>,
    chore: Mutex<Option<Chore>>,
}

impl Aside {
    /// Puts `chore` there. One that nobody has taken is done first.
    pub(super) fn offer(&self, chore: Chore) {
        let before = self.chore.lock().unwrap_or_else(PoisonError::into_inner).replace(chore);
        // A relaxed load may see it late: whoever offered it looks as well, and sees it.
        self.offered.store(true, Ordering::Release);
        before.into_iter().for_each(run);
    }

    /// Does what is there.
    #[inline]
    pub(super) fn take(&self) {
        if self.offered.load(Ordering::Relaxed) && self.offered.swap(false, Ordering::AcqRel) {
            // Whoever has the lock takes the chore, or puts one there and says so. After a fork nobody may have it.
            let chore = self.chore.try_lock().ok().and_then(|mut chore| chore.take());
            chore.into_iter().for_each(run);
        }
    }
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").finish_non_exhaustive()
    }
}

/// A chore that panics is nobody's fault who happens to do it.
pub(super) fn run(chore: Chore) {
    if catch_unwind(AssertUnwindSafe(chore)).is_err() {
        log::error!("A chore beside the operations of a pool panicked.");
    }
}
