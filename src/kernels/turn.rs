//! Whose turn it is, of several callers that share threads.
//!
//! Threads that compute are worth most when they go on, so a caller keeps the turn between its operations as long as nobody
//! has waited for long. Those who wait sleep, so that they take nothing from those who compute; at the end of an operation the
//! turn goes to whoever has had the least of it. As long as only one caller comes, taking and giving it is one exchange each.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use super::worker::Padded;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{Instant, Mutex, MutexGuard};

/// How much longer than another one a caller may have the turn: many times what it costs to wake somebody.
const SLICE: Duration = Duration::from_millis(2);
/// How often a caller that waits looks whether the turn is kept for one that does not come back.
const GLANCE: Duration = Duration::from_millis(1);

/// The word of a turn that is nobody's. Else it is the caller's number, and two marks.
const FREE: u64 = 0;
/// The caller is at it. Without this mark, the turn is only kept for it.
const HELD: u64 = 1;
/// Others wait: whoever gives the turn back looks into the queue.
const WANTED: u64 = 2;

/// The number of one caller.
pub(super) type Caller = u64;

/// A turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    word: Padded<AtomicU64>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In order of arrival.
    waiting: Vec<Waiting>,
    /// How long each caller has had the turn while others wanted it.
    had: BTreeMap<Caller, Duration>,
    /// Since when the one who has it now has had it so.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    caller: Caller,
    thread: Thread,
    called: Arc<AtomicBool>,
}

/// What the word is while `caller` is at it and nobody waits.
fn held(caller: Caller) -> u64 {
    caller << 2 | HELD
}

/// What the word is while the turn is kept for `caller`.
fn kept(caller: Caller) -> u64 {
    caller << 2 | WANTED
}

impl Turn {
    /// Waits for the turn. False: it will never come, as `is_lost` says when asked; it is asked only if the turn is not free.
    pub(super) fn take(&self, caller: Caller, is_lost: impl Fn() -> bool) -> bool {
        self.swap(FREE, held(caller))
            || self.swap(kept(caller), kept(caller) | HELD)
            || self.wait(caller, is_lost)
    }

    /// Gives the turn back, which `caller` has. When `is_lost` says that those who wait are not there, none is called.
    pub(super) fn give(&self, caller: Caller, is_lost: impl Fn() -> bool) {
        if !self.swap(held(caller), FREE) {
            self.pass_on(caller, is_lost);
        }
    }

    /// Lets others have the turn that is kept for `caller`, if it is.
    pub(super) fn leave(&self, caller: Caller) {
        if self.word.load(Ordering::Relaxed) == kept(caller) {
            let mut queue = self.queue();
            if let Some(next) = queue.next() {
                self.call(&mut queue, next, kept(caller));
            }
        }
    }

    /// Forgets a caller that will not come again.
    pub(super) fn forget(&self, caller: Caller) {
        self.leave(caller);
        self.queue().had.remove(&caller);
    }

    /// Forgets all who wait, after a fork that left them behind; `caller` has the turn. False: the queue was being changed when
    /// the process forked, and cannot be used again.
    pub(super) fn inherit(&self, caller: Caller) -> bool {
        let mut queue = match self.queue.try_lock() {
            Ok(queue) => queue,
            Err(TryLockError::Poisoned(queue)) => queue.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        *queue = Queue::default();
        self.word.store(held(caller), Ordering::Release);
        true
    }

    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WANTED != 0
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self, caller: Caller, is_lost: impl Fn() -> bool) -> bool {
        if is_lost() {
            return false;
        }
        let Some(called) = self.line_up(caller) else { return true };
        loop {
            thread::park_timeout(GLANCE);
            if called.load(Ordering::Acquire) {
                return true;
            }
            let mut queue = self.queue();
            let word = self.word.load(Ordering::Relaxed);
            if let Some(next) = queue.next().filter(|_| word & HELD == 0) {
                self.call(&mut queue, next, word);
            }
        }
    }

    /// Joins those who wait; None when there was no need to. What is given tells when it is this caller's turn.
    fn line_up(&self, caller: Caller) -> Option<Arc<AtomicBool>> {
        let mut queue = self.queue();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == FREE {
                if self.swap(FREE, held(caller)) {
                    return None;
                }
            } else if word == kept(caller) {
                if self.swap(word, word | HELD) {
                    return None;
                }
            } else if word & WANTED != 0 || self.swap(word, word | WANTED) {
                queue.admit(caller, word >> 2);
                let called = Arc::new(AtomicBool::new(false));
                queue.waiting.push(Waiting {
                    caller,
                    thread: thread::current(),
                    called: Arc::clone(&called),
                });
                return Some(called);
            }
        }
    }

    /// Gives the turn to whoever has had the least, if `caller` has had more than that by a slice; else keeps it for it.
    #[cold]
    fn pass_on(&self, caller: Caller, is_lost: impl Fn() -> bool) {
        if is_lost() {
            self.word.store(FREE, Ordering::Release);
            return;
        }
        let mut queue = self.queue();
        let (at_it, own) = (held(caller) | WANTED, queue.had(caller) + queue.stretch());
        match queue.next() {
            None => self.word.store(FREE, Ordering::Release),
            Some(next) if own >= queue.had(queue.waiting[next].caller) + SLICE => {
                self.call(&mut queue, next, at_it);
            }
            Some(_) => self.word.store(kept(caller), Ordering::Release),
        }
    }

    /// Gives the turn to one who waits, if the word is `now`.
    fn call(&self, queue: &mut Queue, next: usize, now: u64) {
        let marks = if queue.waiting.len() > 1 { HELD | WANTED } else { HELD };
        if !self.swap(now, queue.waiting[next].caller << 2 | marks) {
            return;
        }
        let stretch = queue.stretch();
        *queue.had.entry(now >> 2).or_default() += stretch;
        let Waiting { thread, called, .. } = queue.waiting.remove(next);
        queue.since = (!queue.waiting.is_empty()).then(Instant::now);
        called.store(true, Ordering::Release);
        thread.unpark();
    }
}

impl Queue {
    fn had(&self, caller: Caller) -> Duration {
        self.had.get(&caller).copied().unwrap_or_default()
    }

    /// How long the one who has the turn has had it.
    fn stretch(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Who has had the least of those who wait; of equals, the one who has waited longest.
    fn next(&self) -> Option<usize> {
        (0..self.waiting.len()).min_by_key(|&at| self.had(self.waiting[at].caller))
    }

    /// Notes a caller that comes to wait for `owner`. One that did not want the turn for a while has not saved up for it.
    fn admit(&mut self, caller: Caller, owner: Caller) {
        self.since.get_or_insert_with(Instant::now);
        let others = self.waiting.iter().map(|waiting| waiting.caller).chain([owner]);
        let least = others.map(|other| self.had(other)).min().unwrap_or_default();
        let had = self.had.entry(caller).or_default();
        *had = least.max(*had);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(queue: &mut Queue, caller: Caller, owner: Caller) {
        queue.admit(caller, owner);
        let called = Arc::default();
        queue.waiting.push(Waiting { caller, thread: thread::current(), called });
    }

    fn had<const N: usize>(milliseconds: [(Caller, u64); N]) -> BTreeMap<Caller, Duration> {
        milliseconds.into_iter().map(|(caller, ms)| (caller, Duration::from_millis(ms))).collect()
    }

    #[test]
    fn the_next_one_has_had_the_least_and_of_equals_has_waited_longest() {
        let mut queue = Queue::default();
        for caller in [4, 3, 2] {
            waits(&mut queue, caller, 1);
        }
        queue.had = had([(1, 50), (2, 30), (3, 30), (4, 40)]);
        assert_eq!(queue.next().map(|at| queue.waiting[at].caller), Some(3));
        queue.waiting.remove(1);
        assert_eq!(queue.next().map(|at| queue.waiting[at].caller), Some(2));
    }

    #[test]
    fn nobody_saves_up_turns() {
        let mut queue = Queue { had: had([(1, 90), (2, 70), (3, 5)]), ..Queue::default() };
        waits(&mut queue, 2, 1);
        assert_eq!(queue.had(2), Duration::from_millis(90), "the only other one has had 90");
        waits(&mut queue, 4, 1);
        assert_eq!(queue.had(4), Duration::from_millis(90), "a new one begins where the others are");
        queue.had.insert(1, Duration::from_millis(95));
        waits(&mut queue, 1, 2);
        assert_eq!(queue.had(1), Duration::from_millis(95), "who has had more has had more");
    }

    #[test]
    fn a_turn_is_kept_and_left() {
        let turn = Turn::default();
        let mine = || false;
        assert!(turn.take(7, mine));
        turn.give(7, mine);
        assert_eq!(turn.word.load(Ordering::SeqCst), FREE);
        // Another process has whoever has it.
        assert!(turn.take(7, mine));
        assert!(!turn.take(8, || true));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert!(turn.take(8, mine));
                turn.give(8, mine);
            });
            while !turn.is_wanted() {
                std::thread::yield_now();
            }
            turn.give(7, mine);
            turn.leave(7);
            other.join().unwrap();
        });
        assert_eq!(turn.word.load(Ordering::SeqCst), FREE);
    }
}
