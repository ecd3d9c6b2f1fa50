//! The turn, of two or three callers.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::turn::{Caller, Turn};

/// A turn, and what only the one may touch who has it: loom sees two that do.
#[derive(Default)]
struct Guarded {
    turn: Turn,
    count: UnsafeCell<usize>,
}

// SAFETY: the turn guards the number, which is what the models check.
unsafe impl Send for Guarded {}
// SAFETY: as above.
unsafe impl Sync for Guarded {}

fn mine() -> bool {
    false
}

impl Guarded {
    fn once(&self, caller: Caller) {
        assert!(self.turn.take(caller, mine));
        // SAFETY: it is this caller's turn.
        self.count.with_mut(|count| unsafe { *count += 1 });
        self.turn.give(caller, mine);
    }

    fn some(&self, caller: Caller, times: usize) {
        (0..times).for_each(|_| self.once(caller));
        self.turn.leave(caller);
    }

    fn count(&self) -> usize {
        // SAFETY: all other threads have ended.
        self.count.with(|count| unsafe { *count })
    }
}

/// `callers` callers, each of which comes `times` times and then leaves.
fn callers(callers: Caller, times: usize) {
    let guarded = Arc::new(Guarded::default());
    let others: Vec<_> = (1..callers)
        .map(|caller| {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || guarded.some(caller, times))
        })
        .collect();
    guarded.some(callers, times);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(guarded.count(), callers as usize * times);
}

/// Two callers that come twice each.
pub fn two_callers() {
    callers(2, 2);
}

/// Three callers that come once each.
pub fn three_callers() {
    callers(3, 1);
}

/// Two threads of one pool, and another pool.
pub fn two_threads_of_one_caller() {
    let guarded = Arc::new(Guarded::default());
    let others = [1, 2].map(|caller| {
        let guarded = Arc::clone(&guarded);
        thread::spawn(move || guarded.some(caller, 1))
    });
    guarded.some(1, 1);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(guarded.count(), 3);
}
