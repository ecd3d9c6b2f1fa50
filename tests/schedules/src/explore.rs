//! Runs a model in every order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::CLOCK;

/// How many orders of a model are tried.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// All of them.
    Every,
    /// Those in which a thread that could go on is put aside at most so often. Where a thread waits, any other may go on, for
    /// free.
    Interruptions(usize),
}

/// How fast time passes in a model.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// Not at all: nobody loses patience.
    Still,
    /// So fast that every patience is at its end.
    Racing,
}

/// Tries the orders of `model`, a closed program of at most five threads, and gives their number.
///
/// # Panics
/// When the model panics in one of them, or no thread of it can go on.
pub fn explore(name: &str, bound: Bound, clock: Clock, model: impl Fn() + Send + Sync + 'static) -> u64 {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.preemption_bound = match bound {
        Bound::Every => None,
        Bound::Interruptions(most) => Some(most),
    };
    CLOCK.set(clock);
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("SCHEDULES: {runs} of {name} ({bound:?}, {clock:?})");
    runs
}
