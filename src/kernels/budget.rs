//! The threads of a process, shared by all its models.
//!
//! Pools that together need no more threads than there are cores have threads of their own, each pool in a *lane*. A pool that
//! would need more joins the lane of another one, and takes turns with it: two models with as many threads as there are cores
//! never run twice as many. Lanes of different widths may come to more; an operation then begins with the threads that are
//! left, its caller's own at least.

use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, PoisonError, Weak};

use super::cpus::default_threads;
use super::lane::Lane;
use super::turn::Caller;
use super::worker::Padded;
use crate::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The budget of this process. Replaced in a forked child, where a lock of the parent's may be held by a thread that is not
/// there; of the standard library, as a static has to be.
static OF_PROCESS: AtomicPtr<Arc<Budget>> = AtomicPtr::new(std::ptr::null_mut());

/// What all pools of a process may use.
#[derive(Debug)]
pub(super) struct Budget {
    process: u32,
    cores: usize,
    list: Mutex<List>,
    /// How many lanes there are: with one, nothing has to be shared out.
    lanes: AtomicUsize,
    /// Threads that no operation uses. Below zero while operations had to begin without.
    free: Padded<AtomicIsize>,
}

#[derive(Debug, Default)]
struct List {
    lanes: Vec<Members>,
    /// Numbers given to pools.
    callers: Caller,
    /// The threads of which some are free.
    threads: usize,
}

/// A lane and its pools, each with its width.
#[derive(Debug)]
struct Members {
    lane: Weak<Lane>,
    pools: Vec<(Caller, usize)>,
}

/// A pool's place. It leaves when this is dropped; with the last pool of a lane its threads end.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) lane: Arc<Lane>,
    pub(super) caller: Caller,
    /// Threads of an operation, at most.
    pub(super) width: usize,
    budget: Arc<Budget>,
}

/// Threads for one operation.
pub(super) struct Claim<'a> {
    pub(super) threads: usize,
    /// Where to give them back.
    from: Option<&'a Budget>,
}

impl Budget {
    /// For so many cores.
    pub(super) fn new(cores: usize) -> Self {
        Self {
            process: std::process::id(),
            cores,
            list: Mutex::default(),
            lanes: AtomicUsize::default(),
            free: Padded::default(),
        }
    }

    /// The one of this process: its cores.
    pub(super) fn of_process() -> Arc<Self> {
        loop {
            let now = OF_PROCESS.load(Ordering::Acquire);
            // SAFETY: what was stored here is never freed and never written again.
            let known = unsafe { now.as_ref() };
            if let Some(budget) = known.filter(|budget| budget.process == std::process::id()) {
                return Arc::clone(budget);
            }
            let fresh = Box::into_raw(Box::new(Arc::new(Self::new(default_threads()))));
            if OF_PROCESS.compare_exchange(now, fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }

    /// A place for a pool of `width` threads. The width is less where the system does not start them all.
    pub(super) fn join(self: &Arc<Self>, width: usize) -> Place {
        let mut list = self.list();
        list.callers += 1;
        let caller = list.callers;
        let most = list.widest().max(self.cores).max(width);
        let used: usize = list.lanes.iter().map(Members::width).sum();
        let shared = list.lanes.iter_mut().filter_map(|members| Some((members.lane.upgrade()?, members)));
        let (lane, threads) = match shared.min_by_key(|(_, members)| members.pools.len()) {
            Some((lane, members)) if used + width > most => {
                let threads = if width > members.width() { lane.resize(width) } else { width };
                members.pools.push((caller, width));
                (lane, threads)
            }
            _ => {
                let mut lane = Lane::new(width);
                let threads = lane.threads();
                let lane = Arc::new(lane);
                list.lanes.push(Members { lane: Arc::downgrade(&lane), pools: vec![(caller, width)] });
                (lane, threads)
            }
        };
        self.note(&mut list);
        Place { lane, caller, width: threads.min(width), budget: Arc::clone(self) }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what follows from a change of the lanes.
    fn note(&self, list: &mut List) {
        let threads = list.widest().max(self.cores);
        self.free
            .fetch_add(threads.cast_signed().wrapping_sub(list.threads.cast_signed()), Ordering::Relaxed);
        list.threads = threads;
        self.lanes.store(list.lanes.len(), Ordering::Relaxed);
    }
}

impl List {
    /// Threads of the widest pool.
    fn widest(&self) -> usize {
        self.lanes.iter().map(Members::width).max().unwrap_or_default()
    }
}

impl Members {
    fn width(&self) -> usize {
        self.pools.iter().map(|&(_, width)| width).max().unwrap_or_default()
    }
}

impl Place {
    /// Threads for an operation of so many units, which may begin now.
    pub(super) fn claim(&self, units: usize) -> Claim<'_> {
        let wanted = self.width.min(units);
        if self.budget.lanes.load(Ordering::Relaxed) <= 1 {
            return Claim { threads: wanted, from: None };
        }
        let free = self.budget.free.fetch_sub(wanted.cast_signed(), Ordering::Relaxed);
        let threads = usize::try_from(free).unwrap_or_default().clamp(1, wanted);
        if threads < wanted {
            self.budget.free.fetch_add((wanted - threads).cast_signed(), Ordering::Relaxed);
        }
        Claim { threads, from: Some(&self.budget) }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.from {
            budget.free.fetch_add(self.threads.cast_signed(), Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // In a forked child the list is the parent's, and its lock may be held by nobody.
        if self.budget.process != std::process::id() {
            return;
        }
        self.lane.forget(self.caller);
        let mut list = self.budget.list();
        for members in &mut list.lanes {
            let before = members.width();
            members.pools.retain(|&(caller, _)| caller != self.caller);
            let after = members.width();
            if after > 0 && after < before {
                self.lane.resize(after);
            }
        }
        list.lanes.retain(|members| !members.pools.is_empty());
        self.budget.note(&mut list);
    }
}
