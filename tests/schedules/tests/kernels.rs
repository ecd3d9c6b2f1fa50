//! Every order of steps of the threads that compute.

use phicandle_schedules::kernels::{pool_models, turn_models};
use phicandle_schedules::{Bound, Clock, explore};

/// Once with workers that never sleep and a turn that is kept until it is left, once with workers that sleep as soon as they
/// may and a turn that is given up as soon as others wait.
fn both(name: &str, bound: Bound, model: fn()) {
    for clock in [Clock::Still, Clock::Racing] {
        explore(name, bound, clock, model);
    }
}

#[test]
fn two_callers_take_turns() {
    both("a turn, two callers", Bound::Every, turn_models::two_callers);
}

#[test]
fn three_callers_take_turns() {
    both("a turn, three callers", Bound::Interruptions(4), turn_models::three_callers);
}

#[test]
fn threads_of_one_caller_take_turns_too() {
    both(
        "a turn, two threads of one caller",
        Bound::Interruptions(4),
        turn_models::two_threads_of_one_caller,
    );
}

#[test]
fn units_run_once_and_are_seen() {
    both("a pool, one worker", Bound::Interruptions(3), pool_models::units_run_once_and_are_seen);
}

#[test]
fn several_workers_share_an_operation() {
    both("a pool, two workers", Bound::Interruptions(1), pool_models::three_threads);
}

#[test]
fn a_panic_is_told_and_the_pool_goes_on() {
    both("a pool, a panic", Bound::Interruptions(3), pool_models::a_panic_is_told_and_the_pool_goes_on);
}

#[test]
fn a_stopped_operation_has_ended() {
    both("a pool, a stop", Bound::Interruptions(2), pool_models::a_stopped_operation_has_ended);
}

#[test]
fn chores_are_done_once() {
    both("a pool, three chores", Bound::Interruptions(2), pool_models::chores_are_done_once);
}

#[test]
fn two_pools_share_a_worker() {
    both("two pools, one worker", Bound::Interruptions(2), pool_models::two_pools_share_a_worker);
}

#[test]
fn a_lane_grows_and_shrinks() {
    both(
        "a pool beside one that comes and goes",
        Bound::Interruptions(3),
        pool_models::a_lane_grows_and_shrinks,
    );
}
