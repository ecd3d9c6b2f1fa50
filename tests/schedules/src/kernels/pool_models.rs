//! Operations of pools, with everything that may happen to their threads.

use std::cell::Cell;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::budget::Budget;
use super::halt::Halt;
use super::pool::Pool;

/// A number for each unit, which loom sees when two threads touch it unordered.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: each unit touches its own number, and the caller all of them afterwards, which is what the models check.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

impl Cells {
    fn new(units: usize) -> Self {
        Self((0..units).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, unit: usize) {
        // SAFETY: the unit's own.
        self.0[unit].with_mut(|number| unsafe { *number += unit + 1 });
    }

    fn are(&self, times: usize) -> bool {
        // SAFETY: no operation is under way.
        self.0
            .iter()
            .enumerate()
            .all(|(unit, number)| number.with(|number| unsafe { *number }) == times * (unit + 1))
    }
}

/// `operations` operations of two units on `pool`, what they wrote looked at after each.
fn work(pool: &Pool, operations: usize) {
    let cells = Cells::new(2);
    for times in 1..=operations {
        pool.for_each(2, &|unit, _| cells.add(unit)).unwrap();
        assert!(cells.are(times));
    }
}

/// One caller and one worker, two operations, and the end of the pool.
pub fn units_run_once_and_are_seen() {
    work(&Pool::new(2).unwrap(), 2);
}

/// One caller and two workers.
pub fn three_threads() {
    work(&Pool::new(3).unwrap(), 1);
}

/// A unit panics, on whichever thread it is, and the next operation is whole.
pub fn a_panic_is_told_and_the_pool_goes_on() {
    let pool = Pool::new(2).unwrap();
    let failed = pool.for_each(2, &|unit, _| {
        if unit == 1 {
            std::panic::resume_unwind(Box::new("one"));
        }
    });
    assert!(failed.unwrap_err().message().contains("one"));
    work(&pool, 1);
}

/// The caller stops before its first unit or its second, if there is one for it; what the worker has begun is seen, and the next operation is whole.
pub fn a_stopped_operation_has_ended() {
    let pool = Pool::new(2).unwrap();
    for after in [0, 1] {
        let (cells, asked) = (Cells::new(3), Cell::new(0));
        let stop = || asked.replace(asked.get() + 1) == after;
        let halt = pool.for_each_until(3, &|unit, _| cells.add(unit), &stop);
        // A worker that was quicker leaves nothing to ask for.
        assert_eq!(matches!(halt, Err(Halt::Stopped)), asked.get() > after);
        let is_whole = cells.are(1);
        assert!(is_whole || halt.is_err());
    }
    work(&pool, 1);
}

/// Three chores, one after the other, and an operation: each is done once, by the worker or the caller, and all by the end.
pub fn chores_are_done_once() {
    let pool = Pool::new(2).unwrap();
    let done: Arc<[AtomicUsize; 3]> = Arc::default();
    for number in 0..3 {
        let done = Arc::clone(&done);
        pool.aside(Box::new(move || {
            done[number].fetch_add(1, Ordering::Relaxed);
        }));
    }
    work(&pool, 1);
    // Ends the worker, who may have been in the middle of one.
    drop(pool);
    assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
}

/// Two pools of one budget take turns with one worker, and go at any moment.
pub fn two_pools_share_a_worker() {
    let budget = Arc::new(Budget::new(2));
    let (mine, theirs) = (Pool::within(&budget, 2), Pool::within(&budget, 2));
    let other = thread::spawn(move || {
        work(&theirs, 1);
        theirs.rest();
    });
    work(&mine, 1);
    mine.rest();
    drop(mine);
    other.join().unwrap();
}

/// A wider pool comes and goes while another one works.
pub fn a_lane_grows_and_shrinks() {
    let budget = Arc::new(Budget::new(1));
    let narrow = Pool::within(&budget, 1);
    let joined = Arc::clone(&budget);
    let other = thread::spawn(move || {
        let wide = Pool::within(&joined, 2);
        work(&wide, 1);
        wide.rest();
    });
    work(&narrow, 1);
    narrow.rest();
    other.join().unwrap();
    assert_eq!(narrow.threads(), 1);
}
