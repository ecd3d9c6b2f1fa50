use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use super::budget::Budget;
use super::pool::Pool;

/// What the threads of `pool` are called that meet in an operation of as many units.
fn names(pool: &Pool) -> BTreeSet<String> {
    let together = Barrier::new(pool.threads());
    let names = Mutex::new(BTreeSet::new());
    pool.for_each(pool.threads(), &|_, _| {
        together.wait();
        names.lock().unwrap().insert(thread::current().name().unwrap_or_default().to_owned());
    })
    .unwrap();
    names.into_inner().unwrap()
}

fn lanes(pools: &[&Pool]) -> usize {
    pools.iter().map(|pool| Arc::as_ptr(pool.lane())).collect::<BTreeSet<_>>().len()
}

#[test]
fn pools_share_threads_when_there_are_no_cores_left() {
    let budget = Arc::new(Budget::new(4));
    let pools: Vec<_> = (0..4).map(|_| Pool::within(&budget, 2)).collect();
    assert_eq!(lanes(&[&pools[0], &pools[1]]), 2, "two pools of two threads have a core for each");
    assert_eq!(
        lanes(&pools.iter().collect::<Vec<_>>()),
        2,
        "four pools of two threads take turns on the same"
    );
    for pool in &pools {
        assert_eq!(names(pool).len(), 2);
    }
    let wide = Pool::within(&budget, 6);
    assert_eq!((wide.threads(), lanes(&[&pools[0], &pools[1], &wide])), (6, 2), "a wide pool joins a lane");
    drop(pools);
    assert_eq!(names(&wide).len(), 6, "it keeps its threads when the others go");
}

#[test]
fn a_lane_is_as_wide_as_its_widest_pool() {
    let budget = Arc::new(Budget::new(2));
    let narrow = Pool::within(&budget, 2);
    assert_eq!(narrow.lane().workers(), 1);
    let wide = Pool::within(&budget, 4);
    assert_eq!((narrow.threads(), wide.threads(), narrow.lane().workers()), (2, 4, 3));
    assert_eq!(names(&wide).len(), 4);
    for _ in 0..100 {
        let seen = Mutex::new(BTreeSet::new());
        narrow
            .for_each(64, &|_, _| {
                seen.lock().unwrap().insert(thread::current().name().unwrap_or_default().to_owned());
            })
            .unwrap();
        let seen = seen.into_inner().unwrap();
        assert!(seen.iter().all(|name| !matches!(name.as_str(), "phicandle-2" | "phicandle-3")), "{seen:?}");
    }
    drop(wide);
    assert_eq!(narrow.lane().workers(), 1);
    assert_eq!(names(&narrow).len(), 2);
    let lane = Arc::downgrade(narrow.lane());
    drop(narrow);
    assert!(lane.upgrade().is_none(), "the threads end with the last pool");
}

/// The most units of `pools`, each with callers of its own, that were under way at once.
fn most_at_once(pools: &[Pool]) -> usize {
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for pool in pools {
            let (now, most) = (&now, &most);
            scope.spawn(move || {
                for _ in 0..200 {
                    pool.for_each(8, &|_, _| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    })
                    .unwrap();
                }
            });
        }
    });
    most.into_inner()
}

#[test]
fn pools_never_use_more_threads_than_the_budget() {
    for (cores, widths) in [(2, vec![2, 2, 2]), (3, vec![3, 1, 3]), (4, vec![2, 2, 2, 2]), (1, vec![1, 1])] {
        let budget = Arc::new(Budget::new(cores));
        let pools: Vec<_> = widths.iter().map(|&width| Pool::within(&budget, width)).collect();
        let most = most_at_once(&pools);
        assert!(most <= cores, "{most} at once, of {cores} cores and pools of {widths:?}");
    }
}

#[test]
fn an_operation_takes_the_threads_that_are_left() {
    let budget = Arc::new(Budget::new(3));
    let small: Vec<_> = (0..2).map(|_| Pool::within(&budget, 1)).collect();
    let wide = Pool::within(&budget, 3);
    assert_eq!(lanes(&[&small[0], &small[1], &wide]), 2);
    assert_eq!(wide.claimed(8), 3);
    assert_eq!(wide.claimed(2), 2, "no more than there are units");
    // The one that has its lane alone.
    let alone = small.iter().find(|pool| !Arc::ptr_eq(pool.lane(), wide.lane())).unwrap();
    alone.for_each(1, &|_, _| assert_eq!(wide.claimed(8), 2, "one is in use")).unwrap();
    assert_eq!(wide.claimed(8), 3, "and has been given back");
}

#[test]
fn a_caller_that_never_pauses_does_not_keep_the_turn() {
    let budget = Arc::new(Budget::new(2));
    let (busy, other) = (Pool::within(&budget, 2), Pool::within(&budget, 2));
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                busy.for_each(4, &|_, _| std::hint::spin_loop()).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        while count.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        // Each is waited for anew.
        for _ in 0..20 {
            other.for_each(4, &|_, _| std::hint::spin_loop()).unwrap();
            other.rest();
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_caller_that_stays_away_does_not_keep_the_turn() {
    let budget = Arc::new(Budget::new(2));
    let (gone, other) = (Pool::within(&budget, 2), Pool::within(&budget, 2));
    let (inside, end) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            gone.for_each(1, &|_, _| {
                inside.wait();
                while !end.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
            })
            .unwrap();
            // It never says that it rests.
        });
        inside.wait();
        let waiting = scope.spawn(|| other.for_each(4, &|_, _| {}).unwrap());
        while !other.lane().is_wanted() {
            thread::yield_now();
        }
        end.store(true, Ordering::SeqCst);
        waiting.join().unwrap();
    });
}

#[test]
fn a_panic_in_one_pool_leaves_the_others_alone() {
    let budget = Arc::new(Budget::new(2));
    let (bad, good) = (Pool::within(&budget, 2), Pool::within(&budget, 2));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                let error = bad.for_each(8, &|unit, _| assert!(unit != 5, "unit five")).unwrap_err();
                assert!(error.message().contains("unit five"));
            }
        });
        for _ in 0..200 {
            let sum = AtomicUsize::new(0);
            good.for_each(8, &|unit, _| {
                sum.fetch_add(unit, Ordering::Relaxed);
            })
            .unwrap();
            assert_eq!(sum.into_inner(), 28);
        }
    });
}

#[test]
fn pools_come_and_go_while_others_work() {
    let budget = Arc::new(Budget::new(2));
    let steady = Pool::within(&budget, 2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for width in (1..=4).cycle().take(60) {
                let pool = Pool::within(&budget, width);
                assert_eq!(names(&pool).len(), width);
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let sum = AtomicUsize::new(0);
            steady
                .for_each(16, &|unit, _| {
                    sum.fetch_add(unit, Ordering::Relaxed);
                })
                .unwrap();
            assert_eq!(sum.into_inner(), 120);
        }
    });
    assert_eq!(steady.lane().workers(), 1);
}

#[test]
fn the_budget_of_a_process_is_one() {
    assert!(Arc::ptr_eq(&Budget::of_process(), &Budget::of_process()));
}
