//! A thread of a [`Lane`], and what it shares with the caller of an operation.
//!
//! An operation has a number, its *epoch*: odd while it is open. A worker that sees an open one marks itself busy and looks
//! again; if it is still open, the worker may touch the job. The caller closes the epoch and then waits for every worker
//! that is marked. Both write first and read the other's word after a full fence, so at least one sees the other: no
//! worker touches a job whose caller has gone on.

use std::io;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::aside::Aside;
use super::lane::Lane;
use super::pool::Job;
use super::scratch::Scratch;
use super::time_slice::lengthen_time_slice;
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::hint::spin_loop;
use crate::sync::thread::{self, JoinHandle, Thread};
use crate::sync::{Instant, LOOKS_PER_GLANCE};

/// How long a worker watches for the next operation before it sleeps.
const PATIENCE: Duration = Duration::from_micros(150);
/// The same while an operation is open of which nothing is left to take: the next one follows it.
const PATIENCE_OPEN: Duration = Duration::from_millis(5);
/// Looks after which a waiting thread lets others run, and then lets them after every glance.
const LOOKS_BEFORE_YIELD: u32 = 4096;
/// Glances between two questions whether a worker that is waited for was lost in a fork.
const GLANCES_PER_FORK_CHECK: u32 = 1024;

/// The epoch that ends the workers; counting never gets there.
const SHUT_DOWN: u64 = u64::MAX - 1;

/// A value with two cache lines of its own (Intel's prefetcher fetches them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What the threads of a pool have in common.
#[derive(Debug)]
pub(super) struct Shared {
    epoch: Padded<AtomicU64>,
    /// The open operation.
    job: AtomicPtr<Job<'static>>,
    /// Threads that it may use: workers of this number and above stay out.
    width: AtomicUsize,
    sleepers: Padded<AtomicUsize>,
    /// One for each worker.
    slots: Box<[Padded<Slot>]>,
    /// What else there is to do.
    aside: Arc<Aside>,
    /// More threads than processors: watching would only keep others from working.
    crowded: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// The worker may be touching the job.
    busy: AtomicBool,
    /// The worker sleeps, or is about to. Who sets it back to false counts it off `sleepers`.
    asleep: AtomicBool,
}

/// The caller's end of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    thread: Thread,
    handle: JoinHandle<()>,
}

/// An operation that workers may join. Dropping it closes the operation and waits for those who did.
pub(super) struct Open<'a> {
    shared: &'a Shared,
    lane: &'a Lane,
    epoch: u64,
}

impl Worker {
    /// Starts worker `number`, from 1.
    pub(super) fn start(number: usize, shared: &Arc<Shared>, mut scratch: Scratch) -> io::Result<Self> {
        let shared = Arc::clone(shared);
        let handle = thread::Builder::new().name(format!("phicandle-{number}")).spawn(move || {
            lengthen_time_slice();
            shared.serve(number, &mut scratch);
        })?;
        Ok(Self { thread: handle.thread().clone(), handle })
    }

    /// Waits for the end of the thread, which was told to end.
    pub(super) fn join(self) {
        if self.handle.join().is_err() {
            log::error!("A thread of a pool had panicked.");
        }
    }

    /// Lets go of a thread that is not in this process.
    pub(super) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Shared {
    /// For so many threads, the caller's own included.
    pub(super) fn new(threads: usize, aside: &Arc<Aside>) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            epoch: Padded::default(),
            job: AtomicPtr::default(),
            width: AtomicUsize::default(),
            sleepers: Padded::default(),
            slots: (1..threads).map(|_| Padded::default()).collect(),
            aside: Arc::clone(aside),
            crowded: threads > processors,
        }
    }

    /// Opens `job` to the workers below `width`, until the returned value is dropped. Only one may be open.
    pub(super) fn open<'a>(&'a self, job: &Job<'_>, width: usize, lane: &'a Lane) -> Open<'a> {
        self.width.store(width, Ordering::Relaxed);
        self.job.store(ptr::from_ref(job).cast::<Job<'static>>().cast_mut(), Ordering::Relaxed);
        let epoch = self.epoch.load(Ordering::Relaxed).wrapping_add(1);
        self.epoch.store(epoch, Ordering::Release);
        // Against `sleep`: either we see that the worker sleeps, or it sees the new epoch.
        fence(Ordering::SeqCst);
        Open { shared: self, lane, epoch }
    }

    /// Tells the workers to end.
    pub(super) fn shut_down(&self) {
        self.epoch.store(SHUT_DOWN, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Whether workers below `width` sleep.
    pub(super) fn are_asleep(&self, width: usize) -> bool {
        let mut slots = self.slots.iter().take(width - 1);
        self.sleepers.load(Ordering::Relaxed) > 0 && slots.any(|slot| slot.asleep.load(Ordering::Relaxed))
    }

    /// Wakes at most `count` sleeping workers below `width`.
    pub(super) fn wake(&self, workers: &[Worker], width: usize, count: usize) {
        if self.sleepers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wanted = workers.iter().zip(&self.slots).take(width - 1);
        let asleep = wanted.filter(|(_, slot)| self.rouse(slot));
        asleep.take(count).for_each(|(worker, _)| worker.thread.unpark());
    }

    /// Takes the mark of sleep from a worker; whether it had one.
    fn rouse(&self, slot: &Slot) -> bool {
        let asleep = slot.asleep.load(Ordering::Relaxed) && slot.asleep.swap(false, Ordering::AcqRel);
        if asleep {
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
        }
        asleep
    }

    /// The life of worker `number`.
    fn serve(&self, number: usize, scratch: &mut Scratch) {
        let Some(slot) = self.slots.get(number - 1) else { return };
        let mut done = 0;
        loop {
            let epoch = self.watch(number, slot, done);
            if epoch == SHUT_DOWN {
                return;
            }
            let busy = Busy::mark(slot);
            if self.epoch.load(Ordering::Acquire) == epoch {
                // SAFETY: the epoch is open and we are marked as busy, both seen after a full fence, so the caller, who
                // keeps the job in place until no worker is busy, waits for us. The pointer was stored before the epoch.
                let job = unsafe { &*self.job.load(Ordering::Relaxed) };
                job.help(scratch);
            }
            drop(busy);
            done = epoch;
        }
    }

    /// Waits for an open epoch other than `done` that wants worker `number`, or for the end.
    fn watch(&self, number: usize, slot: &Slot, done: u64) -> u64 {
        let mut looks = 0_u32;
        let mut since: Option<Instant> = None;
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if self.is_news(epoch, done, number) {
                return epoch;
            }
            self.aside.take();
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_GLANCE) {
                let patience = if epoch == done { PATIENCE_OPEN } else { PATIENCE };
                if since.get_or_insert_with(Instant::now).elapsed() > patience {
                    self.sleep(number, slot, done);
                    (looks, since) = (0, None);
                } else if self.crowded || looks.is_multiple_of(LOOKS_BEFORE_YIELD) {
                    thread::yield_now();
                }
            }
            spin_loop();
        }
    }

    fn sleep(&self, number: usize, slot: &Slot, done: u64) {
        // An exchange, so that this comes after the one of a caller that is late with the last wake-up.
        slot.asleep.swap(true, Ordering::AcqRel);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        // Against `open`: either the caller sees that we sleep, or we see its epoch.
        fence(Ordering::SeqCst);
        if self.is_news(self.epoch.load(Ordering::Acquire), done, number) {
            self.rouse(slot);
            return;
        }
        while slot.asleep.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Whether an epoch is something to do for worker `number`, which has done `done`. The width may be that of a later
    /// operation already: then this one is over, and the other brings an epoch of its own.
    fn is_news(&self, epoch: u64, done: u64, number: usize) -> bool {
        epoch == SHUT_DOWN
            || (!epoch.is_multiple_of(2) && epoch != done && number < self.width.load(Ordering::Relaxed))
    }
}

/// While it lives, the caller of an open operation waits for this worker, whatever becomes of it.
struct Busy<'a>(&'a Slot);

impl<'a> Busy<'a> {
    fn mark(slot: &'a Slot) -> Self {
        slot.busy.store(true, Ordering::Relaxed);
        // Against `Open::drop`: either the caller sees that we are busy, or we see that it has closed.
        fence(Ordering::SeqCst);
        Self(slot)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Self { shared, lane, epoch } = self;
        shared.epoch.store(epoch.wrapping_add(1), Ordering::Release);
        // Against `Busy::mark`.
        fence(Ordering::SeqCst);
        let mut looks = 0_u32;
        for slot in &shared.slots {
            while slot.busy.load(Ordering::Acquire) {
                looks = looks.wrapping_add(1);
                if looks.is_multiple_of(LOOKS_PER_GLANCE) {
                    if shared.crowded || looks >= LOOKS_BEFORE_YIELD {
                        thread::yield_now();
                    }
                    if looks.is_multiple_of(LOOKS_PER_GLANCE * GLANCES_PER_FORK_CHECK) && lane.is_forked() {
                        // Its thread is in the parent and touches the parent's memory, not ours.
                        return;
                    }
                }
                spin_loop();
            }
        }
    }
}
