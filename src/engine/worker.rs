//! The one thread that computes: requests in, steps, events out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::errand::Errand;
use super::scheduler::Scheduler;
use super::sequence::Sequence;
use super::stats::Stats;
use super::step::{Ended, Progress, end_waiting, step};
use crate::error::Error;
use crate::kernels::lengthen_time_slice;
use crate::model::{Forward, Logits};

/// How often the bytes of blocks are added up while nothing comes or goes: there may be thousands of them.
const RECOUNT: Duration = Duration::from_millis(50);

/// What the engine's doors and its worker both see.
#[derive(Default)]
pub(super) struct Status {
    /// Set by the engine: end everything and stop.
    pub(super) closing: AtomicBool,
    /// Set by the worker when it broke: every later request gets this error.
    pub(super) broken: Mutex<Option<Error>>,
    /// Kept by the worker.
    pub(super) stats: Mutex<Stats>,
}

impl Status {
    pub(super) fn broken(&self) -> Option<Error> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes through the door.
pub(super) enum Order {
    /// A request.
    Request(Box<Sequence>),
    /// Something else that only the worker can do.
    Errand(Errand),
}

/// The worker's life: until the engine closes or drops its end of `requests`.
pub(super) fn work(
    mut model: Box<dyn Forward>,
    mut scheduler: Scheduler,
    requests: &Receiver<Order>,
    status: &Arc<Status>,
) {
    lengthen_time_slice();
    let mut logits = Logits::default();
    // When bytes were counted, and for how many sequences in slots.
    let mut counted: Option<(Instant, usize)> = None;
    let watch = |scheduler: &mut Scheduler| {
        let goes_on = take_in(scheduler, requests, status);
        tell(end_waiting(scheduler), status);
        !goes_on
    };
    while receive(&mut scheduler, requests, status) {
        let stepped =
            catch_unwind(AssertUnwindSafe(|| step(&mut scheduler, model.as_mut(), &mut logits, &watch)));
        match stepped {
            Ok(progress) => {
                let errands = scheduler.errands();
                let active = scheduler.counts().1;
                let due = !errands.is_empty()
                    || !progress.ended.is_empty()
                    || counted.is_none_or(|(at, then)| then != active || at.elapsed() >= RECOUNT);
                errands.into_iter().for_each(|errand| errand.run(&mut scheduler, model.as_mut()));
                record(&scheduler, &progress, status);
                if due {
                    count_bytes(&scheduler, model.as_ref(), status);
                    counted = Some((Instant::now(), active));
                }
                tell(progress.ended, status);
            }
            Err(panic) => return abandon(&mut scheduler, requests, panic.as_ref(), status),
        }
    }
    // Dropping a sequence tells its reader that the engine closed.
    drop(scheduler.drain());
}

/// Takes in what has arrived, waiting for it when there is nothing to do. False: the engine closes.
fn receive(scheduler: &mut Scheduler, requests: &Receiver<Order>, status: &Status) -> bool {
    if scheduler.is_idle() {
        match requests.recv() {
            Ok(order) => scheduler.take_in(order),
            Err(_) => return false,
        }
    }
    take_in(scheduler, requests, status)
}

/// Takes in what has arrived. False: the engine closes.
fn take_in(scheduler: &mut Scheduler, requests: &Receiver<Order>, status: &Status) -> bool {
    loop {
        if status.closing.load(Ordering::Acquire) {
            return false;
        }
        match requests.try_recv() {
            Ok(order) => scheduler.take_in(order),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

/// Writes down what a step did.
fn record(scheduler: &Scheduler, progress: &Progress, status: &Status) {
    let (queued, active) = scheduler.counts();
    let mut stats = status.stats.lock().unwrap_or_else(PoisonError::into_inner);
    stats.queued = queued;
    stats.active = active;
    stats.preempted = scheduler.preempted();
    stats.prompt_tokens += progress.prompt_tokens;
    if let Some((rows, took)) = progress.pass {
        stats.pass(active, rows, took);
    }
}

/// Writes down how many bytes the blocks have.
fn count_bytes(scheduler: &Scheduler, model: &dyn Forward, status: &Status) {
    let kv_bytes = scheduler.active().into_iter().map(|slot| model.kv_bytes(slot)).sum();
    let cache_bytes = scheduler.kept_bytes();
    let mut stats = status.stats.lock().unwrap_or_else(PoisonError::into_inner);
    stats.kv_bytes = kv_bytes;
    stats.cache_bytes = cache_bytes;
}

/// Counts sequences that ended, then tells their readers.
fn tell(ended: Vec<Ended>, status: &Status) {
    {
        let mut stats = status.stats.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().for_each(|ended| ended.sequence().count(&mut stats));
    }
    ended.into_iter().for_each(Ended::tell);
}

/// After a panic nothing of the model can be trusted: everyone is told, and the engine takes no more.
fn abandon(
    scheduler: &mut Scheduler,
    requests: &Receiver<Order>,
    panic: &(dyn std::any::Any + Send),
    status: &Status,
) {
    let error = Error::internal(format!("The engine's worker panicked: {}.", panic_text(panic)));
    *status.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    requests.try_iter().for_each(|order| scheduler.take_in(order));
    for sequence in scheduler.drain() {
        sequence.fail(error.clone());
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
