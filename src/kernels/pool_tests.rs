use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::aside::Chore;
use super::budget::Budget;
use super::pool::Pool;
use super::{DisjointMut, Halt, Scratch};
use crate::ErrorKind;

/// How often each unit ran.
fn counts(pool: &Pool, units: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
    pool.for_each(units, &|unit, _| {
        counts[unit].fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn the_number_of_threads_is_checked() {
    for bad in [0, 1025, usize::MAX] {
        let error = Pool::new(bad).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == "threads")
        );
    }
    assert_eq!(Pool::new(1).unwrap().threads(), 1);
    assert_eq!(Pool::new(5).unwrap().threads(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_unit_runs_exactly_once(
        threads in 1_usize..=8,
        operations in proptest::collection::vec(0_usize..300, 1..40),
    ) {
        let pool = Pool::new(threads).unwrap();
        for units in operations {
            prop_assert!(counts(&pool, units).iter().all(|&count| count == 1));
        }
    }

    #[test]
    fn what_the_units_wrote_is_there_when_the_operation_ends(
        threads in 1_usize..=4,
        units in 1_usize..200,
        width in 1_usize..50,
    ) {
        let pool = Pool::new(threads).unwrap();
        let mut numbers = vec![0_u64; units * width];
        for round in 1..=20 {
            let shared = DisjointMut::new(&mut numbers);
            pool.for_each(units, &|unit, _| {
                // SAFETY: each unit has a range of its own.
                let own = unsafe { shared.slice(unit * width..(unit + 1) * width) };
                own.iter_mut().for_each(|number| *number += unit as u64 * round);
            }).unwrap();
        }
        let right = |at: usize| (at / width) as u64 * 210;
        prop_assert!(numbers.iter().enumerate().all(|(at, &number)| number == right(at)));
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_goes_on(
        threads in 1_usize..=6,
        units in 1_usize..100,
        at in any::<prop::sample::Index>(),
    ) {
        let pool = Pool::new(threads).unwrap();
        let bad = at.index(units);
        for round in 0..4 {
            let error = pool.for_each(units, &|unit, _| {
                assert!(unit != bad, "unit {unit} of round {round} fell over");
            }).unwrap_err();
            prop_assert!(matches!(error.kind(), ErrorKind::Internal));
            let text = format!("unit {bad} of round {round} fell over");
            prop_assert!(error.message().contains(&text));
            prop_assert!(counts(&pool, units).iter().all(|&count| count == 1));
        }
    }
}

#[test]
fn several_threads_share_an_operation() {
    let pool = Pool::new(3).unwrap();
    // Units that wait for each other end only when three threads are at them.
    let together = Barrier::new(3);
    pool.for_each(3, &|_, _| {
        together.wait();
    })
    .unwrap();
    let names = Mutex::new(BTreeMap::new());
    pool.for_each(3, &|_, _| {
        together.wait();
        let name = thread::current().name().unwrap_or_default().to_owned();
        *names.lock().unwrap().entry(name).or_insert(0) += 1;
    })
    .unwrap();
    let names = names.into_inner().unwrap();
    assert_eq!(names.len(), 3);
    assert!(names.contains_key("phicandle-1") && names.contains_key("phicandle-2"), "{names:?}");
}

#[test]
fn sleeping_workers_are_woken() {
    let pool = Pool::new(3).unwrap();
    let together = Barrier::new(3);
    for _ in 0..5 {
        // Long enough to be asleep; were they not, the test would show the same.
        thread::sleep(Duration::from_millis(20));
        pool.for_each(3, &|_, _| {
            together.wait();
        })
        .unwrap();
    }
}

#[test]
fn an_operation_stops_between_two_units_of_its_caller() {
    for threads in [1, 2, 3] {
        let pool = Pool::new(threads).unwrap();
        for after in [0, 1, 5] {
            let (asked, done) = (Cell::new(0), AtomicUsize::new(0));
            let stop = || asked.replace(asked.get() + 1) == after;
            let work = |_: usize, _: &mut Scratch| {
                done.fetch_add(1, Ordering::SeqCst);
                // The caller gets as far as its stop before the others have done everything.
                thread::sleep(Duration::from_millis(1));
            };
            let halt = pool.for_each_until(10_000, &work, &stop).unwrap_err();
            assert!(matches!(halt, Halt::Stopped), "{halt:?}");
            let done = done.into_inner();
            assert_eq!(asked.get(), after + 1);
            assert!(done >= after && done < 10_000, "{done} units");
            assert!(threads > 1 || done == after);
        }
        assert!(counts(&pool, 100).iter().all(|&count| count == 1), "the next one is whole");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn idle_workers_use_no_time() {
    let pool = Pool::new(3).unwrap();
    let ids = Mutex::new(Vec::new());
    let together = Barrier::new(3);
    pool.for_each(3, &|_, _| {
        ids.lock().unwrap().push(std::fs::read_link("/proc/thread-self").unwrap());
        together.wait();
    })
    .unwrap();
    let ids = ids.into_inner().unwrap();
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let is_asleep = |id: &std::path::PathBuf| {
        let stat = std::fs::read_to_string(std::path::Path::new("/proc").join(id).join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('S')
    };
    let workers: Vec<_> = ids.into_iter().filter(|id| *id != own).collect();
    assert_eq!(workers.len(), 2);
    // However busy the machine is, they get to sleep in the end; then they stay asleep.
    while !workers.iter().all(is_asleep) {
        thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..50 {
        assert!(workers.iter().all(is_asleep));
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_operation_inside_a_unit_runs_on_that_thread() {
    let pool = Pool::new(3).unwrap();
    let other = Pool::new(2).unwrap();
    let total = AtomicUsize::new(0);
    pool.for_each(7, &|_, scratch| {
        scratch.bytes(64).fill(9);
        let this = thread::current().id();
        for pool in [&pool, &other] {
            pool.for_each(5, &|unit, own: &mut Scratch| {
                assert_eq!(thread::current().id(), this);
                own.bytes(64).fill(1);
                total.fetch_add(unit, Ordering::Relaxed);
            })
            .unwrap();
        }
        assert!(scratch.bytes(64).iter().all(|&byte| byte == 9), "the inner units have their own scratch");
    })
    .unwrap();
    assert_eq!(total.into_inner(), 7 * 2 * 10);
}

#[test]
fn a_panic_in_an_inner_operation_is_its_own_error() {
    let pool = Pool::new(2).unwrap();
    let inner_failed = AtomicUsize::new(0);
    pool.for_each(4, &|_, _| {
        let inner = pool.for_each(2, &|unit, _| assert!(unit == 0, "inner"));
        inner_failed.fetch_add(usize::from(inner.is_err()), Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(inner_failed.into_inner(), 4);
}

#[test]
fn callers_take_turns() {
    let pool = Pool::new(3).unwrap();
    let (owner, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for caller in 1..=4 {
            let (pool, owner, total) = (&pool, &owner, &total);
            scope.spawn(move || {
                for _ in 0..300 {
                    let left = AtomicUsize::new(8);
                    pool.for_each(8, &|_, _| {
                        // The first unit takes the pool for its caller, the last one gives it back.
                        let before = owner.swap(caller, Ordering::SeqCst);
                        assert!(before == 0 || before == caller, "two callers at once");
                        total.fetch_add(1, Ordering::SeqCst);
                        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                            owner.store(0, Ordering::SeqCst);
                        }
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 4 * 300 * 8);
}

#[test]
fn scratch_is_counted_over_all_threads() {
    let pool = Pool::new(3).unwrap();
    assert_eq!(pool.scratch_bytes(), 0);
    let together = Barrier::new(3);
    for _ in 0..3 {
        pool.for_each(3, &|_, scratch| {
            scratch.bytes(1000).fill(1);
            together.wait();
        })
        .unwrap();
    }
    assert_eq!(pool.scratch_bytes(), 3 * 1024);
}

/// A child of `fork` has the calling thread only. It must neither hang nor go wrong, and have workers again soon.
#[cfg(target_os = "linux")]
mod fork {
    use super::*;
    use nix::libc;

    /// Runs `body` in a forked child, and gives its answer; None when it took more than half a minute.
    fn in_child(body: impl FnOnce() -> bool) -> Option<bool> {
        // SAFETY: the child has one thread. It allocates and starts threads, which glibc and musl allow after a fork, and ends
        // by `_exit`, so nothing of the parent's is torn down twice.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
            // SAFETY: it ends this process, at once.
            unsafe { libc::_exit(if right { 0 } else { 1 }) };
        }
        for _ in 0..3000 {
            let mut status = 0;
            // SAFETY: `status` is ours, and `child` is our child, not waited for yet.
            let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
            if ended == child {
                return Some(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
            }
            thread::sleep(Duration::from_millis(10));
        }
        // SAFETY: `child` is our child, not waited for yet.
        unsafe { libc::kill(child, libc::SIGKILL) };
        None
    }

    fn threads_of_this_process() -> usize {
        std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
    }

    fn works_in_a_child(pool: Pool) -> bool {
        let right = (0..100).all(|_| counts(&pool, 50).iter().all(|&count| count == 1));
        let rebuilt = threads_of_this_process() == 3;
        drop(pool);
        right && rebuilt && threads_of_this_process() == 1
    }

    #[test]
    fn a_child_gets_workers_of_its_own() {
        for sleep in [Duration::ZERO, Duration::from_millis(30)] {
            let pool = Pool::new(3).unwrap();
            assert!(counts(&pool, 100).iter().all(|&count| count == 1));
            thread::sleep(sleep);
            let mut pool = Some(pool);
            let answer = in_child(|| works_in_a_child(pool.take().unwrap()));
            assert_eq!(answer, Some(true), "after {sleep:?}");
            assert!(counts(&pool.unwrap(), 100).iter().all(|&count| count == 1), "the parent goes on");
        }
    }

    #[test]
    fn a_child_of_a_busy_pool_does_the_work_itself() {
        let pool = Pool::new(2).unwrap();
        let (begun, end) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                pool.for_each(1, &|_, _| {
                    begun.wait();
                    end.wait();
                })
                .unwrap();
            });
            begun.wait();
            // Another thread has the turn, and will not be in the child to give it back.
            let answer = in_child(|| counts(&pool, 20).iter().all(|&count| count == 1));
            end.wait();
            assert_eq!(answer, Some(true));
        });
    }

    #[test]
    fn a_child_of_pools_that_take_turns_does_not_hang() {
        let budget = Arc::new(Budget::new(2));
        let pools: Vec<_> = (0..3).map(|_| Pool::within(&budget, 2)).collect();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for pool in &pools[1..] {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        assert!(counts(pool, 20).iter().all(|&count| count == 1));
                    }
                });
            }
            for _ in 0..20 {
                assert!(counts(&pools[0], 20).iter().all(|&count| count == 1));
                // Whoever has the turn or waits for it now will not be there.
                let answer = in_child(|| {
                    pools.iter().all(|pool| (0..20).all(|_| counts(pool, 20).iter().all(|&count| count == 1)))
                });
                assert_eq!(answer, Some(true));
            }
            done.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_child_has_a_budget_of_its_own() {
        let of_parent = Budget::of_process();
        let answer = in_child(|| {
            let of_child = Budget::of_process();
            let pool = Pool::shared(2).unwrap();
            let right = counts(&pool, 20).iter().all(|&count| count == 1);
            right && !Arc::ptr_eq(&of_parent, &of_child) && Arc::ptr_eq(&of_child, &Budget::of_process())
        });
        assert_eq!(answer, Some(true));
        assert!(Arc::ptr_eq(&of_parent, &Budget::of_process()));
    }

    #[test]
    fn a_pool_that_is_dropped_in_a_child_does_not_wait() {
        let mut pool = Some(Pool::new(4).unwrap());
        let answer = in_child(|| {
            drop(pool.take());
            true
        });
        assert_eq!(answer, Some(true));
        drop(pool);
    }
}

/// A chore that writes down which threads did it.
fn chore(done: &Arc<Mutex<Vec<thread::ThreadId>>>) -> Chore {
    let done = Arc::clone(done);
    Box::new(move || done.lock().unwrap().push(thread::current().id()))
}

#[test]
fn a_chore_is_done_once_before_the_next_operation_ends() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads).unwrap();
        let done = Arc::default();
        for count in 1..=100 {
            pool.aside(chore(&done));
            pool.aside(chore(&done));
            assert!(counts(&pool, 3).iter().all(|&count| count == 1));
            // A worker may have taken one before, and be about to do it.
            while done.lock().unwrap().len() < 2 * count {
                thread::yield_now();
            }
        }
        drop(pool);
        assert_eq!(done.lock().unwrap().len(), 200);
    }
}

#[test]
fn the_only_thread_does_chores_at_once() {
    let pool = Pool::new(1).unwrap();
    let done = Arc::default();
    pool.aside(chore(&done));
    assert_eq!(*done.lock().unwrap(), [thread::current().id()]);
}

#[test]
fn a_thread_that_watches_does_chores_meanwhile() {
    let pool = Pool::new(2).unwrap();
    let done = Arc::default();
    // On a busy machine it may sleep before it looks.
    for _ in 0..10_000 {
        counts(&pool, 2);
        pool.aside(chore(&done));
        let since = std::time::Instant::now();
        while since.elapsed() < Duration::from_millis(1) {
            if done.lock().unwrap().iter().any(|id| *id != thread::current().id()) {
                return;
            }
        }
    }
    panic!("all chores were left to the caller");
}

#[test]
fn a_chore_that_panics_is_nobodys_fault() {
    for threads in [1, 2] {
        let pool = Pool::new(threads).unwrap();
        for _ in 0..20 {
            pool.aside(Box::new(|| panic!("a chore fell over")));
            assert!(counts(&pool, 8).iter().all(|&count| count == 1));
        }
    }
}
