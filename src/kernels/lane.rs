//! Threads that several pools share, one operation at a time.

use std::cell::UnsafeCell;
use std::sync::Arc;

use super::aside::Aside;
use super::halt::Stop;
use super::pool::Job;
use super::scratch::Scratch;
use super::turn::{Caller, Turn};
use super::worker::{Shared, Worker};
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// After so many operations in which no worker took part, see whether this is still the process that has them.
const ALONE_LIMIT: u32 = 16;

/// The lane itself, where it wants a turn to change its threads. Pools count from 1.
const ITSELF: Caller = 0;

/// Workers, and the turn to work with them.
#[derive(Debug)]
pub(super) struct Lane {
    /// The process that has the threads.
    process: AtomicU32,
    /// Bytes of scratch of all threads.
    scratch_bytes: Arc<AtomicUsize>,
    /// Chores for threads that watch for the next operation.
    aside: Arc<Aside>,
    turn: Turn,
    /// Belongs to whoever has the turn.
    crew: UnsafeCell<Crew>,
}

// SAFETY: the crew, which is all that is not shared safely by itself, is touched by the one thread that has the turn.
unsafe impl Sync for Lane {}

/// What the caller of an operation needs to himself.
struct Crew {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    scratch: Scratch,
    /// Operations, one after the other, in which no worker took part.
    alone: u32,
}

/// A caller's turn.
pub(super) struct InTurn<'a> {
    lane: &'a Lane,
    caller: Caller,
}

impl Lane {
    /// With `threads` threads, the caller's own included. Where the system does not start them all, it has fewer.
    pub(super) fn new(threads: usize) -> Self {
        let (scratch_bytes, aside) = (Arc::default(), Arc::default());
        let crew = Crew::new(threads, &scratch_bytes, &aside, Scratch::counted(Arc::clone(&scratch_bytes)));
        Self {
            process: AtomicU32::new(std::process::id()),
            scratch_bytes,
            aside,
            turn: Turn::default(),
            crew: UnsafeCell::new(crew),
        }
    }

    /// The threads there are, the caller's own included.
    pub(super) fn threads(&mut self) -> usize {
        self.crew.get_mut().threads()
    }

    /// Waits for the turn of `caller`. None when it will never come: a fork left it to a thread that is not here.
    pub(super) fn enter(&self, caller: Caller) -> Option<InTurn<'_>> {
        self.turn.take(caller, || self.is_forked()).then(|| InTurn { lane: self, caller })
    }

    /// Lets other callers have the turn, if it is kept for this one.
    pub(super) fn leave(&self, caller: Caller) {
        self.turn.leave(caller);
    }

    /// Forgets a caller that will not come again.
    pub(super) fn forget(&self, caller: Caller) {
        if !self.is_forked() {
            self.turn.forget(caller);
        }
    }

    /// Ends the workers and starts as many as `threads` threads need, between two operations. Gives the threads there are.
    pub(super) fn resize(&self, threads: usize) -> usize {
        let there = self.enter(ITSELF).map_or(threads, |mut turn| turn.crew().resize(threads, self));
        self.leave(ITSELF);
        there
    }

    /// Chores for its threads.
    pub(super) fn aside(&self) -> &Aside {
        &self.aside
    }

    /// Bytes of scratch that the threads hold.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.scratch_bytes.load(Ordering::Relaxed)
    }

    /// The workers, when it is their turn to be counted.
    #[cfg(test)]
    pub(super) fn workers(&self) -> usize {
        self.enter(ITSELF).unwrap().crew().workers.len()
    }

    /// Whether somebody waits for a turn.
    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        self.turn.is_wanted()
    }

    /// Whether this process is not the one that started the threads. Asks the system.
    pub(super) fn is_forked(&self) -> bool {
        self.process.load(Ordering::Relaxed) != std::process::id()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let forked = self.is_forked();
        let crew = self.crew.get_mut();
        if forked {
            crew.abandon();
        } else {
            crew.end();
        }
    }
}

impl InTurn<'_> {
    fn crew(&mut self) -> &mut Crew {
        // SAFETY: this is the one who has the turn, and gives it out for as long as it is borrowed itself.
        unsafe { &mut *self.lane.crew.get() }
    }

    /// Does `job` on at most `width` threads, to its end or until `stop` says so: false.
    pub(super) fn run(&mut self, job: &Job<'_>, width: usize, stop: &Stop<'_>) -> bool {
        let (lane, caller) = (self.lane, self.caller);
        self.crew().run(job, width, stop, lane, caller)
    }
}

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        self.lane.turn.give(self.caller, || self.lane.is_forked());
    }
}

impl Crew {
    fn new(threads: usize, scratch_bytes: &Arc<AtomicUsize>, aside: &Arc<Aside>, scratch: Scratch) -> Self {
        let shared = Arc::new(Shared::new(threads, aside));
        let mut workers = Vec::new();
        for number in 1..threads {
            match Worker::start(number, &shared, Scratch::counted(Arc::clone(scratch_bytes))) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    log::warn!("The system started {number} of {threads} threads: {error}.");
                    break;
                }
            }
        }
        Self { shared, workers, scratch, alone: 0 }
    }

    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&mut self, job: &Job<'_>, width: usize, stop: &Stop<'_>, lane: &Lane, caller: Caller) -> bool {
        let width = width.min(self.threads());
        if job.units() == 1 || width == 1 {
            return job.take_part(&mut self.scratch, stop);
        }
        let asleep = self.shared.are_asleep(width);
        if (asleep || self.alone >= ALONE_LIMIT) && lane.is_forked() {
            if !lane.turn.inherit(caller) {
                return job.take_part(&mut self.scratch, stop);
            }
            let threads = self.threads();
            self.abandon();
            *self = Self::new(threads, &lane.scratch_bytes, &lane.aside, std::mem::take(&mut self.scratch));
            lane.process.store(std::process::id(), Ordering::Relaxed);
        }
        let whole = {
            let _open = self.shared.open(job, width, lane);
            self.shared.wake(&self.workers, width, job.units() - 1);
            job.take_part(&mut self.scratch, stop)
        };
        self.alone = if job.was_helped() { 0 } else { self.alone % ALONE_LIMIT + 1 };
        whole
    }

    fn resize(&mut self, threads: usize, lane: &Lane) -> usize {
        if threads != self.threads() {
            self.end();
            *self = Self::new(threads, &lane.scratch_bytes, &lane.aside, std::mem::take(&mut self.scratch));
        }
        self.threads()
    }

    /// Ends the workers.
    fn end(&mut self) {
        self.shared.shut_down();
        self.shared.wake(&self.workers, usize::MAX, usize::MAX);
        for worker in self.workers.drain(..) {
            worker.join();
        }
    }

    /// Forgets threads that a fork left behind in the parent.
    fn abandon(&mut self) {
        self.workers.drain(..).for_each(Worker::forget);
    }
}
