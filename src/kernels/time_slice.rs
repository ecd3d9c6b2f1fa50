//! How long a thread that computes may stay at its processor, so that others which wake for a moment go first.
//!
//! With a thread for each core the processors are never free, and every piece of text wakes somebody who wants one: the
//! thread that reads it, an event loop, another program. Linux lets who wakes go first when its time slice is the shorter one, and
//! otherwise when that of the running thread is used up (EEVDF, Linux 6.12: `PREEMPT_SHORT` and `RUN_TO_PARITY` of
//! `kernel/sched/features.h`). Slices are alike unless a thread asks for another. Its share of the time stays the same.

/// Asks the system for long time slices for the calling thread, as one does for work that goes on. Where that is not known, or
/// refused, nothing changes.
pub(crate) fn lengthen_time_slice() {
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::ask() {
        log::debug!("The system gives no long time slices: {error}.");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{Error, Result};
    use std::mem;
    use std::ptr;

    use nix::libc;

    /// Nanoseconds. The longest that the kernel takes (`sched_setattr(2)`): two processes that compute change places as seldom as
    /// can be, since each waits at the end of an operation for threads that lost their processor.
    pub(super) const SLICE: u64 = 100_000_000;

    /// Lengthens the slice of the calling thread, if it is scheduled as threads are by default.
    pub(super) fn ask() -> Result<()> {
        let mut attributes = attributes()?;
        let shares = [libc::SCHED_OTHER, libc::SCHED_BATCH];
        if shares.iter().all(|&policy| attributes.sched_policy != policy.cast_unsigned()) {
            return Ok(());
        }
        attributes.sched_runtime = SLICE;
        // SAFETY: the structure is one that the kernel filled in, with one number changed; 0 is the calling thread.
        check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ptr::from_ref(&attributes), 0) })
    }

    /// How the calling thread is scheduled.
    pub(super) fn attributes() -> Result<libc::sched_attr> {
        // SAFETY: all of it are integers.
        let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: the structure has as many bytes; 0 is the calling thread.
        check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, ptr::from_mut(&mut attributes), size, 0) })?;
        Ok(attributes)
    }

    fn check(status: libc::c_long) -> Result<()> {
        if status == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::super::pool::Pool;
    use super::*;

    /// What must stay, and the slice.
    fn scheduled() -> ([i64; 4], u64) {
        let found = linux::attributes().unwrap();
        let kept = [
            i64::from(found.sched_policy),
            i64::from(found.sched_nice),
            i64::from(found.sched_priority),
            found.sched_flags.cast_signed(),
        ];
        (kept, found.sched_runtime)
    }

    #[test]
    fn a_thread_gets_long_slices_and_keeps_all_else() {
        let (mine, slice) = scheduled();
        let (other, long) = thread::spawn(|| {
            lengthen_time_slice();
            scheduled()
        })
        .join()
        .unwrap();
        assert_eq!(other, mine);
        // Kernels that have no slices for each thread say 0.
        assert!(long == linux::SLICE || (long == 0 && slice == 0), "{long} ns, {slice} ns before");
        assert_eq!(scheduled(), (mine, slice), "the thread that asked for nothing");
    }

    #[test]
    fn those_of_a_pool_have_them_and_its_caller_has_its_own() {
        let pool = Pool::new(3).unwrap();
        let (mine, slice) = scheduled();
        let caller = thread::current().id();
        let slices = Mutex::new(Vec::new());
        // The workers come when they come.
        for _ in 0..1000 {
            pool.for_each(64, &|_, _| {
                if thread::current().id() != caller {
                    slices.lock().unwrap().push(scheduled());
                }
                thread::yield_now();
            })
            .unwrap();
            if !slices.lock().unwrap().is_empty() {
                break;
            }
        }
        let slices = slices.into_inner().unwrap();
        assert!(!slices.is_empty(), "no worker came");
        assert!(slices.iter().all(|&(kept, long)| kept == mine && (long == linux::SLICE || slice == 0)));
        assert_eq!(scheduled(), (mine, slice));
    }
}
