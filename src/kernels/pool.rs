//! A pool of threads that stay: one operation at a time is cut into units, and whoever is free takes the next one.
//!
//! A forward pass makes hundreds of such operations, many of a few microseconds, so the threads watch for the next one for a
//! while before they sleep. Nobody waits for a thread to come: those who are there do the work, the caller among them, and
//! the caller waits only for those who took part. So a thread that the system has put aside costs its share of the work
//! and no more, and a child process after a fork, in which the threads are missing, does not hang.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::scratch::Scratch;
use super::worker::{Padded, Shared, Worker};
use crate::error::{Error, Result};

/// Most threads of a pool: more is a slip of the pen, not a machine.
const MAX_THREADS: usize = 1024;
/// After so many operations in which no worker took part, see whether this is still the process that has them.
const ALONE_LIMIT: u32 = 16;

/// What one unit of an operation does: its number, from 0, and the memory of the thread that it runs on.
pub type Work<'a> = dyn Fn(usize, &mut Scratch) + Sync + 'a;

thread_local! {
    /// Whether this thread is inside a unit.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Threads for the operations of a model. Idle ones sleep after a fraction of a millisecond.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    /// The process that has the threads.
    process: AtomicU32,
    /// Bytes of scratch of all threads.
    scratch_bytes: Arc<AtomicUsize>,
    crew: Mutex<Crew>,
}

/// What the caller of an operation needs to himself.
#[derive(Debug)]
struct Crew {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    scratch: Scratch,
    /// Operations, one after the other, in which no worker took part.
    alone: u32,
}

/// One operation. It lives in the caller's frame for as long as workers may look at it.
pub(super) struct Job<'a> {
    work: &'a Work<'a>,
    units: usize,
    next: Padded<AtomicUsize>,
    helped: Padded<AtomicBool>,
    fault: Mutex<Option<String>>,
}

impl Pool {
    /// A pool of `threads`, from 1: the caller's own counts, so one fewer is started. Where the system does not start them
    /// all, the pool has fewer, and the log says so; results are the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for 0 or more than 1024.
    pub fn new(threads: usize) -> Result<Self> {
        check_threads(threads)?;
        let scratch_bytes = Arc::default();
        let crew = Crew::new(threads, &scratch_bytes, Scratch::counted(Arc::clone(&scratch_bytes)));
        Ok(Self {
            threads: crew.workers.len() + 1,
            process: AtomicU32::new(std::process::id()),
            scratch_bytes,
            crew: Mutex::new(crew),
        })
    }

    /// Threads that share an operation, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes of scratch that the threads hold: the most that the operations so far asked for.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes.load(Ordering::Relaxed)
    }

    /// Runs `work` once for each unit from 0 to `units`, on all threads at once, and returns when all are done. Which
    /// thread gets which unit is chance. Of several callers, one goes after the other; from inside a unit, the units run
    /// one by one on that thread, with scratch of their own.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) with the text of the panic when a unit panicked; units not yet
    /// begun are left out then.
    pub fn for_each(&self, units: usize, work: &Work<'_>) -> Result<()> {
        if units == 0 {
            return Ok(());
        }
        let job = Job::new(units, work);
        if INSIDE.get() {
            job.run_alone(&mut Scratch::default());
        } else {
            match self.turn() {
                Some(mut crew) => {
                    let _inside = Inside::enter();
                    crew.run(&job, self);
                }
                None => {
                    let _inside = Inside::enter();
                    job.run_alone(&mut Scratch::default());
                }
            }
        }
        job.outcome()
    }

    /// Waits for the caller's turn. None when it will never come: a fork left the turn to a thread that is not here.
    fn turn(&self) -> Option<MutexGuard<'_, Crew>> {
        match self.crew.try_lock() {
            Ok(crew) => Some(crew),
            Err(TryLockError::Poisoned(crew)) => Some(crew.into_inner()),
            Err(TryLockError::WouldBlock) if self.is_forked() => None,
            Err(TryLockError::WouldBlock) => Some(self.crew.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Whether this process is not the one that started the threads. Asks the system.
    pub(super) fn is_forked(&self) -> bool {
        self.process.load(Ordering::Relaxed) != std::process::id()
    }
}

/// Whether a pool may have so many threads.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for 0 or more than 1024.
pub fn check_threads(threads: usize) -> Result<()> {
    if (1..=MAX_THREADS).contains(&threads) {
        return Ok(());
    }
    Err(Error::invalid(
        "threads",
        format!("threads is {threads}; it should be from 1 to {MAX_THREADS}."),
        "Leave it out to use every core that this process may use.",
    ))
}

impl Drop for Pool {
    fn drop(&mut self) {
        let forked = self.is_forked();
        let crew = self.crew.get_mut().unwrap_or_else(PoisonError::into_inner);
        if forked {
            crew.abandon();
            return;
        }
        crew.shared.shut_down();
        crew.shared.wake(&crew.workers, usize::MAX);
        for worker in crew.workers.drain(..) {
            worker.join();
        }
    }
}

impl Crew {
    fn new(threads: usize, scratch_bytes: &Arc<AtomicUsize>, scratch: Scratch) -> Self {
        let shared = Arc::new(Shared::new(threads));
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

    fn run(&mut self, job: &Job<'_>, pool: &Pool) {
        if job.units == 1 || self.workers.is_empty() {
            job.run_alone(&mut self.scratch);
            return;
        }
        let asleep = self.shared.sleepers();
        if (asleep > 0 || self.alone >= ALONE_LIMIT) && pool.is_forked() {
            self.abandon();
            *self = Self::new(pool.threads, &pool.scratch_bytes, std::mem::take(&mut self.scratch));
            pool.process.store(std::process::id(), Ordering::Relaxed);
        }
        {
            let _open = self.shared.open(job, pool);
            self.shared.wake(&self.workers, job.units - 1);
            job.take_part(&mut self.scratch);
        }
        self.alone = if job.helped.load(Ordering::Relaxed) { 0 } else { self.alone % ALONE_LIMIT + 1 };
    }

    /// Forgets threads that a fork left behind in the parent.
    fn abandon(&mut self) {
        self.workers.drain(..).for_each(Worker::forget);
    }
}

impl<'a> Job<'a> {
    fn new(units: usize, work: &'a Work<'a>) -> Self {
        Self { work, units, next: Padded::default(), helped: Padded::default(), fault: Mutex::new(None) }
    }

    /// Does units for as long as there are any, as one of several threads.
    fn take_part(&self, scratch: &mut Scratch) {
        let units = || loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= self.units {
                break;
            }
            (self.work)(unit, scratch);
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(units)) {
            self.next.store(self.units, Ordering::Relaxed);
            self.fail(panic.as_ref());
        }
    }

    /// The same, as a worker.
    pub(super) fn help(&self, scratch: &mut Scratch) {
        INSIDE.set(true);
        if !self.helped.load(Ordering::Relaxed) {
            self.helped.store(true, Ordering::Relaxed);
        }
        self.take_part(scratch);
    }

    /// Does all units, in order.
    fn run_alone(&self, scratch: &mut Scratch) {
        let units = || (0..self.units).for_each(|unit| (self.work)(unit, scratch));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(units)) {
            self.fail(panic.as_ref());
        }
    }

    #[cold]
    fn fail(&self, panic: &(dyn Any + Send)) {
        let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "no text".to_owned(),
        };
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }

    fn outcome(self) -> Result<()> {
        match self.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(text) => Err(Error::internal(format!("A part of an operation panicked: {text}."))),
        }
    }
}

/// While it lives, this thread is inside a unit.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}
