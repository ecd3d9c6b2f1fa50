//! How many requests are inside the engine.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// A place in the engine, given back when dropped.
pub(super) struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    /// Takes a place, if fewer than `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < most).then_some(count + 1))
            .ok()
            .map(|_| Self(Arc::clone(taken)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let taken = Arc::new(AtomicUsize::new(0));
        let first = Ticket::take(&taken, 1);
        assert!(first.is_some());
        assert!(Ticket::take(&taken, 1).is_none());
        drop(first);
        assert!(Ticket::take(&taken, 1).is_some());
    }
}
