//! A pool of threads that stay: one operation at a time is cut into units, and whoever is free takes the next one.
//!
//! A forward pass makes hundreds of such operations, many of a few microseconds, so the threads watch for the next one for a
//! while before they sleep. Nobody waits for a thread to come: those who are there do the work, the caller among them, and
//! the caller waits only for those who took part. So a thread that the system has put aside costs its share of the work
//! and no more, and a child process after a fork, in which the threads are missing, does not hang.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::aside::{self, Chore};
use super::budget::{Budget, Place};
use super::halt::{Halt, Stop};
use super::scratch::Scratch;
use super::worker::Padded;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, thread_local};

/// Most threads of a pool: more is a slip of the pen, not a machine.
const MAX_THREADS: usize = 1024;

/// What one unit of an operation does: its number, from 0, and the memory of the thread that it runs on.
pub type Work<'a> = dyn Fn(usize, &mut Scratch) + Sync + 'a;

thread_local! {
    /// Whether this thread is inside a unit.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
thread_local! {
    /// Whether the next operation that this thread calls for with several units panics on a worker.
    pub(crate) static FAULT: Cell<bool> = const { Cell::new(false) };
}

/// Threads for the operations of a model. Idle ones sleep after a fraction of a millisecond.
#[derive(Debug)]
pub struct Pool {
    place: Place,
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
    /// A pool of `threads`, from 1: the caller's own counts, so one fewer is started. They serve this pool alone. Where the
    /// system does not start them all, the pool has fewer, and the log says so; results are the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for 0 or more than 1024.
    pub fn new(threads: usize) -> Result<Self> {
        check_threads(threads)?;
        Ok(Self::within(&Arc::new(Budget::new(threads)), threads))
    }

    /// The same, with threads of the process: all such pools together run as many at once as the process may use cores, or
    /// as the widest of them has. Those that would need more take turns, operation by operation, each for the same time.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn shared(threads: usize) -> Result<Self> {
        check_threads(threads)?;
        Ok(Self::within(&Budget::of_process(), threads))
    }

    pub(super) fn within(budget: &Arc<Budget>, threads: usize) -> Self {
        Self { place: budget.join(threads) }
    }

    #[cfg(test)]
    pub(super) fn lane(&self) -> &Arc<super::lane::Lane> {
        &self.place.lane
    }

    /// Threads that an operation of so many units would have now.
    #[cfg(test)]
    pub(super) fn claimed(&self, units: usize) -> usize {
        self.place.claim(units).threads
    }

    /// Threads that share an operation, the caller's included.
    pub fn threads(&self) -> usize {
        self.place.width
    }

    /// Bytes of scratch that the threads hold: the most that the operations so far asked for.
    pub fn scratch_bytes(&self) -> usize {
        self.place.lane.scratch_bytes()
    }

    /// Runs `work` once for each unit from 0 to `units`, on all threads at once, and returns when all are done. Which
    /// thread gets which unit is chance. Of several callers, one goes after the other; from inside a unit, the units run
    /// one by one on that thread, with scratch of their own.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) with the text of the panic when a unit panicked; units not yet
    /// begun are left out then.
    pub fn for_each(&self, units: usize, work: &Work<'_>) -> Result<()> {
        match self.for_each_until(units, work, &|| false) {
            Ok(()) | Err(Halt::Stopped) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    /// The same, but `stop` is asked before each unit that the caller's own thread takes, so it is heard in the middle of an
    /// operation: units not yet begun are left out then.
    ///
    /// # Errors
    /// As [`Pool::for_each`], and when `stop` says so.
    pub(crate) fn for_each_until(&self, units: usize, work: &Work<'_>, stop: &Stop<'_>) -> Result<(), Halt> {
        if units == 0 {
            return Ok(());
        }
        #[cfg(test)]
        let work = &with_fault(units, work);
        let job = Job::new(units, work);
        let whole = if INSIDE.with(Cell::get) {
            job.take_part(&mut Scratch::default(), stop)
        } else {
            self.place.lane.aside().take();
            match self.place.lane.enter(self.place.caller) {
                Some(mut turn) => {
                    let _inside = Inside::enter();
                    let claim = self.place.claim(units);
                    turn.run(&job, claim.threads, stop)
                }
                None => {
                    let _inside = Inside::enter();
                    job.take_part(&mut Scratch::default(), stop)
                }
            }
        };
        job.outcome()?;
        if whole { Ok(()) } else { Err(Halt::Stopped) }
    }

    /// Has `chore` done by a thread that watches for the next operation, or by whoever calls for one: before that begins, it was
    /// begun. If no operation follows, it may be dropped.
    pub fn aside(&self, chore: Chore) {
        if self.threads() > 1 { self.place.lane.aside().offer(chore) } else { aside::run(chore) }
    }

    /// Says that the next operation is not near. Between two operations the turn is kept for a pool, unless another one has
    /// waited for long.
    pub fn rest(&self) {
        self.place.lane.leave(self.place.caller);
    }
}

/// `work`, or what panics on the first worker that takes part, while the caller waits for one.
#[cfg(test)]
fn with_fault(units: usize, work: &Work<'_>) -> impl Fn(usize, &mut Scratch) + Sync {
    let caller = std::thread::current().id();
    let faulty = units > 1 && FAULT.take();
    let met = AtomicBool::new(false);
    move |unit, scratch| {
        if faulty {
            if std::thread::current().id() != caller {
                met.store(true, Ordering::SeqCst);
                panic!("injected");
            }
            while !met.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        work(unit, scratch);
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

impl<'a> Job<'a> {
    fn new(units: usize, work: &'a Work<'a>) -> Self {
        Self { work, units, next: Padded::default(), helped: Padded::default(), fault: Mutex::new(None) }
    }

    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// Whether a worker took part.
    pub(super) fn was_helped(&self) -> bool {
        self.helped.load(Ordering::Relaxed)
    }

    /// Does units for as long as there are any, alone in their order. Once `stop` says so nobody begins another: false.
    pub(super) fn take_part(&self, scratch: &mut Scratch, stop: &Stop<'_>) -> bool {
        let units = || {
            while !stop() {
                let unit = self.next.fetch_add(1, Ordering::Relaxed);
                if unit >= self.units {
                    return true;
                }
                (self.work)(unit, scratch);
            }
            false
        };
        let whole = catch_unwind(AssertUnwindSafe(units)).unwrap_or_else(|panic| {
            self.fail(panic.as_ref());
            false
        });
        if !whole {
            self.next.store(self.units, Ordering::Relaxed);
        }
        whole
    }

    /// The same, as a worker.
    pub(super) fn help(&self, scratch: &mut Scratch) {
        INSIDE.with(|inside| inside.set(true));
        if !self.helped.load(Ordering::Relaxed) {
            self.helped.store(true, Ordering::Relaxed);
        }
        self.take_part(scratch, &|| false);
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
        INSIDE.with(|inside| inside.set(true));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}
